"""Compares the record of a run with those of reference runs.

Compared are train/loss, as the mean of its last 20 records, and the metrics of
the evals, each at the last step in common. With several references a run is on
track within 3 standard deviations of their mean; with one, within a tolerance
of its loss or error rate plus the noise of batches and eval sets.
"""

import bisect
import dataclasses
import json
import math
import os
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from vitjax.config import schema
from vitjax.run_folder import reader
from vitjax.run_folder.reader import METRICS_FILE, read_metrics

WINDOW = 20  # records of train/loss in one mean
NUM_SD = 3


@dataclasses.dataclass(frozen=True)
class Metric:
  """One metric of a run beside that of the references.

  Attributes:
    name: such as "test/acc@1".
    step: of the run; the last that the references have too.
    value: of the run at that step.
    reference: mean of the references there.
    difference: value - reference.
    sd: standard deviation of a run from `reference`, estimated from the
      references; None if there is only one.
    allowed: the largest difference of either sign that is on track.
    off_since: the step since which the run is off track; None if it is not.
  """

  name: str
  step: int
  value: float
  reference: float
  difference: float
  sd: float | None
  allowed: float
  off_since: int | None


@dataclasses.dataclass(frozen=True)
class Comparison:
  """Whether a run is on track.

  Attributes:
    on_track: whether it is, with every metric.
    run: its path.
    references: their paths.
    metrics: those that the run and all references have.
    differences: "key: reference -> run" of the configs, for the keys that
      change what is learned.
    notes: what else there is to know, in sentences.
  """

  on_track: bool
  run: str
  references: tuple[str, ...]
  metrics: tuple[Metric, ...]
  differences: tuple[str, ...]
  notes: tuple[str, ...]

  def __str__(self) -> str:
    verdict = "ON TRACK" if self.on_track else "OFF TRACK"
    lines = [f"{verdict}: {self.run} against {', '.join(self.references)}", ""]
    rows = [("", "step", "run", "reference", "difference", "allowed", "")]
    rows += [_row(metric) for metric in self.metrics]
    widths = [max(map(len, column)) for column in zip(*rows)]
    for first, *middle, last in rows:
      cells = [first.ljust(widths[0])]
      cells += [cell.rjust(w) for cell, w in zip(middle, widths[1:])]
      lines.append("  ".join([*cells, last]).rstrip())
    if self.differences:
      lines += ["", "The configs differ, reference -> run:"]
      lines += [f"  {line}" for line in self.differences]
    if self.notes:
      lines += ["", *self.notes]
    return "\n".join(lines)


