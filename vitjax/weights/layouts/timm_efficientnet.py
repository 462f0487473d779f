"""timm's `efficientnet_*` and `tf_efficientnet_*`: a state dict."""

from collections.abc import Collection, Iterator

from vitjax.weights.layouts import torch_tensors
from vitjax.weights.layouts.torch_tensors import (
  CONV,
  LINEAR,
  LINEAR_1X1,
  Flat,
  Row,
)

NAME = "timm_efficientnet"

facts = torch_tensors.timm_facts


def matches(names: Collection[str]) -> bool:
  """The depth-wise convolution of the first block, and the last one."""
  return {"blocks.0.0.conv_dw.weight", "conv_head.weight"} <= {*names}


def _rows(model) -> Iterator[Row]:
  torch_tensors.require(model, "efficientnet", NAME)
  yield from torch_tensors.layer("conv_stem", "stem", CONV)
  yield from torch_tensors.batch_norm("bn1", "stem_norm")
  for s, depth in enumerate(model.depths):
    # The first stage does not expand, and its names mean other layers.
    convs = {"conv_pw": "expand", "conv_dw": "depthwise", "conv_pwl": "project"}
    if s == 0:
      convs = {"conv_dw": "depthwise", "conv_pw": "project"}
    for b in range(depth):
      theirs, block = f"blocks.{s}.{b}", f"stage{s}/block{b:02d}"
      for i, (conv, name) in enumerate(convs.items(), 1):
        yield from torch_tensors.layer(
          f"{theirs}.{conv}", f"{block}/{name}", CONV
        )
        yield from torch_tensors.batch_norm(
          f"{theirs}.bn{i}", f"{block}/{name}_norm"
        )
      for name in ("reduce", "expand"):
        yield from torch_tensors.layer(
          f"{theirs}.se.conv_{name}",
          f"{block}/squeeze_excite/{name}",
          LINEAR_1X1,
        )
  yield from torch_tensors.layer("conv_head", "head_conv", CONV)
  yield from torch_tensors.batch_norm("bn2", "head_conv_norm")
  yield from torch_tensors.layer("classifier", "head", LINEAR)


def to_vitjax(flat: Flat, model) -> Flat:
  """Renames and transposes."""
  return torch_tensors.to_vitjax(flat, _rows(model))


def from_vitjax(flat: Flat, model) -> Flat:
  """Inverse of `to_vitjax`."""
  return torch_tensors.from_vitjax(flat, _rows(model), NAME)
