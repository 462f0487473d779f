"""Linear probe: logistic regression on frozen features.

As in CLIP, https://arxiv.org/abs/2103.00020, appendix A.3: multinomial logistic
regression by L-BFGS. The L2 penalty is chosen on held-out training images, then
the regression is fitted again to all training images. Two things differ:
features are first standardised to mean 0 and standard deviation 1 over the
training images, and there are fewer penalties to choose from.
"""

import warnings
from collections.abc import Callable, Iterator, Sequence
from typing import Annotated

import numpy as np
from absl import logging

from vitjax.config.ranges import Count, Positive, Range
from vitjax.evaluators import base
from vitjax.evaluators.features import TrainAndTest, best

L2 = tuple(10.0**i for i in range(-6, 2))


class Evaluator:
  """Accuracy of a logistic regression on the features of a model.

  Metrics: `acc@1`; `l2`, the penalty that was chosen; `n_train` and `n_seen`,
  the numbers of training and test images.
  """

  own_classes = True
  metrics = ("acc@1", "l2", "n_train", "n_seen")

  def __init__(
    self,
    predict_fn: Callable,
    data: base.EvalData,
    *,
    train_split: str,
    l2: Positive | Sequence[Positive] = L2,
    held_out: Annotated[float, Range(gt=0, lt=1)] = 0.2,
    max_iterations: Count = 1000,
    feature: str = "pre_logits",
  ):
    """See `evaluators`; memory: `evaluators.features`, and twice as much.

    Args:
      predict_fn: from `step.make_predict_fn`.
      data: the test split, with an int `label`.
      train_split: split to train on.
      l2: L2 penalty, or several to choose from by the accuracy on the held-out
        images; of equally good ones, the middle one. The objective is the mean
        cross-entropy + l2 / 2 * |weights|^2, without the bias.
      held_out: share of the training split on which the penalty is chosen.
      max_iterations: largest number of iterations of L-BFGS; a warning says if
        it does not converge.
      feature: output of the model with one vector per image. "pre_logits" is
        the input of the head; of two towers, the image embedding.

    Raises:
      ValueError: if `l2` is empty, or see `TrainAndTest`.
    """
    self._l2 = sorted([l2] if isinstance(l2, int | float) else l2)
    if not self._l2:
      raise ValueError(f"l2={l2} must not be empty.")
    self._held_out = held_out
    self._max_iterations = max_iterations
    self._splits = TrainAndTest(predict_fn, data, train_split, feature)

  def trace(self, params) -> None:
    """See `evaluators`."""
    self._splits.trace(params)

  def run(self, params) -> Iterator[tuple[str, float]]:
    """Yields each metric with its name."""
    train, test = self._splits(params)
    x, label = train.x.astype(np.float64), train.label
    mean, std = x.mean(axis=0), x.std(axis=0) + 1e-5
    x -= mean
    x /= std
    l2 = self._l2[-1]
    if len(self._l2) > 1:
      order = np.random.default_rng(0).permutation(len(x))
      rest, kept = np.split(order, [max(1, int(self._held_out * len(x)))])
      scores = [
        self._fit(x[kept], label[kept], l2).score(x[rest], label[rest])
        for l2 in self._l2
      ]
      l2 = self._l2[best(scores)]
    probe = self._fit(x, label, l2)
    guess = probe.predict((test.x.astype(np.float64) - mean) / std)
    yield "acc@1", float((guess == test.label).mean())
    yield "l2", float(l2)
    yield "n_train", len(label)
    yield "n_seen", len(test.label)

  def _fit(self, x: np.ndarray, label: np.ndarray, l2: float):
    from sklearn import exceptions, linear_model

    probe = linear_model.LogisticRegression(
      C=1 / (l2 * len(x)), max_iter=self._max_iterations
    )
    with warnings.catch_warnings():  # replaced by the one below
      warnings.simplefilter("ignore", exceptions.ConvergenceWarning)
      probe.fit(x, label)
    if max(probe.n_iter_) >= self._max_iterations:
      logging.warning(
        "linear_probe: no convergence in max_iterations=%d for l2=%g. Raise "
        "max_iterations.",
        self._max_iterations,
        l2,
      )
    return probe
