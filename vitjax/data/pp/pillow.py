"""Pillow's operations on images, by OpenCV and several times as fast.

The recipes of DeiT, ConvNeXt and timm are defined by Pillow's results, so the
conventions are Pillow's: weights of grey, truncation, centres of pixels,
borders of images. Images are uint8 [h, w, 3], or [h, w] if grey.
"""

import functools
import math
from collections.abc import Sequence
from typing import Any

import cv2
import numpy as np

# OpenCV rounds where Pillow truncates. Adding this first makes it truncate,
# except for fractions so close to a whole number that float32 cannot resolve
# them.
TRUNCATE = -0.499

_LEVELS = np.arange(256, dtype=np.uint8)
_FILTERS = {"bilinear": cv2.INTER_LINEAR, "bicubic": cv2.INTER_CUBIC}
METHODS = tuple(_FILTERS)


def blend(first: np.ndarray, second: np.ndarray, factor: float) -> np.ndarray:
  """`first` at factor 0, `second` at 1, and beyond; truncated to uint8."""
  return cv2.addWeighted(first, 1 - factor, second, factor, TRUNCATE)


def map_channels(image: np.ndarray, tables: np.ndarray) -> np.ndarray:
  """Maps each channel by its table, [channels, 256], which is truncated."""
  return cv2.LUT(image, tables.T.astype(np.uint8)[None])


def autocontrast(image: np.ndarray) -> np.ndarray:
  """Stretches each channel to 0..255."""
  low, high = (x.astype(int)[:, None] for x in extremes(image))
  scale = 255 / np.maximum(high - low, 1)
  stretched = np.clip(np.trunc(_LEVELS * scale - low * scale), 0, 255)
  return map_channels(image, np.where(low < high, stretched, _LEVELS))


