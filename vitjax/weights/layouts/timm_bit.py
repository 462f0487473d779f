"""timm's `resnetv2_*_bit`: a state dict.

timm standardises weights with 1e-8 beside the variance, BiT with 1e-10. A
model with std_eps=1e-8, as those of timm's names are published here, takes
the kernels as they are. For another epsilon they are scaled, which gives the
same logits exactly.
"""

from collections.abc import Collection, Iterator

import numpy as np

from vitjax.weights.layouts import torch_tensors
from vitjax.weights.layouts.torch_tensors import (
  CONV,
  LINEAR_1X1,
  Flat,
  Kind,
  Row,
)

NAME = "timm_bit"
facts = torch_tensors.timm_facts


def matches(names: Collection[str]) -> bool:
  """The root, and the third norm of the first unit."""
  return {"stem.conv.weight", "stages.0.blocks.0.norm3.weight"} <= set(names)


def _rows(model) -> Iterator[Row]:
  torch_tensors.require(model, "resnet", NAME)
  if not model.preact:
    raise ValueError(
      f"layout {NAME!r} holds pre-activation networks; this model has "
      "preact=False. Use a variant such as 'BiT-R50x1'."
    )
  scale = np.sqrt(model.std_eps / 1e-8)
  kind = Kind(
    lambda w: (CONV.to_vitjax(w) * scale).astype(np.float32),
    lambda w: (CONV.from_vitjax(w) / scale).astype(np.float32),
  )

  def conv(theirs, ours):
    yield f"{theirs}.weight", f"{ours}/kernel", kind

  yield from conv("stem.conv", "root_block/conv_root")
  for s, units in enumerate(model.stages):
    for u in range(units):
      theirs = f"stages.{s}.blocks.{u}"
      ours = f"block{s + 1}/unit{u + 1:02d}"
      for i in (1, 2, 3):
        yield from conv(f"{theirs}.conv{i}", f"{ours}/conv{i}")
        yield from torch_tensors.norm(f"{theirs}.norm{i}", f"{ours}/gn{i}")
      yield from conv(f"{theirs}.downsample.conv", f"{ours}/conv_proj")
  yield from torch_tensors.norm("norm", "norm-pre-head")
  yield from torch_tensors.layer("head.fc", "head", LINEAR_1X1)


def to_vitjax(flat: Flat, model) -> Flat:
  """Renames, transposes and, unless the epsilons agree, scales kernels."""
  return torch_tensors.to_vitjax(flat, _rows(model))


def from_vitjax(flat: Flat, model) -> Flat:
  """Inverse of `to_vitjax`, to the rounding of kernels that are scaled."""
  return torch_tensors.from_vitjax(flat, _rows(model), NAME)
