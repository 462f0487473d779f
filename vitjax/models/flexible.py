"""Models at other patch sizes and image sizes than their parameters' own.

FlexiViT, https://arxiv.org/abs/2212.08013: the kernel of the patch embedding
and the position table are stored at one size, and resized inside the model to
the size that is asked for. So all sizes share their parameters.
"""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from vitjax.models import common, resizing


def _resize(
  x: Float[common.ArrayLike, "h w *rest"], rows: Any, columns: Any
) -> Float[Array, "_h _w *rest"]:
  """Both first axes by a matrix each, in float32 on any hardware."""
  return jnp.einsum(
    "Hh,Ww,hw...->HW...",
    jnp.asarray(rows, jnp.float32),
    jnp.asarray(columns, jnp.float32),
    x,
    precision=jax.lax.Precision.HIGHEST,
  )


def resize_kernel(
  kernel: Float[common.ArrayLike, "h w c d"], patch_size: int
) -> Float[common.ArrayLike, "p p c d"]:
  """The kernel of a patch embedding for other patches; PI-resize."""
  if kernel.shape[:2] == (patch_size, patch_size):
    return kernel
  rows, columns = (resizing.pi_matrix(n, patch_size) for n in kernel.shape[:2])
  return _resize(kernel, rows, columns)


def resize_table(
  table: Float[common.ArrayLike, "1 t d"],
  old: int,
  new: tuple[int, int],
  method: str,
) -> Float[common.ArrayLike, "1 l d"]:
  """A position table for another grid; rows of other tokens stay as they are.

  Args:
    table: rows of class token and registers, if any, then the grid.
    old: rows and columns of the table's own square grid.
    new: rows and columns of the new grid.
    method: see `resizing`.
  """
  if new == (old, old):
    return table
  num_prefix = table.shape[1] - old * old
  prefix, grid = table[0, :num_prefix], table[0, num_prefix:]
  rows, columns = (resizing.matrix(old, n, method) for n in new)
  grid = _resize(grid.reshape(old, old, -1), rows, columns)
  return jnp.concatenate([prefix, grid.reshape(-1, grid.shape[-1])])[None]


class PatchEmbedding(nn.Module):
  """A dense layer of each patch, whose kernel is stored at another size."""

  width: int
  kernel_size: int
  patch_size: int
  use_bias: bool = True
  dtype: common.Dtype = jnp.float32

  @nn.compact
  def __call__(
    self, image: Float[common.ArrayLike, "b h w c"]
  ) -> Float[Array, "b _h _w d"]:
    shape = (*(self.kernel_size,) * 2, image.shape[-1], self.width)
    kernel = self.param(
      "kernel", nn.initializers.lecun_normal(), shape, jnp.float32
    )
    kernel = jnp.asarray(resize_kernel(kernel, self.patch_size))
    image = jnp.asarray(image, self.dtype)
    x = common.conv(image, kernel, self.patch_size, "VALID")
    if self.use_bias:
      bias = self.param("bias", nn.initializers.zeros, (self.width,))
      x = x + bias[None, None, None].astype(x.dtype)
    return x


def at_size(
  model: Any,
  trained: tuple[int, int],
  *,
  patch_size: int | None = None,
) -> Any:
  """The model with the same parameters, for other images or patches.

  A model without `patch_kernel` stores its own patch size; one without
  `posemb_grid` stores the table of the images that it was trained on.

  Args:
    model: see `vitjax.models`; of two towers the image tower changes.
    trained: (h, w) of the images that the parameters were made for.
    patch_size: the patch size to use. None: the model's own.

  Raises:
    ValueError: if the model has no patches whose size can change, its
      position table has no square grid, or it reads strips of patches.
  """
  if towers := model.towers():
    image = at_size(towers["img"], trained, patch_size=patch_size)
    fields = ("patch_size", "patch_kernel", "posemb_grid")
    changed = {name: getattr(image, name) for name in fields}
    return model.clone(image={**model.image, **changed})
  if getattr(model, "naflex", False):
    raise ValueError(
      "naflex=True reads patches that the preprocessing has cut, so the model "
      "has no other patch or image sizes. Give naflex(...) in the "
      "preprocessing another number of patches instead."
    )
  if not hasattr(model, "patch_kernel"):
    if patch_size is None:
      return model
    raise ValueError(
      f"{type(model).__module__} has no patches whose size can change: use a "
      "model of the family vit."
    )
  fields = {}
  if "learn" in model.posemb and model.posemb_grid is None:
    rows, columns = (n // model.patch_size for n in trained)
    if rows != columns:
      raise ValueError(
        f"images of {trained[0]}x{trained[1]} have a position table of {rows} "
        f"rows and {columns} columns, and only square tables can be resized in "
        "the model: use square images, or the model's posemb_grid."
      )
    fields["posemb_grid"] = rows
  if patch_size is not None:
    kernel = model.patch_kernel or model.patch_size
    fields |= {"patch_size": patch_size, "patch_kernel": kernel}
  return model.clone(**fields)
