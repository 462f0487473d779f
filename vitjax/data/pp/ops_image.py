"""Ops on one image: decoding, geometry, and the scaling of pixel values.

Images are uint8 [h, w, c] from decoding until they reach the accelerator: an
op that resamples rounds to the nearest integer. Where an op has a published
name (big_vision, vision_transformer) it has the published meaning, but for EXIF
orientation, which the published pipelines ignore.
"""

from collections.abc import Sequence

import cv2
import numpy as np

from vitjax.data import seeds
from vitjax.data.pp import image_files, pillow
from vitjax.data.pp.kinds import (
  AnyOp,
  DeviceOp,
  Features,
  Op,
  as_statistics,
  is_chunk,
)
from vitjax.data.tf import tf

# Mirrored pixels at each side of a simple random crop.
_MIRRORED = 4
_METHODS = ("bilinear", "nearest", "bicubic", "area", "lanczos3", "lanczos5")

# tf.data already runs many ops at once; OpenCV's own threads would compete.
cv2.setNumThreads(0)


def decode(
  channels: int = 3,
  *,
  orient: bool = True,
  levels: Sequence[float] | None = None,
  max_pixels: int = image_files.MAX_PIXELS,
  pages: bool = False,
  key: str = "image",
) -> AnyOp:
  """Decodes an image file; `image_files` has the formats and the rules.

  An image that is already an array is only converted to `channels`: grey is
  repeated for three channels, alpha is dropped.

  Args:
    channels: number of channels of the result. 1: grey; 3: RGB; any other
      number must be that of all files: 4 for RGBA, 2 for grey with alpha, any
      for TIFF and .npy files.
    orient: rotate photographs by their EXIF orientation.
    levels: (black, white): the values of 16-bit, 32-bit or float images that
      become 0 and 255, such as (0, 4095) for 12 bits in a 16-bit file. None:
      the upper 8 of 16 bits; 32-bit and float images are refused. 8-bit images
      are never changed.
    max_pixels: refuse images with more pixels than this.
    pages: take the pages of a TIFF file as channels, instead of the first page.
    key: feature with the image.
  """
  black_white = None
  if levels is not None:
    black, white = levels
    black_white = black, white
  decoder = image_files.Decoder(
    channels, orient, black_white, max_pixels, pages
  )

  def run(features: Features) -> Features:
    return {**features, key: _decode(features[key], decoder)}

  # Sources never give chunks of encoded images.
  return AnyOp(run)


def _decode(image: tf.Tensor, decoder: image_files.Decoder) -> tf.Tensor:
  if image.dtype != tf.string:
    return _with_channels(image, decoder.channels)
  return decoder(image)


def _with_channels(image: tf.Tensor, channels: int) -> tf.Tensor:
  if image.shape[-1] == channels:
    return image
  if image.shape[-1] == 1:
    return tf.repeat(image, channels, axis=-1)
  has_alpha = image.shape[-1] == 4
  if channels == 1 and (has_alpha or image.shape[-1] == 3):
    return tf.image.rgb_to_grayscale(image[..., :3])
  if channels == 3 and has_alpha:
    return image[..., :3]
  raise ValueError(
    f"decode(channels={channels}): images have {image.shape[-1]} channels. "
    f"Write decode(channels={image.shape[-1]})."
  )


def decode_jpeg_and_inception_crop(
  size: int | Sequence[int],
  area_min: float = 5,
  area_max: float = 100,
  aspect_ratio_range: Sequence[float] = (3 / 4, 4 / 3),
  *,
  method: str = "bilinear",
  orient: bool = True,
  max_pixels: int = image_files.MAX_PIXELS,
  key: str = "image",
) -> Op:
  """`decode|inception_crop(...)`, but decodes only the crop of a JPEG.

  Args:
    size: height and width of the result in pixels: one number, or (height,
      width).
    area_min: least area of the crop, in percent of the image.
    area_max: greatest area of the crop, in percent of the image.
    aspect_ratio_range: least and greatest width / height of the crop.
    method: interpolation, as in `inception_crop`.
    orient: rotate photographs by their EXIF orientation.
    max_pixels: refuse images with more pixels than this.
    key: feature with the image.
  """
  height, width = _height_width(size)
  _check_method(method, pillow.METHODS)
  box_of = _box_sampler(area_min, area_max, aspect_ratio_range)
  decoder = image_files.Decoder(orient=orient, max_pixels=max_pixels)

  def run(features: Features) -> Features:
    image, seed = features[key], features["seed"]
    if image.dtype == tf.string:
      image = decoder.crop(image, seed, box_of)
    else:
      image = _with_channels(image, 3)
      image = _crop(image, box_of(tf.shape(image), seed))
    return {**features, key: _resize_crop(image, height, width, method)}

  return run


