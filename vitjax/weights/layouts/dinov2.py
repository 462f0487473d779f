"""facebookresearch/dinov2: a state dict of the backbone.

`timm_vit`'s names but for those of the registers and of SwiGLU. The position
table has a row for the class token and none for registers. The files also have
the token of masked patches, which only pre-training reads.
"""

from collections.abc import Collection, Iterator

import numpy as np

from vitjax.weights.layouts import timm_vit, torch_tensors, vit_names
from vitjax.weights.layouts.torch_tensors import Flat

NAME = "dinov2"
NEEDS_TABLE = True


def matches(names: Collection[str]) -> bool:
  """The token of masked patches beside a position table."""
  return {"mask_token", "pos_embed"} <= set(names) and timm_vit.matches(names)


def _pairs(model) -> Iterator[tuple[str, str]]:
  yield "register_tokens", "reg_token"
  for i in range(model.depth if model.swiglu else 0):
    yield f"blocks.{i}.mlp.w12", f"blocks.{i}.mlp.fc1"
    yield f"blocks.{i}.mlp.w3", f"blocks.{i}.mlp.fc2"


def to_vitjax(flat: Flat, model) -> Flat:
  """Like `timm_vit`."""
  flat = torch_tensors.rename(flat, _pairs(model))
  flat.pop("mask_token", None)
  table = flat.get("pos_embed")
  if table is not None and {"cls_token", "reg_token"} <= flat.keys():
    flat["cls_token"] = flat["cls_token"] + table[:, :1]
    flat["pos_embed"] = table[:, 1:]
  return timm_vit.to_vitjax(flat, model)


def from_vitjax(flat: Flat, model) -> Flat:
  """Inverse of `to_vitjax`; the token of masked patches is zeros.

  Raises:
    ValueError: for a model with a head, with another pooling than of the class
      token, and with what else a DINOv2 does not have.
  """
  torch_tensors.require(model, "vit", NAME)
  needed = {"num_classes": None, "pool_type": "tok"}
  torch_tensors.require_options(model, needed, NAME)
  return state_dict(flat, model)


def state_dict(flat: Flat, model) -> Flat:
  """A state dict, also of a model with a head.

  Raises:
    ValueError: for what the blocks of a DINOv2 do not have.
  """
  needed = {
    "parallel": False,
    "differential": False,
    "fc_norm": False,
    "mlp_norm": False,
  }
  torch_tensors.require_options(model, needed, NAME)
  vit_names.require_table(flat, model, NAME)
  tokens = vit_names.num_prefix(model)
  has_row = model.posemb_prefix
  if "registers" in tokens:
    flat = vit_names.set_prefix_rows(flat, tokens, old=has_row, new=False)
    has_row = False
  flat = vit_names.set_prefix_rows(flat, {"cls": 1}, old=has_row, new=True)
  flat = torch_tensors.rename_back(
    timm_vit.from_vitjax(flat, model), _pairs(model)
  )
  return {**flat, "mask_token": np.zeros((1, model.width), np.float32)}
