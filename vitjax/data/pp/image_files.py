"""Image files to pixels: which decoder, which way up, which values.

JPEG and PNG are decoded by TensorFlow, which is fast and can decode a part of a
JPEG; all other formats by Pillow, and arrays by NumPy. The first bytes of a
file tell its format. The rules are Pillow's `convert("RGB")`: transparency and
colour profiles are dropped, and of several frames or pages the first is used.
"""

import dataclasses
import importlib.util
import io
import struct
from collections.abc import Callable, Sequence

import cv2
import numpy as np
from absl import logging
from PIL import Image, UnidentifiedImageError

from vitjax.data.pp import orientation
from vitjax.data.tf import tf

# Above this Pillow refuses to open a file, as a few kB may hold gigabytes.
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


@dataclasses.dataclass(frozen=True)
class Decoder:
  """Decodes files, in graph mode or eagerly.

  Attributes:
    channels: 1, 3, or as many as all files have.
    orient: turns images as their EXIF orientation says.
    levels: (black, white) of images with more than 8 bits. None takes the upper
      8 of 16 bits, and refuses 32 bits and floats.
    max_pixels: a larger image is refused before it is decoded.
  """

  channels: int = 3
  orient: bool = True
  levels: tuple[float, float] | None = None
  max_pixels: int = MAX_PIXELS

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
      # Pillow has one limit for a process, and refuses twice as many.
      Image.MAX_IMAGE_PIXELS = max(
        Image.MAX_IMAGE_PIXELS, -(-self.max_pixels // 2)
      )

  @property
  def _too_many(self) -> str:
    return (
      f"has more pixels than max_pixels={self.max_pixels} allows. If the file "
      "is to be trusted, set this option of the op that decodes"
    )

  def __call__(self, data: tf.Tensor) -> tf.Tensor:
    """The whole image, uint8 [h, w, channels]."""

    def other() -> tf.Tensor:
      return tf.numpy_function(self.without_tensorflow, [data], tf.uint8)

    if self.channels in (1, 3):
      image = tf.cond(
        _starts(data, _JPEG),
        lambda: self._upright(self._decode_jpeg(data), self._of_jpeg(data)),
        lambda: tf.cond(
          self._is_simple_png(data), lambda: self._decode_png(data), other
        ),
      )
    else:
      image = other()
    return tf.ensure_shape(image, (None, None, self.channels))

  def crop(
    self, data: tf.Tensor, box_of: Callable[[tf.Tensor], tf.Tensor]
  ) -> tf.Tensor:
    """A part of the image; of a JPEG no more than this part is decoded.

    Args:
      data: the file.
      box_of: maps the [h, w, c] of the upright image to the part, int32
        [y, x, height, width].
    """
    image = tf.cond(
      _starts(data, _JPEG),
      lambda: self._crop_jpeg(data, box_of),
      lambda: self._decode_then_crop(data, box_of),
    )
    return tf.ensure_shape(image, (None, None, self.channels))

  def _decode_jpeg(self, data: tf.Tensor) -> tf.Tensor:
    shape = self._checked(tf.image.extract_jpeg_shape(data))
    with tf.control_dependencies([shape]):
      # A JPEG with four inks can become RGB but not grey.
      if self.channels == 3:
        return _decode_image(data, 3)
      return tf.cond(
        shape[2] == 4,
        lambda: tf.image.rgb_to_grayscale(_decode_image(data, 3)),
        lambda: _decode_image(data, 1),
      )

  def _crop_jpeg(self, data: tf.Tensor, box_of) -> tf.Tensor:
    shape = self._checked(tf.image.extract_jpeg_shape(data))
    found = self._of_jpeg(data)

    def decode(box: tf.Tensor) -> tf.Tensor:
      return tf.image.decode_and_crop_jpeg(data, box, channels=self.channels)

    def turned() -> tf.Tensor:
      transposed = _is_in(found, orientation.TRANSPOSED)
      box = box_of(tf.where(transposed, tf.gather(shape, [1, 0, 2]), shape))
      y, x, height, width = tf.unstack(
        tf.where(transposed, tf.gather(box, [1, 0, 3, 2]), box)
      )
      y = tf.where(_is_in(found, orientation.ROWS), shape[0] - y - height, y)
      x = tf.where(_is_in(found, orientation.COLUMNS), shape[1] - x - width, x)
      return self._upright(decode(tf.stack([y, x, height, width])), found)

    return tf.cond(found == 1, lambda: decode(box_of(shape)), turned)

  def _decode_then_crop(self, data: tf.Tensor, box_of) -> tf.Tensor:
    image = self(data)
    return crop_box(image, box_of(tf.shape(image)))

  def _decode_png(self, data: tf.Tensor) -> tf.Tensor:
    def look(data) -> np.int32:
      data = _bytes(data)
      width, height = struct.unpack(">II", data[16:24].ljust(8, b"\0"))
      self._check(height, width)
      return np.int32(orientation.of_file(data, "PNG") if self.orient else 1)

    found = tf.numpy_function(look, [data], tf.int32)
    found = tf.ensure_shape(found, ())
    with tf.control_dependencies([found]):
      return self._upright(_decode_image(data, self.channels), found)

  def _is_simple_png(self, data: tf.Tensor) -> tf.Tensor:
    if self.levels is None:
      return _starts(data, _PNG)
    # The depth is in the header.
    return tf.cond(
      _starts(data, _PNG),
      lambda: tf.strings.substr(data, 24, 1) != b"\x10",
      lambda: False,
    )

  def without_tensorflow(self, data: bytes | np.ndarray) -> np.ndarray:
    """The whole image, uint8 [h, w, channels], whatever the format.

    Raises:
      ValueError: for any reason.
    """
    data = _bytes(data)
    kind = kind_of(data)
    if kind == "HEIF":
      _register_heif()
    elif kind is None:
      raise ValueError(f"is no image that can be read: {_READ} can")
    if kind == "NPY":
      return self._from_values(self._read_array(data))
    try:
      with Image.open(io.BytesIO(data), formats=[kind]) as image:
        self._check(image.height, image.width)
        if getattr(image, "is_animated", False):
          logging.log_first_n(
            logging.WARNING,
            "Of images with several frames or pages the first is used.",
            1,
          )
        found = orientation.take(image)
        pixels = self._pixels(image, data)
    except ValueError:
      raise
    except Image.DecompressionBombError:
      raise ValueError(self._too_many) from None
    except UnidentifiedImageError:
      raise ValueError(
        f"starts like {kind}, but what follows is not {kind}"
      ) from None
    except Exception as e:  # Each decoder has errors of its own.
      raise ValueError(f"{kind} that cannot be decoded: {e}") from e
    return orientation.turn(pixels, found) if self.orient else pixels

  def _pixels(self, image: Image.Image, data: bytes) -> np.ndarray:
    image.load()
    values = deep_values(image, data, colours=self.levels is not None)
    if values is None:
      mode = "L" if image.mode in ("1", "L", "LA") else "RGB"
      if self.channels not in (1, 3) and image.mode in ("LA", "RGBA"):
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
    if pixels.shape[2] == 3 and self.channels == 1:
      pixels = cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY)[..., None]
    if pixels.shape[2] == 1:
      pixels = np.repeat(pixels, self.channels, axis=2)
    if pixels.shape[2] != self.channels:
      raise ValueError(
        f"has {pixels.shape[2]} channels, not {self.channels}: write "
        f"decode(channels={pixels.shape[2]}) if all images have as many"
      )
    return pixels

  def _of_jpeg(self, data: tf.Tensor) -> tf.Tensor:
    """The orientation; Python is asked only where there may be one."""
    if not self.orient:
      return tf.constant(1)

    def ask() -> tf.Tensor:
      found = tf.numpy_function(
        lambda x: np.int32(orientation.of_file(_bytes(x), "JPEG")),
        [data],
        tf.int32,
      )
      return tf.ensure_shape(found, ())

    # All metadata come before the tables, and nothing but JFIF's header is
    # before the tables of most JPEGs.
    tables = b"\xff\xdb"
    plain = (tf.strings.substr(data, 2, 2) == tables) | (
      (tf.strings.substr(data, 2, 4) == b"\xff\xe0\0\x10")
      & (tf.strings.substr(data, 20, 2) == tables)
    )
    return tf.cond(plain, lambda: 1, ask)

  def _upright(self, image: tf.Tensor, found: tf.Tensor) -> tf.Tensor:
    if not self.orient:
      return image
    return tf.cond(
      found == 1,
      lambda: image,
      lambda: tf.numpy_function(
        orientation.turn, [image, found], tf.uint8, stateful=False
      ),
    )

  def _checked(self, shape: tf.Tensor) -> tf.Tensor:
    check = tf.debugging.assert_less_equal(
      tf.reduce_prod(tf.cast(shape[:2], tf.int64)),
      tf.constant(self.max_pixels, tf.int64),
      self._too_many,
    )
    with tf.control_dependencies([check] if check is not None else []):
      return tf.identity(shape)

  def _check(self, height: int, width: int) -> None:
    if height * width > self.max_pixels:
      raise ValueError(self._too_many)


