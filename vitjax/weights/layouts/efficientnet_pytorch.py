"""EfficientNet-PyTorch, and EfficientNet-Lite after it: a state dict.

Blocks are numbered through all stages.
"""

from collections.abc import Collection, Iterator

from vitjax.weights.layouts import torch_tensors
from vitjax.weights.layouts.torch_tensors import (
  CONV,
  LINEAR,
  LINEAR_1X1,
  Flat,
  Row,
)

NAME = "efficientnet_pytorch"


def matches(names: Collection[str]) -> bool:
  """The depth-wise convolution of the first block."""
  return "_blocks.0._depthwise_conv.weight" in names


def _rows(model) -> Iterator[Row]:
  torch_tensors.require(model, "efficientnet", NAME)

  def conv_norm(theirs, norm, ours):
    yield from torch_tensors.layer(theirs, ours, CONV)
    yield from torch_tensors.batch_norm(norm, f"{ours}_norm")

  yield from conv_norm("_conv_stem", "_bn0", "stem")
  blocks = [
    (s, b) for s, depth in enumerate(model.depths) for b in range(depth)
  ]
  for n, (s, b) in enumerate(blocks):
    theirs, ours = f"_blocks.{n}", f"stage{s}/block{b:02d}"
    # The expansion has norm 0, which the first stage lacks.
    for i, name in enumerate(("expand", "depthwise", "project")):
      yield from conv_norm(
        f"{theirs}._{name}_conv", f"{theirs}._bn{i}", f"{ours}/{name}"
      )
    for name in ("reduce", "expand"):
      yield from torch_tensors.layer(
        f"{theirs}._se_{name}", f"{ours}/squeeze_excite/{name}", LINEAR_1X1
      )
  yield from conv_norm("_conv_head", "_bn1", "head_conv")
  yield from torch_tensors.layer("_fc", "head", LINEAR)


def to_vitjax(flat: Flat, model) -> Flat:
  """Renames and transposes."""
  return torch_tensors.to_vitjax(flat, _rows(model))


def from_vitjax(flat: Flat, model) -> Flat:
  """Inverse of `to_vitjax`."""
  return torch_tensors.from_vitjax(flat, _rows(model), NAME)
