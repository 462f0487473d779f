"""Checks every image of a data set before a run.

Problems would stop a run: files that cannot be decoded, classes that train
lacks, missing files. Warnings may spoil its result: copies of an image in train
and val, or with two labels; tiny or narrow images; files and folders that are
ignored. Notes say what is done to images: photographs that are rotated. Images
are decoded as in training.
"""

import collections
import dataclasses
import functools
import hashlib
import io
import os
import pathlib
import time
from collections.abc import Callable, Sequence
from concurrent import futures

import numpy as np
from PIL import Image, TiffImagePlugin

from vitjax.config import messages
from vitjax.data import pipeline, sources
from vitjax.data.pp import builder, image_files, orientation
from vitjax.data.sources import captions, folder, labels, mixture, wds

TINY_PIXELS = 32
WIDE_RATIO = 5.0
# 16-bit files whose values need at most this many bits are not scaled to 16.
_FEW_BITS = 14
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
_BITS_PER_SAMPLE = 258  # The tag of TIFF.


@dataclasses.dataclass(frozen=True)
class Split:
  """One split.

  Attributes:
    examples: number of images.
    classes: number of images of each class, in the order of the labels; {} for
      captions and numbers.
    height, width: (least, median, greatest) pixels of the decoded images.
    colours: images by mode, such as "rgb" or "grey, 16 bit".
    rotated: number of images that are rotated by their EXIF orientation.
    targets: (least, median, greatest) of each target of a regression.
  """

  examples: int
  classes: dict[str, int]
  height: tuple[int, float, int] | None
  width: tuple[int, float, int] | None
  colours: dict[str, int]
  rotated: int
  targets: dict[str, tuple[float, float, float]]


@dataclasses.dataclass(frozen=True)
class Report:
  """What was found; `str` gives a table.

  Attributes:
    data: data set, as in `config.input.data`.
    splits: splits by name.
    problems: sentences about faults that stop a run.
    warnings: sentences about faults that may spoil its result.
    notes: sentences about changes of images.
    unreadable: file -> why.
    duplicates: groups of files with the same bytes.
    leaked: those groups that are in more than one split.
  """

  data: str
  splits: dict[str, Split]
  problems: tuple[str, ...]
  warnings: tuple[str, ...]
  notes: tuple[str, ...]
  unreadable: dict[str, str]
  duplicates: tuple[tuple[str, ...], ...]
  leaked: tuple[tuple[str, ...], ...]

  def __str__(self) -> str:
    lines = [self.data, ""]
    rows: list[tuple[str, ...]] = [
      ("split", "images", "height", "width", "colours")
    ]
    for name, split in self.splits.items():
      colours = "; ".join(f"{n} {k}" for k, n in split.colours.items())
      sizes = map(_range, (split.height, split.width))
      rows.append((name, str(split.examples), *sizes, colours))
    lines += _table(rows)
    if any(split.classes for split in self.splits.values()):
      lines += ["", *_table(self._class_rows())]
    if any(split.targets for split in self.splits.values()):
      lines += ["", *_table(self._target_rows())]
    for title, texts in (
      ("Errors, which stop a run:", self.problems),
      ("Warnings:", self.warnings),
      ("Notes:", self.notes),
    ):
      if texts:
        lines += ["", title, *(f"  {text}" for text in texts)]
    if not (self.problems or self.warnings):
      lines += ["", "Nothing is wrong."]
    return "\n".join(lines)

  def _target_rows(self) -> list[tuple[str, ...]]:
    """Least, median and greatest value of each target."""
    names = dict.fromkeys(x for s in self.splits.values() for x in s.targets)
    rows = [
      (name, *(_range(s.targets.get(name)) for s in self.splits.values()))
      for name in names
    ]
    return [("target", *self.splits), *rows]

  def _class_rows(self, most: int = 30) -> list[tuple[str, ...]]:
    """Images of each class, or of the smallest ones if there are many."""
    names = list(
      dict.fromkeys(c for split in self.splits.values() for c in split.classes)
    )

    def counts(name):
      return [split.classes.get(name, 0) for split in self.splits.values()]

    title = "class"
    if len(names) > most:
      title = f"smallest of {len(names)} classes"
      names = sorted(names, key=counts)[:most]
    rows = [(name, *map(str, counts(name))) for name in names]
    return [(title, *self.splits), *rows]


