"""Kinds of preprocessing ops: on one example, on a chunk, on the device.

An op maps a dict of features to a dict of features. A plain function works on
ONE example, on the host. `AnyOp` works on one example or on a chunk of them,
which have a leading axis; `ChunkOp` on chunks alone. Chunks need images of one
size. `DeviceOp` is arithmetic on the batch that has arrived on the
accelerator, so that images travel as uint8.

Random ops draw from `features["seed"]`, int32 [2] or [n, 2], and nothing else.
"""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from vitjax.data.tf import tf

Features = dict[str, tf.Tensor]
Op = Callable[[Features], Features]


@dataclasses.dataclass(frozen=True)
class AnyOp:
  """An op on one example or on a chunk: it counts axes from the last."""

  function: Op

  def __call__(self, features: Features) -> Features:
    return self.function(features)


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
    key: feature with the image.
    mean: mean of each channel, or one number for all channels.
    std: standard deviation of each channel, or one number; never zero.
  """

  key: str
  mean: tuple[float, ...]
  std: tuple[float, ...]

  def __call__(self, batch: Mapping[str, Any]) -> dict[str, Any]:
    image = batch[self.key].astype("float32")
    channels = image.shape[-1]
    if given := {len(self.mean), len(self.std)} - {1, channels}:
      raise ValueError(
        f"{self.key} has {channels} channels, but is normalised by "
        f"{max(given)} numbers: give one, or one for each channel. "
        "vitjax.data check DATA prints them."
      )
    shape = (1,) * (image.ndim - 1) + (-1,)
    mean = np.asarray(self.mean, np.float32).reshape(shape)
    std = np.asarray(self.std, np.float32).reshape(shape)
    return {**batch, self.key: (image - mean) / std}


def random_image_op(
  name: str,
  function: Callable[[np.ndarray, np.random.Generator], np.ndarray],
  *,
  key: str,
  channels: Sequence[int] = (1, 3),
) -> ChunkOp:
  """Makes an op on chunks from a function of one image, run on the host.

  Args:
    name: name of the op, for errors.
    function: maps a uint8 image and a generator, seeded by the example, to an
      image of the same shape: [h, w, 3], or [h, w] for images with one channel,
      as in OpenCV.
    key: feature with the image: uint8, all of one size.
    channels: numbers of channels that the op supports.
  """

  def on_chunk(images: np.ndarray, seeds: np.ndarray) -> np.ndarray:
    out = np.empty_like(images)
    places, images = (
      (out, images) if images.shape[-1] > 1 else (out[..., 0], images[..., 0])
    )
    # Make all before the first image, which evicts their code from the cache.
    generators = [
      np.random.Generator(np.random.PCG64(int(key)))
      for key in seeds.view(np.uint64)[:, 0]
    ]
    for place, image, random in zip(places, images, generators):
      place[...] = function(image, random)
    return out

  def run(features: Features) -> Features:
    image = features[key]
    if image.dtype != tf.uint8 or image.shape[-1] not in channels:
      counts = " or ".join({1: "one", 3: "three"}[n] for n in channels)
      raise ValueError(
        f"{name} needs uint8 images with {counts} channels, not "
        f"{image.dtype.name} {image.shape[1:]}; decode them first."
      )
    changed = tf.numpy_function(
      on_chunk, [image, features["seed"]], tf.uint8, stateful=False
    )
    return {**features, key: tf.ensure_shape(changed, image.shape)}

  return ChunkOp(run)


def is_chunk(features: Features) -> bool:
  """Whether the features have a leading axis of examples."""
  return features["seed"].shape.rank == 2


def as_statistics(values: float | Sequence[float]) -> tuple[float, ...]:
  """One number or one per channel, as a tuple."""
  if isinstance(values, (int, float)):
    return (float(values),)
  return tuple(float(value) for value in values)
