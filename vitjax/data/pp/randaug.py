"""RandAugment, https://arxiv.org/abs/1909.13719, on chunks of uint8 images.

The ops are those of AutoAugment's reference code in TensorFlow, which
big_vision and "How to train your ViT?" (https://arxiv.org/abs/2106.10270) use,
with all of its surprises:

* Every drawn op is applied, at the one magnitude given. Only the sign of
  geometric ops and the place of Cutout are random.
* Colours are scaled by `magnitude / 10 * 1.8 + 0.1`: always less than 1 below
  magnitude 5, always more above.
* Posterize keeps `magnitude / 10 * 4` bits: a lower magnitude changes more.
* Solarize inverts values from `magnitude / 10 * 256` modulo 256 upwards, as a
  uint8 wraps around in TensorFlow: at magnitudes 10 and 20 it inverts the whole
  image.
* Contrast fades to the constant `pixels / 256` (196 for 224 x 224), not to the
  mean grey: the reference divides the sum of a histogram by its bins.
* Translate moves by 100 pixels and Cutout greys 40 pixels to each side at
  magnitude 10, whatever the size of the image.
* Warps take the nearest pixel; pixels from outside the image are grey, 128.

Each warp looks its source pixels up in a map that is computed once, with the
reference's rounding.
"""

import functools
import math
from collections.abc import Callable

import cv2
import numpy as np

from vitjax.data.pp import pillow
from vitjax.data.pp.kinds import ChunkOp, random_image_op

_MAX_LEVEL = 10
_FILL = 128
_CUTOUT_CONST = 40
_TRANSLATE_CONST = 100
_GREY = np.array([0.2989, 0.5870, 0.1140], np.float32)
_LEVELS = np.arange(256, dtype=np.uint8)

# Image, magnitude and a random generator to image; all uint8 [h, w, 3].
_ImageOp = Callable[[np.ndarray, float, np.random.Generator], np.ndarray]


def randaug(
  num_layers: int = 2, magnitude: float = 10, *, key: str = "image"
) -> ChunkOp:
  """RandAugment: applies `num_layers` random changes to each image.

  https://arxiv.org/abs/1909.13719, as in big_vision. The changes are drawn
  uniformly, with replacement, from 16: contrast, colour, rotation and so on.

  Args:
    num_layers: number of changes per image.
    magnitude: strength of every change, 0..20. The paper's scale ends at 10;
      AugReg uses up to 20.
    key: feature with the image: uint8, all of one size, 3 channels.
  """
  most = 2 * _MAX_LEVEL  # posterize would keep more than 8 bits above
  if num_layers < 0 or not 0 <= magnitude <= most:
    raise ValueError(f"needs num_layers >= 0 and 0 <= magnitude <= {most}")

  def augment(image, random) -> np.ndarray:
    for op in random.integers(len(IMAGE_OPS), size=num_layers):
      image = IMAGE_OPS[op](image, magnitude, random)
    return image

  return random_image_op("randaug", augment, key=key, channels=(3,))


def autocontrast(image, magnitude, random) -> np.ndarray:
  """Stretches each channel to 0..255."""
  low, high = (x.astype(np.float32)[:, None] for x in pillow.extremes(image))
  scale = np.float32(255) / np.maximum(high - low, 1)
  stretched = np.clip(_LEVELS * scale - low * scale, 0, 255)
  return pillow.map_channels(image, np.where(low < high, stretched, _LEVELS))


def equalize(image, magnitude, random) -> np.ndarray:
  """Flattens the histogram of each channel, as PIL does."""
  return pillow.equalize(image)


def invert(image, magnitude, random) -> np.ndarray:
  return cv2.bitwise_not(image)


def rotate(image, magnitude, random) -> np.ndarray:
  """Turns by up to 30 degrees about the centre."""
  angle = _signed(magnitude / _MAX_LEVEL * 30, random)
  return _warp(image, "rotate", angle)


def posterize(image, magnitude, random) -> np.ndarray:
  return pillow.posterize(image, int(magnitude / _MAX_LEVEL * 4))


def solarize(image, magnitude, random) -> np.ndarray:
  return pillow.solarize(image, int(magnitude / _MAX_LEVEL * 256) % 256)


def solarize_add(image, magnitude, random) -> np.ndarray:
  return pillow.solarize_add(image, int(magnitude / _MAX_LEVEL * 110))


def color(image, magnitude, random) -> np.ndarray:
  """Fades from grey at factor 0 to beyond the colours of the image."""
  # TensorFlow converts to [0, 1], and back by truncating 255.5 times the value.
  weights = np.append(_GREY * (255.5 / 255), pillow.TRUNCATE).astype(np.float32)
  grey = cv2.transform(image, weights[None])
  grey = cv2.cvtColor(grey, cv2.COLOR_GRAY2RGB)
  return pillow.blend(grey, image, _factor(magnitude))


