"""Hugging Face transformers' `CLIPModel` and `SiglipModel`.

Also their towers alone, and reading `Siglip2Model`, whose patches are a dense
layer. A file of SigLIP 2 with a fixed resolution is a `SiglipModel`.
"""

from collections.abc import Collection, Iterator, Mapping
from typing import Any

import numpy as np

from vitjax.weights.layouts import torch_tensors, torch_towers
from vitjax.weights.layouts.torch_tensors import (
  CONV,
  LINEAR,
  SAME,
  Flat,
  Kind,
  Row,
)
from vitjax.weights.layouts.torch_towers import NUMBER, TABLE, VECTOR

NAME = "hf_towers"

_IMAGE, _TEXT = "vision_model", "text_model"
_POOL = f"{_IMAGE}.head.attention"


def matches(names: Collection[str]) -> bool:
  """The embeddings of patches or of tokens."""
  return not {
    f"{_IMAGE}.embeddings.patch_embedding.weight",
    f"{_TEXT}.embeddings.token_embedding.weight",
  }.isdisjoint(names)


def _patches(patch_size: int) -> Kind:
  """Kernel of the patches, which `Siglip2Model` has as (out, h w c)."""

  def to_vitjax(w: np.ndarray) -> np.ndarray:
    if w.ndim == 4:
      return CONV.to_vitjax(w)
    return w.T.reshape(patch_size, patch_size, -1, len(w))

  return Kind(to_vitjax, CONV.from_vitjax)


def _encoder(theirs: str, tower) -> Iterator[Row]:
  for i in range(tower.depth):
    yield from torch_towers.block(
      f"{theirs}.encoder.layers.{i}",
      f"{torch_towers.blocks(tower)}{i}",
      tower.num_heads,
      norms=("layer_norm1", "layer_norm2"),
      qkv=[f"self_attn.{x}_proj" for x in "qkv"],
      out="self_attn.out_proj",
      mlp=("mlp.fc1", "mlp.fc2"),
    )


def _image(tower) -> Iterator[Row]:
  layer, norm = torch_tensors.layer, torch_tensors.norm
  table = f"{_IMAGE}.embeddings"
  kind = _patches(tower.patch_size)
  yield from layer(f"{table}.patch_embedding", "embedding", kind)
  yield f"{table}.class_embedding", "cls", VECTOR
  yield f"{table}.position_embedding.weight", "pos_embedding", TABLE
  yield from norm(f"{_IMAGE}.pre_layrnorm", "pre_norm")
  yield from _encoder(_IMAGE, tower)
  yield from norm(f"{_IMAGE}.post_layernorm", "Transformer/encoder_norm")
  yield f"{_IMAGE}.head.probe", "MAPHead_0/probe", SAME
  yield from torch_tensors.attention(
    [f"{_POOL}.{x}" for x in "qkv"],
    f"{_POOL}.out_proj",
    "MAPHead_0/MultiHeadDotProductAttention_0",
    tower.num_heads,
  )
  yield from norm(f"{_IMAGE}.head.layernorm", "MAPHead_0/LayerNorm_0")
  for i in (0, 1):
    theirs = f"{_IMAGE}.head.mlp.fc{i + 1}"
    yield from layer(theirs, f"MAPHead_0/MlpBlock_0/Dense_{i}", LINEAR)
  yield "visual_projection.weight", "head/kernel", LINEAR


def _text(tower) -> Iterator[Row]:
  table = f"{_TEXT}.embeddings"
  yield f"{table}.token_embedding.weight", "Embed_0/embedding", SAME
  yield f"{table}.position_embedding.weight", "pos_embedding", TABLE
  yield from _encoder(_TEXT, tower)
  norm = f"{_TEXT}.final_layer_norm"
  yield from torch_tensors.norm(norm, "Encoder_0/encoder_norm")
  if tower.head_bias:
    yield from torch_tensors.layer(f"{_TEXT}.head", "head", LINEAR)
  else:
    yield "text_projection.weight", "head/kernel", LINEAR


def _is_siglip(model) -> bool:
  return any(
    getattr(tower, "pool_type", None) == "map"
    for _, tower in torch_towers.towers(model)
  )


def _rows(model) -> Iterator[Row]:
  yield from torch_towers.rows(model, _image, _text, NAME)
  yield "logit_scale", "t", SAME if _is_siglip(model) else NUMBER
  yield "logit_bias", "b", SAME


def _fused(model):
  for _, tower in torch_towers.towers(model):
    yield torch_towers.in_proj(_POOL, tower.width)


def to_vitjax(flat: Flat, model) -> Flat:
  """Renames and transposes; drops the numbers of the positions."""
  torch_towers.check(flat, model)
  flat = {n: x for n, x in flat.items() if not n.endswith(".position_ids")}
  return torch_towers.to_vitjax(flat, model, _rows(model), _fused(model))


def from_vitjax(flat: Flat, model) -> Flat:
  """Inverse of `to_vitjax`.

  Raises:
    ValueError: for towers that transformers does not have.
  """
  return torch_towers.from_vitjax(
    flat, model, _rows(model), NAME, _fused(model)
  )


def facts(model, metadata: Mapping[str, Any]) -> dict:
  """Values for a `CLIPConfig` or `SiglipConfig` with the same outputs."""
  is_siglip = _is_siglip(model)
  sides: dict[str, Any] = {}
  for _, tower in torch_towers.towers(model):
    values = {
      "hidden_size": tower.width,
      "intermediate_size": tower.mlp_dim or 4 * tower.width,
      "num_hidden_layers": tower.depth,
      "num_attention_heads": tower.num_heads,
      "hidden_act": torch_tensors.HF_GELU[tower.gelu],
      "layer_norm_eps": tower.layer_norm_eps,
    }
    if torch_towers.is_text(tower):
      values["vocab_size"] = tower.vocab_size
      values["max_position_embeddings"] = tower.max_len
    else:
      values["patch_size"] = tower.patch_size
      if "channels" in metadata:
        values["num_channels"] = metadata["channels"]
      if "image_size" in metadata:
        values["image_size"] = metadata["image_size"][0]
    is_text = torch_towers.is_text(tower)
    if is_text and is_siglip:
      values["projection_size"] = tower.num_classes
    elif is_text:  # the last id is that of the end
      values["eos_token_id"] = tower.vocab_size - 1
    if not is_siglip:
      sides["projection_dim"] = tower.num_classes
    sides["text_config" if is_text else "vision_config"] = values
  return {
    "transformers": {
      "model_type": "siglip" if is_siglip else "clip",
      **sides,
    }
  }
