"""Ops that decode an image or resize it, and crops that are resized.

Images are uint8 [h, w, c] from decoding until they reach the accelerator: an
op that resamples rounds to the nearest integer. Where an op has a published
name (big_vision, vision_transformer) it has the published meaning, but for EXIF
orientation, which the published pipelines ignore.
"""

from collections.abc import Sequence

import cv2
import numpy as np

from vitjax.data.pp import image_files, pillow
from vitjax.data.pp.kinds import AnyOp, Features, Op
from vitjax.data.tf import tf

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
  height, width = height_width(size)
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
  height, width = height_width(size)
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
  height, width = height_width(size)
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
  height_width(smaller_size)
  _check_method(method)

  def run(features: Features) -> Features:
    image = features[key]
    shape = tf.cast(tf.shape(image)[:2], tf.float64)
    ratio = smaller_size / tf.reduce_min(shape)
    size = tf.cast(tf.round(shape * ratio), tf.int32)
    image = _resize(image, size[0], size[1], method, antialias)
    return {**features, key: image}

  return run


def naflex(max_patches: int, patch_size: int = 16, *, key: str = "image") -> Op:
  """Resizes to whole patches, keeping the aspect ratio, and makes a strip.

  SigLIP 2, https://arxiv.org/abs/2502.14786, sec. 2.4: the largest scale at
  which the image has at most `max_patches` patches; both sides are then rounded
  up to whole patches, so the aspect ratio changes by less than one. Bilinear
  with antialiasing. The strip has a header and the patches one below another,
  filled up with zeros to `max_patches`: `vitjax.models.naflex` has the format,
  and the model's option `naflex` reads it. No other op on the image may follow,
  except those that normalise.

  Args:
    max_patches: length of the sequence, up to 65,535.
    patch_size: side of the patches in pixels, at least 3; that of the model.
    key: feature with the image.
  """
  if type(max_patches) is not int or not 0 < max_patches < 1 << 16:
    raise ValueError(
      f"max_patches must be a whole number from 1 to 65535, not {max_patches!r}"
    )
  if type(patch_size) is not int or patch_size < 3:
    raise ValueError(
      "patch_size must be a whole number of pixels, at least 3, not "
      f"{patch_size!r}"
    )
  p = patch_size

  def run(features: Features) -> Features:
    image = features[key]
    channels = image.shape[-1]
    grid = _naflex_grid(tf.shape(image)[:2], max_patches, p)
    rows, columns = grid[0], grid[1]
    image = _resize(image, rows * p, columns * p, "bilinear", antialias=True)
    patches = tf.reshape(image, (rows, p, columns, p, channels))
    patches = tf.transpose(patches, (0, 2, 1, 3, 4))
    patches = tf.reshape(patches, (-1, p, channels))
    digits = tf.stack([grid // 256, grid % 256], axis=1)
    header = tf.concat([[0, 255], tf.reshape(digits, [-1])], axis=0)
    header = tf.pad(tf.cast(header, image.dtype), [[0, p * p - 6]])
    header = tf.repeat(tf.reshape(header, (p, p, 1)), channels, axis=-1)
    absent = (max_patches - rows * columns) * p
    strip = tf.concat([header, patches], axis=0)
    strip = tf.pad(strip, [[0, absent], [0, 0], [0, 0]])
    strip = tf.ensure_shape(strip, ((1 + max_patches) * p, p, channels))
    return {**features, key: strip}

  return run


def _naflex_grid(
  shape: tf.Tensor, max_patches: int, patch_size: int
) -> tf.Tensor:
  """int32 [rows, columns]: bisects the scale of the image, as published."""
  sides = tf.cast(shape, tf.float64)

  def grid_at(scale):
    return tf.maximum(tf.math.ceil(sides * scale / patch_size), 1)

  low, high = (tf.constant(x, tf.float64) for x in (1e-6, 100))
  for _ in range(24):  # until the interval is shorter than 1e-5
    scale = (low + high) / 2
    fits = tf.reduce_prod(grid_at(scale)) <= max_patches
    low, high = tf.where(fits, scale, low), tf.where(fits, high, scale)
  return tf.cast(grid_at(low), tf.int32)


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


def height_width(size: int | Sequence[int]) -> tuple[int, int]:
  """(height, width) of an op's `size`."""
  pair = (size, size) if isinstance(size, int) else tuple(size)
  if len(pair) != 2 or not all(isinstance(s, int) and s > 0 for s in pair):
    raise ValueError(
      f"a size is one positive integer or (height, width), not {size!r}"
    )
  return pair


def _check_method(method: str, methods: Sequence[str] = _METHODS) -> None:
  if method not in methods:
    raise ValueError(f"method {method!r} is none of {', '.join(methods)}")


OPS = {
  "decode": decode,
  "decode_jpeg_and_inception_crop": decode_jpeg_and_inception_crop,
  "inception_crop": inception_crop,
  "naflex": naflex,
  "resize": resize,
  "resize_small": resize_small,
}
