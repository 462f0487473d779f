"""EXIF orientation: which way up a photograph was taken.

A camera stores the pixels as its sensor lies, and a number in 1 .. 8 that says
how to turn them. As in Pillow, XMP counts where EXIF says nothing.
"""

import io
import struct
from collections.abc import Sequence

import numpy as np
from PIL import Image

_TAG = 0x0112
_PNG_SIGNATURE_BYTES = 8
# A stored image becomes upright by reversing its rows, reversing its columns
# and transposing it, in this order, where its orientation is among these.
_ROWS, _COLUMNS, _TRANSPOSED = (3, 4, 6, 7), (2, 3, 7, 8), (5, 6, 7, 8)


def turn(image: np.ndarray, orientation: int) -> np.ndarray:
  """The upright image [h, w, c] of one that is stored in `orientation`."""
  if orientation in _ROWS:
    image = image[::-1]
  if orientation in _COLUMNS:
    image = image[:, ::-1]
  if orientation in _TRANSPOSED:
    image = image.transpose(1, 0, 2)
  return np.ascontiguousarray(image)


def turned_shape(shape: Sequence[int], orientation: int) -> list[int]:
  """The [h, w, c] of the upright image."""
  height, width, channels = shape
  if orientation in _TRANSPOSED:
    height, width = width, height
  return [height, width, channels]


def stored_box(
  box: Sequence[int], shape: Sequence[int], orientation: int
) -> list[int]:
  """Where a part of the upright image is stored.

  Args:
    box: [y, x, height, width] in the upright image.
    shape: (h, w) as they are stored.
    orientation: of the image.
  """
  y, x, height, width = map(int, box)
  if orientation in _TRANSPOSED:
    y, x, height, width = x, y, width, height
  if orientation in _ROWS:
    y = shape[0] - y - height
  if orientation in _COLUMNS:
    x = shape[1] - x - width
  return [y, x, height, width]


def of_file(data: bytes, kind: str) -> int:
  """The orientation of a file of Pillow's format `kind`; 1 if it has none."""
  # Pillow decodes the pixels of a PNG before it reads metadata.
  if kind == "PNG" and not _png_has_metadata(data):
    return 1
  try:
    with Image.open(io.BytesIO(data), formats=[kind]) as image:
      return take(image)
  except Exception:  # The decoder of the pixels says what is wrong.
    return 1


def take(image: Image.Image) -> int:
  """The orientation of an image, which loses it: else Pillow turns a TIFF."""
  try:
    exif = image.getexif()
    orientation = exif.get(_TAG, 1)
    exif[_TAG] = 1
  except Exception:  # Damaged metadata say nothing.
    return 1
  return orientation if orientation in range(1, 9) else 1


def _png_has_metadata(data: bytes) -> bool:
  at = _PNG_SIGNATURE_BYTES
  # Chunks are a length, a name, content and a checksum.
  while at + 8 <= len(data):
    length, name = struct.unpack_from(">I4s", data, at)
    if name == b"eXIf" or (
      name in (b"iTXt", b"zTXt", b"tEXt")
      and data.startswith((b"XML:com.adobe.xmp", b"Raw profile"), at + 8)
    ):
      return True
    at += 12 + length
  return False
