"""Band around the curves of reference runs, and whether a run is inside it."""

import bisect
import dataclasses
import math
from collections.abc import Mapping, Sequence

import numpy as np

from vitjax.compare.curves import Curves

WINDOW = 20  # records of train/loss in one mean
NUM_SD = 3


@dataclasses.dataclass(frozen=True)
class Metric:
  """One metric of a run beside that of the references.

  Attributes:
    name: name of the metric, such as "test/acc@1".
    step: step of the run; the last that the references have, too.
    value: value of the run at that step.
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


def compare_metric(
  name: str,
  run: Curves,
  references: Sequence[Curves],
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
      noise = _batch_noise(
        references[0].metrics[name], [pairs[0][s] for s in steps]
      )
      y = _trailing_mean(y)
      refs = np.stack([_trailing_mean(ref) for ref in refs])
    else:
      seen = run.num_seen.get(name.rpartition("/")[0])
      noise = _sampling_error(name, refs.mean(0), seen)
    reference = refs.mean(0)
    scale = 1 - reference if _is_rate(name, refs) else np.abs(reference)
    sd = None
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
    sd=None if sd is None else float(sd[-1]),
    allowed=float(allowed[-1]),
    off_since=off_since,
  )


def _pair(
  steps: Sequence[int], size: int, others: Sequence[int], other_size: int
) -> dict[int, int]:
  """Step -> step of the other run at which it had seen as many examples.

  The numbers of examples differ by less than a step: evals come before the end
  of an epoch that the batch size does not divide. No step is used twice.
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


def _trailing_mean(values: np.ndarray) -> np.ndarray:
  """Mean of the last WINDOW values up to each."""
  ends = range(1, len(values) + 1)
  return np.array([values[max(0, end - WINDOW) : end].mean() for end in ends])


def _batch_noise(
  curve: Mapping[int, float], steps: Sequence[int]
) -> np.ndarray:
  """Standard deviation that batches give the difference of two means.

  It is measured on the reference alone: a run that drifts away or is noisy
  must not widen its own band. Second differences leave out the slope of the
  curve.

  Args:
    curve: step -> loss of the reference.
    steps: steps of the reference at which the trailing means end.
  """
  known, values = [*curve], np.array([*curve.values()])
  result = []
  for number, step in enumerate(steps, 1):
    end = bisect.bisect_right(known, step)
    near = values[max(0, end - WINDOW) : max(end, WINDOW)]
    bends = np.diff(near, n=2)  # of variance 1 + 4 + 1 times that of a value
    variance = np.mean(bends**2) / 6 if bends.size else 0.0
    result.append(math.sqrt(2 * variance / min(number, WINDOW)))
  return np.array(result)


def _is_rate(name: str, values: np.ndarray) -> bool:
  in_range = ((values >= 0) & (values <= 1)).all()
  return bool(in_range) and not name.endswith("loss")


def _sampling_error(
  name: str, mean: np.ndarray, num_seen: int | None
) -> np.ndarray:
  """Standard deviation that an eval set of `num_seen` examples gives.

  Rates are taken as binomials, with one success and one failure added, so
  that it is not 0 for 100 %; losses as exponentials, whose standard deviation
  is their mean.
  """
  if not num_seen:
    return np.zeros_like(mean)
  if _is_rate(name, mean):
    p = (mean * num_seen + 1) / (num_seen + 2)
    return np.sqrt(2 * p * (1 - p) / num_seen)
  return np.abs(mean) * math.sqrt(2 / num_seen)


def _pooled_sd(steps: Sequence[int], values: np.ndarray) -> np.ndarray:
  """Standard deviation between rows, pooled from half of each step up to it.

  A few rows do not determine it at a single step.
  """
  variance = values.var(axis=0, ddof=1)
  firsts = [bisect.bisect_left(steps, step / 2) for step in steps]
  return np.sqrt(
    [variance[first : i + 1].mean() for i, first in enumerate(firsts)]
  )


def to_row(metric: Metric) -> tuple[str, ...]:
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
