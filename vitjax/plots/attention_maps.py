"""Attention maps of Vision Transformers, from intermediates of a forward pass.

  _, out = run.model.apply(run.variables, image)
  maps = attention.rollout(run.model, out, image.shape)

Everything is a map over the patches, (grid_h, grid_w), row 0 at the top. A
model with two towers is read through its image tower. The functions can be
jitted with the forward pass, which then keeps no weights of attention.

Attention weights show where a block reads, not what decides the class.
"""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from vitjax.models import batch_norm, common

_BLOCK = "encoder/block"
_MAP_HEAD = "map_head/attention"
_IMAGE = "img/"


def maps_fn(
  model: Any,
) -> Callable[..., tuple[Array, Array | None]]:
  """A compiled forward pass that returns only the maps.

  Args:
    model: model of `vitjax.models`.

  Returns:
    A function (parameters, images) -> (`head_maps`, `rollout`); the latter is
    None for differential attention, which has none. It raises ValueError if
    the model has no attention.
  """
  tower = model.towers().get("img", model)
  has_rollout = not getattr(tower, "differential", False)

  @jax.jit
  def maps(params, image):
    *_, out = model.apply(batch_norm.split(params), image)
    heads = head_maps(model, out, image.shape)
    return heads, rollout(model, out, image.shape) if has_rollout else None

  return maps


def head_maps(
  model: Any, out: Mapping[str, Array], image_shape: tuple[int, ...]
) -> Float[Array, "b m k gh gw"]:
  """The map of each head (k) of each block (m).

  It is the row of the token that is pooled: that of the class token, or with
  any other pooling the mean of the patches' rows. What goes to the class
  token and to registers is left out, so a map sums to at most 1.

  Differential attention, https://arxiv.org/abs/2410.05258, has two softmaxes
  for each head: maps 2i and 2i + 1 are those of head i.

  Args:
    model: model of `vitjax.models`.
    out: dict that the model returns beside the logits.
    image_shape: shape (b, h, w, c) of the images.

  Raises:
    ValueError: if the model has no attention.
  """
  tower, out = _image_tower(model, out)
  h, w = _grid(tower, out, image_shape)
  blocks = []
  for weights in _weights(out):
    prefix = weights.shape[-1] - h * w
    rows = _pooled(tower, weights, prefix)
    blocks.append(rows[..., prefix:].reshape(*rows.shape[:-1], h, w))
  return jnp.stack(blocks, axis=1)


def rollout(
  model: Any, out: Mapping[str, Array], image_shape: tuple[int, ...]
) -> Float[Array, "b gh gw"]:
  """How much of each patch reaches the pooled token through all blocks.

  Quantifying Attention Flow in Transformers,
  https://arxiv.org/abs/2005.00928, sec. 3: the weights of a block, averaged
  over its heads, get the identity added for the residual connection and are
  normalised; the blocks are multiplied. The result is the class token's row,
  the mean of the patches' rows with average pooling, or with attention
  pooling their mean weighted by the pooling's own attention.

  Args, Raises: as for `head_maps`; also if the attention is differential,
    whose weights may be negative.

  Returns:
    Maps that sum to 1 minus the share of class token and registers.
  """
  tower, out = _image_tower(model, out)
  if getattr(tower, "differential", False):
    raise ValueError(
      "attention rollout needs attention weights of 0 or more, and those of "
      "differential attention may be negative. Look at the maps of single "
      "heads instead."
    )
  h, w = _grid(tower, out, image_shape)
  total: Any = None
  for weights in _weights(out):
    mean = weights.astype(jnp.float32).mean(axis=1)
    mean = mean + jnp.eye(mean.shape[-1], dtype=mean.dtype)[None]
    mean = mean / mean.sum(axis=-1, keepdims=True)
    total = mean if total is None else _product(mean, total)
  prefix = total.shape[-1] - h * w
  if _MAP_HEAD in out:
    pooling = out[_MAP_HEAD].mean(axis=1)
    rows = _product(pooling, total[:, prefix:])[:, 0]
  else:
    rows = _pooled(tower, total, prefix)
  return rows[:, prefix:].reshape(-1, h, w)


def position_similarity(
  model: Any, params: Mapping[str, Any], image_shape: tuple[int, ...]
) -> Float[Array, "gh gw gh gw"]:
  """Cosine similarity of the position embedding of each patch to all others.

  An Image is Worth 16x16 Words, https://arxiv.org/abs/2010.11929, fig. 7.

  Args:
    model: model of `vitjax.models`.
    params: parameters of the model.
    image_shape: shape (b, h, w, c) of the images.

  Raises:
    ValueError: if the model has no position embedding of patches, or that of
      images of another size.
  """
  if towers := model.towers():
    model, params = towers["img"], params["img"]
  kind = getattr(model, "posemb", None)
  if kind not in ("learn", "learn+rope", "sincos2d"):
    raise ValueError(
      f"{_family(model)} has no position embedding of patches to compare"
      + (": a rotary one turns queries and keys." if kind else ".")
    )
  image = jax.ShapeDtypeStruct((1, *image_shape[1:]), jnp.float32)
  (_, out), _ = jax.eval_shape(model.init_with_output, jax.random.key(0), image)
  h, w = _grid(model, out, image.shape)
  if kind != "sincos2d":
    table = jnp.asarray(params["pos_embedding"][0], jnp.float32)
    prefix = model.has_class_token + model.num_registers
    prefix *= model.posemb_prefix
    if len(table) != prefix + h * w:
      raise ValueError(
        f"the position embedding has {len(table) - prefix} patches, and an "
        f"image of {'x'.join(map(str, image.shape[1:3]))} has {h}x{w}."
      )
    table = table[prefix:]
  else:
    table = common.posemb_sincos_2d(h, w, model.width)[0]
  table = table / jnp.linalg.norm(table, axis=-1, keepdims=True)
  return _product(table, table.T).reshape(h, w, h, w)


def _image_tower(model, out):
  towers = model.towers()
  if not towers:
    return model, out
  cut = {
    name.removeprefix(_IMAGE): x
    for name, x in out.items()
    if name.startswith(_IMAGE)
  }
  return towers["img"], cut


def _weights(out: Mapping[str, Array]) -> list[Array]:
  """(b, k, q, l) of each block."""
  names = [n for n in out if n.startswith(_BLOCK) and n.endswith("/attention")]
  return [out[name] for name in sorted(names)]


def _grid(tower, out, image_shape) -> tuple[int, int]:
  """Rows and columns of patches; raises ValueError without attention."""
  if not _weights(out):
    raise ValueError(f"{_family(tower)} has no attention to show.")
  _, h, w, _ = image_shape
  if getattr(tower, "naflex", False):
    raise ValueError(
      "maps of a model with naflex=True are not implemented: each of its "
      "images has a grid of its own."
    )
  if tower.stem is not None:  # patches of the last features
    features = [x for name, x in out.items() if name.startswith("resnet/")]
    _, h, w, _ = features[-1].shape
  return h // tower.patch_size, w // tower.patch_size


def _pooled(tower, weights: Array, prefix: int) -> Array:
  """Row of the token that is pooled, (..., q, l) to (..., l)."""
  if "tok" in tower.pool_type:
    return weights[..., 0, :]
  return weights[..., prefix:, :].mean(axis=-2)


def _product(a: Array, b: Array) -> Array:
  return jnp.matmul(a, b, precision=jax.lax.Precision.HIGHEST)


def _family(model) -> str:
  name = type(model).__module__.rpartition(".")[2]
  return f"{'an' if name[0] in 'aeiou' else 'a'} {name}"