def contrast(image, magnitude, random) -> np.ndarray:
  pixels = image.shape[0] * image.shape[1]
  constant = np.full_like(image, min(pixels // 256, 255))
  return pillow.blend(constant, image, _factor(magnitude))


def brightness(image, magnitude, random) -> np.ndarray:
  return pillow.brightness(image, _factor(magnitude))


def sharpness(image, magnitude, random) -> np.ndarray:
  """Fades from a smoothed image; the border is not smoothed."""
  kernel = np.ones((3, 3), np.float32)
  kernel[1, 1] = 5
  smooth = cv2.filter2D(image, -1, kernel / 13, delta=pillow.TRUNCATE)
  smooth[[0, -1]] = image[[0, -1]]
  smooth[:, [0, -1]] = image[:, [0, -1]]
  return pillow.blend(smooth, image, _factor(magnitude))


def shear_x(image, magnitude, random) -> np.ndarray:
  level = _signed(magnitude / _MAX_LEVEL * 0.3, random)
  return _warp(image, "shear_x", level)


def shear_y(image, magnitude, random) -> np.ndarray:
  level = _signed(magnitude / _MAX_LEVEL * 0.3, random)
  return _warp(image, "shear_y", level)


def translate_x(image, magnitude, random) -> np.ndarray:
  pixels = _signed(magnitude / _MAX_LEVEL * _TRANSLATE_CONST, random)
  return _warp(image, "translate_x", pixels)


def translate_y(image, magnitude, random) -> np.ndarray:
  pixels = _signed(magnitude / _MAX_LEVEL * _TRANSLATE_CONST, random)
  return _warp(image, "translate_y", pixels)


def cutout(image, magnitude, random) -> np.ndarray:
  """Greys a square around a uniformly random centre."""
  half = int(magnitude / _MAX_LEVEL * _CUTOUT_CONST)
  height, width = image.shape[:2]
  y, x = random.integers(height), random.integers(width)
  out = image.copy()
  out[max(0, y - half) : y + half, max(0, x - half) : x + half] = _FILL
  return out


def _factor(magnitude: float) -> float:
  return magnitude / _MAX_LEVEL * 1.8 + 0.1


def _signed(value: float, random: np.random.Generator) -> float:
  return -value if random.random() < 0.5 else value


def _warp(image: np.ndarray, kind: str, amount: float) -> np.ndarray:
  height, width = image.shape[:2]
  # Each pixel is one 32-bit number; a grey one follows the image.
  pixels = np.full(height * width + 1, _FILL * 0x010101, np.uint32)
  padded = pixels[:-1].view(np.uint8).reshape(height, width, 4)
  cv2.cvtColor(image, cv2.COLOR_RGB2RGBA, padded)
  warped = pixels.take(_warp_map(height, width, kind, amount), mode="clip")
  warped = warped.view(np.uint8).reshape(height, width, 4)
  return cv2.cvtColor(warped, cv2.COLOR_RGBA2RGB)


# Enough for two signs of five ops, at a few sizes and magnitudes.
@functools.lru_cache(maxsize=64)
def _warp_map(
  height: int, width: int, kind: str, amount: float | np.float32
) -> np.ndarray:
  """[h * w]: the source of each pixel; `h * w` if outside of the image."""
  y, x = np.mgrid[:height, :width].astype(np.float32)
  amount = np.float32(amount)
  if kind == "shear_x":
    x = x + amount * y
  elif kind == "shear_y":
    y = y + amount * x
  elif kind == "translate_x":
    x = x + amount
  elif kind == "translate_y":
    y = y + amount
  else:
    radians = math.radians(amount)
    cos, sin = np.float32(math.cos(radians)), np.float32(math.sin(radians))
    x_centre, y_centre = (width - 1) / 2, (height - 1) / 2
    x, y = x - x_centre, y - y_centre
    x, y = cos * x - sin * y + x_centre, sin * x + cos * y + y_centre
  # Halves are rounded away from zero, as by C's round().
  x, y = (np.trunc(v + np.copysign(np.float32(0.5), v)) for v in (x, y))
  inside = (0 <= x) & (x < width) & (0 <= y) & (y < height)
  places = (y * width + x).astype(np.intp)
  return np.where(inside, places, height * width).ravel()


IMAGE_OPS: tuple[_ImageOp, ...] = (
  autocontrast,
  equalize,
  invert,
  rotate,
  posterize,
  solarize,
  color,
  contrast,
  brightness,
  sharpness,
  shear_x,
  shear_y,
  translate_x,
  translate_y,
  cutout,
  solarize_add,
)

OPS = {"randaug": randaug}
