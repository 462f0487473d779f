"""Thresholds of classes: chosen on one eval set, applied to others.

From the threshold of a class on, a probability means that an image is of this
class, whatever the probabilities of the other classes are.
"""

import dataclasses
import json
import pathlib
import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from vitjax.evaluators import counts, tables

# Metrics at the thresholds, one for each class.
_METRICS = ("precision", "recall", "f1")


@dataclasses.dataclass(frozen=True)
class Goal:
  """What a threshold is for: the best F1, or a precision or recall to reach.

  Attributes:
    metric: "f1", "precision" or "recall".
    least: the precision or recall to reach.
  """

  metric: str
  least: float = 0.0

  def __str__(self) -> str:
    return f"{self.metric}={self.least}" if self.least else self.metric


def parse_goal(text: str) -> Goal:
  """Reads "f1", "precision=0.9" or "recall=0.9".

  Raises:
    ValueError: if it is something else.
  """
  match = re.fullmatch(r"(precision|recall)=(\d*\.?\d+)", text)
  if text == "f1":
    return Goal("f1")
  if match is None or not 0 < float(match[2]) <= 1:
    raise ValueError(
      f"--choose_thresholds={text} is not f1, precision=P or recall=R with P "
      "and R above 0 and at most 1, such as recall=0.95."
    )
  return Goal(match[1], float(match[2]))


@dataclasses.dataclass(frozen=True)
class Thresholds:
  """Thresholds by class, and where they come from.

  Attributes:
    by_class: name of a class -> its threshold, a probability; NaN if no
      threshold reaches the goal, or the class had no images.
    goal: what they are for, such as "f1".
    source: the eval set on which they were chosen, in words.
    fingerprint: a hash of that set.
  """

  by_class: Mapping[str, float]
  goal: str
  source: str
  fingerprint: str

  def sentence(self, fingerprint: str) -> str:
    """Says where the thresholds come from, beside metrics of another set.

    Args:
      fingerprint: that of the set with the metrics.
    """
    said = f"Thresholds chosen on {self.source}, for {self.goal}"
    if fingerprint == self.fingerprint:
      return (
        f"{said}: on these very images, so the metrics at the thresholds are "
        "too good. Apply them to a test set."
      )
    missing = [k for k, x in self.by_class.items() if np.isnan(x)]
    none = f"; none found for {', '.join(missing)}" if missing else ""
    return f"{said}{none}; applied to other images here."

  def metrics(
    self, names: Sequence[str], score: np.ndarray, truth: np.ndarray
  ) -> dict[str, float]:
    """Thresholds, and precision, recall and F1 at them, of each class.

    Args:
      names: names of the classes.
      score: (m, n) probabilities.
      truth: (m, n), 1 or 0; NaN if unknown, which is not counted.

    Raises:
      ValueError: if the thresholds are of other classes.
    """
    if {*names} != {*self.by_class}:
      only = sorted({*names} ^ {*self.by_class})
      raise ValueError(
        "the thresholds are of other classes than those of the model: "
        f"{only[0]!r} is in one of the two only."
      )
    thresholds = np.array([self.by_class[name] for name in names])
    known, positive = ~np.isnan(truth), truth == 1
    guess = known & (score >= thresholds)
    sums = {
      "support": positive.sum(axis=0),
      "right": (guess & positive).sum(axis=0),
      "predicted": np.append(guess.sum(axis=0), 0),
    }
    measured = counts.measures(sums)
    found = dict(zip(tables.names("threshold", names), thresholds.tolist()))
    for metric in _METRICS:
      values = np.where(np.isnan(thresholds), np.nan, measured[metric])
      keys = tables.names(f"threshold_{metric}", names)
      found |= zip(keys, values.tolist())
    return found


def choose(
  names: Sequence[str], score: np.ndarray, truth: np.ndarray, goal: Goal
) -> dict[str, float]:
  """The threshold of each class; see `Thresholds.metrics` for the arguments.

  For F1 the one with the best F1. To reach a precision, the one with the best
  recall among those that reach it, and the other way round. Of equals the
  highest. A threshold is in the middle between two probabilities that occur.
  """
  found = {}
  for name, p, y in zip(names, score.T, truth.T):
    known = ~np.isnan(y)
    found[name] = _choose(p[known], y[known] == 1, goal)
  return found


def _choose(p: np.ndarray, positive: np.ndarray, goal: Goal) -> float:
  if not positive.any() or not np.isfinite(p).all():
    return float("nan")
  order = np.argsort(-p, kind="stable")
  p, right = p[order], np.cumsum(positive[order])
  last = np.flatnonzero(np.append(p[1:] != p[:-1], True))  # of equal values
  right, predicted = right[last], last + 1
  precision, recall = right / predicted, right / right[-1]
  f1 = 2 * right / (predicted + right[-1])
  reached, value = {
    "f1": (f1, f1),
    "precision": (precision, recall),
    "recall": (recall, precision),
  }[goal.metric]
  value = np.where(reached >= goal.least, value, -1.0)
  best = int(value.argmax())
  if value[best] < 0:
    return float("nan")
  below = p[last[best + 1]] if best + 1 < len(last) else 0.0
  return float((p[last[best]] + below) / 2)


def to_text(thresholds: Thresholds) -> str:
  """The content of a file of thresholds: JSON."""
  content: dict[str, Any] = dataclasses.asdict(thresholds)
  content["by_class"] = {
    k: None if np.isnan(x) else x for k, x in thresholds.by_class.items()
  }
  return json.dumps(content, indent=2, ensure_ascii=False)


def read(path: pathlib.Path) -> Thresholds:
  """Reads what `to_text` gives.

  Raises:
    ValueError: if the file does not hold thresholds.
  """
  try:
    content = json.loads(path.read_text(encoding="utf-8"))
    by_class = {
      k: float("nan") if x is None else float(x)
      for k, x in content.pop("by_class").items()
    }
    return Thresholds(by_class=by_class, **content)
  except OSError as e:
    raise ValueError(
      f"--thresholds={path} cannot be read ({e.strerror}). Write it first with "
      "--choose_thresholds."
    ) from None
  except (ValueError, KeyError, TypeError, AttributeError):
    raise ValueError(
      f"--thresholds={path} is not a file that --choose_thresholds wrote."
    ) from None
