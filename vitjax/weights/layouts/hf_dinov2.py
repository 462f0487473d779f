"""transformers' `Dinov2Model` and `Dinov2WithRegistersModel`.

And their `...ForImageClassification`, whose head reads the class token and the
mean of the patches: a model with pool_type="tok+gap". Names are those on disk;
those in memory are read as well. The rest is as in `dinov2`.
"""

from collections.abc import Collection, Iterator, Mapping
from typing import Any

from vitjax.weights.layouts import dinov2, timm_vit, torch_tensors
from vitjax.weights.layouts.torch_tensors import Flat

NAME = "hf_dinov2"
NEEDS_TABLE = True

_SCALE = "encoder.layer.0.layer_scale1.lambda1"
_PREFIXES = ("dinov2.", "dinov2_with_registers.")


def _bare(name: str) -> str:
  return next(
    (name.removeprefix(x) for x in _PREFIXES if name.startswith(x)), name
  )


def matches(names: Collection[str]) -> bool:
  """The first LayerScale, also below the name of the backbone."""
  return any(f"{prefix}{_SCALE}" in names for prefix in ("", *_PREFIXES))


def _pairs(model) -> Iterator[tuple[str, str]]:
  """Their names, and those of `dinov2` before it joins the fused layers."""
  yield "embeddings.cls_token", "cls_token"
  yield "embeddings.mask_token", "mask_token"
  yield "embeddings.register_tokens", "register_tokens"
  yield "embeddings.position_embeddings", "pos_embed"
  yield "embeddings.patch_embeddings.projection", "patch_embed.proj"
  yield "layernorm", "norm"
  yield "classifier", "head"
  for i in range(model.depth):
    theirs, ours = f"encoder.layer.{i}", f"blocks.{i}"
    yield f"{theirs}.norm1", f"{ours}.norm1"
    yield f"{theirs}.norm2", f"{ours}.norm2"
    yield f"{theirs}.layer_scale1.lambda1", f"{ours}.ls1.gamma"
    yield f"{theirs}.layer_scale2.lambda1", f"{ours}.ls2.gamma"
    for x in ("query", "key", "value"):
      yield f"{theirs}.attention.attention.{x}", f"{ours}.attn.{x[0]}"
    yield f"{theirs}.attention.output.dense", f"{ours}.attn.proj"
    yield f"{theirs}.mlp.fc1", f"{ours}.mlp.fc1"
    yield f"{theirs}.mlp.fc2", f"{ours}.mlp.fc2"
    yield f"{theirs}.mlp.weights_in", f"{ours}.mlp.w12"
    yield f"{theirs}.mlp.weights_out", f"{ours}.mlp.w3"


def _in_memory(model) -> Iterator[tuple[str, str]]:
  """Names that transformers has in memory since its version 5."""
  for i in range(model.depth):
    theirs, ours = f"encoder.layer.{i}", f"blocks.{i}"
    for x in "qkv":
      yield f"{theirs}.attention.{x}_proj", f"{ours}.attn.{x}"
    yield f"{theirs}.attention.o_proj", f"{ours}.attn.proj"
    yield f"{theirs}.mlp.gate_proj", f"{ours}.mlp.gate"
    yield f"{theirs}.mlp.up_proj", f"{ours}.mlp.up"
    yield f"{theirs}.mlp.down_proj", f"{ours}.mlp.fc2"


def to_vitjax(flat: Flat, model) -> Flat:
  """Like `dinov2`."""
  flat = {_bare(name): x for name, x in flat.items()}
  flat = torch_tensors.rename(flat, [*_pairs(model), *_in_memory(model)])
  return dinov2.to_vitjax(flat, model)


def from_vitjax(flat: Flat, model) -> Flat:
  """Inverse of `to_vitjax`.

  Raises:
    ValueError: for a model without LayerScale, with another pooling or width
      of the MLPs, and see `dinov2`.
  """
  torch_tensors.require(model, "vit", NAME)
  pool_type = "tok+gap" if model.num_classes else "tok"
  torch_tensors.require_options(model, {"pool_type": pool_type}, NAME)
  torch_tensors.require_layer_scale(model, NAME)
  _mlp_ratio(model)
  flat = torch_tensors.split_fused(
    dinov2.state_dict(flat, model), timm_vit.attention_layers(model)
  )
  flat = torch_tensors.rename_back(flat, _pairs(model))
  if not model.num_classes:
    return flat
  prefix = _PREFIXES[model.num_registers > 0]
  return {
    name if name.startswith("classifier.") else f"{prefix}{name}": x
    for name, x in flat.items()
  }


def _mlp_ratio(model) -> int:
  """The whole number from which transformers computes the width of the MLPs.

  Raises:
    ValueError: if there is none.
  """
  width = timm_vit.mlp_dim(model)
  ratio = round(width * (1.5 if model.swiglu else 1) / model.width)
  made = ratio * model.width
  if model.swiglu:
    made = -(-(2 * made // 3) // 8) * 8
  if made != width:
    raise ValueError(
      f"layout {NAME!r} has MLPs whose width is a whole multiple of the "
      f"model's, of SwiGLU two thirds of it; this one has mlp_dim={width} and "
      f"width={model.width}. Use layout='timm_vit'."
    )
  return ratio


def facts(model, metadata: Mapping[str, Any]) -> dict:
  """Values for a config of transformers with which the outputs are the same."""
  values = {
    **torch_tensors.transformers_facts(model, metadata),
    "model_type": "dinov2",
    "mlp_ratio": _mlp_ratio(model),
    "use_swiglu_ffn": model.swiglu,
    "qkv_bias": model.qkv_bias,
    "layerscale_value": model.layer_scale_init,
  }
  if model.num_registers:
    values["model_type"] = "dinov2_with_registers"
    values["num_register_tokens"] = model.num_registers
  return {"transformers": values}
