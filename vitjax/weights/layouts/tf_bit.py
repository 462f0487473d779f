"""The released BiT files: names of the TensorFlow code, dumped to npz.

timm reads these files too, for its `resnetv2_*_bit`, where it uses another
epsilon in the standardisation of weights.
"""

import re
from collections.abc import Collection, Iterator

from vitjax.weights.layouts import torch_tensors
from vitjax.weights.layouts.torch_tensors import SAME, Flat, Kind, Row

NAME = "tf_bit"

_HEAD = Kind(lambda w: w[0, 0], lambda w: w[None, None])
_VECTOR = Kind(lambda x: x.reshape(-1), lambda x: x)


def matches(names: Collection[str]) -> bool:
  """The scope of the root convolution."""
  return any(name.startswith("resnet/root_block/") for name in names)


def _rows(model) -> Iterator[Row]:
  torch_tensors.require(model, "resnet", NAME)
  if not model.preact:
    raise ValueError(
      f"layout {NAME!r} holds pre-activation networks; this model has "
      "preact=False. Use a variant such as 'BiT-R50x1'."
    )

  def conv(theirs, ours):
    yield f"{theirs}/standardized_conv2d/kernel", f"{ours}/kernel", SAME

  def norm(theirs, ours):
    yield f"{theirs}/group_norm/gamma", f"{ours}/scale", _VECTOR
    yield f"{theirs}/group_norm/beta", f"{ours}/bias", _VECTOR

  yield from conv("resnet/root_block", "root_block/conv_root")
  for s, units in enumerate(model.stages):
    for u in range(units):
      ours = f"block{s + 1}/unit{u + 1:02d}"
      theirs = f"resnet/{ours}"
      for i, letter in enumerate("abc"):
        yield from conv(f"{theirs}/{letter}", f"{ours}/conv{i + 1}")
        yield from norm(f"{theirs}/{letter}", f"{ours}/gn{i + 1}")
      yield from conv(f"{theirs}/a/proj", f"{ours}/conv_proj")
  yield from norm("resnet", "norm-pre-head")
  yield "resnet/head/conv2d/kernel", "head/kernel", _HEAD
  yield "resnet/head/conv2d/bias", "head/bias", SAME


def to_vitjax(flat: Flat, model) -> Flat:
  """Renames; some files number the convolutions."""
  flat = {
    re.sub(r"/standardized_conv2d_\d+/", "/standardized_conv2d/", name): x
    for name, x in flat.items()
  }
  return torch_tensors.to_vitjax(flat, _rows(model))


def from_vitjax(flat: Flat, model) -> Flat:
  """Inverse of `to_vitjax`."""
  return torch_tensors.from_vitjax(flat, _rows(model), NAME)
