"""Hugging Face transformers' `ViTForImageClassification` and `ViTModel`.

Names are those on disk, which have stayed while those in memory changed. The
position table has a row for the class token. `ViTModel` has a hidden layer
behind the class token, its pooler; a model with classes has none.
"""

from collections.abc import Collection, Iterator, Mapping
from typing import Any

from vitjax.weights.layouts import torch_tensors, vit_names
from vitjax.weights.layouts.torch_tensors import CONV, LINEAR, SAME, Flat, Row

NAME = "hf_vit"
NEEDS_TABLE = True

_QUERY = "encoder.layer.0.attention.attention.query.weight"


def matches(names: Collection[str]) -> bool:
  """The first block's query, also in a bare `ViTModel`."""
  return f"vit.{_QUERY}" in names or (
    _QUERY in names and "embeddings.cls_token" in names
  )


def _rows(model) -> Iterator[Row]:
  torch_tensors.require(model, "vit", NAME)
  layer, norm = torch_tensors.layer, torch_tensors.norm
  table = "vit.embeddings"
  yield f"{table}.cls_token", "cls", SAME
  yield f"{table}.position_embeddings", "pos_embedding", SAME
  yield from layer(f"{table}.patch_embeddings.projection", "embedding", CONV)
  for i in range(model.depth):
    theirs, ours = f"vit.encoder.layer.{i}", f"Transformer/encoderblock_{i}"
    yield from norm(f"{theirs}.layernorm_before", f"{ours}/LayerNorm_0")
    yield from torch_tensors.attention(
      [f"{theirs}.attention.attention.{x}" for x in ("query", "key", "value")],
      f"{theirs}.attention.output.dense",
      f"{ours}/MultiHeadDotProductAttention_0",
      model.num_heads,
    )
    yield from norm(f"{theirs}.layernorm_after", f"{ours}/LayerNorm_1")
    mlp = f"{ours}/MlpBlock_0"
    yield from layer(f"{theirs}.intermediate.dense", f"{mlp}/Dense_0", LINEAR)
    yield from layer(f"{theirs}.output.dense", f"{mlp}/Dense_1", LINEAR)
  yield from norm("vit.layernorm", "Transformer/encoder_norm")
  yield from layer("vit.pooler.dense", "pre_logits", LINEAR)
  yield from layer("classifier", "head", LINEAR)


def to_vitjax(flat: Flat, model) -> Flat:
  """Renames and transposes."""
  flat = torch_tensors.with_prefix(flat, "vit.", _QUERY)
  flat = torch_tensors.to_vitjax(flat, _rows(model))
  flat = vit_names.set_prefix_rows(
    flat,
    vit_names.num_prefix(model),
    old="cls" in flat,
    new=model.posemb_prefix,
  )
  flat = vit_names.drop_constants(flat, model)
  return vit_names.stack_blocks(flat, model.scan_layers)


def from_vitjax(flat: Flat, model) -> Flat:
  """Inverse of `to_vitjax`.

  Raises:
    ValueError: for anything but a class token in front, LayerScale and what
      else this Vision Transformer does not have.
  """
  rows = list(_rows(model))
  needed = {
    "pool_type": "tok",
    "parallel": False,
    "differential": False,
    "fc_norm": False,
    "swiglu": False,
    "head_bias": True,
  }
  if model.num_classes:
    needed["rep_size"] = False
  torch_tensors.require_options(model, needed, NAME)
  vit_names.require_table(flat, model, NAME)
  flat = vit_names.stack_blocks(flat, stacked=False)
  if model.qkv_bias:
    flat = vit_names.add_biases(flat)
  flat = vit_names.set_prefix_rows(
    flat, vit_names.num_prefix(model), old=model.posemb_prefix, new=True
  )
  return torch_tensors.from_vitjax(flat, rows, NAME)


def facts(model, metadata: Mapping[str, Any]) -> dict:
  """Values for a `ViTConfig` with which the outputs are the same."""
  return {
    "transformers": {
      **torch_tensors.transformers_facts(model, metadata),
      "model_type": "vit",
      "intermediate_size": model.mlp_dim or 4 * model.width,
      "qkv_bias": model.qkv_bias,
    }
  }