def extremes(image: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
  """The smallest and the largest value of each channel."""
  columns, channels = image.reshape(len(image), -1), _channels(image)
  return (
    columns.min(0).reshape(-1, channels).min(0),
    columns.max(0).reshape(-1, channels).max(0),
  )


def equalize(image: np.ndarray) -> np.ndarray:
  """Flattens the histogram of each channel."""
  histograms = np.stack(
    [
      cv2.calcHist([image], [channel], None, [256], [0, 256]).ravel()
      for channel in range(_channels(image))
    ]
  ).astype(int)
  upto = histograms.cumsum(1)
  pixels = upto[:, -1:]
  # Count of the largest value that occurs.
  last = np.take_along_axis(histograms, (upto < pixels).sum(1)[:, None], 1)
  step = (pixels - last) // 255
  mapped = (upto - histograms + step // 2) // np.maximum(step, 1)
  return map_channels(image, np.where(step, np.minimum(mapped, 255), _LEVELS))


def invert(image: np.ndarray) -> np.ndarray:
  return cv2.bitwise_not(image)


def posterize(image: np.ndarray, bits: int) -> np.ndarray:
  """Keeps the `bits` most significant bits of each value."""
  return image & np.uint8(0xFF << 8 - min(max(bits, 0), 8) & 0xFF)


def solarize(image: np.ndarray, threshold: int) -> np.ndarray:
  """Inverts values from `threshold` on."""
  _, flips = cv2.threshold(image, threshold - 1, 255, cv2.THRESH_BINARY)
  return cv2.bitwise_xor(image, flips)


def solarize_add(image: np.ndarray, addition: int) -> np.ndarray:
  """Brightens the darker half of the values."""
  _, added = cv2.threshold(image, 127, addition, cv2.THRESH_BINARY_INV)
  return cv2.add(image, added)


def grey(image: np.ndarray) -> np.ndarray:
  """[h, w] by the weights of ITU-R 601; may be off by one."""
  return cv2.cvtColor(image, cv2.COLOR_RGB2GRAY) if _colour(image) else image


def grayscale(image: np.ndarray) -> np.ndarray:
  """Grey, with as many channels as before."""
  if not _colour(image):
    return image
  return cv2.cvtColor(grey(image), cv2.COLOR_GRAY2RGB)


def color(image: np.ndarray, factor: float) -> np.ndarray:
  """Fades from grey at factor 0 to beyond the colours of the image."""
  if not _colour(image):
    return image
  return blend(grayscale(image), image, factor)


def contrast(image: np.ndarray, factor: float) -> np.ndarray:
  """Fades from the mean grey."""
  mean = int(cv2.mean(grey(image))[0] + 0.5)
  return blend(np.full_like(image, mean), image, factor)


def brightness(image: np.ndarray, factor: float) -> np.ndarray:
  """Fades from black."""
  return blend(np.zeros_like(image), image, factor)


def sharpness(image: np.ndarray, factor: float) -> np.ndarray:
  """Fades from a smoothed image; the border is not smoothed."""
  kernel = np.ones((3, 3), np.float32)
  kernel[1, 1] = 5
  smooth = cv2.filter2D(image, -1, kernel / 13)
  smooth[[0, -1]] = image[[0, -1]]
  smooth[:, [0, -1]] = image[:, [0, -1]]
  return blend(smooth, image, factor)


def hue(image: np.ndarray, turn: float) -> np.ndarray:
  """Turns hues by the fraction `turn` of the circle."""
  if not _colour(image):
    return image
  hsv = cv2.cvtColor(image, cv2.COLOR_RGB2HSV_FULL)
  hsv[..., 0] += np.uint8(int(turn * 255) % 256)
  return cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB_FULL)


def gaussian_blur(image: np.ndarray, radius: float) -> np.ndarray:
  """Blurs; `radius` is the standard deviation in pixels.

  Pillow approximates the Gaussian by three boxes.
  """
  return cv2.GaussianBlur(
    image, (0, 0), radius, borderType=cv2.BORDER_REPLICATE
  )


def rotate(
  image: np.ndarray, degrees: float, method: str, fill: int | tuple[int, ...]
) -> np.ndarray:
  """Turns counter-clockwise about the centre; for the rest see `affine`."""
  height, width = image.shape[:2]
  cos, sin = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
  x, y = width / 2, height / 2
  matrix = (
    (cos, -sin, x - cos * x + sin * y),
    (sin, cos, y - sin * x - cos * y),
  )
  return affine(image, matrix, method, fill)


def affine(
  image: np.ndarray,
  matrix: Sequence[Sequence[float]],
  method: str,
  fill: int | tuple[int, ...],
) -> np.ndarray:
  """Takes the pixel at (x, y) from `matrix @ (x, y, 1)`.

  Coordinates are those of edges: the centre of the first pixel is (0.5, 0.5).
  A pixel whose source is within the image never mixes with the fill.
  Bicubic differs a little: OpenCV's kernel overshoots less (a = -0.75, not -1).

  Args:
    image: uint8 [h, w, 3] or [h, w].
    matrix: two rows of three numbers.
    method: "bilinear" or "bicubic".
    fill: value of what comes from outside, one for all channels or for each.
  """
  height, width = image.shape[:2]
  (a, b, c), (d, e, f) = matrix
  # OpenCV counts from the centre of the first pixel.
  c, f = c + (a + b - 1) / 2, f + (d + e - 1) / 2
  warped = cv2.warpAffine(
    image,
    np.array([[a, b, c], [d, e, f]]),
    (width, height),
    flags=_FILTERS[method] | cv2.WARP_INVERSE_MAP,
    borderMode=cv2.BORDER_REPLICATE,
  )
  x, y = np.arange(width, dtype=np.float32), np.arange(height)[:, None]
  inside: Any = _within(a * x, b * y + c, width) & _within(
    d * x, e * y + f, height
  )
  return cv2.copyTo(_filled(image.shape, fill), cv2.bitwise_not(inside), warped)


def translate(
  image: np.ndarray,
  pixels: float,
  axis: int,
  method: str,
  fill: int | tuple[int, ...],
) -> np.ndarray:
  """Moves an image by `pixels` along an axis; see `affine`.

  Faster than a warp, and with Pillow's bicubic kernel: the same for all pixels.
  """
  size, whole = image.shape[axis], math.floor(pixels + 0.5)
  if abs(whole) >= size:
    return _filled(image.shape, fill).copy()
  x = np.abs(np.arange(-2, 3) - (pixels - whole))
  kernel = np.maximum(1 - x, 0) if method == "bilinear" else _cubic(x, -1)
  kernel = kernel[None] if axis == 1 else kernel[:, None]
  moved = cv2.filter2D(image, -1, kernel, borderType=cv2.BORDER_REPLICATE)
  out = _filled(image.shape, fill).copy()
  source = slice(max(0, whole), size + min(0, whole))
  target = slice(max(0, -whole), size + min(0, -whole))
  if axis == 1:
    out[:, target] = moved[:, source]
  else:
    out[target] = moved[source]
  return out


@functools.lru_cache(maxsize=8)
def _filled(shape: tuple[int, ...], fill: int | tuple[int, ...]) -> np.ndarray:
  """An image of one colour, cached as NumPy is slow; do not write to it."""
  return np.broadcast_to(np.array(fill, np.uint8), shape).copy()


def _within(along: np.ndarray, across: np.ndarray, limit: int) -> np.ndarray:
  """255 where a coordinate of the source lies in the image, else 0."""
  places = along + across.astype(np.float32)
  return cv2.inRange(places, -0.5, float(np.nextafter(limit - 0.5, 0)))


def resize(
  image: np.ndarray, height: int, width: int, method: str
) -> np.ndarray:
  """Resizes with antialiasing: `Image.resize` but for a few levels.

  An image that shrinks is first filtered by Pillow's kernel, which is as wide
  as the reduction needs. The rest has no detail to alias, and OpenCV
  interpolates it.
  """
  kernels = [
    _antialias_kernel(before / after, method)
    for before, after in zip(image.shape, (height, width))
  ]
  if max(len(kernel) for kernel in kernels) > 1:
    image = cv2.sepFilter2D(
      image, -1, kernels[1], kernels[0], borderType=cv2.BORDER_REPLICATE
    )
  return cv2.resize(image, (width, height), interpolation=_FILTERS[method])


@functools.lru_cache(maxsize=4096)
def _antialias_kernel(scale: float, method: str) -> np.ndarray:
  if scale <= 1:
    return np.ones(1, np.float32)
  support = 2 if method == "bicubic" else 1
  radius = math.ceil(support * scale) - 1
  x = np.abs(np.arange(-radius, radius + 1) / scale)
  kernel = 1 - x if method == "bilinear" else _cubic(x, -0.5)
  return (kernel / kernel.sum()).astype(np.float32)


def _cubic(x: np.ndarray, a: float) -> np.ndarray:
  """Keys' kernel at distances; Pillow resizes with a = -0.5, warps with -1."""
  near = ((a + 2) * x - (a + 3)) * x * x + 1
  far = a * (((x - 5) * x + 8) * x - 4)
  return np.where(x < 1, near, np.where(x < 2, far, 0))


def _colour(image: np.ndarray) -> bool:
  return image.ndim == 3


def _channels(image: np.ndarray) -> int:
  return image.shape[2] if _colour(image) else 1
