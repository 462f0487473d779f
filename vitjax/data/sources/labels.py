"""Images with labels in one file: "labels:/path/labels.csv".

    file,label                  or, of JSON lines,
    images/1.jpg,cat            {"file": "images/1.jpg", "label": "cat"}
    images/2.jpg,dog            {"file": "images/2.jpg", "label": "dog"}

Also `.tsv`. Images with several classes, probabilities or numbers: `targets`.
Files are relative to the folder of the labels file. With a third column or key
`split` each image belongs to the split that it names ("train", "val", "test";
"validation" is "val"); else a tenth of each class is `val`, as for folders.
Images with the same value in the column that ":group=COLUMN" names stay
together, see `held_out.Rule`. Other columns are ignored.

A label is the name of a class. Classes are numbered in natural order of those
in train (0, 1, 2, 10), as for folders. If every label of the file is an integer
they are class ids: the number of classes is the largest id in train plus one,
even if some classes have no images. A label that `:ignore=` names is unknown.

"labels:/path" of a folder reads a label file for each image, see `label_files`.
"""

import collections
import dataclasses
import hashlib
import pathlib
import posixpath
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from absl import logging

from vitjax.config import messages
from vitjax.data.pp.kinds import Features
from vitjax.data.sources import (
  folder,
  held_out,
  label_files,
  tables,
  targets,
)
from vitjax.data.sources.source import SPLIT_NAMES
from vitjax.data.tf import tf

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
    given = listing.targets
    if given is None:
      splits, class_names = with_class_names(data, listing.splits, class_names)
      listing = dataclasses.replace(listing, splits=splits)
    else:
      class_names = _names(given, class_names) or _listed(data, listing)
    super().__init__(data, split, listing, class_names)
    # Unlike in folders, paths do not contain the labels.
    content = hashlib.sha256(self.fingerprint.encode())
    content.update(self._labels.numpy().tobytes())
    if given is not None:
      self.kind = given.kind
      paths = [file.path for file in self._files]
      self.targets = given.array(paths, tuple(class_names), data)
      self.has_unknown = bool(np.isnan(self.targets).any())
      self._targets = tf.constant(self.targets)
      content.update(self.kind.encode() + self.targets.tobytes())
      if self.kind != "soft_label":
        self.labels = None
    self.fingerprint = content.hexdigest()

  def fetch(self, indices: tf.Tensor) -> Features:
    found = super().fetch(indices)
    if self.targets is not None:
      found["labels"] = tf.gather(self._targets, indices)
    if self.labels is None:
      del found["label"]
    return found

  def parse(self, features: Features) -> Features:
    found = {k: v for k, v in features.items() if k != "path"}
    return {"image": tf.io.read_file(features["path"]), **found}


@dataclasses.dataclass(frozen=True)
class _Entry:
  """A row: an image, its class ("" without one), or its targets."""

  file: str
  split: str | None
  line: int
  class_name: str
  target: targets.Row | None


def read(data: str) -> folder.Listing:
  """The files of each split in the order of the table, or by path.

  Raises:
    ValueError: if there is no such table, or something in it is wrong.
  """
  name, rule = held_out.split_rule(data)
  name, options = targets.split_options(name)
  root = pathlib.Path(name.removeprefix("labels:")).expanduser()
  if root.is_dir():
    return label_files.read(root, rule, options)
  path = tables.find(name)
  found: dict[str, _Entry] = {}
  columns: dict[str, None] = {}
  group_of: dict[str, str] = {}
  kind, used = "single_label", ("label",)
  for number, row in tables.rows(path):
    where = f"{path}, line {number}"
    cells = row if isinstance(row, dict) else {}
    if not columns:
      kind, used = targets.layout(options, list(cells), rule.group, where)
    file, split = _file_and_split(cells, used, where)
    if rule.group and rule.group in cells:
      group_of[file] = str(cells[rule.group] or "").strip()
    columns.update(dict.fromkeys(cells))
    if found and (split is None) != (next(iter(found.values())).split is None):
      raise ValueError(
        f"{where}: {'no ' if split is None else ''}split, unlike the rows "
        "above. Give every row a split, or none."
      )
    label = _label(cells, kind, used, options, where)
    entry = _Entry(file, split, number, *label)
    same = posixpath.normpath(file)
    if same in found:
      entry = _joined(found[same], entry, where)
    found[same] = entry
  if not found:
    raise ValueError(f"{path} has no rows.")
  entries = {entry.file: entry for entry in found.values()}
  sizes, missing = tables.sizes(path, list(entries))
  files = [
    held_out.File(file, size, entries[file].class_name)
    for file, size in sizes.items()
  ]
  is_column = rule.group != "" and rule.group in columns
  column = collections.defaultdict(str, group_of) if is_column else None
  try:
    files = held_out.with_groups(files, rule.group, column)
  except ValueError as e:
    hint = messages.did_you_mean(rule.group, columns) if not is_column else ""
    raise ValueError(f"{path}: {e}{hint}") from None
  splits: Mapping[str, Sequence[held_out.File]]
  made = next(iter(entries.values())).split is None
  if made:
    splits = held_out.by_hash(files)
  else:
    named: dict[str, list[held_out.File]] = {}
    for file in files:
      named.setdefault(str(entries[file.path].split), []).append(file)
    splits = named
  known = ("file", *used, "split", *((rule.group,) if is_column else ()))
  listing = folder.held_out_listing(
    path.parent, splits, rule, tables.unused(columns, known), missing, made=made
  )
  if kind == "single_label":
    notes = [*listing.notes, *_fractions(entries.values())]
    return dataclasses.replace(listing, notes=notes)
  names = None if targets.is_list(kind, used) else used
  rows = {
    file: entry.target
    for file, entry in entries.items()
    if entry.target is not None
  }
  given = targets.Targets(kind, names, rows)
  return dataclasses.replace(listing, targets=given)


