"""Metrics of a classifier whose images may have several classes."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
import numpy as np
import scipy.special
from absl import logging

from vitjax.config import messages
from vitjax.evaluators import base
from vitjax.evaluators.classes import Classes
from vitjax.evaluators.per_output import Found, PerOutput

# Metrics of each class, on request.
BY_CLASS = ("ap", "precision", "recall", "f1", "support")
_OVER_CLASSES = ("mAP", "micro_ap", "macro_f1", "micro_f1", "exact_match")


class Evaluator:
  """Average precision and F1 of a classifier with several classes an image.

  Metrics: `loss`, `mAP` (the mean over classes of the average precision),
  `micro_ap` (that of all pairs of image and class together), `macro_f1`,
  `micro_f1`, `exact_match` (the share of images whose classes are all right),
  `n_seen` and those that `metrics` adds. Labels that are unknown are left out.

  Attributes:
    metrics: names of all metrics, in the order of `run`.
  """

  two_towers = False

  def __init__(
    self,
    predict_fn: Callable,
    data: base.EvalData,
    *,
    loss: str = "sigmoid_xent",
    classes: Classes | None = None,
    same_classes: bool = False,
    threshold: float = 0.5,
    metrics: Sequence[str] = (),
  ):
    """See `evaluators`.

    Args:
      predict_fn: from `step.make_predict_fn`.
      data: examples with `labels`, 1 or 0 for each class and NaN if unknown.
      loss: which of `vitjax.losses` to report, without label smoothing.
      classes: classes of the model. None: those of the data set.
      same_classes: see `classification`.
      threshold: probability from which on a class counts as predicted.
      metrics: metrics of each class to add: "ap", "precision", "recall", "f1"
        and "support", the number of its images, or "all".

    Raises:
      ValueError: if the labels are of another kind, classes cannot be matched,
        or an option is wrong.
    """
    if "all" in metrics:
      metrics = BY_CLASS
    if unknown := [x for x in metrics if x not in BY_CLASS]:
      hint = messages.did_you_mean(str(unknown[0]), BY_CLASS)
      raise ValueError(
        f"metrics has {unknown[0]!r}, which is not one of "
        f"{', '.join(BY_CLASS)}, all.{hint} Always reported: "
        f"{', '.join(_OVER_CLASSES)}."
      )
    if not 0 < threshold < 1:
      raise ValueError(f"threshold={threshold} must be between 0 and 1.")
    self.outputs = PerOutput(
      predict_fn,
      data,
      kind="multi_label",
      loss=loss,
      classes=classes,
      same_classes=same_classes,
    )
    self._threshold = threshold
    self._by_class = tuple(dict.fromkeys(metrics))
    names = self.outputs.names
    self.metrics = (
      "loss",
      *_OVER_CLASSES,
      *(f"{metric}[{name}]" for metric in self._by_class for name in names),
      "n_seen",
    )
    source = data.source
    if source.targets is not None and jax.process_index() == 0:
      sentence = describe(source.targets, names)
      logging.info("%s %s: %s", source.data, source.split, sentence)

  def trace(self, params) -> None:
    """See `evaluators`."""
    self.outputs.trace(params)

  def run(self, params) -> Iterator[tuple[str, float]]:
    """Yields each metric with its name."""
    found = self.outputs(params)
    self._warn_of_no_class(found)
    yield from self.measure(found).items()
    yield "n_seen", len(found.targets)

  def measure(self, found: Found) -> dict[str, float]:
    """Each metric but `n_seen`, of any outputs."""
    values = measure(found, self._threshold)
    metrics = {"loss": found.loss}
    metrics |= {name: float(values[name]) for name in _OVER_CLASSES}
    kind = {"support": int}
    for metric in self._by_class:
      for name, value in zip(self.outputs.names, values[metric]):
        metrics[f"{metric}[{name}]"] = kind.get(metric, float)(value)
    return metrics

  def _warn_of_no_class(self, found: Found) -> None:
    if _predicted(found, self._threshold).any() or jax.process_index():
      return
    source = self.outputs.data.source
    logging.warning(
      "%s %s: no class of any image has a probability of %g or more, so F1 is "
      "0. mAP does not depend on this threshold.",
      source.data,
      source.split,
      self._threshold,
    )


def measure(found: Found, threshold: float) -> dict[str, Any]:
  """Metrics of each class (n,), and over all classes (), by their names.

  The definitions are scikit-learn's; means are over the classes that have
  images. A logit that is not finite is a wrong answer; the average precision of
  its class is NaN. Recall and average precision of a class without images are
  NaN, precision and F1 of nothing 0.
  """
  from sklearn.metrics import average_precision_score

  targets, score = found.targets, found.outputs.astype(np.float64)
  known, positive = ~np.isnan(targets), targets == 1
  guess = _predicted(found, threshold)
  right = guess & positive
  support, predicted, hits = (x.sum(axis=0) for x in (positive, guess, right))
  occurs = support > 0

  def average_precision(rows, columns):
    y, p = positive[:, columns][rows], score[:, columns][rows]
    if not y.any() or not np.isfinite(p).all():
      return np.nan
    return average_precision_score(y, p)

  ap = np.array(
    [average_precision(known[:, c], c) for c in range(len(support))]
  )
  f1 = _ratio(2 * hits, support + predicted)
  judged = known.any(axis=1)
  exact = ((guess == positive) | ~known).all(axis=1)
  return {
    "ap": ap,
    "precision": _ratio(hits, predicted),
    "recall": np.where(occurs, _ratio(hits, support), np.nan),
    "f1": f1,
    "support": support,
    "mAP": _mean(ap[occurs]),
    "micro_ap": average_precision(known, slice(None)),
    "macro_f1": _mean(f1[occurs]),
    "micro_f1": _ratio(
      np.array(2 * hits.sum()), np.array(support.sum() + predicted.sum())
    ),
    "exact_match": exact[judged].mean(),
  }


def _predicted(found: Found, threshold: float) -> np.ndarray:
  """(m, n): which classes are predicted, of those whose label is known."""
  score = found.outputs.astype(np.float64)
  guess = scipy.special.expit(score) >= threshold
  wrong = found.targets != 1
  return ~np.isnan(found.targets) & np.where(np.isfinite(score), guess, wrong)


def describe(targets: np.ndarray, names: Sequence[str]) -> str:
  """A sentence about the labels of a set, for the start of a run."""
  known, positive = ~np.isnan(targets), targets == 1
  support, images = positive.sum(axis=0), len(targets)
  at = int(support.argmax())
  unknown = 1 - known.mean()
  return (
    f"an image has {positive.sum() / images:.2f} of {len(names)} classes on "
    f"average, and {(~positive.any(axis=1)).mean():.1%} of {images:,} images "
    f"have none; the most frequent class is {names[at]!r} ({support[at]:,})"
    f"{f'; {unknown:.1%} of the labels are unknown' if unknown else ''}."
  )


def _ratio(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
  """`part / whole`, and 0 of nothing."""
  return np.divide(part, whole, out=np.zeros(np.shape(part)), where=whole > 0)


def _mean(values: np.ndarray) -> float:
  """The mean; NaN of nothing."""
  return float(values.mean()) if len(values) else float("nan")