def inception_crop(
  size: int | Sequence[int],
  area_min: float = 5,
  area_max: float = 100,
  aspect_ratio_range: Sequence[float] = (3 / 4, 4 / 3),
  *,
  method: str = "bilinear",
  key: str = "image",
) -> Op:
  """Crops a random part of the image and resizes it to `size`.

  Going deeper with convolutions, https://arxiv.org/abs/1409.4842, sec. 6.

  Args:
    size: height and width of the result in pixels: one number, or (height,
      width).
    area_min: least area of the crop, in percent of the image.
    area_max: greatest area of the crop, in percent of the image.
    aspect_ratio_range: least and greatest width / height of the crop.
    method: interpolation: "bilinear" without antialiasing (big_vision), or
      "bicubic" with antialiasing as in Pillow (DeiT, ConvNeXt, timm).
    key: feature with the image.
  """
  height, width = _height_width(size)
  _check_method(method, pillow.METHODS)
  box_of = _box_sampler(area_min, area_max, aspect_ratio_range)

  def run(features: Features) -> Features:
    image = features[key]
    box = box_of(tf.shape(image), features["seed"])
    image = _crop(image, box)
    return {**features, key: _resize_crop(image, height, width, method)}

  return run


def _box_sampler(area_min, area_max, aspect_ratio_range):
  if not 0 < area_min <= area_max <= 100:
    raise ValueError(
      "area_min and area_max are percentages, 0 < area_min <= area_max <= 100"
    )

  def box_of(shape: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
    """int32 [y, x, height, width]."""
    begin, size, _ = tf.image.stateless_sample_distorted_bounding_box(
      shape,
      tf.zeros([0, 0, 4], tf.float32),
      seed,
      min_object_covered=0.0,
      aspect_ratio_range=aspect_ratio_range,
      area_range=(area_min / 100, area_max / 100),
      use_image_if_no_bounding_boxes=True,
    )
    return tf.concat([begin[:2], size[:2]], axis=0)

  return box_of


def _crop(image: tf.Tensor, box: tf.Tensor) -> tf.Tensor:
  y, x, height, width = tf.unstack(box)
  return image[y : y + height, x : x + width]


def resize(
  size: int | Sequence[int],
  method: str = "bilinear",
  *,
  antialias: bool = False,
  key: str = "image",
) -> Op:
  """Resizes to exactly `size`, without keeping the aspect ratio.

  The default is bilinear without antialiasing, as published: shrinking an image
  by a large factor skips pixels.

  Args:
    size: height and width of the result in pixels: one number, or (height,
      width).
    method: interpolation of `tf.image.resize`: "bilinear", "nearest",
      "bicubic", "area", "lanczos3" or "lanczos5".
    antialias: when shrinking, average over all pixels instead of skipping some.
    key: feature with the image.
  """
  height, width = _height_width(size)
  _check_method(method)

  def run(features: Features) -> Features:
    image = _resize(features[key], height, width, method, antialias)
    return {**features, key: image}

  return run


def resize_small(
  smaller_size: int,
  method: str = "bilinear",
  *,
  antialias: bool = False,
  key: str = "image",
) -> Op:
  """Resizes so that the shorter side is `smaller_size` pixels.

  The longer side is rounded to the nearest pixel (half to even).

  Args:
    smaller_size: shorter side of the result in pixels.
    method: interpolation, as in `resize`.
    antialias: when shrinking, average over all pixels instead of skipping some.
    key: feature with the image.
  """
  _height_width(smaller_size)
  _check_method(method)

  def run(features: Features) -> Features:
    image = features[key]
    shape = tf.cast(tf.shape(image)[:2], tf.float64)
    ratio = smaller_size / tf.reduce_min(shape)
    size = tf.cast(tf.round(shape * ratio), tf.int32)
    image = _resize(image, size[0], size[1], method, antialias)
    return {**features, key: image}

  return run


def _resize(image, height, width, method, antialias):
  dtype = image.dtype
  image = tf.image.resize(image, (height, width), method, antialias=antialias)
  if dtype == tf.uint8:  # Bicubic and lanczos overshoot.
    image = tf.clip_by_value(tf.round(image), 0, 255)
  return tf.cast(image, dtype)


def _resize_crop(
  image: tf.Tensor, height: int, width: int, method: str
) -> tf.Tensor:
  """Resizes a random crop, several times as fast as `_resize`.

  OpenCV's weights are fixed-point numbers: bilinear values may be off by one
  level of 255, and bicubic values differ from Pillow's by a few levels. That
  does not matter for a random crop; evals resize as published.
  """

  def run(pixels: np.ndarray) -> np.ndarray:
    if method == "bicubic":
      resized = pillow.resize(pixels, height, width, method)
    else:
      resized = cv2.resize(pixels, (width, height))
    return resized.reshape(height, width, pixels.shape[-1])

  resized = tf.numpy_function(run, [image], tf.uint8, stateful=False)
  return tf.ensure_shape(resized, (height, width, image.shape[-1]))


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
  fixed = None if size is None else _height_width(size)

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
  height, width = _height_width(size)
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
  _height_width(size)

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
  height, width = _height_width(size)

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


def value_range(
  vmin: float = -1,
  vmax: float = 1,
  in_min: float = 0,
  in_max: float = 255,
  *,
  key: str = "image",
) -> DeviceOp:
  """Maps values linearly from [in_min, in_max] to [vmin, vmax], as float32.

  Runs on the accelerator, so it must follow every other op on the image.

  Args:
    vmin: result for `in_min`.
    vmax: result for `in_max`.
    in_min: value of a pixel that becomes `vmin`; 0 is black.
    in_max: value of a pixel that becomes `vmax`; 255 is white.
    key: feature with the image.
  """
  if not (vmin < vmax and in_min < in_max):
    raise ValueError("needs vmin < vmax and in_min < in_max")
  # (x - in_min) / (in_max - in_min) * (vmax - vmin) + vmin as (x - mean) / std.
  std = (in_max - in_min) / (vmax - vmin)
  return DeviceOp(key, (in_min - vmin * std,), (std,))


def normalize(
  mean: float | Sequence[float] = (0.485, 0.456, 0.406),
  std: float | Sequence[float] = (0.229, 0.224, 0.225),
  *,
  key: str = "image",
) -> DeviceOp:
  """Computes `(pixel / 255 - mean) / std`, as float32.

  Runs on the accelerator, so it must follow every other op on the image.

  Args:
    mean: mean of pixels in 0..1, one number or one for each channel; the
      default is ImageNet's.
    std: standard deviation of pixels in 0..1, likewise.
    key: feature with the image.
  """
  mean, std = as_statistics(mean), as_statistics(std)
  if max(map(abs, mean)) > 1 or max(std) > 1 or min(std) <= 0:
    raise ValueError(
      "mean and std are for values in 0..1; vgg_value_range takes those for "
      "values in 0..255"
    )
  return DeviceOp(
    key, tuple(m * 255 for m in mean), tuple(s * 255 for s in std)
  )


def vgg_value_range(
  mean: Sequence[float] = (0.485 * 255, 0.456 * 255, 0.406 * 255),
  std: Sequence[float] = (0.229 * 255, 0.224 * 255, 0.225 * 255),
  *,
  key: str = "image",
) -> DeviceOp:
  """Computes `(pixel - mean) / std`, as float32.

  Runs on the accelerator, so it must follow every other op on the image.

  Args:
    mean: mean of pixels in 0..255, one number for each channel; the default is
      ImageNet's.
    std: standard deviation of pixels in 0..255, likewise.
    key: feature with the image.
  """
  mean, std = as_statistics(mean), as_statistics(std)
  if min(std) <= 0:
    raise ValueError(f"std must be positive, it is {std}")
  return DeviceOp(key, mean, std)


def _height_width(size: int | Sequence[int]) -> tuple[int, int]:
  pair = (size, size) if isinstance(size, int) else tuple(size)
  if len(pair) != 2 or not all(isinstance(s, int) and s > 0 for s in pair):
    raise ValueError(
      f"a size is one positive integer or (height, width), not {size!r}"
    )
  return pair


def _check_method(method: str, methods: Sequence[str] = _METHODS) -> None:
  if method not in methods:
    raise ValueError(f"method {method!r} is none of {', '.join(methods)}")


def _at_least(shape, height, width, name):
  tf.debugging.assert_greater_equal(
    shape[-3:-1], [height, width], f"{name}: the image is smaller than the crop"
  )


OPS = {
  "decode": decode,
  "decode_jpeg_and_inception_crop": decode_jpeg_and_inception_crop,
  "inception_crop": inception_crop,
  "resize": resize,
  "resize_small": resize_small,
  "central_crop": central_crop,
  "random_crop": random_crop,
  "random_shift": random_shift,
  "simple_random_crop": simple_random_crop,
  "pad": pad,
  "flip_lr": flip_lr,
  "value_range": value_range,
  "normalize": normalize,
  "vgg_value_range": vgg_value_range,
}
