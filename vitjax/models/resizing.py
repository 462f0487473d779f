"""Matrices that resize one axis of a grid: position tables and patches.

"corners" is linear and lets the corners of both grids coincide, as the
published Google models were fine-tuned. In all other methods pixels are areas.
"linear" and "antialias" filter linearly and cubically with antialiasing, as
`jax.image.resize` and PyTorch do; "bicubic" has no antialiasing, and the scale
of DINO's and DINOv2's code. Resized tables differ between the methods by as
much as the numbers of the table.
"""

from typing import Literal

import numpy as np
from jaxtyping import Float

Method = Literal["corners", "antialias", "bicubic", "linear"]

# Added to the number of new rows, for the scale alone.
_DINO_OFFSET = 0.1


def _cubic(x: np.ndarray, a: float) -> np.ndarray:
  """Keys's kernel of cubic convolution; `a` is its slope at 1."""
  x = np.abs(x)
  near = ((a + 2) * x - (a + 3)) * x**2 + 1
  far = a * (((x - 5) * x + 8) * x - 4)
  return np.where(x <= 1, near, np.where(x < 2, far, 0.0))


def _bicubic(old: int, new: int) -> np.ndarray:
  """(new, old) matrix of cubic interpolation; ends of the axis are repeated."""
  at = (np.arange(new) + 0.5) * old / (new + _DINO_OFFSET) - 0.5
  low = np.floor(at).astype(int)
  matrix = np.zeros((new, old))
  for tap in range(-1, 3):
    column = np.clip(low + tap, 0, old - 1)
    np.add.at(matrix, (np.arange(new), column), _cubic(low + tap - at, -0.75))
  return matrix


def _corners(old: int, new: int, legacy_scipy: bool) -> np.ndarray:
  """(new, old) matrix of linear interpolation along one axis."""
  step = (old - 1) / (new - 1) if new > 1 else 0.0
  at = np.arange(new) * step
  low = np.minimum(np.floor(at).astype(int), max(old - 2, 0))
  high = np.minimum(low + 1, old - 1)
  part = np.minimum(at - low, 1.0)
  matrix = np.zeros((new, old))
  np.add.at(matrix, (np.arange(new), low), 1 - part)
  np.add.at(matrix, (np.arange(new), high), part)
  if legacy_scipy:
    matrix[at > old - 1] = 0
  return matrix


def _linear(x: np.ndarray) -> np.ndarray:
  """The triangle of linear interpolation."""
  return np.maximum(1 - np.abs(x), 0.0)


def _filtered(old: int, new: int, kernel, antialias: bool = True) -> np.ndarray:
  """(new, old) matrix of a filter; the kernel ends with the axis."""
  scale = old / new
  at = (np.arange(new) + 0.5) * scale - 0.5
  distance = np.arange(old)[None] - at[:, None]
  matrix = kernel(distance / max(scale, 1.0) if antialias else distance)
  return matrix / matrix.sum(axis=1, keepdims=True)


def matrix(
  old: int, new: int, method: str, *, legacy_scipy: bool = False
) -> Float[np.ndarray, "new old"]:
  """The matrix that resizes an axis of `old` positions to `new`.

  Args:
    old, new: numbers of positions.
    method: one of `Method`.
    legacy_scipy: see `weights.resample.resample_grid`.
  """
  if method == "corners":
    return _corners(old, new, legacy_scipy)
  if method == "bicubic":
    return _bicubic(old, new)
  kernel = {"linear": _linear, "antialias": lambda x: _cubic(x, -0.5)}[method]
  return _filtered(old, new, kernel)


def pi_matrix(old: int, new: int) -> Float[np.ndarray, "new old"]:
  """The matrix that resizes an axis of a patch embedding's kernel.

  FlexiViT, https://arxiv.org/abs/2212.08013, sec. 3.4: the new kernel w' has
  the least squared error of <w', B x> against <w, x> for random patches x,
  where B resizes a patch bilinearly without antialiasing. So w' = pinv(B^T) w.
  The pseudo-inverse of a Kronecker product is that of its factors, so each
  axis is resized alone.
  """
  return np.linalg.pinv(_filtered(old, new, _linear, antialias=False).T)
