"""Ops that crop an image to a fixed size, shift it, pad it or flip it."""

from collections.abc import Sequence

import cv2
import numpy as np

from vitjax.data import seeds
from vitjax.data.pp import pillow
from vitjax.data.pp.kinds import AnyOp, Features, Op, is_chunk
from vitjax.data.pp.ops_image import height_width
from vitjax.data.tf import tf

# Mirrored pixels at each side of a simple random crop.
_MIRRORED = 4


def central_crop(
  size: int | Sequence[int] | None = None, *, key: str = "image"
) -> AnyOp:
  """Crops the centre of the image.

  If the margin is odd, one more pixel is removed at the right and at the
  bottom, as published.

  Args:
    size: height and width of the crop in pixels: one number, or (height,
      width). None: the largest square.
    key: feature with the image.
  """
  fixed = None if size is None else height_width(size)

  def run(features: Features) -> Features:
    image = features[key]
    shape = tf.shape(image)
    if fixed is None:
      height = width = tf.minimum(shape[-3], shape[-2])
    else:
      height, width = fixed
      _at_least(shape, height, width, "central_crop")
    y, x = (shape[-3] - height) // 2, (shape[-2] - width) // 2
    image = image[..., y : y + height, x : x + width, :]
    if fixed is not None:
      image = _with_size(image, height, width)
    return {**features, key: image}

  return AnyOp(run)


def random_crop(
  size: int | Sequence[int], padding: int = 0, *, key: str = "image"
) -> AnyOp:
  """Crops `size` pixels at a uniformly random place.

  Args:
    size: height and width of the crop in pixels: one number, or (height,
      width).
    padding: black pixels to add at each side before the crop.
    key: feature with the image.
  """
  height, width = height_width(size)
  if padding < 0:
    raise ValueError(f"padding must not be negative, it is {padding}")

  def run(features: Features) -> Features:
    image = (
      _pad(features[key], [[padding] * 2] * 2, 0)
      if padding
      else (features[key])
    )
    image = _random_crop(image, height, width, features)
    return {**features, key: image}

  return AnyOp(run)


def _random_crop(image, height, width, features) -> tf.Tensor:
  seed, shape = features["seed"], tf.shape(image)
  _at_least(shape, height, width, "random_crop")
  y = seeds.integers(seed, shape[-3] - height + 1, draw=0)
  x = seeds.integers(seed, shape[-2] - width + 1, draw=1)
  if not is_chunk(features):
    image = image[y : y + height, x : x + width]
    return tf.ensure_shape(image, (height, width, None))
  crops = tf.numpy_function(
    lambda images, ys, xs: np.stack(
      [
        image[y : y + height, x : x + width]
        for image, y, x in zip(images, ys, xs)
      ]
    ),
    [image, y, x],
    image.dtype,
    stateful=False,
  )
  return tf.ensure_shape(
    crops, (image.shape[0], height, width, image.shape[-1])
  )


