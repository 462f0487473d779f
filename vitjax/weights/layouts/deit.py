"""The original DeiT III: timm's names but for those of LayerScale.

The files have their arrays under "model", which reading them takes off. The
first DeiT has no LayerScale and is read as `timm_vit`.
"""

import re
from collections.abc import Collection

from vitjax.weights.layouts import timm_vit
from vitjax.weights.layouts.torch_tensors import Flat

NAME = "deit"
NEEDS_TABLE = True


def matches(names: Collection[str]) -> bool:
  """Fused attention as in `timm_vit`, and a scale beside it."""
  return "blocks.0.gamma_1" in names and timm_vit.matches(names)


def to_vitjax(flat: Flat, model) -> Flat:
  """Like `timm_vit`."""
  renamed = {
    re.sub(r"^(blocks\.\d+)\.gamma_([12])$", r"\1.ls\2.gamma", name): x
    for name, x in flat.items()
  }
  return timm_vit.to_vitjax(renamed, model)


def from_vitjax(flat: Flat, model) -> Flat:
  """Inverse of `to_vitjax`."""
  return {
    re.sub(r"^(blocks\.\d+)\.ls([12])\.gamma$", r"\1.gamma_\2", name): x
    for name, x in timm_vit.from_vitjax(flat, model).items()
  }
