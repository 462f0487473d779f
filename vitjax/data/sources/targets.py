"""What a table says of each image in place of one class.

Options behind the name of a table choose its columns, and the values that mean
an unknown label:

    labels:/path/table.csv:multi_label=cat+dog     columns of 0 and 1
    labels:/path/table.csv:soft_label=cat+dog      columns of probabilities
    labels:/path/table.csv:regression=age+weight   columns of numbers
    labels:/path/table.csv:ignore=empty+-1+nan

`*` stands for all columns but `file`, `split` and the one of `:group=`. A
column `labels` lists the classes of an image: "cat;dog" or "cat|dog", or a list
in JSON Lines. An image may then have several rows. `:multi_label=labels` may
say so.
"""

import dataclasses
import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from vitjax.config import messages

_KINDS = ("multi_label", "soft_label", "regression")
_OPTION = re.compile(rf":({'|'.join(_KINDS)}|ignore)=")
_ALL_OPTIONS = (*_KINDS, "ignore", "group", "fold")
_CELLS = {
  "multi_label": "0 or 1",
  "soft_label": "a probability, 0 to 1",
  "regression": "a finite number",
}
# Probabilities may miss a sum of 1 by this much, as rounded ones do.
_TOLERANCE = 1e-3

# The column that lists the classes of an image.
_LIST = ("labels",)

Row = tuple[float, ...] | frozenset[str]


@dataclasses.dataclass(frozen=True)
class Options:
  """What the name of a table says of its columns.

  Attributes:
    kind: kind of labels that the columns are of, see `source.KINDS`; None for
      a column `label` or `labels`.
    columns: names of the columns; ("*",) for all others.
    ignore: cells that mean an unknown label, in lower case.
  """

  kind: str | None = None
  columns: tuple[str, ...] = ()
  ignore: frozenset[str] = frozenset()

  def is_unknown(self, cell: Any) -> bool:
    """Whether a cell means that the label is unknown."""
    text = "" if cell is None else str(cell).strip().lower()
    value = _number(text)
    return text in self.ignore or (
      value is not None and value in map(_number, self.ignore)
    )


@dataclasses.dataclass(frozen=True)
class Targets:
  """The labels of the images of a table.

  Attributes:
    kind: one of `source.KINDS`.
    names: names of the classes or targets; None if the images tell them.
    rows: path -> number of each name, NaN if unknown; or the names of its
      classes, where the images tell them, and () if they are unknown.
  """

  kind: str
  names: tuple[str, ...] | None
  rows: Mapping[str, Row]

  def array(
    self, paths: Sequence[str], names: Sequence[str], data: str
  ) -> np.ndarray:
    """float32 (images, names): the targets of some images.

    Args:
      paths: the images.
      names: the classes or targets, in the order of the result.
      data: name of the data set, for the message.

    Raises:
      ValueError: if an image has a class that is not among the names.
    """
    place = {name: i for i, name in enumerate(names)}
    columns = [place[name] for name in self.names or ()]
    result = np.zeros((len(paths), len(names)), np.float32)
    for i, path in enumerate(paths):
      row = self.rows[path]
      if not isinstance(row, frozenset):
        result[i, columns or slice(None)] = row or math.nan
        continue
      if unknown := sorted(row - place.keys()):
        raise ValueError(
          f"{data!r}: {path} has labels that are not among the {len(names)} "
          f"classes of training: {messages.shorten(list(map(repr, unknown)))}. "
          "Classes are those of the training images: add some of these, or "
          "remove the labels."
        )
      result[i, [place[name] for name in row]] = 1.0
    return result

  def classes_of(self, path: str) -> tuple[str, ...]:
    """The classes of an image; of soft labels and numbers none."""
    row = self.rows[path]
    if isinstance(row, frozenset):
      return tuple(sorted(row))
    if self.kind != "multi_label":
      return ()
    return tuple(name for name, x in zip(self.names or (), row) if x == 1)

  def spreads(
    self, paths: Sequence[str]
  ) -> dict[str, tuple[float, float, float]]:
    """(least, median, greatest) of each target of a regression."""
    if self.kind != "regression" or not paths:
      return {}
    names = self.names or ()
    values = np.array([self.rows[path] for path in paths])
    return {
      name: (float(x.min()), float(np.median(x)), float(x.max()))
      for name, column in zip(names, values.T)
      if len(x := column[~np.isnan(column)])
    }

  def has_unknown(self, path: str) -> bool:
    """Whether some label of an image is unknown."""
    row = self.rows[path]
    if isinstance(row, frozenset):
      return False
    return not row or any(map(math.isnan, row))


