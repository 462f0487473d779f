"""transformers' `DINOv3ConvNextModel`, by its names on disk and in memory."""

from collections.abc import Collection, Iterator, Mapping
from typing import Any

from vitjax.weights.layouts import convnext, torch_tensors
from vitjax.weights.layouts.torch_tensors import Flat

NAME = "hf_dinov3_convnext"

_FIRST = "stages.0.layers.0.depthwise_conv.weight"
_IN_MEMORY = "model."


def matches(names: Collection[str]) -> bool:
  """The depth-wise convolution of the first block."""
  return _FIRST in names or f"{_IN_MEMORY}{_FIRST}" in names


def _pairs(model) -> Iterator[tuple[str, str]]:
  """Their names, and those of `convnext`."""
  yield "layer_norm", "norm"
  for s, depth in enumerate(model.depths):
    for j in (0, 1):
      theirs = f"stages.{s}.downsample_layers.{j}"
      yield theirs, f"downsample_layers.{s}.{j}"
    for i in range(depth):
      theirs, ours = f"stages.{s}.layers.{i}", f"stages.{s}.{i}"
      yield f"{theirs}.gamma", f"{ours}.gamma"
      yield f"{theirs}.depthwise_conv", f"{ours}.dwconv"
      yield f"{theirs}.layer_norm", f"{ours}.norm"
      yield f"{theirs}.pointwise_conv1", f"{ours}.pwconv1"
      yield f"{theirs}.pointwise_conv2", f"{ours}.pwconv2"


def to_vitjax(flat: Flat, model) -> Flat:
  """Like `convnext`."""
  torch_tensors.require(model, "convnext", NAME)
  flat = {n.removeprefix(_IN_MEMORY): x for n, x in flat.items()}
  return convnext.to_vitjax(torch_tensors.rename(flat, _pairs(model)), model)


def from_vitjax(flat: Flat, model) -> Flat:
  """Inverse of `to_vitjax`.

  Raises:
    ValueError: for a model with a head, an isotropic one, or one without
      LayerScale.
  """
  torch_tensors.require(model, "convnext", NAME)
  needed = {"num_classes": None, "stem_norm": True, "patch_size": 4}
  torch_tensors.require_options(model, needed, NAME)
  torch_tensors.require_layer_scale(model, NAME)
  flat = convnext.from_vitjax(flat, model)
  return torch_tensors.rename_back(flat, _pairs(model))


def facts(model, metadata: Mapping[str, Any]) -> dict:
  """Values for a `DINOv3ConvNextConfig` with which the outputs are the same."""
  return {
    "transformers": {
      **torch_tensors.transformers_facts(model, metadata),
      "model_type": "dinov3_convnext",
      "hidden_sizes": list(model.widths),
      "depths": list(model.depths),
      "layer_scale_init_value": model.layer_scale_init,
    }
  }
