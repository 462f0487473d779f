"""timm's `dm_nfnet_*`: a state dict.

timm adds 1e-5 to the variance of a kernel where DeepMind bounds it from
below. The difference is a factor for each output channel, which the gain
takes over, exactly and in both directions: logits are those of timm, given a
model with its GELU, gelu="erf". Gains differ a little from those of the
DeepMind file of the same name for this reason.
"""

from collections.abc import Collection, Iterator

import numpy as np

from vitjax.weights.layouts import torch_tensors
from vitjax.weights.layouts.torch_tensors import (
  CONV,
  LINEAR,
  LINEAR_1X1,
  SAME,
  Flat,
  Kind,
  Row,
)

NAME = "timm_nfnet"

_GAIN = Kind(lambda x: x.reshape(-1), lambda x: x.reshape(-1, 1, 1, 1))
facts = torch_tensors.timm_facts


def matches(names: Collection[str]) -> bool:
  """The gain of the first convolution of the stem."""
  return "stem.conv1.gain" in names


def _rows(model) -> Iterator[Row]:
  torch_tensors.require(model, "nfnet", NAME)

  def conv(theirs, ours):
    yield from torch_tensors.layer(theirs, ours, CONV)
    yield f"{theirs}.gain", f"{ours}/gain", _GAIN

  for i in range(4):
    yield from conv(f"stem.conv{i + 1}", f"stem_conv{i}")
  blocks = [
    (s, b) for s, depth in enumerate(model.depths) for b in range(depth)
  ]
  for i, (s, b) in enumerate(blocks):
    theirs, ours = f"stages.{s}.{b}", f"nf_block_{i}"
    for their_name, our_name in (
      ("conv1", "conv0"),
      ("conv2", "conv1"),
      ("conv2b", "conv1b"),
      ("conv3", "conv2"),
      ("downsample.conv", "conv_shortcut"),
    ):
      yield from conv(f"{theirs}.{their_name}", f"{ours}/{our_name}")
    for j in (0, 1):
      yield from torch_tensors.layer(
        f"{theirs}.attn_last.fc{j + 1}",
        f"{ours}/squeeze_excite/Dense_{j}",
        LINEAR_1X1,
      )
    yield f"{theirs}.skipinit_gain", f"{ours}/skip_gain", SAME
  yield from conv("final_conv", "final_conv")
  yield from torch_tensors.layer("head.fc", "head", LINEAR)


def _timm_over_ours(kernel: np.ndarray) -> np.ndarray:
  """Gain in timm over gain here of the same function, for (h, w, i, o)."""
  variance = kernel.astype(np.float64).var(axis=(0, 1, 2))
  fan_in = kernel[..., 0].size
  ours = np.sqrt(np.maximum(variance * fan_in, 1e-4))
  return np.sqrt((variance + 1e-5) * fan_in) / ours


def _correct_gains(flat: Flat, sign: int) -> Flat:
  flat = dict(flat)
  for name in flat:
    kernel = name.removesuffix("gain") + "kernel"
    if name.endswith("/gain") and kernel in flat:
      factor = _timm_over_ours(flat[kernel]) ** sign
      flat[name] = (flat[name] * factor).astype(np.float32)
  return flat


def to_vitjax(flat: Flat, model) -> Flat:
  """Renames, transposes and corrects the gains."""
  return _correct_gains(torch_tensors.to_vitjax(flat, _rows(model)), -1)


def from_vitjax(flat: Flat, model) -> Flat:
  """Inverse of `to_vitjax`, to the rounding of the gains."""
  flat = _correct_gains(flat, 1)
  return torch_tensors.from_vitjax(flat, _rows(model), NAME)
