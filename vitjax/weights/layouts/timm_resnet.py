"""timm's and torchvision's `resnet50`, and timm's `seresnextaa101d_32x8d`.

A state dict. Its stem of three convolutions is a list with the norms and
activations, and so is the shortcut, whose first element is the mean pool.
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

NAME = "timm_resnet"

facts = torch_tensors.timm_facts


def matches(names: Collection[str]) -> bool:
  """The last norm of the first block."""
  return "layer1.0.bn3.weight" in names


def _rows(model) -> Iterator[Row]:
  torch_tensors.require(model, "resnet_bn", NAME)
  torch_tensors.require_options(model, {"small_images": False}, NAME)

  def conv_norm(conv, norm, ours, suffix):
    yield from torch_tensors.layer(conv, f"{ours}/conv{suffix}", CONV)
    yield from torch_tensors.batch_norm(norm, f"{ours}/norm{suffix}")

  stem = [("conv1", "bn1")]
  if len(model.stem_widths) > 1:
    stem = [("conv1.0", "conv1.1"), ("conv1.3", "conv1.4"), ("conv1.6", "bn1")]
  for i, (conv, norm) in enumerate(stem, 1):
    yield from conv_norm(conv, norm, "stem", i)
  shortcut = 1 if model.pool_shortcut else 0
  for s, depth in enumerate(model.depths):
    for b in range(depth):
      theirs, ours = f"layer{s + 1}.{b}", f"stage{s}/block{b:02d}"
      for i in (1, 2, 3):
        yield from conv_norm(f"{theirs}.conv{i}", f"{theirs}.bn{i}", ours, i)
      yield from conv_norm(
        f"{theirs}.downsample.{shortcut}",
        f"{theirs}.downsample.{shortcut + 1}",
        ours,
        "_shortcut",
      )
      for i, name in enumerate(("reduce", "expand"), 1):
        yield from torch_tensors.layer(
          f"{theirs}.se.fc{i}", f"{ours}/squeeze_excite/{name}", LINEAR_1X1
        )
  yield from torch_tensors.layer("fc", "head", LINEAR)


def to_vitjax(flat: Flat, model) -> Flat:
  """Renames and transposes."""
  return torch_tensors.to_vitjax(flat, _rows(model))


def from_vitjax(flat: Flat, model) -> Flat:
  """Inverse of `to_vitjax`."""
  return torch_tensors.from_vitjax(flat, _rows(model), NAME)
