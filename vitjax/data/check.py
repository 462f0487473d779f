"""Looks at every image of a data set before a run does.

What would stop a run is a problem: files that cannot be decoded, classes that
train does not have, missing files. What a run would survive, and its result
perhaps not, is a warning: copies of an image in train and val, or with two
labels; tiny or narrow images. Images are decoded as in training.
"""

import collections
import dataclasses
import functools
import hashlib
import pathlib
import time
from collections.abc import Callable, Sequence
from concurrent import futures

import cv2
import numpy as np

from vitjax.config import messages
from vitjax.data import pipeline, sources
from vitjax.data.pp import builder
from vitjax.data.sources import captions, folder, labels
from vitjax.data.tf import tf

TINY_PIXELS = 32
WIDE_RATIO = 5.0
_COLOURS = {1: "grey", 2: "grey, alpha", 3: "rgb", 4: "rgb, alpha"}
_PNG_COLOURS = {0: "grey", 2: "rgb", 3: "palette", 4: "grey, alpha"}
_LOG_SECONDS = 10


@dataclasses.dataclass(frozen=True)
class Split:
  """One split.

  Attributes:
    examples: number of images.
    classes: images of each class, in the order of the labels; {} of captions.
    height, width: (least, median, greatest) pixels of what can be decoded.
    colours: images by mode, such as "rgb" or "grey, 16 bit".
  """

  examples: int
  classes: dict[str, int]
  height: tuple[int, float, int] | None
  width: tuple[int, float, int] | None
  colours: dict[str, int]


@dataclasses.dataclass(frozen=True)
class Report:
  """What was found; `str` gives a table.

  Attributes:
    data: as in `config.input.data`.
    splits: by name.
    problems: sentences about what would stop a run.
    warnings: sentences about what may spoil one.
    unreadable: file -> why.
    duplicates: groups of files with the same bytes.
    leaked: those groups that are in more than one split.
  """

  data: str
  splits: dict[str, Split]
  problems: tuple[str, ...]
  warnings: tuple[str, ...]
  unreadable: dict[str, str]
  duplicates: tuple[tuple[str, ...], ...]
  leaked: tuple[tuple[str, ...], ...]

  def __str__(self) -> str:
    lines = [self.data, ""]
    rows = [("split", "images", "height", "width", "colours")]
    for name, split in self.splits.items():
      colours = "; ".join(f"{n} {k}" for k, n in split.colours.items())
      sizes = map(_range, (split.height, split.width))
      rows.append((name, str(split.examples), *sizes, colours))
    lines += _table(rows)
    if any(split.classes for split in self.splits.values()):
      lines += ["", *_table(self._class_rows())]
    for title, texts in (
      ("Would stop a run:", self.problems),
      ("May spoil one:", self.warnings),
    ):
      if texts:
        lines += ["", title, *(f"  {text}" for text in texts)]
    if not (self.problems or self.warnings):
      lines += ["", "Nothing is wrong."]
    return "\n".join(lines)

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
    rows = [(title, *self.splits)]
    return rows + [(name, *map(str, counts(name))) for name in names]


@dataclasses.dataclass(frozen=True)
class _File:
  path: pathlib.Path
  split: str
  class_name: str | None


@dataclasses.dataclass(frozen=True)
class _Found:
  """What is in a file; `error` if it cannot be decoded."""

  digest: bytes
  error: str | None = None
  height: int = 0
  width: int = 0
  colour: str = ""


def check(data: str, *, log: Callable[[str], None] = lambda x: None) -> Report:
  """Reads and decodes all images of "folder:", "labels:" or "captions:".

  Args:
    data: as in `config.input.data`.
    log: called with a line of progress every ten seconds.

  Raises:
    ValueError: if `data` is of another kind, or nothing can be read at all.
  """
  files = _files(data)
  problems = _problems(data, dict.fromkeys(file.split for file in files))
  found = _look_at([file.path for file in files], log)
  unreadable = {
    str(file.path): x.error for file, x in zip(files, found) if x.error
  }
  if unreadable:
    listed = [f"{name} ({why})" for name, why in unreadable.items()]
    problems.append(f"{len(listed)} cannot be decoded: {_listed(listed)}")
  groups = collections.defaultdict(list)
  for file, x in zip(files, found):
    groups[x.digest].append(file)
  same = [group for group in groups.values() if len(group) > 1]
  leaked = [group for group in same if len({f.split for f in group}) > 1]
  return Report(
    data,
    {
      name: _split(
        [(f, x) for f, x in zip(files, found) if f.split == name],
      )
      for name in dict.fromkeys(file.split for file in files)
    },
    tuple(problems),
    tuple(_warnings(files, found, same, leaked)),
    unreadable,
    _names(same),
    _names(leaked),
  )


