"""Errors of a regression over a set of images with numbers."""

from collections.abc import Callable, Iterator, Sequence

import jax
import numpy as np
from absl import logging

from vitjax.evaluators import base
from vitjax.evaluators.classes import Classes
from vitjax.evaluators.per_output import Found, PerOutput

_METRICS = ("mae", "rmse", "r2")


class Evaluator:
  """Errors of a regression, in the units of its targets.

  Metrics: `loss` (of normalised targets, as in training), `mae` (mean absolute
  error), `rmse` (root mean squared error), `r2` (coefficient of determination)
  and `n_seen`. With several targets, these are means over the targets, and each
  target has its own, such as `mae[age]`. Targets that are unknown are left out.

  Attributes:
    metrics: names of all metrics, in the order of `run`.
  """

  two_towers = False

  def __init__(
    self,
    predict_fn: Callable,
    data: base.EvalData,
    *,
    target_scale: tuple[np.ndarray, np.ndarray],
    loss: str = "mse",
    classes: Classes | None = None,
    same_classes: bool = False,
  ):
    """See `evaluators`.

    Args:
      predict_fn: from `step.make_predict_fn`.
      data: examples with `labels`, a number for each target, NaN if unknown.
      target_scale: mean and deviation of the targets of training.
      loss: which of `vitjax.losses` to report.
      classes: targets of the model. None: those of the data set.
      same_classes: the targets of the data set are those of the model, in the
        same order. False: match those of other data sets by their names.

    Raises:
      ValueError: if the labels are of another kind, or targets cannot be
        matched.
    """
    self.outputs = PerOutput(
      predict_fn,
      data,
      kind="regression",
      loss=loss,
      classes=classes,
      same_classes=same_classes,
      scale=target_scale,
    )
    names = self.outputs.names
    self.metrics = ("loss", *_METRICS, *_each(names), "n_seen")
    source = data.source
    if source.targets is not None and jax.process_index() == 0:
      for sentence in describe(source.targets, names):
        logging.info("%s %s: %s", source.data, source.split, sentence)

  def trace(self, params) -> None:
    """See `evaluators`."""
    self.outputs.trace(params)

  def run(self, params) -> Iterator[tuple[str, float]]:
    """Yields each metric with its name."""
    found = self.outputs(params)
    yield from self.measure(found).items()
    yield "n_seen", len(found.targets)

  def measure(self, found: Found) -> dict[str, float]:
    """Each metric but `n_seen`, of any outputs."""
    values = measure(found)
    metrics = {"loss": found.loss}
    for metric in _METRICS:
      known = values[metric][~np.isnan(found.targets).all(axis=0)]
      metrics[metric] = float(known.mean())
    each = np.concatenate([values[metric] for metric in _METRICS])
    return metrics | dict(zip(_each(self.outputs.names), each.tolist()))


def measure(found: Found) -> dict[str, np.ndarray]:
  """Metrics of each target (n,), as scikit-learn's; NaN of nothing.

  `r2` of a target that is always the same is 1 if all outputs are right, else
  0; that of a single image NaN.
  """
  values: dict[str, list[float]] = {metric: [] for metric in _METRICS}
  for output, target in zip(found.outputs.T, found.targets.T):
    known = ~np.isnan(target)
    target, output = (x[known].astype(np.float64) for x in (target, output))
    error = output - target
    if not len(target):
      mae = mse = r2 = np.nan
    else:
      mae, mse = np.abs(error).mean(), (error**2).mean()
      spread = ((target - target.mean()) ** 2).mean()
      r2 = 1 - mse / spread if spread else float(mse == 0)
      r2 = r2 if len(target) > 1 else np.nan
    for metric, value in zip(_METRICS, (mae, np.sqrt(mse), r2)):
      values[metric].append(float(value))
  return {metric: np.array(x) for metric, x in values.items()}


def describe(targets: np.ndarray, names: Sequence[str]) -> Iterator[str]:
  """A sentence about each target of a set, for the start of a run."""
  for name, values in zip(names, targets.T.astype(np.float64)):
    known = values[~np.isnan(values)]
    if not len(known):
      yield f"{name} is unknown for all images."
      continue
    absent = len(values) - len(known)
    yield (
      f"{name} is {known.min():g} .. {known.max():g}, mean {known.mean():.4g}: "
      f"always answering the mean has an rmse of {known.std():.4g}"
      f"{f'; {absent:,} of {len(values):,} are unknown' if absent else ''}."
    )


def _each(names: Sequence[str]) -> list[str]:
  """Names of the metrics of each target; none of a single target."""
  if len(names) == 1:
    return []
  return [f"{metric}[{name}]" for metric in _METRICS for name in names]
