"""TIFF files of any number of channels: samples per pixel, or pages.

Pillow reads grey and colours. It refuses other samples, drops those beyond the
colours, and mixes up 16-bit colours that are stored plane by plane: tifffile
reads these.
"""

import contextlib
import io
from collections.abc import Generator, Mapping, Sequence
from typing import Any

import numpy as np
from PIL import Image, TiffImagePlugin

from vitjax.config import extras

# Tags, and their values.
BITS, _KIND, ORIENTATION, _SAMPLES = 258, 262, 274, 277
_PLANES, _EXTRA, _FORMAT = 284, 338, 339
_GREY, _RGB = (0, 1), 2
_SEPARATE = 2
_ALPHA = (1, 2)
_UNSIGNED = 1
_BIG = 43  # Version of files with offsets of 64 bits.


def tags_of(data: bytes) -> Mapping[int, Any]:
  """The tags of the first page; {} if they are damaged."""
  try:
    header = data[:16] if _BIG in data[2:4] else data[:8]
    tags = TiffImagePlugin.ImageFileDirectory_v2(header)
    file = io.BytesIO(data)
    file.seek(tags.next)
    tags.load(file)
    return dict(tags)
  except Exception:  # The decoder of the pixels says what is wrong.
    return {}


def is_for_pillow(data: bytes, channels: int, *, pages: bool) -> bool:
  """Whether Pillow reads all samples that `channels` channels need."""
  tags = tags_of(data)
  samples = tags.get(_SAMPLES, 1)
  if samples == 1 or pages:
    return samples == 1
  kind, alpha = tags.get(_KIND), tags.get(_EXTRA, (0,))[0] in _ALPHA
  is_deep = max(tags.get(BITS, (1,))) > 8
  if set(tags.get(_FORMAT, (_UNSIGNED,))) != {_UNSIGNED}:
    return False
  if is_deep and (samples > 4 or tags.get(_PLANES) == _SEPARATE):
    return False
  colours = channels in (1, 3)
  if kind in _GREY:
    return samples == 2 and not is_deep and (colours or alpha)
  return colours or samples == 3 or (samples == 4 and alpha)


def many_samples(data: bytes) -> int:
  """Samples of a pixel, if Pillow does not read them all as colours; else 0."""
  return 0 if is_for_pillow(data, 3, pages=False) else tags_of(data)[_SAMPLES]


def stacked(image: Image.Image) -> np.ndarray:
  """The pages of an open file with one sample, [h, w, pages].

  Raises:
    ValueError: if they differ in size or type.
  """
  pages = []
  for number in range(getattr(image, "n_frames", 1)):
    image.seek(number)
    pages.append(np.asarray(image))
  return _joined(pages)


@contextlib.contextmanager
def open_pages(data: bytes, *, every: bool) -> Generator[Sequence[Any]]:
  """The first page of a file or every page, by tifffile."""
  with extras.needed("tiff", "TIFF images of many channels"):
    import tifffile

  with tifffile.TiffFile(io.BytesIO(data)) as file:
    yield list(file.pages) if every else [file.pages.first]


def samples_of(page, channels: int) -> int:
  """Samples to use: as in other files, 1 or 3 channels are without alpha."""
  if channels not in (1, 3):
    return page.samplesperpixel
  most = {_RGB: 3, **dict.fromkeys(_GREY, 1)}.get(page.photometric, 4)
  is_alpha = page.samplesperpixel == most + 1 or page.photometric == _RGB
  return most if is_alpha else page.samplesperpixel


def values_of(pages: Sequence[Any], samples: int) -> np.ndarray:
  """The values of some pages as they are stored, [h, w, c].

  Raises:
    ValueError: if the pages differ in size or type.
  """
  values = [page.asarray() for page in pages]
  return _joined(
    [
      np.moveaxis(x, 0, -1) if page.axes[0] == "S" else x
      for x, page in zip(values, pages)
    ]
  )[..., :samples]


def orientation_of(page) -> int:
  """The orientation of a page; 1 if it has none."""
  tag = page.tags.get(ORIENTATION)
  return tag.value if tag and tag.value in range(1, 9) else 1


def _joined(pages: Sequence[np.ndarray]) -> np.ndarray:
  kinds = {(page.shape[:2], page.dtype) for page in pages}
  if len(kinds) > 1:
    found = sorted(f"{h}x{w} of {dtype}" for (h, w), dtype in kinds)
    raise ValueError(
      f"has pages of different sizes or types, {' and '.join(found)}, which "
      "cannot be channels of one image. Leave out pages=True to use the first "
      "page"
    )
  return np.dstack(pages)
