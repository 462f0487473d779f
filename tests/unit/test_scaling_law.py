"""Compute is counted right, and a power law is found again."""

import flax.linen as nn
import numpy as np
import pytest

from scripts import scaling_law


def test_a_power_law_is_recovered():
  flops = [1e10, 4e10, 3e11, 5e12]
  law = scaling_law.fit(flops, [0.7 * (f / 1e12) ** -0.13 for f in flops])
  np.testing.assert_allclose(law.scale, 0.7, rtol=1e-12)
  np.testing.assert_allclose(law.exponent, 0.13, rtol=1e-12)
  np.testing.assert_allclose(law(8e12), 0.7 * 8**-0.13, rtol=1e-12)
  assert law.exponent_error < 1e-12
  assert law.r2 == pytest.approx(1)


def test_the_error_of_the_exponent_covers_the_truth():
  """In many noisy ladders, the estimates scatter as the error says."""
  rng = np.random.default_rng(0)
  flops = np.repeat([1e11, 4e11, 16e11, 64e11], 3)
  laws = [
    scaling_law.fit(flops, 0.5 * flops**-0.1 * np.exp(rng.normal(0, 0.05, 12)))
    for _ in range(2000)
  ]
  found = np.array([law.exponent for law in laws])
  np.testing.assert_allclose(found.mean(), 0.1, atol=1e-3)
  claimed = np.sqrt(np.mean([law.exponent_error**2 for law in laws]))
  np.testing.assert_allclose(claimed, found.std(), rtol=0.05)


def test_too_few_runs_are_refused():
  with pytest.raises(ValueError, match="2 runs with 2 different amounts"):
    scaling_law.fit([1e10, 1e11], [0.5, 0.4])
  with pytest.raises(ValueError, match="at least three runs of two sizes"):
    scaling_law.fit([1e10] * 3, [0.5, 0.4, 0.45])


class Linear(nn.Module):
  num_classes: int = 10

  @nn.compact
  def __call__(self, image, train=False):
    x = nn.Dense(self.num_classes)(image.reshape(len(image), -1))
    return x, {}


def test_flops_of_a_linear_model():
  """One product forward, one for the kernel's gradient, two FLOPs each."""
  flops, params = scaling_law.flops_per_example(Linear(), (32, 32, 3))
  assert params == 3072 * 10 + 10
  np.testing.assert_allclose(flops, 2 * 2 * 3072 * 10, rtol=0.01)


def test_the_table_has_a_row_for_each_size():
  runs = [
    scaling_law.Run("vit", params, examples, params * examples * 6, loss)
    for params, examples, losses in (
      (1000, 100, (0.8, 0.9)),
      (2000, 200, (0.5, 0.7)),
    )
    for loss in losses
  ]
  laws = scaling_law.fit_families(runs)
  lines = scaling_law.table(runs, laws, "test/loss").splitlines()
  assert lines[2] == "| vit | 1,000 | 100 | 6.0e+05 | 0.850 ± 0.071 (n=2) |"
  assert lines[3] == "| vit | 2,000 | 200 | 2.4e+06 | 0.600 ± 0.141 (n=2) |"
  # log(0.72 / 0.35) / 2 per factor of four
  exponent = np.log(0.8 * 0.9 / (0.5 * 0.7)) / 2 / np.log(4)
  assert lines[-1].split("|")[3].startswith(f" {exponent:.3f} ± ")
