"""A folder with a label file for each image: "labels:/path".

    /path/images/1.jpg      or, beside each other,      /path/1.jpg
    /path/labels/1.txt                                  /path/1.txt

A label file has one label on each line; an empty one is that of an image
without any class. Folders may lie within the two and around them. Those that
are called `train`, `val` or `test` are splits; without them a tenth of the
images is `val`. A file `classes.txt` in the folder has the names of the classes
by id, one on each line.

`:ignore=` lists the lines that make the labels of an image unknown; `empty` is
a label file without any, or none at all.
"""

import dataclasses
import pathlib
import re
from collections.abc import Sequence

from vitjax.config import messages
from vitjax.data.sources import folder, held_out, targets
from vitjax.data.sources.source import SPLIT_NAMES

_IMAGES, _LABELS, _CLASSES = "images", "labels", "classes.txt"
_BOX = re.compile(r"\d+(\s+[\d.]+){4,}")


def read(
  root: pathlib.Path, rule: held_out.Rule, options: targets.Options
) -> folder.Listing:
  """The images of each split, by path.

  Raises:
    ValueError: if an image has no label file, or something is wrong in one.
  """
  if options.kind is not None and (
    not targets.is_list(options.kind, options.columns)
  ):
    raise ValueError(
      f"{root} is a folder, and its label files list the classes of each "
      f"image: write :multi_label=labels in place of :{options.kind}=, or "
      "labels:/path/labels.csv for a table."
    )
  classes = _class_names(root)
  images, others = folder.walk(root)
  label_files = {x for x in others if x.suffix == ".txt"} - {root / _CLASSES}
  if not label_files:
    raise ValueError(
      f"{root} has no label files, such as {root}/{_LABELS}/1.txt for "
      f"{root}/{_IMAGES}/1.jpg. For one folder per class, write folder:{root}."
    )
  files: list[held_out.File] = []
  rows: dict[str, targets.Row] = {}
  missing, absent = [], []
  used = set()
  for image in images:
    path = image.relative_to(root).as_posix()
    found = [x for x in _places(root, image) if x in label_files]
    if len(found) > 1:
      raise ValueError(
        f"{path} in {root} has two label files, "
        f"{' and '.join(str(x.relative_to(root)) for x in found)}. Remove one."
      )
    rows[path] = ()
    for file in found:
      lines = _lines(file)
      if not any(map(options.is_unknown, lines or [None])):
        rows[path] = _row(file, lines, classes)
    used.update(found)
    if not found and not options.is_unknown(None):
      absent.append(repr(path))
    try:
      files.append(held_out.File(path, image.stat().st_size, ""))
    except OSError:
      missing.append(path)
  if absent:
    raise ValueError(
      f"{root}: {len(absent)} image(s) have no label file: "
      f"{messages.shorten(absent)}. An image without any class has an empty "
      "one; if its labels are unknown, add :ignore=empty to the name of the "
      "data."
    )
  unused = sorted(str(x.relative_to(root)) for x in label_files - used)
  notes = [
    f"label file(s) without an image: {messages.shorten(unused)}."
  ] * bool(unused)
  files = held_out.with_groups(files, rule.group)
  splits, made = _splits(root, files)
  listing = folder.held_out_listing(
    root, splits, rule, notes, missing, made=made
  )
  given = targets.Targets("multi_label", classes, rows)
  return dataclasses.replace(listing, targets=given)


def _class_names(root: pathlib.Path) -> tuple[str, ...] | None:
  file = root / _CLASSES
  return tuple(_lines(file)) if file.is_file() else None


def _places(root: pathlib.Path, image: pathlib.Path) -> list[pathlib.Path]:
  """Where the label file of an image may be."""
  beside = image.with_suffix(".txt")
  parts = [*beside.relative_to(root).parts]
  if _IMAGES not in parts[:-1]:
    return [beside]
  last = max(i for i, x in enumerate(parts[:-1]) if x == _IMAGES)
  return [beside, root.joinpath(*parts[:last], _LABELS, *parts[last + 1 :])]


def _lines(file: pathlib.Path) -> list[str]:
  try:
    text = file.read_text(encoding="utf-8-sig")
  except UnicodeDecodeError as e:
    raise ValueError(f"{file}: not UTF-8: {e}.") from None
  return [line.strip() for line in text.splitlines() if line.strip()]


def _row(
  file: pathlib.Path, lines: Sequence[str], classes: Sequence[str] | None
) -> frozenset[str]:
  """The names of the classes that the lines of a label file list."""
  if lines and all(map(_BOX.fullmatch, lines)):
    raise ValueError(
      f"{file} has boxes of an object detector, such as {lines[0]!r}. Keep the "
      "first column of each line, the class."
    )
  if classes is None:
    return frozenset(lines)
  name_of = {str(i): name for i, name in enumerate(classes)}
  names = {name_of.get(line, line) for line in lines}
  if unknown := sorted(names - {*classes}):
    raise ValueError(
      f"{file} has {messages.shorten(list(map(repr, unknown)))}, which is not "
      f"one of the {len(classes)} classes in {_CLASSES}."
    )
  return frozenset(names)


def _splits(
  root: pathlib.Path, files: Sequence[held_out.File]
) -> tuple[dict[str, list[held_out.File]], bool]:
  """The files of each split, and whether the splits were made here."""
  splits: dict[str, list[held_out.File]] = {}
  for file in files:
    folders = file.path.lower().split("/")[:-1]
    names = [SPLIT_NAMES[x] for x in folders if x in SPLIT_NAMES]
    splits.setdefault(names[0] if names else "", []).append(file)
  without = splits.get("", [])
  if not without or len(splits) == 1:
    return (held_out.by_hash(without), True) if without else (splits, False)
  listed = messages.shorten([repr(file.path) for file in without])
  raise ValueError(
    f"{root}: {len(without)} of {len(files)} images are in no split folder: "
    f"{listed}. Put each image into train, val or test, or none."
  )
