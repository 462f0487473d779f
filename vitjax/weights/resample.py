"""Resizes learned position tables to another grid.

Corner-aligned bilinear, as the published Google models were fine-tuned: the
corners of both grids coincide. `jax.image.resize` and PyTorch models use other
conventions, whose results differ by as much as the numbers of the table.
"""

import math

import numpy as np
from jaxtyping import Float


def _weights(old: int, new: int, legacy_scipy: bool) -> np.ndarray:
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
  legacy_scipy: bool = False,
) -> Float[np.ndarray, "H W d"]:
  """Corner-aligned bilinear resize of a grid of vectors.

  Args:
    table: one vector for each position of the old grid.
    grid: (rows, columns) of the new one.
    legacy_scipy: repeat a fault of `scipy.ndimage.zoom(..., order=1)`, which
      vision_transformer and big_vision use: where the last coordinate rounds
      to just outside of the old grid (28 to 14 and 32 to 16 among others) the
      last row and column come out as zeros. Only needed to repeat a run that
      had them.
  """
  h, w, _ = table.shape
  rows = _weights(h, grid[0], legacy_scipy)
  columns = _weights(w, grid[1], legacy_scipy)
  out = np.einsum("Hh,Ww,hwd->HWd", rows, columns, table, optimize=True)
  return out.astype(np.float32)


def resample_posemb(
  table: Float[np.ndarray, "1 l d"],
  new_grid: tuple[int, int],
  *,
  old_grid: tuple[int, int] | None = None,
  num_prefix: int = 0,
  legacy_scipy: bool = False,
) -> Float[np.ndarray, "1 m d"]:
  """Resizes a position table and leaves its first `num_prefix` rows alone.

  Args:
    table: `num_prefix` rows of class token and registers, then the grid.
    new_grid: (rows, columns) of patches.
    old_grid: the table's own; None for a square.
    num_prefix: rows that belong to no patch.
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
    patches.reshape(*old_grid, -1), new_grid, legacy_scipy=legacy_scipy
  )
  patches = patches.reshape(-1, table.shape[-1])
  return np.concatenate([prefix.astype(np.float32), patches])[None]