def simple_random_crop(size: int, *, key: str = "image") -> Op:
  """Resizes the shorter side to `size` and crops a random square.

  Simple Random Crop of DeiT III, https://arxiv.org/abs/2204.07118, sec. 3. The
  resize is bicubic with antialiasing as in Pillow; each side is then padded
  with four mirrored pixels, and the place of the crop is uniform.

  Args:
    size: side of the square in pixels.
    key: feature with the image.
  """
  height_width(size)

  def cut(pixels: np.ndarray, *place: float) -> np.ndarray:
    shorter = min(pixels.shape[:2])
    height, width = (size * side // shorter for side in pixels.shape[:2])
    resized = pillow.resize(pixels, height, width, "bicubic")
    padded = cv2.copyMakeBorder(
      resized, *(_MIRRORED,) * 4, cv2.BORDER_REFLECT_101
    )
    y, x = (
      int(fraction * (side + 2 * _MIRRORED - size + 1))
      for fraction, side in zip(place, (height, width))
    )
    crop = padded[y : y + size, x : x + size]
    return crop.reshape(size, size, pixels.shape[-1])

  def run(features: Features) -> Features:
    image, seed = features[key], features["seed"]
    crop = tf.numpy_function(
      cut,
      [image, seeds.uniform(seed, draw=0), seeds.uniform(seed, draw=1)],
      tf.uint8,
      stateful=False,
    )
    crop = tf.ensure_shape(crop, (size, size, image.shape[-1]))
    return {**features, key: crop}

  return run


def random_shift(pixels: int, *, key: str = "image") -> AnyOp:
  """Shifts the image by up to `pixels` in each direction; fills with black.

  For small images. The same as `random_crop(SIZE, padding=pixels)`.

  Args:
    pixels: largest shift in pixels.
    key: feature with the image.
  """
  if pixels < 0:
    raise ValueError(f"pixels must not be negative, it is {pixels}")

  def run(features: Features) -> Features:
    height, width, _ = features[key].shape[-3:]
    if height is None or width is None:
      raise ValueError(
        "random_shift needs images of one known size; resize them first."
      )
    return random_crop((height, width), pixels, key=key)(features)

  return AnyOp(run)


def pad(
  size: int | Sequence[int], value: int = 0, *, key: str = "image"
) -> AnyOp:
  """Pads the image to `size`, with the image in the centre.

  If the margin is odd, one more pixel is added at the right and at the bottom.

  Args:
    size: height and width of the result in pixels: one number, or (height,
      width). The image must not be larger.
    value: value of the added pixels, 0..255.
    key: feature with the image.
  """
  height, width = height_width(size)

  def run(features: Features) -> Features:
    image = features[key]
    margin = [height, width] - tf.shape(image)[-3:-1]
    tf.debugging.assert_non_negative(
      margin, f"pad({size}): the image is larger than that"
    )
    before = margin // 2
    image = _pad(image, tf.stack([before, margin - before], axis=1), value)
    image = _with_size(image, height, width)
    return {**features, key: image}

  return AnyOp(run)


def _pad(image: tf.Tensor, height_width, value: int) -> tf.Tensor:
  """Pads with [[above, below], [left, right]] pixels."""
  none = [[0, 0]]
  paddings = [none] * (image.shape.rank - 3) + [height_width, none]
  value = tf.cast(value, image.dtype)
  padded = tf.pad(image, tf.concat(paddings, axis=0), constant_values=value)
  shape = (*image.shape[:-3], None, None, image.shape[-1])
  return tf.ensure_shape(padded, shape)


def _with_size(image: tf.Tensor, height: int, width: int) -> tf.Tensor:
  leading, channels = image.shape[:-3], image.shape[-1]
  return tf.ensure_shape(image, (*leading, height, width, channels))


def flip_lr(*, key: str = "image") -> AnyOp:
  """Mirrors the image left to right with probability 1/2.

  Args:
    key: feature with the image.
  """

  def run(features: Features) -> Features:
    image = features[key]
    flip = seeds.uniform(features["seed"]) < 0.5
    if is_chunk(features):
      flipped = tf.numpy_function(
        _flip_some, [image, flip], image.dtype, stateful=False
      )
      image = tf.ensure_shape(flipped, image.shape)
    else:
      image = tf.cond(flip, lambda: tf.reverse(image, [1]), lambda: image)
    return {**features, key: image}

  return AnyOp(run)


def _flip_some(images: np.ndarray, flip: np.ndarray) -> np.ndarray:
  """Several times as fast as `tf.where`."""
  out = images.copy()
  for i in np.flatnonzero(flip):
    out[i] = cv2.flip(images[i], 1).reshape(images.shape[1:])
  return out


def _at_least(shape, height, width, name):
  tf.debugging.assert_greater_equal(
    shape[-3:-1], [height, width], f"{name}: the image is smaller than the crop"
  )


OPS = {
  "central_crop": central_crop,
  "random_crop": random_crop,
  "random_shift": random_shift,
  "simple_random_crop": simple_random_crop,
  "pad": pad,
  "flip_lr": flip_lr,
}
