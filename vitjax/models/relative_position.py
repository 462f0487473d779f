"""Relative position biases of attention within a map or a window.

The bias of a score depends on the offset between query and key: (rows,
columns), each from -(n - 1) to n - 1. Offsets are in row-major order.
"""

import flax.linen as nn
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int


def offsets(h: int, w: int) -> Int[np.ndarray, "l l"]:
  """Index of the offset query - key, among (2h - 1)(2w - 1), of each pair."""
  y, x = (a.reshape(-1) for a in np.mgrid[:h, :w])
  rows, columns = (a[:, None] - a[None] for a in (y, x))
  return (rows + h - 1) * (2 * w - 1) + columns + w - 1


def _of_pairs(table: Float[Array, "n k"], h: int, w: int) -> Array:
  """(k, l, l): each pair's row of a table with a row for each offset."""
  bias = jnp.take(table, offsets(h, w).reshape(-1), axis=0)
  return bias.T.reshape(-1, h * w, h * w)


class Table(nn.Module):
  """A learned number for each offset and head.

  Swin Transformer, https://arxiv.org/abs/2103.14030, eq. 4.
  """

  num_heads: int

  @nn.compact
  def __call__(
    self, h: int, w: int, train: bool = False
  ) -> Float[Array, "k l l"]:
    shape = (2 * h - 1, 2 * w - 1, self.num_heads)
    table = self.param("table", nn.initializers.truncated_normal(0.02), shape)
    return _of_pairs(table.reshape(-1, self.num_heads), h, w)


class LogMlp(nn.Module):
  """An MLP of log-spaced offsets, 0 to 16.

  Swin Transformer V2, https://arxiv.org/abs/2111.09883, eq. 3-4. `trained` is
  the window (h, w) that offsets are measured by, where that is another one.
  """

  num_heads: int
  trained: tuple[int, int] | None = None
  hidden: int = 512

  @nn.compact
  def __call__(
    self, h: int, w: int, train: bool = False
  ) -> Float[Array, "k l l"]:
    unit = [max(n - 1, 1) / 8 for n in self.trained or (h, w)]
    grid = np.mgrid[1 - h : h, 1 - w : w].reshape(2, -1).T / unit
    x = np.sign(grid) * np.log2(1 + np.abs(grid)) / np.log2(8)
    init = {"kernel_init": nn.initializers.truncated_normal(0.02)}
    x = nn.Dense(self.hidden, name="Dense_0", **init)(x.astype(np.float32))
    x = nn.Dense(self.num_heads, use_bias=False, name="Dense_1", **init)(
      nn.relu(x)
    )
    return _of_pairs(16 * nn.sigmoid(x), h, w)


class Mlp(nn.Module):
  """An MLP of the logarithms of offsets, which do not depend on the window.

  timm's `RelPosMlp` in its mode "cr". `dropout_rate` is of the hidden layer.
  """

  num_heads: int
  hidden: int = 512
  dropout_rate: float = 0.125

  @nn.compact
  def __call__(
    self, h: int, w: int, train: bool = False
  ) -> Float[Array, "k l l"]:
    grid = np.mgrid[1 - h : h, 1 - w : w].reshape(2, -1).T
    x = (np.sign(grid) * np.log1p(np.abs(grid))).astype(np.float32)
    x = nn.relu(nn.Dense(self.hidden, name="Dense_0")(x))
    x = nn.Dropout(self.dropout_rate)(x, deterministic=not train)
    return _of_pairs(nn.Dense(self.num_heads, name="Dense_1")(x), h, w)


def resample_table(
  table: Float[np.ndarray, "m n k"], shape: tuple[int, int]
) -> Float[np.ndarray, "M N k"]:
  """Resizes a table to the offsets of another window, as timm does.

  Old offsets stand at distances from 0 that grow geometrically, so that the
  last of them is the new last; between them the table is linear, beyond them
  constant. Near offsets so keep their values, and far ones are stretched.

  Args:
    table: numbers of the old (rows, columns) of offsets.
    shape: the new (rows, columns) of offsets.
  """
  if table.shape[:2] == shape:
    return table
  rows, columns = map(_matrix, table.shape[:2], shape)
  out = np.einsum("Mm,Nn,mnk->MNk", rows, columns, table, optimize=True)
  return out.astype(np.float32)


def _matrix(old: int, new: int) -> Float[np.ndarray, "new old"]:
  """What each new offset is made of."""
  at = _stretched(old // 2, new // 2)
  to = np.arange(new) - new // 2
  return np.stack([np.interp(to, at, unit) for unit in np.eye(old)], axis=1)


def _stretched(old: int, new: int) -> Float[np.ndarray, "n"]:
  """Places of the offsets -old ... old among -new ... new."""
  # The last ratio that is tried counts, as in timm, to the bit.
  low, high = 1.01, 1.5
  ratio = low
  while high - low > 1e-6:
    ratio = (low + high) / 2
    if (1 - ratio**old) / (1 - ratio) > new:
      high = ratio
    else:
      low = ratio
  steps = np.cumsum(ratio ** np.arange(old))
  return np.concatenate([-steps[::-1], [0.0], steps])
