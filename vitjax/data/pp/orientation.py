"""EXIF orientation: which way up a photograph was taken.

A camera stores the pixels as its sensor lies, and a number in 1 .. 8 that says
how to turn them. As in Pillow, XMP counts where EXIF says nothing.
"""

import io
import struct

import numpy as np
from PIL import Image

_TAG = 0x0112
_PNG_SIGNATURE_BYTES = 8
# A stored image becomes upright by reversing its rows, reversing its columns
# and transposing it, in this order, where its orientation is among these.
ROWS, COLUMNS, TRANSPOSED = (3, 4, 6, 7), (2, 3, 7, 8), (5, 6, 7, 8)


def turn(image: np.ndarray, orientation: int) -> np.ndarray:
  """The upright image [h, w, c] of one that is stored in `orientation`."""
  if orientation in ROWS:
    image = image[::-1]
  if orientation in COLUMNS:
    image = image[:, ::-1]
  if orientation in TRANSPOSED:
    image = image.transpose(1, 0, 2)
  return np.ascontiguousarray(image)


def of_file(data: bytes, kind: str) -> int:
  """The orientation of a file of Pillow's format `kind`; 1 if it has none.

  Pillow reads the metadata, but of a PNG it decodes the pixels first, and of a
  JPEG it takes long. So these two are asked only if there are metadata.
  """
  has_metadata = {"JPEG": _jpeg_has_metadata, "PNG": _png_has_metadata}
  if kind in has_metadata and not has_metadata[kind](data):
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


def _jpeg_has_metadata(data: bytes) -> bool:
  at = 2
  # Segments are a marker, a length that includes itself, and content.
  while data[at : at + 1] == b"\xff" and data[at + 1 : at + 2] != b"\xda":
    if (
      data[at + 1 : at + 2] == b"\xff"
    ):  # There may be several before a marker.
      at += 1
      continue
    if data[at + 1 : at + 2] == b"\xe1":  # EXIF or XMP
      return True
    at += 2 + max(2, int.from_bytes(data[at + 2 : at + 4], "big"))
  return False


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
