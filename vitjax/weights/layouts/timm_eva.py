"""timm's class `Eva`: `vit_*_rope_*`, `vit_*_dinov3` and `eva02_*`.

A state dict like `timm_vit` but for the names of LayerScale, and for biases of
query and value that stand beside the fused weight. EVA-02 with a norm in its
MLPs has no fused layers; it and DINOv3 have the two halves of SwiGLU apart.
"""

from collections.abc import Collection, Iterator, Mapping
from typing import Any

from vitjax.weights.layouts import timm_vit, torch_tensors
from vitjax.weights.layouts.torch_tensors import Flat

NAME = "timm_eva"


def matches(names: Collection[str]) -> bool:
  """DeiT III's names without a position table, or EVA-02's attention."""
  if "blocks.0.attn.q_proj.weight" in names:
    return "patch_embed.proj.weight" in names
  if not timm_vit.matches(names):
    return False
  return "blocks.0.attn.q_bias" in names or (
    "blocks.0.gamma_1" in names and "pos_embed" not in names
  )


def _pairs(model) -> Iterator[tuple[str, str]]:
  """Their names, and those of `timm_vit` before it joins the fused layers."""
  for i in range(model.depth):
    block = f"blocks.{i}"
    yield f"{block}.gamma_1", f"{block}.ls1.gamma"
    yield f"{block}.gamma_2", f"{block}.ls2.gamma"
    if model.mlp_norm:
      for x in "qkv":
        yield f"{block}.attn.{x}_proj", f"{block}.attn.{x}"
    else:
      yield f"{block}.attn.q_bias", f"{block}.attn.q.bias"
      yield f"{block}.attn.v_bias", f"{block}.attn.v.bias"
    if model.mlp_norm or model.rope_grid == "centered":
      yield f"{block}.mlp.fc1_g", f"{block}.mlp.gate"
      yield f"{block}.mlp.fc1_x", f"{block}.mlp.up"


def to_vitjax(flat: Flat, model) -> Flat:
  """Like `timm_vit`."""
  return timm_vit.to_vitjax(torch_tensors.rename(flat, _pairs(model)), model)


def from_vitjax(flat: Flat, model) -> Flat:
  """Inverse of `to_vitjax`.

  Raises:
    ValueError: for a model without rotary embeddings, or with a key's bias.
  """
  torch_tensors.require(model, "vit", NAME)
  if "rope" not in model.posemb or (model.qkv_bias and model.key_bias):
    raise ValueError(
      f"layout {NAME!r} holds models with posemb='rope' or 'learn+rope', and "
      f"key_bias=False. This one has posemb={model.posemb!r} and "
      f"key_bias={model.key_bias}. Use layout='timm_vit' without rotary "
      "embeddings, or 'big_vision'."
    )
  flat = timm_vit.split_state_dict(flat, model)
  flat = torch_tensors.rename_back(flat, _pairs(model))
  return timm_vit.join(flat, model)


def facts(model, metadata: Mapping[str, Any]) -> dict:
  """Arguments for `timm.create_model` with which the outputs are the same."""
  arguments = torch_tensors.timm_facts_with_size(model, metadata)["timm"]
  if model.pool_type == "tok":
    arguments["global_pool"] = "token"
  return {"timm": arguments}
