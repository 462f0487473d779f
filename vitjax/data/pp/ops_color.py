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
    brightness: strength of the change of brightness; the factor is uniform in
      1 - brightness .. 1 + brightness, but never negative. 0: no change.
    contrast: strength of the change of contrast, as for brightness.
    saturation: strength of the change of saturation, as for brightness.
    hue: largest shift of the hue, as a fraction of the colour circle, 0..0.5;
      the shift is uniform in -hue..hue.
    prob: probability of changing an image.
    key: feature with the image: uint8, all of one size, 1 or 3 channels. Grey
      images have neither saturation nor hue.
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
  """Makes an image grey with probability `prob`, keeping its channels.

  Args:
    prob: probability of changing an image.
    key: feature with the image: uint8, all of one size, 1 or 3 channels.
  """
  change = _with_prob(prob, lambda image, random: pillow.grayscale(image))
  return random_image_op("grayscale", change, key=key)


def gaussian_blur(prob: float = 1.0, *, key: str = "image") -> ChunkOp:
  """Blurs an image with probability `prob`.

  The standard deviation of the Gaussian is uniform in 0.1..2 pixels.

  Args:
    prob: probability of changing an image.
    key: feature with the image: uint8, all of one size, 1 or 3 channels.
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

  Applies one of three changes, each with probability 1/3: grayscale, solarize
  (values of 128 and more are inverted), or Gaussian blur of 0.1..2 pixels. Then
  applies colour jitter.

  Args:
    color_jitter: strength of the jitter of brightness, contrast and saturation;
      see the op `color_jitter`.
    key: feature with the image: uint8, all of one size, 1 or 3 channels.
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
