"""Hugging Face transformers' `ConvNextForImageClassification`, `ConvNextModel`.

A state dict.
"""

from collections.abc import Collection, Iterator

from vitjax.weights.layouts import torch_tensors
from vitjax.weights.layouts.torch_tensors import CONV, LINEAR, SAME, Flat, Row

NAME = "hf_convnext"

_FIRST = "encoder.stages.0.layers.0.dwconv.weight"
_BARE = "convnext."


def matches(names: Collection[str]) -> bool:
  """The depth-wise convolution of the first block."""
  return _FIRST in names or f"{_BARE}{_FIRST}" in names


def _rows(model) -> Iterator[Row]:
  torch_tensors.require(model, "convnext", NAME)
  layer, norm = torch_tensors.layer, torch_tensors.norm
  yield from layer("convnext.embeddings.patch_embeddings", "stem/conv", CONV)
  yield from norm("convnext.embeddings.layernorm", "stem/norm")
  for s, depth in enumerate(model.depths):
    stage = f"convnext.encoder.stages.{s}"
    theirs, ours = f"{stage}.downsampling_layer", f"stage{s}/downsample"
    yield from norm(f"{theirs}.0", f"{ours}/norm")
    yield from layer(f"{theirs}.1", f"{ours}/conv", CONV)
    for i in range(depth):
      theirs, ours = f"{stage}.layers.{i}", f"stage{s}/block{i:02d}"
      yield from layer(f"{theirs}.dwconv", f"{ours}/dwconv", CONV)
      yield from norm(f"{theirs}.layernorm", f"{ours}/norm")
      for name in ("pwconv1", "pwconv2"):
        yield from layer(f"{theirs}.{name}", f"{ours}/{name}", LINEAR)
      yield f"{theirs}.layer_scale_parameter", f"{ours}/layer_scale/gamma", SAME
  yield from norm("convnext.layernorm", "norm")
  yield from layer("classifier", "head", LINEAR)


def to_vitjax(flat: Flat, model) -> Flat:
  """Renames and transposes."""
  flat = torch_tensors.with_prefix(flat, _BARE, _FIRST)
  return torch_tensors.to_vitjax(flat, _rows(model))


def from_vitjax(flat: Flat, model) -> Flat:
  """Inverse of `to_vitjax`."""
  return torch_tensors.from_vitjax(flat, _rows(model), NAME)
