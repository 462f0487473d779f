"""Resizes learned position tables to another grid.

"corners" is linear and lets the corners of both grids coincide, as the
published Google models were fine-tuned. "antialias" and "bicubic" are PyTorch's
cubic interpolations with pixels that are areas, with and without antialiasing;
"bicubic" has the scale of DINO's and DINOv2's code. The results of the three
differ by as much as the numbers of the table.
"""

import math

import numpy as np
from jaxtyping import Float

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


def _antialias(old: int, new: int) -> np.ndarray:
  """(new, old) matrix of cubic filtering; the kernel ends with the axis."""
  scale = old / new
  at = (np.arange(new) + 0.5) * scale - 0.5
  distance = (np.arange(old)[None] - at[:, None]) / max(scale, 1.0)
  matrix = _cubic(distance, -0.5)
  return matrix / matrix.sum(axis=1, keepdims=True)


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


def resample_grid(
  table: Float[np.ndarray, "h w d"],
  grid: tuple[int, int],
  *,
  method: str = "corners",
  legacy_scipy: bool = False,
) -> Float[np.ndarray, "H W d"]:
  """Resizes a grid of vectors.

  Args:
    table: one vector for each position of the old grid.
    grid: (rows, columns) of the new one.
    method: "corners", "antialias" or "bicubic"; see the module.
    legacy_scipy: repeat a fault of `scipy.ndimage.zoom(..., order=1)`, which
      vision_transformer and big_vision use: where the last coordinate rounds
      to just outside of the old grid (28 to 14 and 32 to 16 among others) the
      last row and column come out as zeros. Only needed to repeat a run that
      had them. With another method than "corners" it does nothing.
  """
  if method == "corners":
    matrices = [_corners(*n, legacy_scipy) for n in zip(table.shape, grid)]
  else:
    matrix = {"antialias": _antialias, "bicubic": _bicubic}[method]
    matrices = [matrix(*n) for n in zip(table.shape, grid)]
  rows, columns = matrices
  out = np.einsum("Hh,Ww,hwd->HWd", rows, columns, table, optimize=True)
  return out.astype(np.float32)


def resample_posemb(
  table: Float[np.ndarray, "1 l d"],
  new_grid: tuple[int, int],
  *,
  old_grid: tuple[int, int] | None = None,
  num_prefix: int = 0,
  method: str = "corners",
  legacy_scipy: bool = False,
) -> Float[np.ndarray, "1 m d"]:
  """Resizes a position table and leaves its first `num_prefix` rows alone.

  Args:
    table: `num_prefix` rows of class token and registers, then the grid.
    new_grid: (rows, columns) of patches.
    old_grid: the table's own; None for a square.
    num_prefix: rows that belong to no patch.
    method: see `resample_grid`.
    legacy_scipy: see `resample_grid`.

  Raises:
    ValueError: if the table does not have as many rows as `old_grid`, or no
      square number of them.
  """
  prefix, patches = table[0, :num_prefix], table[0, num_prefix:]
  if old_grid is None:
    side = math.isqrt(len(patches))
    old_grid = (side, side)
  if old_grid[0] * old_grid[1] != len(patches):
    raise ValueError(
      f"a position table of {len(patches)} patches is not a grid of "
      f"{old_grid[0]}x{old_grid[1]}. Write its shape into the .json file "
      'beside the weights: {"grid": [rows, columns]}. In Python, '
      "old_grid=(rows, columns) says the same."
    )
  patches = resample_grid(
    patches.reshape(*old_grid, -1),
    new_grid,
    method=method,
    legacy_scipy=legacy_scipy,
  )
  patches = patches.reshape(-1, table.shape[-1])
  return np.concatenate([prefix.astype(np.float32), patches])[None]
