"""Images with labels in one file: "labels:/path/labels.csv".

    file,label                  or, of JSON lines,
    images/1.jpg,cat            {"file": "images/1.jpg", "label": "cat"}
    images/2.jpg,dog            {"file": "images/2.jpg", "label": "dog"}

Also `.tsv`. Files are relative to the folder of the labels file. With a third
column or key `split` each image belongs to the split that it names ("train",
"val", "test"; "validation" is "val"); else a tenth of each class is `val`, as
for folders. Images with the same value in the column that ":group=COLUMN" names
stay together, see `held_out.Rule`. Other columns are ignored.

A label is the name of a class. Classes are numbered in natural order of those
in train (0, 1, 2, 10), as for folders. If every label of the file is an integer
they are class ids: the number of classes is the largest id in train plus one,
even if some classes have no images.
"""

import collections
import dataclasses
import hashlib
import posixpath
from collections.abc import Mapping, Sequence

from absl import logging

from vitjax.config import messages
from vitjax.data.sources import folder, held_out, tables
from vitjax.data.sources.source import SPLIT_NAMES

_COLUMNS = ("file", "label", "split")
# Integers are not class ids if they would make more classes than this, and this
# many times the classes that occur.
_MOST_CLASSES, _MOST_UNUSED = 1000, 10


class LabelsSource(folder.LabelledFiles):
  """See the module."""

  def __init__(
    self, data: str, split: str, class_names: Sequence[str] | None = None
  ):
    listing = read(data)
    folder.check_missing(data, listing.missing)
    splits, class_names = with_class_names(data, listing.splits, class_names)
    listing = dataclasses.replace(listing, splits=splits)
    super().__init__(data, split, listing, class_names)
    # Unlike in folders, paths do not contain the labels.
    labels = hashlib.sha256(self.fingerprint.encode())
    labels.update(self._labels.numpy().tobytes())
    self.fingerprint = labels.hexdigest()


def read(data: str) -> folder.Listing:
  """The files of each split in the order of the table.

  Raises:
    ValueError: if there is no such table, or something in it is wrong.
  """
  name, rule = held_out.split_rule(data)
  path = tables.find(name)
  lines: dict[str, int] = {}
  found: list[tuple[str, str, str | None]] = []
  columns: dict[str, None] = {}
  group_of: dict[str, str] = {}
  for number, row in tables.rows(path):
    where = f"{path}, line {number}"
    file, label, split = _checked(row, where)
    if rule.group and rule.group in row:
      group_of[file] = str(row[rule.group] or "").strip()
    columns.update(dict.fromkeys(row))
    same = posixpath.normpath(file)
    if same in lines:
      raise ValueError(
        f"{where}: {file!r} has a label already, on line {lines[same]}. Each "
        "image has one; remove one of the two rows."
      )
    lines[same] = number
    if found and (split is None) != (found[0][2] is None):
      raise ValueError(
        f"{where}: {'no ' if split is None else ''}split, unlike the rows "
        "above. Give every row a split, or none."
      )
    found.append((file, label, split))
  if not found:
    raise ValueError(f"{path} has no rows.")
  sizes, missing = tables.sizes(path, [file for file, _, _ in found])
  files = [
    held_out.File(file, sizes[file], label)
    for file, label, _ in found
    if file in sizes
  ]
  is_column = rule.group != "" and rule.group in columns
  column = collections.defaultdict(str, group_of) if is_column else None
  files = held_out.with_groups(files, rule.group, column)
  split_of = {file: split for file, _, split in found if split is not None}
  if not split_of:
    splits = held_out.by_hash(files)
  else:
    splits = {}
    for file in files:
      splits.setdefault(split_of[file.path], []).append(file)
  used = (*_COLUMNS, rule.group) if is_column else _COLUMNS
  notes = tables.unused(columns, used)
  return folder.held_out_listing(
    path.parent, splits, rule, notes, missing, made=not split_of
  )


def _checked(row: object, where: str) -> tuple[str, str, str | None]:
  """File, label and split of a row."""
  cells = row if isinstance(row, dict) else {}
  columns = list(cells)
  if missing := [x for x in ("file", "label") if x not in columns]:
    unknown = [repr(x) for x in columns if x not in _COLUMNS]
    raise ValueError(
      f"{where}: no {' and no '.join(missing)}; there is "
      f"{', '.join(unknown) or 'nothing'}. The columns are file, label and "
      "perhaps split."
    )
  tables.check_columns(columns, _COLUMNS, where)
  file, label = cells["file"], cells["label"]
  if isinstance(label, int) and not isinstance(label, bool):
    label = str(label)
  for name, value in (("file", file), ("label", label)):
    if not isinstance(value, str) or not value.strip():
      raise ValueError(
        f"{where}: the {name} is {cells[name]!r}. It must be a "
        f"{'path' if name == 'file' else 'name or an integer'}."
      )
  split = cells.get("split")
  if "split" in columns and not (isinstance(split, str) and split.strip()):
    raise ValueError(f"{where}: the split is {split!r}. Name one.")
  if split is not None:
    split = split.strip()
    split = SPLIT_NAMES.get(split.lower(), split)
  return file.strip(), label.strip(), split


def with_class_names(
  data: str,
  splits: Mapping[str, Sequence[held_out.File]],
  class_names: Sequence[str] | None,
) -> tuple[Mapping[str, Sequence[held_out.File]], Sequence[str]]:
  """The files with the names of their classes, and all classes by id."""
  labels = {file.class_name for files in splits.values() for file in files}
  # "007" is a name.
  ids = {x for x in labels if x.isascii() and x.isdigit() and x == str(int(x))}
  if ids != labels or (class_names is not None and labels <= {*class_names}):
    return splits, class_names or folder.classes_of(data, splits)
  if class_names is None:
    train = {int(name) for name in folder.classes_of(data, splits)}
    count = max(train) + 1
    if count > _MOST_CLASSES and count > _MOST_UNUSED * len(train):
      raise ValueError(
        f"{data!r} has labels up to {count - 1}: as class ids they would make "
        f"{count} classes, of which {len(train)} occur in train. Number them "
        "from 0, or write names."
      )
    if count > len(train):
      logging.warning(
        "%s: %d of the %d classes have no training image: %s",
        data,
        count - len(train),
        count,
        messages.shorten(
          [repr(str(i)) for i in range(count) if i not in train]
        ),
      )
    class_names = [str(i) for i in range(count)]
  # Ids above the last one are kept, and refused later.
  name_of = dict(enumerate(class_names))
  return {
    split: [
      dataclasses.replace(
        file, class_name=name_of.get(int(file.class_name), file.class_name)
      )
      for file in files
    ]
    for split, files in splits.items()
  }, class_names
