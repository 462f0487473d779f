"""Few-shot classification: linear regression on frozen features.

As in big_vision and in the ViT paper, https://arxiv.org/abs/2010.11929, sec.
4.1: the features of a few training images of each class are mapped to targets
{-1, 1} by least squares with an L2 penalty, in closed form. Features are
shifted and scaled to mean 0 and standard deviation 1 of those images, and a
constant feature of 100 is the bias, which is therefore hardly penalised.

One thing differs. In big_vision the penalty is fixed, or the one that is best
on the test set is reported; here it is chosen on training images that were not
drawn. With a single `l2`, such as the published 2**10, the two are the same.
"""

from collections.abc import Callable, Iterator, Sequence

import numpy as np
from absl import logging

from vitjax.config.ranges import Count, Positive
from vitjax.evaluators import base
from vitjax.evaluators.features import Split, TrainAndTest, best, num_correct

BIAS = 100.0
L2 = tuple(2.0**i for i in range(-10, 20))
# Largest number of float64 numbers in memory at a time.
_MOST = 2**24


class Regression:
  """Least squares with an L2 penalty, solved once for all penalties.

  With z the scaled features (n, d + 1) and t the targets (n, classes), the
  weights are (z'z + l2 I)^-1 z't, which is z'(zz' + l2 I)^-1 t. The smaller of
  the two matrices is decomposed into its eigenvectors once.
  """

  def __init__(self, train: Split, num_classes: int):
    x = train.x.astype(np.float64)
    self._mean = x.mean(axis=0)
    self._std = x.std(axis=0) + 1e-5
    z = self._scaled(x)
    targets = np.full((len(z), num_classes), -1.0)
    targets[np.arange(len(z)), train.label] = 1.0
    if len(z) > z.shape[1]:
      self._eigenvalues, q = np.linalg.eigh(z.T @ z)
      self._left, self._right = q, q.T @ (z.T @ targets)
    else:
      self._eigenvalues, q = np.linalg.eigh(z @ z.T)
      self._left, self._right = z.T @ q, q.T @ targets

  def num_correct(self, split: Split, l2: Sequence[float]) -> list[int]:
    """Number of correctly classified examples, for each penalty."""
    total = np.zeros(len(l2), np.int64)
    rows = max(1, _MOST // max(self._left.shape[0], self._right.shape[1]))
    for start in range(0, len(split.x), rows):
      part = slice(start, start + rows)
      z = self._scaled(split.x[part].astype(np.float64)) @ self._left
      for i, x in enumerate(l2):
        scores = (z / (self._eigenvalues + x)) @ self._right
        total[i] += num_correct(scores, split.label[part])
    return total.tolist()

  def _scaled(self, x: np.ndarray) -> np.ndarray:
    return np.pad(
      (x - self._mean) / self._std, ((0, 0), (0, 1)), constant_values=BIAS
    )


class Evaluator:
  """Few-shot accuracy: linear regression on the features of a few images.

  Metrics, for each number of shots: `5shot`, the mean accuracy over the draws,
  and `5shot_l2`, the penalty that was used; then `n_seen`, the number of test
  images.

  Attributes:
    metrics: names of all metrics, in the order of `run`.
  """

  own_classes = True

  def __init__(
    self,
    predict_fn: Callable,
    data: base.EvalData,
    *,
    train_split: str,
    shots: Sequence[Count] = (1, 5, 10, 25),
    num_seeds: Count = 3,
    l2: Positive | Sequence[Positive] = L2,
    held_out: Count = 10_000,
    feature: str = "pre_logits",
  ):
    """See `evaluators`; memory: `evaluators.features`.

    Args:
      predict_fn: from `step.make_predict_fn`.
      data: the test split, with an int `label`.
      train_split: split from which the training images are drawn.
      shots: numbers of training images of each class. A class with fewer images
        gives all of them.
      num_seeds: number of random draws of the training images.
      l2: L2 penalty, or several to choose from, for each number of shots. The
        best is chosen by the accuracy on training images that are in no draw;
        of equally good ones, the middle one.
      held_out: largest number of images on which the penalty is chosen.
      feature: output of the model with one vector per image. "pre_logits" is
        the input of the head; of two towers, the image embedding.

    Raises:
      ValueError: if a list is empty, or see `TrainAndTest`.
    """
    self._shots = tuple(shots)
    self._l2 = sorted([l2] if isinstance(l2, int | float) else l2)
    if not self._shots or not self._l2:
      raise ValueError(f"shots={shots} and l2={l2} must not be empty.")
    each = [(f"{k}shot", f"{k}shot_l2") for k in self._shots]
    self.metrics = (*sum(each, ()), "n_seen")
    self._num_seeds = num_seeds
    self._held_out = held_out
    self._splits = TrainAndTest(predict_fn, data, train_split, feature)

  def trace(self, params) -> None:
    """See `evaluators`."""
    self._splits.trace(params)

  def run(self, params) -> Iterator[tuple[str, float]]:
    """Yields each metric with its name."""
    train, test = self._splits(params)
    classes = self._splits.num_classes
    chosen_on = np.zeros((len(self._shots), len(self._l2)), np.int64)
    correct = np.zeros_like(chosen_on)
    for seed in range(self._num_seeds):
      drawn, rest = self._draw(train.label, seed)
      held_out = Split(train.x[rest], train.label[rest])
      for i, shots in enumerate(self._shots):
        rows = np.concatenate([of_class[:shots] for of_class in drawn])
        regression = Regression(
          Split(train.x[rows], train.label[rows]), classes
        )
        if len(self._l2) > 1:
          chosen_on[i] += regression.num_correct(held_out, self._l2)
        correct[i] += regression.num_correct(test, self._l2)
    for i, shots in enumerate(self._shots):
      at = best(chosen_on[i])
      total = self._num_seeds * len(test.label)
      yield f"{shots}shot", float(correct[i, at] / total)
      yield f"{shots}shot_l2", float(self._l2[at])
    yield "n_seen", len(test.label)

  def _draw(self, label: np.ndarray, seed: int):
    """Rows of each class in the order of a draw, and rows that are held out."""
    rng = np.random.default_rng(seed)
    classes = self._splits.num_classes
    drawn = [
      rng.permutation(np.flatnonzero(label == c)) for c in range(classes)
    ]
    most = max(self._shots)
    few = sum(len(of_class) < most for of_class in drawn)
    if few and seed == 0:
      logging.warning(
        "fewshot: %d of %d classes have fewer than %d examples in %s; all of "
        "these are used.",
        few,
        classes,
        most,
        self._splits.train_split,
      )
    rest = np.concatenate([of_class[most:] for of_class in drawn])
    if len(self._l2) > 1 and not len(rest):
      raise ValueError(
        f"fewshot: no example of {self._splits.train_split!r} is left to "
        f"choose l2 on after {most} of each class are drawn. Give a larger "
        "train_split, fewer shots, or one l2."
      )
    return drawn, rng.permutation(rest)[: self._held_out]
