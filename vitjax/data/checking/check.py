"""Checks every image of a data set before a run.

Problems would stop a run: files that cannot be decoded, classes that train
lacks, missing files. Warnings may spoil its result: copies of an image in train
and val, or with two labels; tiny or narrow images; files and folders that are
ignored. Notes say what is done to images: photographs that are rotated. Images
are decoded as in training.
"""

import collections
import functools
import os
from collections.abc import Callable, Sequence

import numpy as np

from vitjax.config import messages
from vitjax.data import sources
from vitjax.data.checking import copies, images, near, suspects
from vitjax.data.checking.copies import File
from vitjax.data.checking.images import Found
from vitjax.data.checking.report import Report, Split
from vitjax.data.pp import builder
from vitjax.data.sources import (
  captions,
  folder,
  labels,
  mixture,
  unlabelled,
  wds,
)

TINY_PIXELS = 32
WIDE_RATIO = 5.0
# 16-bit files whose values need at most this many bits are not scaled to 16.
_FEW_BITS = 14
_EXAMPLES = 6  # of each class


def check(
  data: str,
  *,
  pp: str = "decode",
  most_bits: int | None = None,
  predictions: Sequence[str] = (),
  log: Callable[[str], None] = lambda x: None,
) -> Report:
  """Reads and decodes all images of files, as `sources.open_source` names them.

  Args:
    data: data set, as in `config.input.data`.
    pp: op that decodes images, such as "decode(levels=(0, 4095))".
    most_bits: find near-duplicates: images whose hashes differ in at most this
      many of 64 bits, see `near`. None: do not look for them.
    predictions: files of `vitjax.evaluate --examples` by models that were not
      trained on the images; wrong labels are looked for with them.
    log: called with a line of progress every ten seconds.

  Raises:
    ValueError: if `data` is of another kind, nothing can be read at all, or the
      predictions are not those of the images.
  """
  if most_bits is not None and not 0 <= most_bits <= near.MOST_BITS:
    raise ValueError(
      f"--near={most_bits} must be 0 to {near.MOST_BITS}, of {near.BITS} bits."
    )
  data = sources.with_kind(data)
  listing = _listing(data)
  files = _files(listing)
  remarks = list(listing.notes)
  problems = _problems(data, dict.fromkeys(file.split for file in files))
  judged, unjudged = [], []
  if predictions:
    label_of = {str(file.path): file.class_name for file in files}
    judged, unjudged = suspects.for_files(suspects.read(predictions), label_of)
  found = images.look_at(
    builder.build(pp),
    files,
    log,
    with_likeness=most_bits is not None,
  )
  unreadable = {
    str(file.path): x.error for file, x in zip(files, found) if x.error
  }
  if unreadable:
    listed = [f"{name} ({why})" for name, why in unreadable.items()]
    problems.append(
      f"{len(listed)} image(s) cannot be decoded: {_listed(listed)}"
    )
  missing = [str(listing.root / file) for file in listing.missing]
  unreadable |= dict.fromkeys(missing, "does not exist")
  same = copies.same_content(files, found)
  leaked = [group for group in same if copies.is_leak(group)]
  alike = []
  if most_bits is not None:
    alike = copies.same_look(files, found, most_bits)
  alike_leaked = [group for group in alike if copies.is_leak(group)]
  known = [{*group} for group in (*leaked, *alike_leaked)]
  named = [
    group
    for group in copies.same_name(files)
    if not any({*group} <= other for other in known)
  ]
  wrong = tuple(suspects.find(judged))
  good = [(f, x) for f, x in zip(files, found) if not x.error]
  classes = {name for file in files for name in file.classes}
  if len(classes) == 1:
    remarks.append(folder.one_class(classes))
  warnings = [
    *remarks,
    *_copies(same, leaked),
    *_alike(alike, alike_leaked),
    *_counted(
      _joined(named, " ~ "), "name(s) in more than one split, of other content"
    ),
    *_counted(
      [f"{x.file} ({x.label}, perhaps {x.suggested})" for x in wrong],
      "label(s) that may be wrong, the most suspicious first",
    ),
    *_odd_sizes(good),
  ]
  if "levels" not in pp:
    warnings += _unused_bits(good)
  transparent = [str(f.path) for f, x in good if x.is_transparent]
  if transparent and "channels=4" not in pp and "channels=2" not in pp:
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
    (
      *filter(None, [listing.summary]),
      *unjudged,
      *_notes(good, pp),
      *_unknown(listing, files),
    ),
    _examples([file for file, _ in good]),
    unreadable,
    _names(same),
    _names(leaked),
    _names(alike),
    _names(alike_leaked),
    _names(named),
    wrong,
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
    "images": unlabelled.read,
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
      "parquet:/path/*.parquet, captions:/path/captions.csv or "
      f"images:/path.{hint}"
    )
  return read(data)