@dataclasses.dataclass(frozen=True)
class _File:
  path: pathlib.Path
  split: str
  class_name: str | None
  classes: tuple[str, ...]  # all that it has, of any number
  read: Callable[[], bytes]


@dataclasses.dataclass(frozen=True)
class _Found:
  """Content of a file.

  Attributes:
    digest: hash of its bytes.
    error: why it cannot be decoded; empty if it can.
    height, width: size of the upright image in pixels.
    colour: see `Split`.
    peak: greatest value of a 16-bit image; 0 for others.
    is_rotated: whether its EXIF orientation rotates it.
    has_frames: whether it has several frames or pages.
    is_transparent: whether some pixels are.
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


def check(
  data: str, *, pp: str = "decode", log: Callable[[str], None] = lambda x: None
) -> Report:
  """Reads and decodes all images of files, as `sources.open_source` names them.

  Args:
    data: data set, as in `config.input.data`.
    pp: op that decodes images, such as "decode(levels=(0, 4095))".
    log: called with a line of progress every ten seconds.

  Raises:
    ValueError: if `data` is of another kind, or nothing can be read at all.
  """
  data = sources.with_kind(data)
  listing = _listing(data)
  files, missing = _files(listing)
  remarks = list(listing.notes)
  problems = _problems(data, dict.fromkeys(file.split for file in files))
  found = _look_at(builder.build(pp), files, log)
  unreadable = {
    str(file.path): x.error for file, x in zip(files, found) if x.error
  }
  if unreadable:
    listed = [f"{name} ({why})" for name, why in unreadable.items()]
    problems.append(
      f"{len(listed)} image(s) cannot be decoded: {_listed(listed)}"
    )
  unreadable |= dict.fromkeys(missing, "does not exist")
  groups = collections.defaultdict(list)
  for file, x in zip(files, found):
    groups[x.digest].append(file)
  same = [group for group in groups.values() if len(group) > 1]
  leaked = [group for group in same if len({f.split for f in group}) > 1]
  good = [(f, x) for f, x in zip(files, found) if not x.error]
  classes = {name for file in files for name in file.classes}
  if len(classes) == 1:
    remarks.append(folder.one_class(classes))
  warnings = [*remarks, *_copies(same, leaked), *_odd_sizes(good)]
  if "levels" not in pp:
    warnings += _unused_bits(good)
  transparent = [str(f.path) for f, x in good if x.is_transparent]
  if transparent:
    warnings.append(
      f"{len(transparent)} image(s) with transparent pixels: transparency is "
      f"dropped, and the colours below it are used: {_listed(transparent)}"
    )
  return Report(
    data,
    {
      name: _split(
        [(f, x) for f, x in zip(files, found) if f.split == name],
        listing.targets.spreads([file.path for file in listing.splits[name]])
        if listing.targets
        else {},
      )
      for name in dict.fromkeys(file.split for file in files)
    },
    tuple(problems),
    tuple(warnings),
    (*_notes(good), *_unknown(listing, files)),
    unreadable,
    _names(same),
    _names(leaked),
  )


def _listing(data: str) -> folder.Listing:
  """The files of a data set."""
  kind = data.partition(":")[0]
  if kind == "mixture":
    parts = ", ".join(part for _, part in mixture.parse(data))
    raise ValueError(f"{data!r}: check each part of a mixture alone: {parts}.")
  kinds = {
    "folder": folder.read,
    "labels": labels.read,
    "wds": wds.read,
    "parquet": _read_parquet,
    "captions": lambda data: captions.read(data)[0],
  }
  read = kinds.get(kind)
  if read is None:
    path = f"./{data}"
    hint = (
      f" For the path {data}, write {path}." if os.path.exists(path) else ""
    )
    raise ValueError(
      f"{data!r} cannot be checked: write folder:/path, "
      "labels:/path/labels.csv, wds:/path/{000..099}.tar, "
      f"parquet:/path/*.parquet or captions:/path/captions.csv.{hint}"
    )
  return read(data)


def _files(listing: folder.Listing) -> tuple[list[_File], list[str]]:
  """The files of all splits, and missing paths."""

  def classes(file):
    if listing.targets and listing.targets.kind == "multi_label":
      return listing.targets.classes_of(file.path)
    return (file.class_name,) if file.class_name else ()

  files = [
    _File(
      listing.root / file.path,
      split,
      file.class_name or None,
      classes(file),
      functools.partial(file.read, listing.root),
    )
    for split, files in listing.splits.items()
    for file in files
  ]
  return files, [str(listing.root / file) for file in listing.missing]


def _unknown(listing: folder.Listing, files: Sequence[_File]) -> list[str]:
  """A note about images with unknown labels."""
  if listing.targets:
    count = sum(
      listing.targets.has_unknown(file.path)
      for files in listing.splits.values()
      for file in files
    )
  else:
    labelled = [file for file in files if file.class_name]
    count = len(files) - len(labelled) if labelled else 0
  return [f"{count:,} image(s) with an unknown label"] if count else []


def _read_parquet(data: str) -> folder.Listing:
  from vitjax.data.sources import parquet  # PyArrow takes half a second

  return parquet.read(data)


def _problems(data: str, splits) -> list[str]:
  """Errors of a run when it opens each split."""
  found = []
  for split in splits:
    try:
      sources.open_source(data, split)
    except ValueError as e:
      found.append(str(e))
  return list(dict.fromkeys(found))


def _look_at(decode, files: Sequence[_File], log) -> list[_Found]:
  start = shown = time.monotonic()
  found = []
  with futures.ThreadPoolExecutor() as pool:
    for x in pool.map(functools.partial(_look, decode), files):
      found.append(x)
      now = time.monotonic()
      if now - shown > _LOG_SECONDS:
        rate = len(found) / (now - start)
        log(f"{len(found)} of {len(files)} images, {rate:.0f} per second")
        shown = now
  return found


def _look(decode, file: _File) -> _Found:
  path = file.path
  try:
    data = file.read()
  except OSError as e:
    return _Found(str(path).encode(), e.strerror)
  digest = hashlib.sha256(data).digest()
  if not data:
    return _Found(str(path).encode(), "is empty")
  try:
    image = pipeline.run_once(decode, data)["image"]
  except ValueError as e:
    return _Found(digest, str(e))
  height, width, _ = image.shape
  return _Found(digest, None, height, width, **_facts(data))


def _facts(data: bytes) -> dict:
  """The other attributes of `_Found` for a file that can be decoded."""
  kind = image_files.kind_of(data)
  if kind == "NPY":
    values = np.load(io.BytesIO(data))
    return {"colour": f"{values.dtype}, {(*values.shape, 1)[2]} channel(s)"}
  with Image.open(io.BytesIO(data), formats=[kind]) as image:
    has_frames = getattr(image, "is_animated", False)
    mode = image.mode
    is_transparent = "transparency" in image.info or (
      mode in ("LA", "PA", "RGBA")
      and bool(np.asarray(image.getchannel("A")).min() < 255)
    )
    is_deep = mode[0] == "I" or (kind == "PNG" and data[24] == 16)
    if isinstance(image, TiffImagePlugin.TiffImageFile):
      is_deep |= max(image.tag_v2.get(_BITS_PER_SAMPLE, (1,))) == 16
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


def _split(
  rows: Sequence[tuple[_File, _Found]],
  targets: dict[str, tuple[float, float, float]],
) -> Split:
  good = [x for _, x in rows if not x.error]

  def spread(values):
    if not good:
      return None
    return min(values), float(np.median(values)), max(values)

  classes = collections.Counter(name for f, _ in rows for name in f.classes)
  return Split(
    examples=len(rows),
    classes={k: classes[k] for k in sorted(classes, key=folder.natural)},
    height=spread([x.height for x in good]),
    width=spread([x.width for x in good]),
    colours=dict(collections.Counter(x.colour for x in good).most_common()),
    rotated=sum(x.is_rotated for x in good),
    targets=targets,
  )


def _counted(texts: Sequence[str], what: str) -> list[str]:
  return [f"{len(texts)} {what}: {_listed(texts)}"] if texts else []


def _copies(same, leaked) -> list[str]:
  def joined(groups) -> list[str]:
    return [" = ".join(names) for names in _names(groups)]

  # The same images with different labels or splits.
  conflicts = [g for g in same if len({f.class_name for f in g}) > 1]
  others = [g for g in same if g not in leaked and g not in conflicts]
  return [
    *_counted(joined(leaked), "image(s) in more than one split"),
    *_counted(joined(conflicts), "image(s) with more than one label"),
    *_counted(joined(others), "image(s) more than once"),
  ]


def _odd_sizes(good: Sequence[tuple[_File, _Found]]) -> list[str]:
  def sized(fits: Callable[[_Found], bool]) -> list[str]:
    return [f"{f.path} ({x.height}x{x.width})" for f, x in good if fits(x)]

  narrow = sized(
    lambda x: max(x.height, x.width) > WIDE_RATIO * min(x.height, x.width)
  )
  tiny = sized(lambda x: min(x.height, x.width) < TINY_PIXELS)
  # A data set of small images, such as digits, is meant to be small.
  if len(tiny) > len(good) / 2:
    tiny = []
  return [
    *_counted(
      narrow, f"image(s) with a side more than {WIDE_RATIO:g} times the other"
    ),
    *_counted(tiny, f"image(s) with a side below {TINY_PIXELS} pixels"),
  ]


def _unused_bits(good: Sequence[tuple[_File, _Found]]) -> list[str]:
  """Images that `decode` makes dark, as it takes the upper 8 of 16 bits."""
  dark = [(f, x) for f, x in good if 0 < x.peak < 2**_FEW_BITS]
  if not dark:
    return []
  peak = max(x.peak for _, x in dark)
  levels = f"(0, {2 ** max(peak.bit_length(), 8) - 1})"
  listed = [f"{f.path} (up to {x.peak})" for f, x in dark]
  return [
    f"{len(dark)} image(s) of 16 bits use few of them, and become nearly "
    f"black: decode takes the upper 8 bits. Write decode(levels={levels}) in "
    f"input.pp and in each eval's pp: {_listed(listed)}"
  ]


def _notes(good: Sequence[tuple[_File, _Found]]) -> list[str]:
  rotated = [str(f.path) for f, x in good if x.is_rotated]
  frames = [str(f.path) for f, x in good if x.has_frames]
  return [
    *_counted(rotated, "image(s) are rotated by their EXIF orientation"),
    *_counted(
      frames, "image(s) with several frames or pages; only the first is used"
    ),
  ]


def _names(groups) -> tuple[tuple[str, ...], ...]:
  return tuple(tuple(str(f.path) for f in group) for group in groups)


def _listed(texts: Sequence[str]) -> str:
  return messages.shorten(texts, 5, between="; ")


def _range(values: tuple[float, float, float] | None) -> str:
  if values is None:
    return ""
  return " .. ".join(f"{x:g}" for x in values)


def _table(rows: Sequence[Sequence[str]]) -> list[str]:
  widths = [max(map(len, column)) for column in zip(*rows)]
  return [
    "  ".join(cell.ljust(w) for cell, w in zip(row, widths)).rstrip()
    for row in rows
  ]


if __name__ == "__main__":
  raise SystemExit(
    "vitjax.data.check is a library. To check: python -m vitjax.data check DATA"
  )
