"""Names of the metrics of single classes, and tables that are made of them.

`recall[cat]` is the recall of a class, and `confusion[cat->dog]` a cell of the
confusion matrix. These names are the keys of `metrics.jsonl`; the log of a run,
`vitjax evaluate` and the report show the same numbers as tables.
"""

import dataclasses
import math
from collections.abc import Iterator, Mapping, Sequence

# Rows of a table in a text, and columns of a confusion matrix.
_MOST_ROWS, _MOST_COLUMNS = 50, 12
# Metrics that a regression has for each target.
_OF_TARGETS = {"mae", "rmse", "r2"}


def names(metric: str, classes: Sequence[str]) -> Iterator[str]:
  """The names of the numbers of a metric with one for each class."""
  return (f"{metric}[{name}]" for name in classes)


def confusion_names(classes: Sequence[str]) -> Iterator[str]:
  """The names of the cells of a confusion matrix, row by row.

  The last cell of each row is of the images that are predicted as no class.
  """
  none = "none" if "none" not in classes else "(none)"
  for true in classes:
    yield from names("confusion", [f"{true}->{x}" for x in (*classes, none)])


@dataclasses.dataclass(frozen=True)
class ByClass:
  """Metrics of an eval, with those of single classes apart.

  Attributes:
    whole: metrics of the whole set.
    single: metric -> class -> value.
    classes: names of the classes; empty without metrics of single classes.
    confusion: rows of the matrix, with a last column for no class, or empty.
  """

  whole: Mapping[str, float]
  single: Mapping[str, Mapping[str, float]]
  classes: Sequence[str]
  confusion: Sequence[Sequence[int]]

  @property
  def unit(self) -> str:
    """What a row of the table is: a class, or a target of a regression."""
    return "target" if self.single.keys() <= _OF_TARGETS else "class"

  def rows(self) -> list[list[str]]:
    """Header and rows of a table with a row for each class."""
    if not self.single:
      return []
    return [[self.unit, *self.single]] + [
      [name, *(text(x.get(name, math.nan)) for x in self.single.values())]
      for name in self.classes
    ]


def by_class(metrics: Mapping[str, float]) -> ByClass:
  """Sorts the metrics of an eval, in the order of its evaluator."""
  whole: dict[str, float] = {}
  single: dict[str, dict[str, float]] = {}
  cells: dict[str, float] = {}
  for name, value in metrics.items():
    metric, bracket, rest = name.partition("[")
    if not bracket:
      whole[name] = value
    elif metric == "confusion":
      cells[rest[:-1]] = value
    else:
      single.setdefault(metric, {})[rest[:-1]] = value
  size = math.isqrt(len(cells))  # size * (size + 1) cells
  width = size + 1
  # A name may contain "->", so it is read from its row's last cell.
  classes = [name.rpartition("->")[0] for name in list(cells)[size::width]]
  counts = [int(value) for value in cells.values()]
  return ByClass(
    whole,
    single,
    classes or list(next(iter(single.values()), ())),
    [counts[i * width : (i + 1) * width] for i in range(size)],
  )


def text(value: float) -> str:
  """A number for people."""
  if isinstance(value, int):
    return f"{value:,}"
  if math.isnan(value):
    return "–"
  # An error may be in any unit.
  plain = value == 0 or 1e-3 <= abs(value) < 1e6
  return f"{value:.4f}" if plain else f"{value:.4g}"


def lines(metrics: Mapping[str, float], elsewhere: str) -> list[str]:
  """The metrics of the single classes of an eval as lines; none without any.

  Args:
    metrics: the metrics of the eval.
    elsewhere: where all numbers are, if a table is cut short.
  """
  found = by_class(metrics)
  header, *rows = found.rows() or [[]]
  result = aligned([header, *rows[:_MOST_ROWS]]) if rows else []
  if len(rows) > _MOST_ROWS:
    more = len(rows) - _MOST_ROWS
    result.append(f"... and {more:,} more classes; all are in {elsewhere}.")
  size = len(found.confusion)
  if size > _MOST_COLUMNS:
    result.append(f"The confusion matrix of {size} classes is in {elsewhere}.")
  elif size:
    header = ["true \\ predicted", *found.classes, "no class"]
    rows = [
      [name, *map(text, row)]
      for name, row in zip(found.classes, found.confusion)
    ]
    if not any(row[-1] for row in found.confusion):
      header, *rows = (row[:-1] for row in (header, *rows))
    result += aligned([header, *rows])
  return result


def summary(results: Mapping[str, float], elsewhere: str) -> list[str]:
  """The metrics of several evals, EVAL/METRIC, as lines."""
  evals: dict[str, dict[str, float]] = {}
  for name, value in results.items():
    group, _, metric = name.partition("/")
    evals.setdefault(group, {})[metric] = value
  rows = [["eval", "metric", "value"]]
  for group, metrics in evals.items():
    first = group
    for metric, value in by_class(metrics).whole.items():
      rows.append([first, metric, text(value)])
      first = ""
  result = aligned(rows, num_names=2)
  for group, metrics in evals.items():
    if found := lines(metrics, elsewhere):
      result += [f"{group}, by {by_class(metrics).unit}:", *found]
  return result


def aligned(rows: Sequence[Sequence[str]], num_names: int = 1) -> list[str]:
  """Rows of cells as lines; the first columns are names, the rest numbers."""
  widths = [max(map(len, column)) for column in zip(*rows)]
  return [
    "  ".join(
      cell.ljust(width) if i < num_names else cell.rjust(width)
      for i, (cell, width) in enumerate(zip(row, widths))
    ).rstrip()
    for row in rows
  ]