def _file_and_split(
  cells: Mapping[str, Any], used: Sequence[str], where: str
) -> tuple[str, str | None]:
  """File and split of a row that has the columns `used`."""
  columns, known = list(cells), ("file", *used, "split")
  if missing := [x for x in ("file", *used) if x not in columns]:
    unknown = [repr(x) for x in columns if x not in known]
    raise ValueError(
      f"{where}: no {' and no '.join(missing)}; there is "
      f"{', '.join(unknown) or 'nothing'}. The columns are "
      f"{', '.join(('file', *used))} and perhaps split."
    )
  tables.check_columns(columns, known, where)
  file, split = cells["file"], cells.get("split")
  if not isinstance(file, str) or not file.strip():
    raise ValueError(f"{where}: the file is {file!r}. It must be a path.")
  if "split" in columns and not (isinstance(split, str) and split.strip()):
    raise ValueError(f"{where}: the split is {split!r}. Name one.")
  if split is not None:
    split = split.strip()
    split = SPLIT_NAMES.get(split.lower(), split)
  return file.strip(), split


def _label(
  cells: Mapping[str, Any],
  kind: str,
  used: Sequence[str],
  options: targets.Options,
  where: str,
) -> tuple[str, targets.Row | None]:
  """The class and the targets of a row, as in `_Entry`."""
  if kind != "single_label" and not targets.is_list(kind, used):
    row = targets.read_cells(cells, used, options, where)
    is_soft = kind == "soft_label"
    return targets.most_probable(row, used) if is_soft else "", row
  [cell] = (cells[name] for name in used)
  if options.is_unknown(cell):
    return "", None if kind == "single_label" else ()
  if kind == "multi_label":
    return "", targets.read_list(cell, where)
  if isinstance(cell, int) and not isinstance(cell, bool):
    cell = str(cell)
  if not isinstance(cell, str) or not cell.strip():
    raise ValueError(
      f"{where}: the label is {cell!r}. It must be a name or an integer. If "
      "this means that it is unknown, add :ignore="
      f"{'empty' if cell in (None, '') else cell} to the name of the data."
    )
  return cell.strip(), None


def _fractions(entries: Iterable[_Entry]) -> list[str]:
  """Says so if all classes are numbers that are not written as integers."""
  names = {entry.class_name for entry in entries} - {""}
  if all(re.fullmatch(r"[-+]?\d+\.\d+", name) for name in names) and names:
    return [
      f"each of the {len(names)} different numbers in column label, such as "
      f"{min(names)!r}, is the name of a class. For a regression add "
      ":regression=label to the name of the data; class ids are integers."
    ]
  return []


def _joined(above: _Entry, entry: _Entry, where: str) -> _Entry:
  """Two rows of one image, which may each list some of its classes."""
  a, b = above.target, entry.target
  if not (isinstance(a, frozenset) and isinstance(b, frozenset)):
    raise ValueError(
      f"{where}: {entry.file!r} has a label already, on line {above.line}. "
      "Each image has one row; remove one of the two. If images have several "
      "classes, call the column labels."
    )
  if above.split != entry.split:
    raise ValueError(
      f"{where}: {entry.file!r} is in split {entry.split!r}, and on line "
      f"{above.line} in {above.split!r}."
    )
  return dataclasses.replace(above, target=a | b)


def _names(
  given: targets.Targets, class_names: Sequence[str] | None
) -> Sequence[str] | None:
  """The columns, in the order of a model that has the same ones."""
  if class_names is None or given.names is None:
    return given.names or class_names
  same = sorted(given.names) == sorted(class_names)
  return class_names if same else given.names


def _listed(data: str, listing: folder.Listing) -> list[str]:
  """The classes that the training images list, in natural order."""
  assert listing.targets is not None  # `read` saw a column `labels`
  names = {
    name
    for file in listing.splits.get("train", ())
    for name in listing.targets.classes_of(file.path)
  }
  if not names:
    raise ValueError(
      f"{data!r}: no training image has a label, so the classes are unknown."
    )
  return sorted(names, key=folder.natural)


def with_class_names(
  data: str,
  splits: Mapping[str, Sequence[held_out.File]],
  class_names: Sequence[str] | None,
) -> tuple[Mapping[str, Sequence[held_out.File]], Sequence[str]]:
  """The files with the names of their classes, and all classes by id."""
  labels = {file.class_name for files in splits.values() for file in files}
  labels -= {""}
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
  name_of = {str(i): name for i, name in enumerate(class_names)}
  return {
    split: [
      dataclasses.replace(
        file, class_name=name_of.get(file.class_name, file.class_name)
      )
      for file in files
    ]
    for split, files in splits.items()
  }, class_names
