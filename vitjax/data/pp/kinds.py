"""What a preprocessing op is: the three kinds, and how ops get randomness.

An op maps a dict of features to a dict of features. Most ops are plain
functions of ONE example and run on the host. `ChunkOp` runs on the host on a
chunk of examples whose images have one size. `DeviceOp` is arithmetic on the
batch that has arrived on the accelerator, so that images travel as uint8.
"""

import dataclasses
from collections.abc import Callable, Sequence

import numpy as np
import tensorflow as tf

Features = dict[str, tf.Tensor]
Op = Callable[[Features], Features]

# Odd, so that multiples are distinct modulo 2**32 (the golden ratio's bits).
_GOLDEN = 0x9E3779B9


@dataclasses.dataclass(frozen=True)
class ChunkOp:
  """An op on a chunk: every feature has a leading axis of examples."""

  function: Op

  def __call__(self, features: Features) -> Features:
    return self.function(features)


@dataclasses.dataclass(frozen=True)
class DeviceOp:
  """`(image - mean) / std` in float32, with image values in 0..255.

  Attributes:
    key: the feature that it replaces.
    mean: one number per channel, or one for all channels.
    std: likewise; never zero.
  """

  key: str
  mean: tuple[float, ...]
  std: tuple[float, ...]

  def __call__(self, batch: dict) -> dict:
    image = batch[self.key].astype("float32")
    shape = (1,) * (image.ndim - 1) + (-1,)
    mean = np.asarray(self.mean, np.float32).reshape(shape)
    std = np.asarray(self.std, np.float32).reshape(shape)
    return {**batch, self.key: (image - mean) / std}


def fold_in(seed: tf.Tensor, position: int) -> tf.Tensor:
  """The seed of the op at `position`, from the seed of the example.

  The seeds of examples are hashed already, so an addition keeps them apart.

  Args:
    seed: int32 [2], or [n, 2] for a chunk.
    position: the op's place in the preprocessing string.

  Returns:
    int32, the same shape as `seed`.
  """
  offset = np.array([0, position * _GOLDEN & 0xFFFFFFFF], np.uint32)
  return seed + offset.view(np.int32)


def as_statistics(values: float | Sequence[float]) -> tuple[float, ...]:
  """One number or one per channel, as a tuple."""
  if isinstance(values, (int, float)):
    return (float(values),)
  return tuple(float(value) for value in values)
