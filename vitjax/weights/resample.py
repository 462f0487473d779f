"""Resizes learned position tables to another grid.

The methods are those of `models.resizing`.
"""

import math

import numpy as np
from jaxtyping import Float

from vitjax.models import resizing


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
    method: one of `resizing.Method`.
    legacy_scipy: repeat a fault of `scipy.ndimage.zoom(..., order=1)`, which
      vision_transformer and big_vision use: where the last coordinate rounds
      to just outside of the old grid (28 to 14 and 32 to 16 among others) the
      last row and column come out as zeros. Only needed to repeat a run that
      had them. With another method than "corners" it does nothing.
  """
  rows, columns = (
    resizing.matrix(*n, method, legacy_scipy=legacy_scipy)
    for n in zip(table.shape, grid)
  )
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
