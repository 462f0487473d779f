"""Images of any shape in one batch: NaFlex, as strips of padded patches.

SigLIP 2, https://arxiv.org/abs/2502.14786, sec. 2.4: an image keeps its aspect
ratio, has at most so many patches as fit the sequence, and a mask hides the
rest of the sequence. A strip is the image's patches one below another:

  rows of pixels             content
  p                          header, see `read`
  p for each patch           patches, row by row of the image
  p for each absent patch    zeros

So every image is one of p columns and of one height, to all that stores, stacks
and shards images, and the patch embedding reads it unchanged. The op `naflex`
of `vitjax.data.pp` makes strips.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from vitjax.models import common


def read(
  strip: Float[common.ArrayLike, "b h p c"], patch_size: int
) -> tuple[Float[Array, "b _h p c"], Int[Array, "b 2"]]:
  """Splits strips into patches and the grid (rows, columns) of each image.

  The header's first pixels are 0 and 255, whose difference undoes any
  normalisation; then rows and columns of the grid, each as two digits of base
  256. A strip of zeros, which fills a batch, is a grid of 1x1.

  Args:
    strip: normalised strips.
    patch_size: side of the patches in pixels.

  Raises:
    ValueError: if these are no strips, or in bfloat16.
  """
  b, h, w, _ = strip.shape
  if w != patch_size or h % patch_size or h <= patch_size:
    raise ValueError(
      f"naflex=True reads strips of patches, and these are images of {h}x{w}. "
      f"Put naflex(256, patch_size={patch_size}) into the preprocessing, in "
      "place of its resize and crop."
    )
  strip = jnp.asarray(strip)
  if strip.dtype == jnp.bfloat16:
    raise ValueError(
      "the header of a strip needs more digits than bfloat16 has: give the "
      "model float32 images. It computes in its own dtype."
    )
  pixels = strip[:, :patch_size, :, 0].reshape(b, -1)[:, :6]
  black, white = pixels[:, :1], pixels[:, 1:2]
  span = jnp.where(white == black, 1.0, white - black)
  digits = jnp.round(255 * (pixels - black) / span).astype(jnp.int32)
  grid = 256 * digits[:, 2::2] + digits[:, 3::2]
  return strip[:, patch_size:], jnp.maximum(grid, 1)


def is_patch(grid: Int[Array, "b 2"], length: int) -> Bool[Array, "b l"]:
  """Which places of a sequence hold a patch of the image."""
  return jnp.arange(length)[None] < grid.prod(axis=1)[:, None]


def positions(
  table: Float[Array, "1 t d"], side: int, grid: Int[Array, "b 2"], length: int
) -> Float[Array, "b l d"]:
  """The position table, resized to the grid of each image, as sequences.

  As `flexible.resize_table` with method "linear", for grids that are known on
  the device alone. Places without a patch get any finite numbers.

  Args:
    table: position table of a square grid.
    side: rows and columns of that grid.
    grid: rows and columns of each image.
    length: length of the sequences.
  """
  places = jnp.arange(length)[None]
  rows, columns = grid[:, :1], grid[:, 1:]
  both = jnp.einsum(
    "blh,blw->blhw",
    _linear(side, rows, places // columns),
    _linear(side, columns, places % columns),
  )
  return jnp.einsum(
    "blt,td->bld",
    both.reshape(*both.shape[:2], -1),
    table[0],
    precision=jax.lax.Precision.HIGHEST,
  )


def _linear(
  old: int, new: Int[Array, "b 1"], rows: Int[Array, "b l"]
) -> Float[Array, "b l n"]:
  """These rows of `resizing.matrix(old, new, "linear")`."""
  scale = old / new
  at = (jnp.minimum(rows, new - 1) + 0.5) * scale - 0.5
  distance = jnp.arange(old)[None, None] - at[..., None]
  weights = jnp.maximum(
    1 - jnp.abs(distance / jnp.maximum(scale, 1.0)[..., None]), 0.0
  )
  return weights / weights.sum(axis=-1, keepdims=True)
