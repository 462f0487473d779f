"""timm's `regnety_*`: a state dict."""

from collections.abc import Collection, Iterator

from vitjax.weights.layouts import torch_tensors
from vitjax.weights.layouts.torch_tensors import (
  CONV,
  LINEAR,
  LINEAR_1X1,
  Flat,
  Row,
)

NAME = "timm_regnet"

facts = torch_tensors.timm_facts


def matches(names: Collection[str]) -> bool:
  """The gate of the first block, whose number is 1."""
  return "s1.b1.se.fc1.weight" in names


def _rows(model) -> Iterator[Row]:
  torch_tensors.require(model, "regnet", NAME)

  def conv_norm(theirs, conv, norm):
    yield from torch_tensors.layer(f"{theirs}.conv", conv, CONV)
    yield from torch_tensors.batch_norm(f"{theirs}.bn", norm)

  yield from conv_norm("stem", "stem", "stem_norm")
  for s, depth in enumerate(model.depths):
    for b in range(depth):
      theirs, ours = f"s{s + 1}.b{b + 1}", f"stage{s}/block{b:02d}"
      for name, suffix in (
        ("conv1", "1"),
        ("conv2", "2"),
        ("conv3", "3"),
        ("downsample", "_shortcut"),
      ):
        yield from conv_norm(
          f"{theirs}.{name}", f"{ours}/conv{suffix}", f"{ours}/norm{suffix}"
        )
      for i, name in enumerate(("reduce", "expand"), 1):
        yield from torch_tensors.layer(
          f"{theirs}.se.fc{i}", f"{ours}/squeeze_excite/{name}", LINEAR_1X1
        )
  yield from torch_tensors.layer("head.fc", "head", LINEAR)


def to_vitjax(flat: Flat, model) -> Flat:
  """Renames and transposes."""
  return torch_tensors.to_vitjax(flat, _rows(model))


def from_vitjax(flat: Flat, model) -> Flat:
  """Inverse of `to_vitjax`."""
  return torch_tensors.from_vitjax(flat, _rows(model), NAME)
