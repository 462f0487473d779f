"""Hugging Face transformers' `ResNetForImageClassification`, `RegNet...`.

State dicts, also of the bare `ResNetModel` and `RegNetModel`. Both have the
same names; a block of RegNetY has a gate between its second and third
convolution.
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

NAME = "hf_resnet"

_FIRST = "encoder.stages.0.layers.0.layer.0.convolution.weight"
# Family -> the prefix of their names, our names in the stem, the places of the
# three convolutions and of the gate in a block.
_FAMILIES = {
  "resnet_bn": ("resnet.", ("stem/conv1", "stem/norm1"), (0, 1, 2), None),
  "regnet": ("regnet.", ("stem", "stem_norm"), (0, 1, 3), 2),
}


def matches(names: Collection[str]) -> bool:
  """The first convolution of the first block."""
  prefixes = ("", *(prefix for prefix, *_ in _FAMILIES.values()))
  return any(f"{prefix}{_FIRST}" in names for prefix in prefixes)


def _family(model) -> tuple:
  """The row of `_FAMILIES` for a model.

  Raises:
    ValueError: if it has none.
  """
  family = type(model).__module__.rpartition(".")[2]
  if family not in _FAMILIES:
    torch_tensors.require(model, "resnet_bn", NAME)
  if family == "resnet_bn":
    torch_tensors.require_options(model, {"small_images": False}, NAME)
  return _FAMILIES[family]


def _rows(model) -> Iterator[Row]:
  root, stem, places, gate = _family(model)

  def conv_norm(theirs, conv, norm):
    yield from torch_tensors.layer(f"{theirs}.convolution", conv, CONV)
    yield from torch_tensors.batch_norm(f"{theirs}.normalization", norm)

  yield from conv_norm(f"{root}embedder.embedder", *stem)
  for s, depth in enumerate(model.depths):
    for b in range(depth):
      theirs = f"{root}encoder.stages.{s}.layers.{b}"
      ours = f"stage{s}/block{b:02d}"
      for i, place in enumerate(places, 1):
        yield from conv_norm(
          f"{theirs}.layer.{place}", f"{ours}/conv{i}", f"{ours}/norm{i}"
        )
      yield from conv_norm(
        f"{theirs}.shortcut", f"{ours}/conv_shortcut", f"{ours}/norm_shortcut"
      )
      if gate:
        for i, name in ((0, "reduce"), (2, "expand")):
          yield from torch_tensors.layer(
            f"{theirs}.layer.{gate}.attention.{i}",
            f"{ours}/squeeze_excite/{name}",
            LINEAR_1X1,
          )
  yield from torch_tensors.layer("classifier.1", "head", LINEAR)


def to_vitjax(flat: Flat, model) -> Flat:
  """Renames and transposes."""
  flat = torch_tensors.with_prefix(flat, _family(model)[0], _FIRST)
  return torch_tensors.to_vitjax(flat, _rows(model))


def from_vitjax(flat: Flat, model) -> Flat:
  """Inverse of `to_vitjax`."""
  return torch_tensors.from_vitjax(flat, _rows(model), NAME)
