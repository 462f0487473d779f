"""Results of a sweep: its table, its plot, and the best point."""

import csv
import dataclasses
import io
import math
from collections.abc import Mapping, Sequence

import numpy as np

from vitjax.run_folder.history import Record
from vitjax.sweep.grid import Axis, Point, value_of


@dataclasses.dataclass(frozen=True)
class Outcome:
  """The result of a point.

  Attributes:
    point: the point.
    value: its metric at the end; None if it has none.
    num_seen: number of examples that the metric is of, if known.
    step: the last step.
    note: "ended early", or why the run diverged; else "".
  """

  point: Point
  value: float | None
  num_seen: int | None
  step: int
  note: str = ""


def outcome(point: Point, record: Record, metric: str, note: str) -> Outcome:
  """The result of a finished point.

  Args:
    point: the point.
    record: the record of its run.
    metric: EVAL/METRIC.
    note: why it has diverged, or "".

  Raises:
    ValueError: if the run has not diverged, and has no such metric.
  """
  if note:
    return Outcome(point, None, None, record.last_step, note)
  if metric not in record.metrics:
    known = [k for k in record.metrics if not k.startswith("train/")]
    raise ValueError(
      f"--metric={metric}: {record.path} has no such metric. It has "
      f"{', '.join(known)}."
    )
  _, values = record.metrics[metric]
  early = "ended early" if record.early_end else ""
  seen = record.num_seen.get(metric.partition("/")[0])
  return Outcome(point, float(values[-1]), seen, record.last_step, early)


def best(outcomes: Sequence[Outcome], mode: str) -> Outcome | None:
  """The best finite point; of equals the first. None if there is none."""
  sign = {"max": -1, "min": 1}[mode]
  known = [
    (sign * x.value, i)
    for i, x in enumerate(outcomes)
    if x.value is not None and math.isfinite(x.value)
  ]
  return outcomes[min(known)[1]] if known else None


def rows(
  axes: Sequence[Axis],
  outcomes: Sequence[Outcome],
  metric: str,
  winner: Outcome | None,
) -> list[list[str]]:
  """The table: a head, and a row for each point."""
  found = [[*(axis.key for axis in axes), metric, "n_seen", "step", "note"]]
  for one in outcomes:
    notes = [one.note, "best" if one is winner else ""]
    found.append(
      [
        *one.point.texts.values(),
        "" if one.value is None else f"{one.value:.6g}",
        f"{one.num_seen or ''}",
        str(one.step),
        ", ".join(filter(None, notes)),
      ]
    )
  return found


def to_text(table: Sequence[Sequence[str]]) -> str:
  """The table in columns."""
  widths = [max(map(len, column)) for column in zip(*table)]
  lines = []
  for *cells, note in table:
    padded = [cell.rjust(width) for cell, width in zip(cells, widths)]
    lines.append("  ".join([*padded, note]).rstrip())
  return "\n".join(lines)


def to_csv(table: Sequence[Sequence[str]]) -> str:
  """The table as CSV, without a newline at its end."""
  text = io.StringIO()
  csv.writer(text, lineterminator="\n").writerows(table)
  return text.getvalue().rstrip("\n")


def edges(axes: Sequence[Axis], winner: Outcome) -> list[str]:
  """A sentence for each number of the best point that is at an edge."""
  found = []
  for axis in axes:
    numbers = axis.numbers
    if numbers is None or len(numbers) < 2:
      continue
    ordered = sorted(numbers)
    value = float(value_of(winner.point.texts[axis.key]))
    for end, beside, word in (
      (ordered[0], ordered[1], "smallest"),
      (ordered[-1], ordered[-2], "largest"),
    ):
      if value == end:
        further = [f"{value:g}", *_beyond(end, beside)]
        found.append(
          f"{axis.key}={value:g} is the {word} of the grid, so the best value "
          f"may lie beyond it. Try --over={axis.key}={','.join(further)}."
        )
  return found


def _beyond(end: float, beside: float) -> list[str]:
  """Two values further out, spaced as the last two are."""
  if end > 0 and beside > 0:
    ratio = end / beside
    more = [end * ratio, end * ratio**2]
  else:
    more = [end + i * (end - beside) for i in (1, 2)]
  if end == int(end) and beside == int(beside) and min(more) >= 1:
    more = [round(x) for x in more]
  return [f"{x:.3g}" for x in more]


def series(
  axes: Sequence[Axis], outcomes: Sequence[Outcome]
) -> Mapping[str, tuple[np.ndarray, np.ndarray]]:
  """Name -> values over the first key, a line for each setting of the others.

  Values that are not numbers are counted from 0.
  """
  first, *others = axes
  places = first.numbers or range(len(first.texts))
  place_of = dict(zip(first.texts, places))
  lines: dict[str, list[tuple[float, float]]] = {}
  for one in outcomes:
    name = " ".join(f"{a.key}={one.point.texts[a.key]}" for a in others)
    value = math.nan if one.value is None else one.value
    x = place_of[one.point.texts[first.key]]
    lines.setdefault(name or "all", []).append((x, value))
  return {k: tuple(np.array(sorted(v)).T) for k, v in lines.items()}


def plot(
  axes: Sequence[Axis], outcomes: Sequence[Outcome], metric: str
) -> bytes:
  """A PNG of the metric over the first key."""
  from vitjax.plots import charts  # matplotlib: when it is needed

  first = axes[0]
  figure = charts.settings(
    metric,
    series(axes, outcomes),
    first.key,
    ticks=None if first.numbers else first.texts,
  )
  return figure.png()
