"""Hugging Face transformers' `SwinForImageClassification`, `Swinv2...`.

State dicts, also of the bare `SwinModel` and `Swinv2Model`. Patch merging
stands at the end of a stage. Older files hold what follows from the window.
"""

from collections.abc import Collection, Iterator

from vitjax.weights.layouts import timm_swin, torch_tensors
from vitjax.weights.layouts.torch_tensors import (
  CONV,
  LINEAR,
  OFFSETS,
  Flat,
  Row,
)

NAME = "hf_swin"

_FIRST = "encoder.layers.0.blocks.0.attention.self.query.weight"
_PREFIXES = {1: "swin.", 2: "swinv2."}


def matches(names: Collection[str]) -> bool:
  """The query of the first block."""
  return any(f"{prefix}{_FIRST}" in names for prefix in _ALL_PREFIXES)


_ALL_PREFIXES = ("", *_PREFIXES.values())


def _rows(model) -> Iterator[Row]:
  torch_tensors.require(model, "swin", NAME)
  layer, norm = torch_tensors.layer, torch_tensors.norm
  root = _PREFIXES[model.version]
  stem = f"{root}embeddings"
  yield from layer(f"{stem}.patch_embeddings.projection", "stem", CONV)
  yield from norm(f"{stem}.norm", "stem_norm")
  for s, (depth, heads) in enumerate(zip(model.depths, model.num_heads)):
    stage = f"{root}encoder.layers.{s}"
    merging = f"stage{s + 1}/downsample"
    yield from norm(f"{stage}.downsample.norm", f"{merging}/norm")
    reduction = f"{stage}.downsample.reduction.weight"
    yield reduction, f"{merging}/reduction/kernel", LINEAR
    for b in range(depth):
      theirs, ours = f"{stage}.blocks.{b}", f"stage{s}/block{b:02d}"
      yield from norm(f"{theirs}.layernorm_before", f"{ours}/norm1")
      yield from norm(f"{theirs}.layernorm_after", f"{ours}/norm2")
      dense = f"{ours}/mlp/Dense"
      yield from layer(f"{theirs}.intermediate.dense", f"{dense}_0", LINEAR)
      yield from layer(f"{theirs}.output.dense", f"{dense}_1", LINEAR)
      ours = f"{ours}/attention"
      yield from torch_tensors.attention(
        [f"{theirs}.attention.self.{x}" for x in ("query", "key", "value")],
        f"{theirs}.attention.output.dense",
        ours,
        heads,
      )
      theirs, bias = f"{theirs}.attention.self", f"{ours}/position_bias"
      yield f"{theirs}.relative_position_bias_table", f"{bias}/table", OFFSETS
      yield f"{theirs}.logit_scale", f"{ours}/logit_scale", timm_swin.SCALE
      mlp = f"{theirs}.continuous_position_bias_mlp"
      yield from layer(f"{mlp}.0", f"{bias}/Dense_0", LINEAR)
      yield f"{mlp}.2.weight", f"{bias}/Dense_1/kernel", LINEAR
  yield from norm(f"{root}layernorm", "norm")
  yield from layer("classifier", "head", LINEAR)


def to_vitjax(flat: Flat, model) -> Flat:
  """Renames and transposes."""
  torch_tensors.require(model, "swin", NAME)
  flat = {n: x for n, x in flat.items() if not timm_swin.DERIVED.fullmatch(n)}
  flat = torch_tensors.with_prefix(flat, _PREFIXES[model.version], _FIRST)
  return torch_tensors.to_vitjax(flat, _rows(model))


def from_vitjax(flat: Flat, model) -> Flat:
  """Inverse of `to_vitjax`."""
  return torch_tensors.from_vitjax(flat, _rows(model), NAME)
