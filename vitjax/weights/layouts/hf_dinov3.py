"""transformers' `DINOv3ViTModel`, by its names on disk and in memory."""

from collections.abc import Collection, Iterator, Mapping
from typing import Any

import numpy as np

from vitjax.weights.layouts import dinov3, timm_vit, torch_tensors, vit_names
from vitjax.weights.layouts.torch_tensors import Flat

NAME = "hf_dinov3"

_QUERY = "layer.0.attention.q_proj.weight"
_IN_MEMORY = "model."


def matches(names: Collection[str]) -> bool:
  """The first block's query, and the patches beside it."""
  return "embeddings.patch_embeddings.weight" in names and (
    _QUERY in names or f"{_IN_MEMORY}{_QUERY}" in names
  )


def _pairs(model) -> Iterator[tuple[str, str]]:
  """Their names, and those of `timm_vit` before it joins the fused layers."""
  yield "embeddings.cls_token", "cls_token"
  yield "embeddings.register_tokens", "reg_token"
  yield "embeddings.patch_embeddings", "patch_embed.proj"
  for i in range(model.depth):
    theirs, ours = f"layer.{i}", f"blocks.{i}"
    yield f"{theirs}.norm1", f"{ours}.norm1"
    yield f"{theirs}.norm2", f"{ours}.norm2"
    yield f"{theirs}.layer_scale1.lambda1", f"{ours}.ls1.gamma"
    yield f"{theirs}.layer_scale2.lambda1", f"{ours}.ls2.gamma"
    for x in "qkv":
      yield f"{theirs}.attention.{x}_proj", f"{ours}.attn.{x}"
    yield f"{theirs}.attention.o_proj", f"{ours}.attn.proj"
    up = "up" if model.swiglu else "fc1"
    yield f"{theirs}.mlp.gate_proj", f"{ours}.mlp.gate"
    yield f"{theirs}.mlp.up_proj", f"{ours}.mlp.{up}"
    yield f"{theirs}.mlp.down_proj", f"{ours}.mlp.fc2"


def to_vitjax(flat: Flat, model) -> Flat:
  """Like `timm_vit`."""
  flat = {n.removeprefix(_IN_MEMORY): x for n, x in flat.items()}
  flat.pop("embeddings.mask_token", None)
  return timm_vit.to_vitjax(torch_tensors.rename(flat, _pairs(model)), model)


def from_vitjax(flat: Flat, model) -> Flat:
  """Inverse of `to_vitjax`; the token of masked patches is zeros.

  Raises:
    ValueError: for a model without LayerScale, and see `dinov3.require`.
  """
  dinov3.require(model, NAME)
  torch_tensors.require_layer_scale(model, NAME)
  flat = vit_names.stack_blocks(flat, stacked=False)
  flat = timm_vit.split_state_dict(flat, model)
  flat = torch_tensors.rename_back(flat, _pairs(model))
  mask_token = np.zeros((1, 1, model.width), np.float32)
  return {**flat, "embeddings.mask_token": mask_token}


def facts(model, metadata: Mapping[str, Any]) -> dict:
  """Values for a `DINOv3ViTConfig` with which the outputs are the same."""
  values = {
    **torch_tensors.transformers_facts(model, metadata),
    "model_type": "dinov3_vit",
    "intermediate_size": timm_vit.mlp_dim(model),
    "use_gated_mlp": model.swiglu,
    "query_bias": model.qkv_bias,
    "key_bias": False,
    "value_bias": model.qkv_bias,
    "layerscale_value": model.layer_scale_init,
    "num_register_tokens": model.num_registers,
    "rope_theta": model.rope_base,
  }
  if model.swiglu:
    values["hidden_act"] = "silu"
  for move, neutral in (("shift", 0.0), ("jitter", 1.0), ("rescale", 1.0)):
    value = getattr(model, f"rope_{move}")
    values[f"pos_embed_{move}"] = None if value == neutral else value
  return {"transformers": values}