def _files(listing: folder.Listing) -> list[File]:
  """The files of all splits."""

  def classes(file):
    if listing.targets and listing.targets.kind == "multi_label":
      return listing.targets.classes_of(file.path)
    return (file.class_name,) if file.class_name else ()

  return [
    File(
      listing.root / file.path,
      split,
      file.class_name or None,
      classes(file),
      functools.partial(file.read, listing.root),
    )
    for split, files in listing.splits.items()
    for file in files
  ]


def _unknown(listing: folder.Listing, files: Sequence[File]) -> list[str]:
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


def _split(
  rows: Sequence[tuple[File, Found]],
  targets: dict[str, tuple[float, float, float]],
) -> Split:
  good = [x for _, x in rows if not x.error]

  def spread(values):
    if not good:
      return None
    return min(values), float(np.median(values)), max(values)

  classes = collections.Counter(name for f, _ in rows for name in f.classes)
  channels = {len(x.mean) for x in good}
  mean, std = images.statistics(good) if len(channels) == 1 else ((), ())
  return Split(
    examples=len(rows),
    classes={k: classes[k] for k in sorted(classes, key=folder.natural)},
    height=spread([x.height for x in good]),
    width=spread([x.width for x in good]),
    shorter_side=_by_power([min(x.height, x.width) for x in good]),
    colours=dict(collections.Counter(x.colour for x in good).most_common()),
    rotated=sum(x.is_rotated for x in good),
    mean=mean,
    std=std,
    targets=targets,
  )


def _by_power(pixels: Sequence[int]) -> dict[str, int]:
  """Counts between powers of two: {"64 .. 127": 3}."""
  counts = collections.Counter(x.bit_length() for x in pixels)
  return {
    f"{2 ** (bits - 1)} .. {2**bits - 1}": counts[bits]
    for bits in range(min(counts, default=1), max(counts, default=0) + 1)
  }


def _examples(files: Sequence[File]) -> dict[str, tuple[str, ...]]:
  by_class = collections.defaultdict(list)
  for file in files:
    if file.class_name:
      by_class[file.class_name].append(str(file.path))
  return {
    name: tuple(
      paths[i]
      for i in sorted({*np.linspace(0, len(paths) - 1, _EXAMPLES).astype(int)})
    )
    for name, paths in by_class.items()
  }


def _counted(texts: Sequence[str], what: str) -> list[str]:
  return [f"{len(texts)} {what}: {_listed(texts)}"] if texts else []


def _copies(same, leaked) -> list[str]:
  conflicts = [group for group in same if copies.is_conflict(group)]
  others = [g for g in same if g not in leaked and g not in conflicts]
  return [
    *_counted(_joined(leaked, " = "), "image(s) in more than one split"),
    *_counted(_joined(conflicts, " = "), "image(s) with more than one label"),
    *_counted(_joined(others, " = "), "image(s) more than once"),
  ]


def _alike(alike, leaked) -> list[str]:
  conflicts = [group for group in alike if copies.is_conflict(group)]
  others = [g for g in alike if g not in leaked and g not in conflicts]
  return [
    *_counted(
      _joined(leaked, " ~ "), "group(s) that look alike in more than one split"
    ),
    *_counted(
      _joined(conflicts, " ~ "), "group(s) that look alike with several labels"
    ),
    *_counted(_joined(others, " ~ "), "group(s) that look alike"),
  ]


def _joined(groups, between: str) -> list[str]:
  return [between.join(names) for names in _names(groups)]


def _odd_sizes(good: Sequence[tuple[File, Found]]) -> list[str]:
  def sized(fits: Callable[[Found], bool]) -> list[str]:
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


def _unused_bits(good: Sequence[tuple[File, Found]]) -> list[str]:
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


def _notes(good: Sequence[tuple[File, Found]], pp: str) -> list[str]:
  rotated = [str(f.path) for f, x in good if x.is_rotated]
  frames = [str(f.path) for f, x in good if x.has_frames and "pages" not in pp]
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
