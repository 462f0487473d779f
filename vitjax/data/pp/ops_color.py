"""Random changes of colours and sharpness, as torchvision and DeiT III do.

They follow the op that gives images one size: `inception_crop` and such.
"""

from collections.abc import Callable

import numpy as np

from vitjax.data.pp import pillow
from vitjax.data.pp.kinds import ChunkOp, random_image_op

_BLUR_RADIUS = (0.1, 2.0)
_SOLARIZE_THRESHOLD = 128

_RandomChange = Callable[[np.ndarray, np.random.Generator], np.ndarray]


def color_jitter(
  brightness: float,
  contrast: float,
  saturation: float,
  hue: float = 0,
  *,
  prob: float = 1.0,
  key: str = "image",
) -> ChunkOp:
  """Changes colours by random factors, in random order, as torchvision does.

  Args:
    brightness: factors are uniform in `1 - brightness .. 1 + brightness`, but
      not negative; 0 leaves it as it is.
    contrast: likewise.
    saturation: likewise.
    hue: hues turn by a uniform share of the circle in -hue..hue, at most 0.5.
    prob: probability that an image is changed.
    key: the feature; uint8 images of one size, with 1 or 3 channels. Grey ones
      have neither saturation nor hue.
  """
  change = _jitter(brightness, contrast, saturation, hue)
  return random_image_op("color_jitter", _with_prob(prob, change), key=key)


def _jitter(brightness, contrast, saturation, hue) -> _RandomChange:
  strengths = (brightness, contrast, saturation)
  if min(strengths) < 0 or not 0 <= hue <= 0.5:
    raise ValueError(
      "needs brightness, contrast and saturation >= 0, and hue in 0..0.5"
    )
  changes = (pillow.brightness, pillow.contrast, pillow.color)
  ranges: list[tuple[Callable, float, float]] = [
    (change, max(0, 1 - strength), 1 + strength)
    for change, strength in zip(changes, strengths)
    if strength
  ]
  if hue:
    ranges.append((pillow.hue, -hue, hue))

  def run(image, random) -> np.ndarray:
    for i in random.permutation(len(ranges)):
      change, low, high = ranges[i]
      image = change(image, random.uniform(low, high))
    return image

  return run


def grayscale(prob: float = 1.0, *, key: str = "image") -> ChunkOp:
  """Makes an image grey with probability `prob`, keeping its channels."""
  change = _with_prob(prob, lambda image, random: pillow.grayscale(image))
  return random_image_op("grayscale", change, key=key)


def gaussian_blur(prob: float = 1.0, *, key: str = "image") -> ChunkOp:
  """Blurs with probability `prob`, by a radius uniform in 0.1..2 pixels.

  The radius is the standard deviation of the Gaussian.
  """
  return random_image_op("gaussian_blur", _with_prob(prob, _blur), key=key)


def _blur(image, random) -> np.ndarray:
  return pillow.gaussian_blur(image, random.uniform(*_BLUR_RADIUS))


def _with_prob(prob: float, change: _RandomChange) -> _RandomChange:
  if not 0 <= prob <= 1:
    raise ValueError(f"prob must be in 0..1, it is {prob}")

  def run(image, random) -> np.ndarray:
    return change(image, random) if random.random() < prob else image

  return run


def three_augment(color_jitter: float = 0.3, *, key: str = "image") -> ChunkOp:
  """3-Augment of DeiT III, https://arxiv.org/abs/2204.07118, sec. 3.

  Exactly one of grayscale, solarize from 128 on, and Gaussian blur of radius
  0.1..2, with equal probability; then colour jitter.

  Args:
    color_jitter: of brightness, contrast and saturation; see `color_jitter`.
    key: the feature; uint8 images of one size, with 1 or 3 channels.
  """
  jitter = _jitter(color_jitter, color_jitter, color_jitter, 0)
  changes = (
    lambda image, random: pillow.grayscale(image),
    lambda image, random: pillow.solarize(image, _SOLARIZE_THRESHOLD),
    _blur,
  )

  def run(image, random) -> np.ndarray:
    change = changes[random.integers(len(changes))]
    return jitter(change(image, random), random)

  return random_image_op("three_augment", run, key=key)


OPS = {
  "color_jitter": color_jitter,
  "grayscale": grayscale,
  "gaussian_blur": gaussian_blur,
  "three_augment": three_augment,
}
