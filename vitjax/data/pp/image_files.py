"""Decodes image files: the decoder, the orientation and the range of values.

JPEG and PNG are decoded by TensorFlow, which is fast and can decode a part of a
JPEG; all other formats by Pillow, TIFF files of many channels by tifffile, and
arrays by NumPy. The first bytes of a file tell its format. The rules are
Pillow's `convert("RGB")`: transparency and colour profiles are dropped, and of
several frames or pages the first is used.
"""

import dataclasses
import importlib.util
import io
import re
import struct
from collections.abc import Sequence

import cv2
import numpy as np
from absl import logging
from PIL import Image, UnidentifiedImageError

from vitjax.config import extras
from vitjax.data.pp import orientation, tiff
from vitjax.data.tf import tf

# Pillow refuses larger files, as a few kB may decode to gigabytes.
MAX_PIXELS = 178_956_970
_JPEG, _PNG = b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n"
_MAGICS = {
  b"GIF8": "GIF",
  b"BM": "BMP",
  b"II*\0": "TIFF",
  b"MM\0*": "TIFF",
  b"II+\0": "TIFF",
  b"MM\0+": "TIFF",
  b"RIFF": "WEBP",
  b"\x93NUMPY": "NPY",
}
_BRANDS = {b"avif": "AVIF", b"avis": "AVIF"} | dict.fromkeys(
  (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1"),
  "HEIF",
)
_READ = "JPEG, PNG, WebP, GIF, BMP, TIFF, AVIF, HEIC and .npy"


# How a JPEG starts: its marker, the JFIF header of 16 bytes, tables. Bytes that
# are zero in the mask are not compared.
_PLAIN = np.array([*b"\xff\xd8\xff\xe0\0\x10", *[0] * 14, 255, 219], np.uint8)
_PLAIN_MASK = np.array([255] * 6 + [0] * 14 + [255] * 2, np.uint8)


@dataclasses.dataclass(frozen=True)
class Decoder:
  """Decodes files, in graph mode or eagerly.

  Attributes:
    channels: channels of the result: 1, 3, or the number that all files have.
    orient: rotate images by their EXIF orientation.
    levels: values of black and white in images with more than 8 bits. None
      takes the upper 8 of 16 bits, and refuses 32 bits and floats.
    max_pixels: refuse larger images, before they are decoded.
    pages: take the pages of a TIFF as channels, instead of the first page.
  """

  channels: int = 3
  orient: bool = True
  levels: tuple[float, float] | None = None
  max_pixels: int = MAX_PIXELS
  pages: bool = False

  def __post_init__(self):
    if self.channels < 1:
      raise ValueError(f"channels must be positive, not {self.channels}")
    if self.levels is not None and not (
      isinstance(self.levels, Sequence)
      and len(self.levels) == 2
      and self.levels[0] < self.levels[1]
    ):
      raise ValueError(
        "levels are the values of black and white, such as (0, 4095), not "
        f"{self.levels!r}"
      )
    if self.max_pixels < 1:
      raise ValueError(f"max_pixels must be positive, not {self.max_pixels}")
    if Image.MAX_IMAGE_PIXELS and self.max_pixels > MAX_PIXELS:
      # Pillow has one limit per process, and refuses images of twice the limit.
      Image.MAX_IMAGE_PIXELS = max(
        Image.MAX_IMAGE_PIXELS, -(-self.max_pixels // 2)
      )

  @property
  def _too_many(self) -> str:
    return (
      f"has more pixels than max_pixels={self.max_pixels} allows. If you trust "
      "the file, allow more in the op that decodes, as decode(max_pixels=...)"
    )

  def __call__(self, data: tf.Tensor) -> tf.Tensor:
    """The whole image, uint8 [h, w, channels]."""

    def plain() -> tf.Tensor:
      with tf.control_dependencies([self._shape_of(data)]):
        return _decode_image(data, 3)

    def other() -> tf.Tensor:
      return tf.numpy_function(self.decode, [data], tf.uint8)

    if self.channels == 3:
      image = tf.cond(_is_plain_jpeg(data), plain, other)
    else:
      image = other()
    return tf.ensure_shape(image, (None, None, self.channels))

  def crop(self, data: tf.Tensor, seed: tf.Tensor, box_of) -> tf.Tensor:
    """A part of the image; of a JPEG no more than this part is decoded.

    Args:
      data: the file.
      seed: int32 [2].
      box_of: maps the [h, w, c] of the upright image and the seed to the part,
        int32 [y, x, height, width].
    """

    def plain() -> tf.Tensor:
      box = box_of(self._shape_of(data), seed)
      return tf.image.decode_and_crop_jpeg(data, box, channels=self.channels)

    def other() -> tf.Tensor:
      return tf.numpy_function(
        lambda data, seed: self._decode_part(_bytes(data), seed, box_of),
        [data, seed],
        tf.uint8,
      )

    image = tf.cond(_is_plain_jpeg(data), plain, other)
    return tf.ensure_shape(image, (None, None, self.channels))

  def _shape_of(self, data: tf.Tensor) -> tf.Tensor:
    """The [h, w, c] of a JPEG that is not too large; by few ops."""
    shape = tf.image.extract_jpeg_shape(data)
    height, width, _ = tf.unstack(shape)
    most = min(self.max_pixels, 2**31 - 1) // width
    check = tf.raw_ops.Assert(condition=height <= most, data=[self._too_many])
    with tf.control_dependencies([check] if check is not None else []):
      return tf.identity(shape)

  def decode(self, data: bytes | np.ndarray) -> np.ndarray:
    """The whole image, uint8 [h, w, channels], whatever the format.

    Raises:
      ValueError: if it cannot be decoded, or is too large.
    """
    data = _bytes(data)
    kind = kind_of(data)
    if not kind:
      raise ValueError(f"is not an image that can be read. Formats: {_READ}")
    try:
      if kind == "NPY":
        return self._from_values(self._read_array(data))
      if kind == "JPEG" and self.channels in (1, 3):
        return self._decode_jpeg(data)
      if kind == "PNG" and self.channels in (1, 3):
        width, height, depth = struct.unpack(">IIB", data[16:25].ljust(9))
        if self.levels is None or depth <= 8:
          self._check(height, width)
          return self._upright(_decode_image(data, self.channels), data, kind)
      return self._decode_with_pillow(data, kind)
    except ValueError:
      raise
    except Image.DecompressionBombError:
      raise ValueError(self._too_many) from None
    except UnidentifiedImageError:
      raise ValueError(
        f"starts like {kind}, but what follows is not {kind}"
      ) from None
    except Exception as e:  # Each decoder has errors of its own.
      # TensorFlow names its own op before the reason or behind it.
      reason = re.sub(r"{{.*?}} ?| ?\[Op:.*?\]", "", str(e))
      raise ValueError(f"{kind} that cannot be decoded: {reason}") from e

  def _decode_jpeg(self, data: bytes) -> np.ndarray:
    height, width, channels = _jpeg_shape(data)
    self._check(height, width)
    if channels == 4 and self.channels == 1:
      # TensorFlow converts CMYK to RGB, but not to grey.
      image = tf.image.rgb_to_grayscale(_decode_image(data, 3))
    else:
      image = _decode_image(data, self.channels)
    return self._upright(image, data, "JPEG")

  def _decode_part(self, data: bytes, seed: np.ndarray, box_of) -> np.ndarray:
    if kind_of(data) != "JPEG":
      image = self.decode(data)
      y, x, height, width = box_of(image.shape, seed).numpy()
      return image[y : y + height, x : x + width]
    height, width, channels = _jpeg_shape(data)
    self._check(height, width)
    found = orientation.of_file(data, "JPEG") if self.orient else 1
    shape = orientation.turned_shape((height, width, channels), found)
    box = box_of(tf.constant(shape), seed).numpy()
    part = tf.image.decode_and_crop_jpeg(
      data,
      orientation.stored_box(box, (height, width), found),
      channels=self.channels,
    )
    return orientation.turn(part.numpy(), found)

  def _upright(self, image: tf.Tensor, data: bytes, kind: str) -> np.ndarray:
    found = orientation.of_file(data, kind) if self.orient else 1
    return orientation.turn(image.numpy(), found)

  def _decode_with_pillow(self, data: bytes, kind: str) -> np.ndarray:
    if kind == "HEIF":
      _register_heif()
    if kind == "TIFF" and not tiff.is_for_pillow(
      data, self.channels, pages=self.pages
    ):
      return self._decode_samples(data)
    with Image.open(io.BytesIO(data), formats=[kind]) as image:
      self._check(image.height, image.width)
      if kind == "TIFF" and self.pages:
        self._check_channels(getattr(image, "n_frames", 1))
        found = orientation.take(image)
        pixels = self._from_values(tiff.stacked(image))
        return orientation.turn(pixels, found) if self.orient else pixels
      if getattr(image, "is_animated", False):
        logging.log_first_n(
          logging.WARNING,
          "Some images have several frames or pages; only the first is used.",
          1,
        )
      found = orientation.take(image)
      pixels = self._pixels(image, data)
    return orientation.turn(pixels, found) if self.orient else pixels

  def _decode_samples(self, data: bytes) -> np.ndarray:
    with tiff.open_pages(data, every=self.pages) as pages:
      for page in pages:
        self._check(page.imagelength, page.imagewidth)
      samples = [tiff.samples_of(page, self.channels) for page in pages]
      self._check_channels(sum(samples))
      pixels = self._from_values(tiff.values_of(pages, sum(samples)))
      found = tiff.orientation_of(pages[0]) if self.orient else 1
    return orientation.turn(pixels, found)

  def _pixels(self, image: Image.Image, data: bytes) -> np.ndarray:
    image.load()
    alpha = self.channels not in (1, 3)
    values = deep_values(
      image, data, colours=self.levels is not None, alpha=alpha
    )
    if values is None:
      mode = "L" if image.mode in ("1", "L", "LA") else "RGB"
      if alpha and image.mode in ("LA", "RGBA"):
        mode = image.mode
      values = np.asarray(image.convert(mode))
    return self._from_values(values)

  def _read_array(self, data: bytes) -> np.ndarray:
    try:
      values = np.load(io.BytesIO(data), allow_pickle=False)
    except Exception as e:
      raise ValueError(f"is an array that cannot be read: {e}") from e
    if values.ndim not in (2, 3) or values.dtype.kind not in "uif":
      raise ValueError(
        f"is an array {values.shape} of {values.dtype}, not (h, w) or (h, w, "
        "channels) of numbers"
      )
    self._check(*values.shape[:2])
    return values

  def _from_values(self, values: np.ndarray) -> np.ndarray:
    """uint8 [h, w, channels] of values of any type, [h, w] or [h, w, c]."""
    kind, size = values.dtype.kind, values.dtype.itemsize
    if kind == "f" and not np.isfinite(values).all():
      raise ValueError("has values that are not finite")
    if (kind, size) == ("u", 1):
      pixels = values
    elif self.levels is not None:
      black, white = self.levels
      scaled = (values.astype(np.float64) - black) * (255 / (white - black))
      pixels = np.rint(scaled.clip(0, 255)).astype(np.uint8)
    elif (kind, size) == ("u", 2):
      pixels = (values >> 8).astype(np.uint8)
    else:
      raise ValueError(
        f"has {values.dtype} values, here {values.min():g} .. "
        f"{values.max():g}: say which are black and white, such as "
        "decode(levels=(0, 1))"
      )
    if pixels.ndim == 2:
      pixels = pixels[..., None]
    self._check_channels(pixels.shape[2])
    if pixels.shape[2] == 3 and self.channels == 1:
      pixels = cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY)[..., None]
    if pixels.shape[2] == 1:
      pixels = np.repeat(pixels, self.channels, axis=2)
    return pixels

  def _check_channels(self, found: int) -> None:
    # Grey is repeated, and colours become grey.
    if found not in (1, self.channels) and (found, self.channels) != (3, 1):
      pages = ", pages=True" if self.pages else ""
      raise ValueError(
        f"has {found} channels, not {self.channels}: write "
        f"decode(channels={found}{pages}) if all images have as many"
      )

  def _check(self, height: int, width: int) -> None:
    if height * width > self.max_pixels:
      raise ValueError(self._too_many)


def kind_of(data: bytes) -> str:
  """Pillow's name of the format of a file, by its first bytes; or ""."""
  if data.startswith(_JPEG):
    return "JPEG"
  if data.startswith(_PNG):
    return "PNG"
  if data[4:8] == b"ftyp":
    return _BRANDS.get(data[8:12], "")
  return next((k for m, k in _MAGICS.items() if data.startswith(m)), "")


def _jpeg_shape(data: bytes) -> list[int]:
  return tf.image.extract_jpeg_shape(data).numpy().tolist()


def can_read_heif() -> bool:
  """Whether the plug-in for HEIC, the photographs of phones, is installed."""
  return importlib.util.find_spec("pillow_heif") is not None


def _register_heif() -> None:
  with extras.needed("heic", "HEIC images"):
    import pillow_heif

  pillow_heif.register_heif_opener()


def deep_values(
  image: Image.Image, data: bytes, *, colours: bool, alpha: bool = False
) -> np.ndarray | None:
  """Values of more than 8 bits, [h, w] or [h, w, c]; else None.

  Pillow keeps the upper 8 bits of colours, which is enough unless `colours`.
  Alpha is dropped unless `alpha`.
  """
  if image.mode.startswith("I;16"):
    return np.asarray(image).astype(np.uint16)
  if image.mode in ("I", "F"):
    return np.asarray(image)
  if not colours or image.format not in ("PNG", "TIFF"):
    return None
  flags = cv2.IMREAD_UNCHANGED | cv2.IMREAD_IGNORE_ORIENTATION
  values = cv2.imdecode(np.frombuffer(data, np.uint8), flags)
  if values is None or values.dtype == np.uint8:
    return None
  if values.ndim == 2:
    return values
  bands = image.getbands()
  if not alpha or len(bands) == values.shape[2] == 3:
    return values[..., 2::-1]
  # OpenCV has grey with alpha as BGRA.
  return values[..., [2, 3] if bands == ("L", "A") else [2, 1, 0, 3]]


def _decode_image(data: tf.Tensor, channels: int) -> tf.Tensor:
  return tf.io.decode_image(data, channels=channels, expand_animations=False)


def _is_plain_jpeg(data: tf.Tensor) -> tf.Tensor:
  """Whether the tables of a JPEG follow its JFIF header, as in most files.

  Metadata come before the tables, so there are none, and neither is an
  orientation. Told by few ops, as Python would take a tenth of the time of
  decoding.
  """
  start = tf.io.decode_raw(data, tf.uint8, fixed_length=len(_PLAIN))
  return tf.reduce_all((start & _PLAIN_MASK) == _PLAIN)


def _bytes(data: bytes | np.ndarray) -> bytes:
  # In eager mode, a string is an array.
  return data.item() if isinstance(data, np.ndarray) else data
