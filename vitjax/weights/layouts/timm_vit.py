"""timm's `vit_*`, `deit_*` and `deit3_*`: a state dict.

Also the original DeiT, whose names are the same. Use a model with gelu="erf"
for weights that were trained there. The position table may have rows for
class token and registers (timm's default) or not (its `no_embed_class`).
"""

import math
from collections.abc import Collection, Iterator, Mapping
from typing import Any

import numpy as np

from vitjax.weights.layouts import torch_tensors, vit_names
from vitjax.weights.layouts.torch_tensors import (
  CONV,
  LINEAR,
  SAME,
  Flat,
  Fused,
  Row,
)

NAME = "timm_vit"
NEEDS_TABLE = True


def matches(names: Collection[str]) -> bool:
  """The fused attention of the first block, serial or parallel."""
  first = {"blocks.0.attn.qkv.weight", "blocks.0.in_proj.weight"}
  return "patch_embed.proj.weight" in names and not first.isdisjoint(names)


def mlp_dim(model) -> int:
  """Hidden channels of an MLP, of a gated one each half."""
  return model.mlp_dim or 4 * model.width


def attention_layers(model) -> Iterator[Fused]:
  """The fused layers of serial blocks' attention."""
  for i in range(model.depth):
    parts = {f"blocks.{i}.attn.{x}": model.width for x in "qkv"}
    yield Fused(f"blocks.{i}.attn.qkv", parts)


def _fused(model) -> Iterator[Fused]:
  d = model.width
  if not model.parallel:
    yield from attention_layers(model)
  for i in range(model.depth):
    block = f"blocks.{i}"
    qkv = {f"{block}.attn.{x}": d for x in "qkv"}
    if model.parallel:
      mlp = mlp_dim(model)
      yield Fused(f"{block}.in_proj", {f"{block}.mlp_in_proj": mlp, **qkv})
      if model.differential:
        out = {f"{block}.attn_out_proj": d, f"{block}.mlp_out_proj": mlp}
        yield Fused(f"{block}.out_proj", out, axis=1)
    elif model.swiglu:
      halves = {f"{block}.mlp.{x}": mlp_dim(model) for x in ("gate", "up")}
      yield Fused(f"{block}.mlp.fc1", halves)
  yield Fused("attn_pool.kv", {"attn_pool.k": d, "attn_pool.v": d})


def _rows(model) -> Iterator[Row]:
  torch_tensors.require(model, "vit", NAME)
  layer, norm = torch_tensors.layer, torch_tensors.norm
  yield from layer("patch_embed.proj", "embedding", CONV)
  yield "cls_token", "cls", SAME
  yield "dist_token" if model.distilled else "reg_token", "registers", SAME
  yield "pos_embed", "pos_embedding", SAME
  yield from norm("norm_pre", "pre_norm")
  for i in range(model.depth):
    theirs, ours = f"blocks.{i}", f"Transformer/encoderblock_{i}"
    mlp = f"{ours}/MlpBlock_0"
    qkv = [f"{theirs}.attn.{x}" for x in "qkv"]
    if model.parallel:
      yield from norm(f"{theirs}.in_norm", f"{ours}/LayerNorm_0")
      proj, fc1, fc2 = "attn_out_proj", "mlp_in_proj", "mlp_out_proj"
      yield f"{theirs}.ls.gamma", f"{ours}/LayerScale_0/gamma", SAME
    else:
      fc1 = "mlp.up" if model.swiglu else "mlp.fc1"
      proj, fc2 = "attn.proj", "mlp.fc2"
      for j in (0, 1):
        yield from norm(f"{theirs}.norm{j + 1}", f"{ours}/LayerNorm_{j}")
        scale = f"{ours}/LayerScale_{j}/gamma"
        yield f"{theirs}.ls{j + 1}.gamma", scale, SAME
    if model.differential:
      attention = f"{ours}/DifferentialAttention_0"
      where = theirs if model.parallel else f"{theirs}.attn"
      for leaf in ("lambda_q1", "lambda_q2", "lambda_k1", "lambda_k2"):
        yield f"{where}.{leaf}", f"{attention}/{leaf}", SAME
      yield f"{where}.sub_norm.weight", f"{attention}/sub_norm/scale", SAME
      if model.parallel:  # one output with one bias, which is the MLP's here
        yield f"{theirs}.out_proj.bias", f"{mlp}/Dense_1/bias", SAME
    else:
      attention = f"{ours}/MultiHeadDotProductAttention_0"
    yield from torch_tensors.attention(
      qkv,
      f"{theirs}.{proj}",
      attention,
      model.num_heads,
      model.num_heads * (2 if model.differential else 1),
      halves="rope" in model.posemb and model.rope_grid == "centered",
    )
    yield from layer(f"{theirs}.{fc1}", f"{mlp}/Dense_0", LINEAR)
    yield from layer(f"{theirs}.mlp.gate", f"{mlp}/gate", LINEAR)
    yield from norm(f"{theirs}.mlp.norm", f"{mlp}/LayerNorm_0")
    yield from layer(f"{theirs}.{fc2}", f"{mlp}/Dense_1", LINEAR)
  yield from norm("norm", "Transformer/encoder_norm")
  yield from norm("fc_norm", "fc_norm")
  yield "attn_pool.latent", "MAPHead_0/probe", SAME
  yield from torch_tensors.attention(
    [f"attn_pool.{x}" for x in "qkv"],
    "attn_pool.proj",
    "MAPHead_0/MultiHeadDotProductAttention_0",
    model.num_heads,
  )
  yield from norm("attn_pool.norm", "MAPHead_0/LayerNorm_0")
  for i in (0, 1):
    theirs, ours = f"attn_pool.mlp.fc{i + 1}", f"MAPHead_0/MlpBlock_0/Dense_{i}"
    yield from layer(theirs, ours, LINEAR)
  yield from layer("head", "head", LINEAR)
  yield from layer("head_dist", "head_dist", LINEAR)


