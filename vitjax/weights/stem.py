"""Adapts the first convolution of a model to another number of channels."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

RULES = ("sum", "repeat", "first")


def adapt(kernel: np.ndarray, channels: int, rule: str) -> np.ndarray:
  """A kernel [..., channels, width] of one with other channels.

  The rules, for a kernel of RGB:
    sum: each channel gets the sum over the old channels, divided by the number
      of new ones. An image whose channels are all alike gives what it gave
      before. For one channel it is timm's rule.
    repeat: the old channels over and over, RGBRGB..., times 3 / `channels`. For
      two and for more than three channels it is timm's rule.
    first: the first old channels; channels beyond those start at zero.

  Args:
    kernel: kernel of a convolution; its last axes are input and output.
    channels: number of channels of the images.
    rule: one of `RULES`.
  """
  old = kernel.shape[-2]
  if rule == "sum":
    mean = kernel.sum(axis=-2, keepdims=True) / channels
    return np.repeat(mean, channels, axis=-2)
  if rule == "repeat":
    places = np.arange(channels) % old
    return kernel[..., places, :] * np.float32(old / channels)
  if rule == "first":
    padding = [(0, 0)] * kernel.ndim
    padding[-2] = (0, max(0, channels - old))
    return np.pad(kernel[..., :channels, :], padding)
  raise ValueError(
    f"channel_rule={rule!r} is none of {', '.join(map(repr, RULES))}."
  )


def mismatched(
  found: Mapping[str, np.ndarray],
  expected: Mapping[str, Any],
  shapes_for,
) -> Sequence[str]:
  """Names of arrays that fit the model but for the channels of its images.

  Args:
    found: arrays by name.
    expected: shapes of the model's parameters by name.
    shapes_for: maps a number of channels to such shapes.
  """
  others = [
    name
    for name, x in found.items()
    if name in expected
    and x.ndim > 2
    and x.shape != expected[name].shape
    and x.shape[:-2] + x.shape[-1:]
    == expected[name].shape[:-2] + expected[name].shape[-1:]
  ]
  return [
    name
    for name in others
    if shapes_for(found[name].shape[-2])[name].shape == found[name].shape
  ]
