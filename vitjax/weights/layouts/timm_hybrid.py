"""timm's `vit_*_r_*`, `vit_*_r26_*` and `vit_*_r50_*`: a state dict.

A ViT as in the layout timm_vit, with a ResNet in `patch_embed.backbone`. timm
standardises its kernels with 1e-8 beside the variance, and this model with
1e-5 beside the deviation. Kernels are scaled for each output channel such
that both are the same, exactly and in both directions; a scale changes
nothing else, because it is standardised away.

Kernels that are read are about 100 times larger than those of Google's file
for this reason, which makes them learn slower. Fine-tune from Google's file.
"""

from collections.abc import Collection, Iterator

import numpy as np

from vitjax.weights.layouts import timm_vit, torch_tensors
from vitjax.weights.layouts.torch_tensors import CONV, Flat, Kind, Row

NAME = "timm_hybrid"
NEEDS_TABLE = True

_BACKBONE = "patch_embed.backbone."
_TIMM_EPS = 1e-8  # beside the variance
_EPS = 1e-5  # beside the deviation


def matches(names: Collection[str]) -> bool:
  """The root of the ResNet, which is deeper where stages follow."""
  roots = (f"{_BACKBONE}conv.weight", f"{_BACKBONE}stem.conv.weight")
  return any(root in names for root in roots)


def _scaled(kernel: np.ndarray, scale) -> np.ndarray:
  """`kernel` (h, w, i, o) times a function of its deviations (o,)."""
  deviation = kernel.astype(np.float64).std(axis=(0, 1, 2))
  return (kernel * scale(deviation)).astype(np.float32)


def _from_timm(deviation: np.ndarray) -> np.ndarray:
  ratio = deviation / np.sqrt(deviation**2 + _TIMM_EPS)
  return _EPS * ratio / ((1 - ratio) * deviation)


def _to_timm(deviation: np.ndarray) -> np.ndarray:
  return np.sqrt(_TIMM_EPS / (2 * _EPS * deviation + _EPS**2))


_STD_CONV = Kind(
  lambda w: _scaled(CONV.to_vitjax(w), _from_timm),
  lambda w: CONV.from_vitjax(_scaled(w, _to_timm)),
)


def _rows(model) -> Iterator[Row]:
  torch_tensors.require(model, "vit", NAME)
  if model.stem is None:
    raise ValueError(
      f"layout {NAME!r} holds hybrids; this model has stem=None. Use a "
      "variant such as 'R26+S/32', or the layout 'timm_vit'."
    )

  def conv_norm(theirs, ours, suffix, our_suffix):
    conv = f"{ours}conv{our_suffix}/kernel"
    yield f"{theirs}conv{suffix}.weight", conv, _STD_CONV
    yield from torch_tensors.norm(
      f"{theirs}norm{suffix}", f"{ours}gn{our_suffix}"
    )

  root = f"{_BACKBONE}stem." if model.stem else _BACKBONE
  yield from conv_norm(root, "", "", "_root")
  for s, units in enumerate(model.stem):
    for u in range(units):
      theirs = f"{_BACKBONE}stages.{s}.blocks.{u}."
      ours = f"block{s + 1}/unit{u + 1}/"
      for i in (1, 2, 3):
        yield from conv_norm(theirs, ours, i, i)
      yield from conv_norm(f"{theirs}downsample.", ours, "", "_proj")


def to_vitjax(flat: Flat, model) -> Flat:
  """The ResNet's names, and the rest as in timm_vit."""
  flat = torch_tensors.to_vitjax(flat, _rows(model))
  return timm_vit.to_vitjax(flat, model)


def from_vitjax(flat: Flat, model) -> Flat:
  """Inverse of `to_vitjax`, to the rounding of kernels that are scaled."""
  rows = list(_rows(model))
  names = {ours for _, ours, _ in rows}
  resnet = {name: x for name, x in flat.items() if name in names}
  vit = {name: x for name, x in flat.items() if name not in names}
  return {
    **torch_tensors.from_vitjax(resnet, rows, NAME),
    **timm_vit.from_vitjax(vit, model),
  }


facts = timm_vit.facts