def to_vitjax(flat: Flat, model) -> Flat:
  """Splits the fused layers, renames and transposes."""
  rows = list(_rows(model))
  flat = torch_tensors.split_fused(flat, _fused(model))
  flat = torch_tensors.to_vitjax(flat, rows)
  tokens = vit_names.num_prefix(model)
  flat = vit_names.set_prefix_rows(
    flat,
    tokens,
    old=_has_prefix_rows(flat, sum(tokens.values()), model.posemb_prefix),
    new=model.posemb_prefix,
  )
  flat = vit_names.drop_constants(flat, model)
  return vit_names.stack_blocks(flat, model.scan_layers)


def _has_prefix_rows(flat: Flat, num_prefix: int, default: bool) -> bool:
  """Whether only with `num_prefix` other rows the table's grid is square."""
  if "pos_embedding" not in flat:
    return default
  rows = flat["pos_embedding"].shape[1]
  square, square_behind = (
    n >= 0 and math.isqrt(n) ** 2 == n for n in (rows, rows - num_prefix)
  )
  return default if square == square_behind else square_behind


def from_vitjax(flat: Flat, model) -> Flat:
  """Inverse of `to_vitjax`.

  Raises:
    ValueError: for another family, a rotary position embedding, a hidden
      layer before the head and the ResNet of a hybrid.
  """
  torch_tensors.require(model, "vit", NAME)
  vit_names.require_table(flat, model, NAME)
  if model.rep_size:
    raise ValueError(
      f"layout {NAME!r} has no place for pre_logits, the layer before the "
      "head. Train with rep_size=False, or use layout='big_vision'."
    )
  flat = vit_names.stack_blocks(flat, stacked=False)
  if model.distilled:  # whose table always has rows of both tokens
    flat = vit_names.set_prefix_rows(
      flat, vit_names.num_prefix(model), old=model.posemb_prefix, new=True
    )
  if model.qkv_bias:
    flat = vit_names.add_biases(flat)
  if not model.head_bias and model.num_classes:
    zeros = np.zeros(model.num_classes, np.float32)
    flat = {**flat, "head/bias": zeros}
  return state_dict(flat, model)


def state_dict(flat: Flat, model) -> Flat:
  """Renames, transposes and joins the fused layers."""
  return join(split_state_dict(flat, model), model)


def split_state_dict(flat: Flat, model) -> Flat:
  """A state dict whose fused layers are still apart."""
  rows = list(_rows(model))
  flat = vit_names.stack_blocks(flat, stacked=False)
  return torch_tensors.from_vitjax(flat, rows, NAME)


def join(flat: Flat, model) -> Flat:
  """Joins the fused layers of a state dict that are complete."""
  return torch_tensors.join_fused(flat, _fused(model))


def facts(model, metadata: Mapping[str, Any]) -> dict:
  """Arguments for `timm.create_model` with which the outputs are the same."""
  return {"timm": timm_arguments(model, metadata)}


def mlp_ratio(width: int, mlp_width: int) -> float:
  """Such that timm's int(width * ratio) is the width of the MLP."""
  ratio = mlp_width / width
  short = int(width * ratio) < mlp_width
  return math.nextafter(ratio, math.inf) if short else ratio


def timm_arguments(model, metadata: Mapping[str, Any]) -> dict:
  """Arguments of timm's VisionTransformer for `model`."""
  arguments = {
    **torch_tensors.timm_facts_with_size(model, metadata)["timm"],
    "class_token": model.has_class_token,
    "global_pool": {"gap": "avg", "tok": "token", "map": "map"}.get(
      model.pool_type, ""
    ),
    "fc_norm": model.fc_norm,
    "no_embed_class": not model.posemb_prefix,
    "reg_tokens": model.num_registers,
    "embed_dim": model.width,
    "depth": model.depth,
    "num_heads": model.num_heads,
    "mlp_ratio": mlp_ratio(
      model.width, mlp_dim(model) * (2 if model.swiglu else 1)
    ),
    "patch_size": model.patch_size,
    "qkv_bias": model.qkv_bias,
  }
  if model.distilled:  # its class has two tokens, by no argument
    for name in ("class_token", "reg_tokens", "no_embed_class"):
      del arguments[name]
  if model.pre_norm:
    arguments["pre_norm"] = True
  if model.layer_scale_init is not None:
    arguments["init_values"] = model.layer_scale_init
  return arguments
