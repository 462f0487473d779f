"""BiT and the ResNet baseline under big_vision's names, which are ours.

The prefix is `params/`, `opt/target/` or none. Older files keep scale and
bias of group norms as (1, 1, 1, c).
"""

from collections.abc import Collection

from vitjax.weights import npz
from vitjax.weights.layouts import torch_tensors
from vitjax.weights.layouts.torch_tensors import Flat

NAME = "bit"


def matches(names: Collection[str]) -> bool:
  """The root of a ResNet without a transformer behind it."""
  names = list(npz.strip_prefix(dict.fromkeys(names)))
  roots = ("conv_root/kernel", "root_block/conv_root/kernel")
  return (
    any(root in names for root in roots) and "embedding/kernel" not in names
  )


def to_vitjax(flat: Flat, model) -> Flat:
  """Flattens the parameters of group norms."""
  torch_tensors.require(model, "resnet", NAME)
  return flatten_group_norms(npz.strip_prefix(flat))


def flatten_group_norms(flat: Flat) -> Flat:
  """Scale and bias (1, 1, 1, c) to (c,); also in the stems of hybrids."""
  return {
    name: x.reshape(-1) if x.shape[:-1] == (1, 1, 1) and _is_norm(name) else x
    for name, x in flat.items()
  }


def _is_norm(name: str) -> bool:
  parent, _, leaf = name.rpartition("/")
  module = parent.rpartition("/")[2]
  return leaf in ("scale", "bias") and module.startswith(("gn", "norm"))


def from_vitjax(flat: Flat, model) -> Flat:
  """Our names under `params/`, (1, 1, 1, c) where big_vision has it."""
  torch_tensors.require(model, "resnet", NAME)
  return {
    f"params/{name}": (
      x.reshape(1, 1, 1, -1) if model.preact and _is_norm(name) else x
    )
    for name, x in flat.items()
  }
