"""Reads each image of a data set once and keeps a few facts about it."""

import dataclasses
import functools
import hashlib
import io
import time
from collections.abc import Sequence
from concurrent import futures
from typing import Any

import cv2
import numpy as np
from PIL import Image, TiffImagePlugin

from vitjax.data import pipeline
from vitjax.data.checking import near
from vitjax.data.pp import image_files, orientation, tiff

_COLOURS = {
  "1": "grey",
  "L": "grey",
  "LA": "grey, alpha",
  "P": "palette",
  "RGB": "rgb",
  "RGBA": "rgb, alpha",
  "CMYK": "cmyk",
  "F": "float",
}
_LOG_SECONDS = 10


@dataclasses.dataclass(frozen=True)
class Found:
  """Content of a file.

  Attributes:
    digest: hash of its bytes.
    error: why it cannot be decoded; empty if it can.
    height, width: size of the upright image in pixels.
    colour: see `report.Split`.
    peak: greatest value of a 16-bit image; 0 for others.
    is_rotated: whether its EXIF orientation rotates it.
    has_frames: whether it has several frames or pages.
    is_transparent: whether some pixels are.
    mean, square: mean of the values and of their squares, for each channel.
    likeness: what `near` compares; None if it was not asked for.
  """

  digest: bytes
  error: str | None = None
  height: int = 0
  width: int = 0
  colour: str = ""
  peak: int = 0
  is_rotated: bool = False
  has_frames: bool = False
  is_transparent: bool = False
  mean: tuple[float, ...] = ()
  square: tuple[float, ...] = ()
  likeness: near.Likeness | None = None


def look_at(
  decode, files: Sequence[Any], log, *, with_likeness: bool
) -> list[Found]:
  """The facts of each file, in order.

  Args:
    decode: preprocessing that decodes an image.
    files: the files, `copies.File`.
    log: called with a line of progress every ten seconds.
    with_likeness: whether to compute what finds near-duplicates.
  """
  start = shown = time.monotonic()
  look = functools.partial(_look, decode, with_likeness)
  # In this thread, as TensorFlow starts with the first image if a data set with
  # problems could not be opened.
  found = [look(file) for file in files[:1]]
  with futures.ThreadPoolExecutor() as pool:
    for x in pool.map(look, files[1:]):
      found.append(x)
      now = time.monotonic()
      if now - shown > _LOG_SECONDS:
        rate = len(found) / (now - start)
        log(f"{len(found)} of {len(files)} images, {rate:.0f} per second")
        shown = now
  return found


def _look(decode, with_likeness: bool, file: Any) -> Found:
  path = file.path
  try:
    data = file.read()
  except OSError as e:
    return Found(str(path).encode(), e.strerror)
  digest = hashlib.sha256(data).digest()
  if not data:
    return Found(str(path).encode(), "is empty")
  try:
    image = pipeline.run_once(decode, data)["image"]
  except ValueError as e:
    return Found(digest, str(e))
  height, width, channels = image.shape
  mean, deviation = (
    np.ravel(x) for x in cv2.meanStdDev(image.reshape(-1, 1, channels))
  )
  return Found(
    digest,
    None,
    height,
    width,
    **_facts(data),
    mean=tuple(mean),
    square=tuple(deviation**2 + mean**2),
    likeness=near.likeness(image) if with_likeness else None,
  )


def _facts(data: bytes) -> dict:
  """What the header of a file that can be decoded says."""
  kind = image_files.kind_of(data)
  if kind == "NPY":
    values = np.load(io.BytesIO(data))
    return {"colour": f"{values.dtype}, {(*values.shape, 1)[2]} channel(s)"}
  if kind == "TIFF" and (samples := tiff.many_samples(data)):
    return {
      "colour": f"{samples} samples",
      "is_rotated": tiff.tags_of(data).get(tiff.ORIENTATION, 1) > 1,
    }
  with Image.open(io.BytesIO(data), formats=[kind]) as image:
    has_frames = getattr(image, "is_animated", False)
    mode = image.mode
    is_transparent = "transparency" in image.info or (
      mode in ("LA", "PA", "RGBA")
      and bool(np.asarray(image.getchannel("A")).min() < 255)
    )
    is_deep = mode[0] == "I" or (kind == "PNG" and data[24] == 16)
    if isinstance(image, TiffImagePlugin.TiffImageFile):
      is_deep |= max(image.tag_v2.get(tiff.BITS, (1,))) == 16
    peak = 0
    if is_deep:
      values = image_files.deep_values(image, data, colours=True)
      peak = 0 if values is None else int(values.max())
  bits = 32 if mode == "I" else 16
  colour = "grey" if mode[0] == "I" else _COLOURS.get(mode, "other")
  return {
    "colour": f"{colour}, {bits} bit" if is_deep else colour,
    "peak": peak,
    "is_rotated": orientation.of_file(data, kind) > 1,
    "has_frames": has_frames,
    "is_transparent": is_transparent,
  }


def statistics(
  found: Sequence[Found],
) -> tuple[tuple[float, ...], tuple[float, ...]]:
  """Mean and standard deviation of each channel, of values in 0..1.

  Each image weighs the same, whatever its size.

  Args:
    found: images that can be decoded, all with the same channels.
  """
  mean = np.mean([x.mean for x in found], axis=0)
  variance = np.mean([x.square for x in found], axis=0) - mean**2
  deviation = np.sqrt(np.maximum(variance, 0))
  return tuple(map(float, mean / 255)), tuple(map(float, deviation / 255))