def crop_box(image: tf.Tensor, box: tf.Tensor) -> tf.Tensor:
  """The part [y, x, height, width] of an image."""
  y, x, height, width = tf.unstack(box)
  return image[y : y + height, x : x + width]


def kind_of(data: bytes) -> str | None:
  """Pillow's name of the format of a file, by its first bytes."""
  if data.startswith(_JPEG):
    return "JPEG"
  if data.startswith(_PNG):
    return "PNG"
  if data[4:8] == b"ftyp":
    return _BRANDS.get(data[8:12])
  return next((k for m, k in _MAGICS.items() if data.startswith(m)), None)


def can_read_heif() -> bool:
  """Whether the plug-in for HEIC, the photographs of phones, is installed."""
  return importlib.util.find_spec("pillow_heif") is not None


def _register_heif() -> None:
  if not can_read_heif():
    raise ValueError(
      "is a HEIC image, which needs a plug-in: pip install pillow-heif. Or "
      "convert it to JPEG"
    )
  import pillow_heif

  pillow_heif.register_heif_opener()


def deep_values(
  image: Image.Image, data: bytes, *, colours: bool
) -> np.ndarray | None:
  """Values of more than 8 bits, [h, w] or [h, w, 3]; else None.

  Pillow keeps the upper 8 bits of colours, which is enough unless `colours`.
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
  return values if values.ndim == 2 else values[..., 2::-1]


def _decode_image(data: tf.Tensor, channels: int) -> tf.Tensor:
  return tf.io.decode_image(data, channels=channels, expand_animations=False)


def _starts(data: tf.Tensor, magic: bytes) -> tf.Tensor:
  return tf.strings.substr(data, 0, len(magic)) == magic


def _is_in(value: tf.Tensor, values: Sequence[int]) -> tf.Tensor:
  return tf.reduce_any(value == tf.constant(values))


def _bytes(data: bytes | np.ndarray) -> bytes:
  # Eagerly, a string comes as an array.
  return data.item() if isinstance(data, np.ndarray) else data