def compare(
  run: str | os.PathLike,
  references: str | os.PathLike | Sequence[str | os.PathLike],
  *,
  tolerance: float = 0.1,
) -> Comparison:
  """Compares the record of a run with those of others.

  Runs of different batch sizes are compared by the examples seen.

  Args:
    run: a run folder, or a metrics.jsonl with its config.json beside it.
    references: one or several of these, or folders of several, which differ
      in nothing but the seed.
    tolerance: the difference allowed from a single reference, relative to
      its loss or to its error rate (1 - accuracy).

  Raises:
    FileNotFoundError: if there is no record.
    ValueError: if a record is broken, the references are of different
      recipes, or there is nothing to compare.
  """
  if isinstance(references, str | os.PathLike):
    references = [references]
  this = _Curves(pathlib.Path(run))
  others = [_Curves(p) for path in references for p in _expand(path)]
  _check_one_recipe(others)
  notes = []
  sizes = [curves.batch_size for curves in (this, *others)]
  if None in sizes:
    sizes = [1] * len(sizes)
    notes.append(
      "Compared by step, since the batch size of a record without a "
      "config.json beside it is not known."
    )
  elif len({*sizes}) > 1:
    notes.append(
      "Compared by examples seen, since the batch sizes differ; the steps are "
      "those of the run."
    )
  metrics = []
  for name in this.metrics:
    if all(name in other.metrics for other in others):
      metric = _compare_metric(name, this, others, sizes, tolerance)
      metrics += [metric] if metric else []
  if not metrics:
    raise ValueError(
      "there is no step at which the runs have a metric in common. "
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
  differences = []
  if this.config and others[0].config:
    differences = schema.differences(
      _essentials(others[0].config), _essentials(this.config)
    )
  for name, number in this.num_seen.items():
    old = others[0].num_seen.get(name, number)
    if old != number:
      differences.append(f"{name}: {old} -> {number}")
  return Comparison(
    on_track=all(metric.off_since is None for metric in metrics),
    run=str(run),
    references=tuple(str(other.path) for other in others),
    metrics=tuple(metrics),
    differences=tuple(differences),
    notes=tuple(notes),
  )


class _Curves:
  """The record of a run: what is compared, by name and step.

  Attributes:
    path: the run folder, or the file.
    metrics: name -> {step: value}, in the order of the steps.
    num_seen: name of an `n_seen` -> number of examples of that eval.
    config: the resolved config, or None.
    batch_size: of training, or None.
  """

  def __init__(self, path: pathlib.Path):
    self.path = path
    file = path / METRICS_FILE if path.is_dir() else path
    if not file.exists():
      raise FileNotFoundError(
        f"{file} does not exist; give a run folder or a metrics.jsonl."
      )
    self.metrics: dict[str, dict[int, float]] = {}
    self.num_seen: dict[str, int] = {}
    for row in read_metrics(file):
      for name, value in row.items():
        if name.endswith("/n_seen"):
          self.num_seen[name] = value
        elif name.endswith(("/l2", "_l2")):
          continue  # what a probe chose is not how good it is
        elif name == "train/loss" or not name.startswith(("train/", "step")):
          self.metrics.setdefault(name, {})[row["step"]] = value
    self.config = self.batch_size = None
    file = file.with_name("config.json")  # as run_folder writes it
    if file.exists():
      self.config = reader.read_config(file)
      self.batch_size = self.config["input"]["batch_size"]

  @property
  def last_step(self) -> int:
    return max(max(steps) for steps in self.metrics.values())

  def describe(self) -> str:
    parts = [
      f"{name} at {len(steps)} steps from {min(steps):,} to {max(steps):,}"
      for name, steps in self.metrics.items()
    ]
    return f"{self.path} has {', '.join(parts) or 'no metrics yet'}"


def _expand(path: str | os.PathLike) -> list[pathlib.Path]:
  """The run itself, or those in a folder of runs."""
  path = pathlib.Path(path)
  if not path.is_dir() or (path / METRICS_FILE).exists():
    return [path]
  runs = sorted(file.parent for file in path.glob(f"*/{METRICS_FILE}"))
  if not runs:
    raise FileNotFoundError(f"no {METRICS_FILE} in {path} or in its folders.")
  return runs


def _essentials(given: Mapping[str, Any]) -> dict[str, Any]:
  """A config without what does not change what is learned but by chance."""
  given = schema.with_defaults(given)
  noise = ("seed", "checkpoint", "report", "mesh", "sharding", "export_npz")
  kept = {k: v for k, v in given.items() if k not in noise}
  for section in (kept["input"], *kept.get("evals", {}).values()):
    section.pop("data_dir", None)
  for section in kept.get("evals", {}).values():
    for key in [k for k in section if k.startswith(("every_", "batch_size"))]:
      del section[key]
  return kept


def _check_one_recipe(curves: Sequence[_Curves]) -> None:
  known = [c for c in curves if c.config]
  for other in known[1:]:
    changes = schema.differences(
      _essentials(known[0].config), _essentials(other.config)
    )
    if changes:
      raise ValueError(
        f"the references {known[0].path} and {other.path} are of different "
        "recipes:\n  " + "\n  ".join(changes) + "\nGive those of one recipe, "
        "which differ in the seed."
      )


def _compare_metric(
  name: str,
  run: _Curves,
  references: Sequence[_Curves],
  sizes: Sequence[int],
  tolerance: float,
) -> Metric | None:
  """Compares one metric at all steps in common; None if there is none."""
  pairs = [
    _pair([*run.metrics[name]], sizes[0], [*other.metrics[name]], size)
    for other, size in zip(references, sizes[1:])
  ]
  steps = sorted(set.intersection(*(set(p) for p in pairs)))
  if not steps:
    return None
  y = np.array([run.metrics[name][s] for s in steps])
  refs = np.array(
    [
      [other.metrics[name][p[s]] for s in steps]
      for other, p in zip(references, pairs)
    ]
  )
  if not np.isfinite(refs).all():
    raise ValueError(f"{name} of a reference is not finite.")
  with np.errstate(invalid="ignore"):  # infinities of the run
    if name.startswith("train/"):
      seen = None
      noise = _trailing(y - refs.mean(0), _standard_error)
      y = _trailing(y, np.mean)
      refs = np.stack([_trailing(ref, np.mean) for ref in refs])
    else:
      seen = run.num_seen.get(f"{name.rpartition('/')[0]}/n_seen")
      noise = _sampling_error(name, refs.mean(0), seen)
    reference = refs.mean(0)
    scale = 1 - reference if _is_rate(name, refs) else np.abs(reference)
    if len(refs) > 1:
      sd = _pooled_sd(steps, refs) * math.sqrt(1 + 1 / len(refs))
      least = 0.01 * scale  # the seeds may agree by chance
      if seen and _is_rate(name, refs):
        least = np.maximum(least, 1 / seen)
      allowed = np.maximum(NUM_SD * sd, least)
    else:
      allowed = tolerance * scale + NUM_SD * noise
    outside = ~(np.abs(y - reference) <= allowed)  # also if it is NaN
  off_since = None
  if outside[-1]:
    inside = np.flatnonzero(~outside)
    off_since = steps[inside[-1] + 1 if inside.size else 0]
  return Metric(
    name=name,
    step=steps[-1],
    value=float(y[-1]),
    reference=float(reference[-1]),
    difference=float(y[-1] - reference[-1]),
    sd=float(sd[-1]) if len(refs) > 1 else None,
    allowed=float(allowed[-1]),
    off_since=off_since,
  )


def _pair(
  steps: Sequence[int], size: int, others: Sequence[int], other_size: int
) -> dict[int, int]:
  """Step -> the other run's step at which it had seen as many examples.

  Not to the last one: evals come before the end of an epoch that a batch size
  does not divide. So they are less than a step apart; no step is used twice.
  """
  nearest: dict[int, tuple[int, int]] = {}  # other -> (distance, step)
  for step in steps:
    i = bisect.bisect_left(others, step * size / other_size)
    distance, other = min(
      (abs(step * size - other * other_size), other)
      for other in others[max(i - 1, 0) : i + 1]
    )
    if distance < max(size, other_size):
      closer = nearest.get(other, (distance, step))
      nearest[other] = min((distance, step), closer)
  return {step: other for other, (_, step) in nearest.items()}


def _trailing(values: np.ndarray, fn) -> np.ndarray:
  """`fn` of the last WINDOW values up to each."""
  ends = range(1, len(values) + 1)
  return np.array([fn(values[max(0, end - WINDOW) : end]) for end in ends])


def _standard_error(values: np.ndarray) -> float:
  """Of the mean; 0 for a single value, which does not tell."""
  n = len(values)
  return values.std(ddof=1) / math.sqrt(n) if n > 1 else 0.0


def _is_rate(name: str, values: np.ndarray) -> bool:
  in_range = ((values >= 0) & (values <= 1)).all()
  return bool(in_range) and not name.endswith("loss")


def _sampling_error(
  name: str, mean: np.ndarray, num_seen: int | None
) -> np.ndarray:
  """Standard deviation of a difference that `num_seen` examples explain.

  That of binomials for rates (with one success and one failure more, so that
  it is not 0 for 100 %), and of exponentials, whose standard deviation is
  their mean, for losses.
  """
  if not num_seen:
    return np.zeros_like(mean)
  if _is_rate(name, mean):
    p = (mean * num_seen + 1) / (num_seen + 2)
    return np.sqrt(2 * p * (1 - p) / num_seen)
  return np.abs(mean) * math.sqrt(2 / num_seen)


def _pooled_sd(steps: Sequence[int], values: np.ndarray) -> np.ndarray:
  """Standard deviation of rows, pooled from half of each step up to it.

  Few rows tell little about it at a single step.
  """
  variance = values.var(axis=0, ddof=1)
  firsts = [bisect.bisect_left(steps, step / 2) for step in steps]
  return np.sqrt(
    [variance[first : i + 1].mean() for i, first in enumerate(firsts)]
  )


def _row(metric: Metric) -> tuple[str, ...]:
  if metric.sd:
    size = f"{metric.difference / metric.sd:+.1f} sd"
  elif metric.reference:
    size = f"{metric.difference / abs(metric.reference):+.1%}"
  else:
    size = ""
  return (
    metric.name,
    f"{metric.step:,}",
    f"{metric.value:.4f}",
    f"{metric.reference:.4f}",
    f"{metric.difference:+.4f} ({size})",
    f"±{metric.allowed:.4f}",
    "" if metric.off_since is None else f"off since step {metric.off_since:,}",
  )


def to_json(comparison: Comparison) -> str:
  """NaN and infinities are strings, as in metrics.jsonl."""

  def plain(x):
    if isinstance(x, Mapping):
      return {key: plain(value) for key, value in x.items()}
    if isinstance(x, tuple):
      return [plain(value) for value in x]
    return str(x) if isinstance(x, float) and not math.isfinite(x) else x

  return json.dumps(plain(dataclasses.asdict(comparison)), indent=2)
