"""Resizing position tables, against scipy."""

import numpy as np
import pytest
import scipy.ndimage

from vitjax.weights import resample

# Float32 tables of size one, interpolated with weights in float64.
TOLERANCE = 1e-6


def table(h, w, d=5):
  return np.random.default_rng(0).normal(size=(h, w, d)).astype(np.float32)


def scipy_zoom(x, grid, mode):
  factors = (grid[0] / x.shape[0], grid[1] / x.shape[1], 1)
  return scipy.ndimage.zoom(x.astype(float), factors, order=1, mode=mode)


@pytest.mark.parametrize(
  ("old", "new"),
  [
    ((14, 14), (24, 24)),
    ((24, 24), (14, 14)),
    ((28, 28), (14, 14)),
    ((8, 18), (12, 27)),
    ((14, 14), (1, 1)),
    ((1, 1), (3, 2)),
    ((7, 12), (1, 30)),
  ],
)
def test_equals_scipy(old, new):
  x = table(*old)
  got = resample.resample_grid(x, new)
  want = scipy_zoom(x, new, "nearest")
  np.testing.assert_allclose(got, want, atol=TOLERANCE)
  legacy = resample.resample_grid(x, new, legacy_scipy=True)
  want = scipy_zoom(x, new, "constant")
  np.testing.assert_allclose(legacy, want, atol=TOLERANCE)


@pytest.mark.parametrize("old", [8, 16, 22, 24, 28, 30, 32, 56, 64])
def test_scipy_border_everywhere(old):
  """The fault is where scipy has it, and nowhere else."""
  x = table(old, old, 1)
  faults = 0
  for new in range(1, 81):
    got = resample.resample_grid(x, (new, new), legacy_scipy=True)
    want = scipy_zoom(x, (new, new), "constant")
    np.testing.assert_allclose(got, want, atol=TOLERANCE)
    faults += not got[-1].any()
  assert faults


def test_not_half_pixel():
  """The mutation that the test above must tell apart."""
  import jax

  x = table(14, 14)
  half_pixel = jax.image.resize(x, (24, 24, 5), "bilinear")
  assert np.abs(resample.resample_grid(x, (24, 24)) - half_pixel).max() > 0.1


def test_prefix_rows_and_grids():
  x = np.concatenate([table(1, 3)[0], table(2, 8).reshape(16, 5)])[None]
  got = resample.resample_posemb(x, (4, 4), old_grid=(2, 8), num_prefix=3)
  np.testing.assert_array_equal(got[0, :3], x[0, :3])
  want = resample.resample_grid(x[0, 3:].reshape(2, 8, 5), (4, 4))
  np.testing.assert_array_equal(got[0, 3:], want.reshape(16, 5))
  assert got.dtype == np.float32
  with pytest.raises(ValueError, match="18 patches is not a grid of 4x4"):
    resample.resample_posemb(x, (4, 4), num_prefix=1)
