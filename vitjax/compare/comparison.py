"""Comparison of the record of a run with the records of reference runs.

The recipes are compared first, then train/loss, as the mean of its last 20
records, and the metrics of the evals, each at the last step in common. With
several references a run is on track within 3 standard deviations of their
mean; with one reference, within a tolerance of its loss or error rate plus the
noise of its batches and of the eval set.
"""

import dataclasses
import json
import math
import os
import pathlib
from collections.abc import Mapping, Sequence

from vitjax.compare import band, recipe
from vitjax.compare.band import Metric
from vitjax.compare.curves import Curves, expand


@dataclasses.dataclass(frozen=True)
class Comparison:
  """Whether a run is on track.

  Attributes:
    on_track: whether the recipe is that of the references and every metric is
      within its band.
    run: path of the run.
    references: paths of the references.
    metrics: the metrics that the run and all references have.
    differences: "key: reference -> run" for each config key that changes what
      is learned, and for each eval set of another size.
    allowed: such lines of keys that may differ.
    notes: further facts, in sentences.
  """

  on_track: bool
  run: str
  references: tuple[str, ...]
  metrics: tuple[Metric, ...]
  differences: tuple[str, ...]
  allowed: tuple[str, ...]
  notes: tuple[str, ...]

  @property
  def verdict(self) -> str:
    if self.differences:
      return "NOT COMPARABLE"
    return "ON TRACK" if self.on_track else "OFF TRACK"

  def __str__(self) -> str:
    lines = [f"{self.verdict}: {self.run} against {', '.join(self.references)}"]
    if self.differences:
      keys = ",".join(line.partition(":")[0] for line in self.differences)
      lines += ["", "The recipes differ, reference -> run:"]
      lines += [f"  {line}" for line in self.differences]
      lines += [f"If this is on purpose, add --allow={keys}"]
    rows = [("", "step", "run", "reference", "difference", "allowed", "")]
    rows += [band.to_row(metric) for metric in self.metrics]
    widths = [max(map(len, column)) for column in zip(*rows)]
    lines.append("")
    for first, *middle, last in rows:
      cells = [first.ljust(widths[0])]
      cells += [cell.rjust(w) for cell, w in zip(middle, widths[1:])]
      lines.append("  ".join([*cells, last]).rstrip())
    if self.allowed:
      lines += ["", "Allowed differences of the recipes, reference -> run:"]
      lines += [f"  {line}" for line in self.allowed]
    if self.notes:
      lines += ["", *self.notes]
    return "\n".join(lines)


def compare(
  run: str | os.PathLike,
  references: str | os.PathLike | Sequence[str | os.PathLike],
  *,
  tolerance: float = 0.1,
  allow: Sequence[str] = (),
) -> Comparison:
  """Compares the record of a run with the records of reference runs.

  Runs of different batch sizes are compared by the examples seen.

  Args:
    run: a run folder, or a metrics.jsonl with its config.json beside it.
    references: one or several run folders, or folders of several, which
      differ in the seed only.
    tolerance: the difference allowed from a single reference, relative to its
      loss or to its error rate (1 - accuracy).
    allow: config keys in which the run may differ from the references, such
      as "input.batch_size" or "optim.*".

  Raises:
    FileNotFoundError: if there is no record.
    ValueError: if a record is broken, the references are of different
      recipes, or the records have nothing in common.
  """
  if isinstance(references, str | os.PathLike):
    references = [references]
  this = Curves(pathlib.Path(run))
  others = [Curves(p) for path in references for p in expand(path)]
  recipe.check_one_recipe(others)
  notes = []
  every = [this, *others]
  if None in [curves.config for curves in every]:
    notes.append(
      "The recipes were not compared: a record has no config.json beside it."
    )
  sizes = [c.batch_size for c in every if c.batch_size is not None]
  if len(sizes) < len(every):
    sizes = [1] * len(every)
    notes.append(
      "Metrics are compared by step: without config.json a batch size is "
      "unknown."
    )
  elif len({*sizes}) > 1:
    notes.append(
      "Metrics are compared by examples seen, because the batch sizes differ; "
      "the table shows the steps of the run."
    )
  metrics = []
  for name in this.metrics:
    if all(name in other.metrics for other in others):
      metric = band.compare_metric(name, this, others, sizes, tolerance)
      metrics += [metric] if metric else []
  if not metrics:
    raise ValueError(
      "the runs have no metric in common at any step. "
      f"{this.describe()}; {others[0].describe()}."
    )
  compared = {metric.name for metric in metrics}
  for name in sorted({*this.metrics, *others[0].metrics} - compared):
    who = "the references have" if name not in this.metrics else "the run has"
    notes.append(f"Not compared: {name}, which only {who} at such steps.")
  end, size = min(
    (other.last_step * s, s) for other, s in zip(others, sizes[1:])
  )
  if this.last_step * sizes[0] >= end + max(size, sizes[0]):
    notes.append(
      f"The references end at step {end // size:,}, the run is at "
      f"{this.last_step:,}."
    )
  notes += [f"{c.path}: {c.early_end}" for c in every if c.early_end]
  wrong, allowed = recipe.differences(others[0], this, allow)
  return Comparison(
    on_track=not wrong and all(metric.off_since is None for metric in metrics),
    run=str(run),
    references=tuple(str(other.path) for other in others),
    metrics=tuple(metrics),
    differences=tuple(wrong),
    allowed=tuple(allowed),
    notes=tuple(notes),
  )


def to_json(comparison: Comparison) -> str:
  """The comparison as JSON; NaN and infinities are strings."""

  def plain(x):
    if isinstance(x, Mapping):
      return {key: plain(value) for key, value in x.items()}
    if isinstance(x, tuple):
      return [plain(value) for value in x]
    return str(x) if isinstance(x, float) and not math.isfinite(x) else x

  content = {"verdict": comparison.verdict, **dataclasses.asdict(comparison)}
  return json.dumps(plain(content), indent=2)