def _files(data: str) -> list[_File]:
  if data.startswith("captions:"):
    path, _, splits = captions.read(data)
    return [
      _File(path.parent / file, split, None)
      for split, files in splits.items()
      for file in files
    ]
  kinds = {"folder": folder.read, "labels": labels.read}
  read = kinds.get(data.partition(":")[0])
  if read is None:
    raise ValueError(
      f"{data!r} cannot be checked: write folder:/path, "
      "labels:/path/labels.csv or captions:/path/captions.csv."
    )
  root, splits = read(data)
  return [
    _File(root / file.path, split, file.class_name)
    for split, files in splits.items()
    for file in files
  ]


def _problems(data: str, splits) -> list[str]:
  """What a run would say when it opens each split."""
  found = []
  for split in splits:
    try:
      sources.open_source(data, split)
    except ValueError as e:
      found.append(str(e))
  return list(dict.fromkeys(found))


def _look_at(paths: Sequence[pathlib.Path], log) -> list[_Found]:
  decode = builder.build("decode")
  start = shown = time.monotonic()
  found = []
  with futures.ThreadPoolExecutor() as pool:
    for x in pool.map(functools.partial(_look, decode), paths):
      found.append(x)
      now = time.monotonic()
      if now - shown > _LOG_SECONDS:
        rate = len(found) / (now - start)
        log(f"{len(found)} of {len(paths)} images, {rate:.0f} in a second")
        shown = now
  return found


def _look(decode, path: pathlib.Path) -> _Found:
  try:
    data = path.read_bytes()
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
  return _Found(digest, None, height, width, _colour(data))


def _colour(data: bytes) -> str:
  """The mode of an image that can be decoded."""
  if data.startswith(b"\xff\xd8\xff"):
    channels = int(tf.image.extract_jpeg_shape(data)[2])
    return "cmyk" if channels == 4 else _COLOURS[channels]
  if data.startswith(b"\x89PNG"):
    depth, colour = data[24:26]
    colour = _PNG_COLOURS.get(colour, "rgb, alpha")
    return f"{colour}, 16 bit" if depth == 16 else colour
  if data.startswith(b"GIF"):
    return "palette"
  image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
  if image is None:
    return "other"
  colour = _COLOURS.get(1 if image.ndim == 2 else image.shape[2], "other")
  return colour if image.dtype == np.uint8 else f"{colour}, 16 bit"


def _split(rows: Sequence[tuple[_File, _Found]]) -> Split:
  good = [x for _, x in rows if not x.error]

  def spread(values):
    if not good:
      return None
    return min(values), float(np.median(values)), max(values)

  classes = collections.Counter(f.class_name for f, _ in rows if f.class_name)
  return Split(
    examples=len(rows),
    classes={k: classes[k] for k in sorted(classes, key=folder.natural)},
    height=spread([x.height for x in good]),
    width=spread([x.width for x in good]),
    colours=dict(collections.Counter(x.colour for x in good).most_common()),
  )


def _warnings(files, found, same, leaked) -> list[str]:
  lines = []

  def warn(texts: Sequence[str], what: str) -> None:
    if texts:
      lines.append(f"{len(texts)} {what}: {_listed(texts)}")

  def joined(groups) -> list[str]:
    return [" = ".join(names) for names in _names(groups)]

  warn(joined(leaked), "image(s) in more than one split")
  # The images are the same, what is said of them is not.
  conflicts = [g for g in same if len({f.class_name for f in g}) > 1]
  warn(joined(conflicts), "image(s) with more than one label")
  others = [g for g in same if g not in leaked and g not in conflicts]
  warn(joined(others), "image(s) more than once")
  good = [(f, x) for f, x in zip(files, found) if not x.error]
  warn(
    [
      f"{f.path} ({x.height}x{x.width})"
      for f, x in good
      if max(x.height, x.width) > WIDE_RATIO * min(x.height, x.width)
    ],
    f"image(s) with a side more than {WIDE_RATIO:g} times the other",
  )
  tiny = [
    f"{f.path} ({x.height}x{x.width})"
    for f, x in good
    if min(x.height, x.width) < TINY_PIXELS
  ]
  # A set of small images, such as digits, is meant to be one.
  if len(tiny) <= len(good) / 2:
    warn(tiny, f"image(s) with a side below {TINY_PIXELS} pixels")
  return lines


def _names(groups) -> tuple[tuple[str, ...], ...]:
  return tuple(tuple(str(f.path) for f in group) for group in groups)


def _listed(texts: Sequence[str]) -> str:
  return messages.shorten(texts, 5, between="; ")


def _range(values: tuple[int, float, int] | None) -> str:
  if values is None:
    return ""
  least, median, greatest = values
  return f"{least} .. {median:g} .. {greatest}"


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
