"""EXIF orientation: which way up a photograph was taken.

A camera stores the pixels in the direction of its sensor, and a number in 1..8
that says how to rotate or mirror them. As in Pillow, XMP counts if there is no
EXIF orientation.
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
    shape: (h, w) of the stored image.
    orientation: orientation of the image.
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
    # Opening a JPEG costs Pillow a third of the time of decoding a photograph.
    if kind == "JPEG" and (found := _of_jpeg(data)):
      return found
    with Image.open(io.BytesIO(data), formats=[kind]) as image:
      return take(image)
  except Exception:  # The decoder of the pixels says what is wrong.
    return 1


def take(image: Image.Image) -> int:
  """Reads and removes the orientation; otherwise Pillow would turn a TIFF."""
  try:
    exif = image.getexif()
    orientation = exif.get(_TAG, 1)
    exif[_TAG] = 1
  except Exception:  # Damaged metadata say nothing.
    return 1
  return orientation if orientation in range(1, 9) else 1


def _of_jpeg(data: bytes) -> int | None:
  """The orientation in the EXIF block of a JPEG.

  None if another block may have it, 1 if there is no such block.
  """
  at = 2
  blocks = []
  # A segment is any number of 0xff, a kind, and a length that includes itself.
  # Read segments until the tables of the image start.
  while data[at] == 0xFF and data[at + 1] in (*range(0xE0, 0xF0), 0xFE, 0xFF):
    if data[at + 1] == 0xFF:
      at += 1
      continue
    length = int.from_bytes(data[at + 2 : at + 4])
    if data[at + 1] == 0xE1:
      blocks.append(data[at + 4 : at + 2 + length])
    at += 2 + length
  for block in blocks:
    if block.startswith(b"Exif\0\0"):
      exif = Image.Exif()
      exif.load(block)
      found = exif.get(_TAG)
      return found if found in range(1, 9) else None
  return None if blocks else 1


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