def split_options(data: str) -> tuple[str, Options]:
  """("labels:/path", Options(...)) for "labels:/path:regression=age".

  Raises:
    ValueError: if an option is unknown, given twice or has no columns.
  """
  name, *rest = _OPTION.split(data)
  for text in (name.rpartition("/")[2], *rest[1::2]):
    if unknown := re.search(r":(\w+)=", text):
      hint = messages.did_you_mean(unknown[1], _ALL_OPTIONS)
      raise ValueError(
        f"{data!r}: :{unknown[1]}= is not an option of a table of labels.{hint}"
        f" Known: {', '.join(_ALL_OPTIONS)}; see docs/data.md#labels."
      )
  given = {}
  for key, text in zip(rest[::2], rest[1::2]):
    values = tuple(x.strip() for x in text.split("+"))
    kinds = [k for k in given if k != "ignore"]
    if key in given or (kinds and key != "ignore") or not all(values):
      raise ValueError(
        f"{data!r}: write :{key}={text} once, with one or several names "
        f"between plus signs, and only one of {', '.join(_KINDS)}."
      )
    given[key] = values
  ignore = (x.lower() for x in given.pop("ignore", ()))
  ignored = frozenset("" if x == "empty" else x for x in ignore)
  [(kind, columns)] = given.items() or [(None, ())]
  return name, Options(kind, columns, ignored)


def layout(
  options: Options, columns: Sequence[str], group: str, where: str
) -> tuple[str, tuple[str, ...]]:
  """The kind of labels of a table, and the columns that hold them.

  Args:
    options: what the name of the table says.
    columns: the columns of the table.
    group: the column of the groups, or "".
    where: file and line, for the message.

  Raises:
    ValueError: if the table lacks a column that the options name.
  """
  if options.kind is None:
    if "labels" in columns and "label" not in columns:
      return "multi_label", _LIST
    return "single_label", ("label",)
  if options.columns == ("*",):
    others = ("file", "split", group)
    return options.kind, tuple(x for x in columns if x not in others)
  for name in options.columns:
    if name not in columns:
      hint = messages.did_you_mean(name, columns)
      known = messages.shorten([repr(x) for x in columns])
      raise ValueError(
        f"{where}: no column {name!r}, which :{options.kind}= names.{hint} "
        f"There are {known}."
      )
  return options.kind, options.columns


def is_list(kind: str, used: Sequence[str]) -> bool:
  """Whether the column of a `layout` lists the classes of an image."""
  return kind == "multi_label" and used == _LIST


def read_cells(
  cells: Mapping[str, Any], columns: Sequence[str], options: Options, where: str
) -> tuple[float, ...]:
  """The targets of a row; NaN for unknown ones.

  Raises:
    ValueError: if a cell is not what the kind of labels needs.
  """
  kind = options.kind
  assert kind is not None  # a row with columns has a kind
  row = []
  for name in columns:
    cell = cells[name]
    if options.is_unknown(cell):
      row.append(math.nan)
      continue
    text = str(cell).strip().lower()
    value = {"true": 1.0, "false": 0.0}.get(text, _number(text))
    if value is None or not (
      kind == "regression"
      or value in (0.0, 1.0)
      or (kind == "soft_label" and 0 <= value <= 1)
    ):
      shown = "empty" if text in ("", "none") else text
      raise ValueError(
        f"{where}: {name} is {cell!r}; with :{kind}= it must be "
        f"{_CELLS[kind]}. If this means that it is unknown, add "
        f":ignore={shown} to the name of the data."
      )
    row.append(value)
  if kind == "soft_label":
    total = sum(row)
    if math.isnan(total):
      return (math.nan,) * len(row)
    if abs(total - 1) > _TOLERANCE:
      raise ValueError(
        f"{where}: the probabilities of {', '.join(columns)} have the sum "
        f"{total:g}. It must be 1."
      )
    row = [value / total for value in row]
  return tuple(row)


def read_list(cell: Any, where: str) -> frozenset[str]:
  """The classes that a cell of the column `labels` lists, perhaps none.

  Raises:
    ValueError: if it is not a list of names or integers.
  """
  names = cell
  if cell is None or isinstance(cell, str):
    names = [x for x in re.split("[;|]", cell or "") if x.strip()]
  if not isinstance(names, list) or not all(
    isinstance(x, str | int) and str(x).strip() for x in names
  ):
    raise ValueError(
      f"{where}: labels is {cell!r}. It must be a list of names, in CSV and "
      "TSV separated by semicolons: cat;dog."
    )
  return frozenset(str(x).strip() for x in names)


def most_probable(row: Sequence[float], names: Sequence[str]) -> str:
  """The name of the largest probability, of ties the first; "" if unknown."""
  return "" if math.isnan(row[0]) else names[int(np.argmax(row))]


def _number(text: str) -> float | None:
  """A finite number, or None."""
  try:
    value = float(text)
  except ValueError:
    return None
  return value if math.isfinite(value) else None
