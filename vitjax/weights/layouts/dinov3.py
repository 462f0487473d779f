"""facebookresearch/dinov3: a state dict of the Vision Transformer.

`timm_vit`'s names but for those of the registers, which are called storage
tokens, and of SwiGLU. The files also have the token of masked patches and a
norm of small crops, which only pre-training reads; a mask that cuts the key's
bias to zero; and the periods of rotary embeddings, rounded to 16 bits. Here,
and in timm and transformers, periods are those of float32.
"""

from collections.abc import Collection, Iterator

import jax.numpy as jnp
import numpy as np

from vitjax.weights.layouts import timm_vit, torch_tensors, vit_names
from vitjax.weights.layouts.torch_tensors import Flat

NAME = "dinov3"

_PERIODS = "rope_embed.periods"
_UNREAD = (
  "mask_token",
  _PERIODS,
  "local_cls_norm.weight",
  "local_cls_norm.bias",
)


def matches(names: Collection[str]) -> bool:
  """The periods beside fused attention."""
  return _PERIODS in names and timm_vit.matches(names)


def _pairs(model) -> Iterator[tuple[str, str]]:
  """Their names, and those of `timm_vit` before it joins the fused layers."""
  yield "storage_tokens", "reg_token"
  for i in range(model.depth if model.swiglu else 0):
    block = f"blocks.{i}.mlp"
    yield f"{block}.w1", f"{block}.gate"
    yield f"{block}.w2", f"{block}.up"
    yield f"{block}.w3", f"{block}.fc2"


def to_vitjax(flat: Flat, model) -> Flat:
  """Like `timm_vit`, with the key's bias masked."""
  flat = torch_tensors.rename(flat, _pairs(model))
  masks = {name for name in flat if name.endswith(".bias_mask")}
  for name in masks:
    bias = name.removesuffix("_mask")
    flat[bias] = np.where(flat[name] == 0, 0, flat[bias])
  flat = {n: x for n, x in flat.items() if n not in {*masks, *_UNREAD}}
  return timm_vit.to_vitjax(flat, model)


def from_vitjax(flat: Flat, model) -> Flat:
  """Inverse of `to_vitjax`.

  Absent biases and what only pre-training reads are zeros.

  Raises:
    ValueError: see `require`.
  """
  require(model, NAME)
  flat = vit_names.stack_blocks(flat, stacked=False)
  flat = timm_vit.split_state_dict(vit_names.add_biases(flat), model)
  flat = timm_vit.join(torch_tensors.rename_back(flat, _pairs(model)), model)
  d = model.width
  mask = np.repeat(np.array([1, 0, 1], np.float32), d)
  for i in range(model.depth):
    flat[f"blocks.{i}.attn.qkv.bias_mask"] = mask
  n = d // model.num_heads // 4
  periods = (model.rope_base ** (np.arange(n) / n)).astype(jnp.bfloat16)
  return {
    **flat,
    "mask_token": np.zeros((1, d), np.float32),
    _PERIODS: periods.astype(np.float32),
  }


def require(model, layout: str) -> None:
  """Says that a layout only fits models like DINOv3 that have no head.

  Raises:
    ValueError: if `model` is not one.
  """
  torch_tensors.require(model, "vit", layout)
  needed = {
    "num_classes": None,
    "posemb": "rope",
    "rope_grid": "centered",
    "class_token": True,
    "fc_norm": False,
    "mlp_norm": False,
    "parallel": False,
  }
  if model.qkv_bias:
    needed["key_bias"] = False
  torch_tensors.require_options(model, needed, layout)
