"""k nearest neighbours among the features of a training set.

DINO, https://arxiv.org/abs/2104.14294, sec. 4.1 and its code: the k training
images of largest cosine similarity s vote for their classes, with weight
exp(s / temperature); published with k = 20 and temperature 0.07.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Literal

import numpy as np

from vitjax.config.ranges import Count, Positive
from vitjax.evaluators import base
from vitjax.evaluators.features import TrainAndTest

# Largest number of similarities in memory at a time.
_MOST = 2**24


class Evaluator:
  """Accuracy of a k-nearest-neighbour classifier on the features of a model.

  Metrics: `20nn`, the accuracy with k = 20; `n_train` and `n_seen`, the numbers
  of training and test images.

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
    k: Count | Sequence[Count] = 20,
    temperature: Positive = 0.07,
    vote: Literal["softmax", "majority"] = "softmax",
    feature: str = "pre_logits",
  ):
    """See `evaluators`; memory: `evaluators.features`.

    All pairs are compared, in parts, on the host.

    Args:
      predict_fn: from `step.make_predict_fn`.
      data: the test split, with an int `label`.
      train_split: split whose images are the neighbours.
      k: number of neighbours that vote; each of several values gives a metric.
      temperature: with vote="softmax", a neighbour of cosine similarity s has
        the weight exp(s / temperature).
      vote: whether votes are weighted by similarity ("softmax") or counted
        ("majority"). Of classes with equal votes, the first wins.
      feature: output of the model with one vector per image. "pre_logits" is
        the input of the head; of two towers, the image embedding.

    Raises:
      ValueError: if `k` is empty, or see `TrainAndTest`.
    """
    self._ks = (k,) if isinstance(k, int) else tuple(k)
    if not self._ks:
      raise ValueError(f"k={k} must not be empty.")
    self.metrics = (*(f"{k}nn" for k in self._ks), "n_train", "n_seen")
    self._temperature = temperature
    self._weighted = vote == "softmax"
    self._splits = TrainAndTest(predict_fn, data, train_split, feature)

  def trace(self, params) -> None:
    """See `evaluators`."""
    self._splits.trace(params)

  def run(self, params) -> Iterator[tuple[str, float]]:
    """Yields each metric with its name."""
    train, test = self._splits(params)
    if max(self._ks) > len(train.label):
      raise ValueError(
        f"knn: k={max(self._ks)}, but split {self._splits.train_split!r} has "
        f"only {len(train.label)} examples."
      )
    keys, queries = _unit(train.x), _unit(test.x)
    correct = dict.fromkeys(self._ks, 0)
    rows = max(1, _MOST // len(keys))
    for start in range(0, len(queries), rows):
      part = slice(start, start + rows)
      similarity, nearest = neighbours(queries[part], keys, max(self._ks))
      label = train.label[nearest]
      for k in self._ks:
        guess = self._vote(similarity[:, :k], label[:, :k])
        correct[k] += int((guess == test.label[part]).sum())
    for k in self._ks:
      yield f"{k}nn", correct[k] / len(test.label)
    yield "n_train", len(train.label)
    yield "n_seen", len(test.label)

  def _vote(self, similarity: np.ndarray, label: np.ndarray) -> np.ndarray:
    """The class of each row, from neighbours (n, k)."""
    votes = np.zeros((len(label), self._splits.num_classes))
    weight = 1.0
    if self._weighted:  # subtracting the largest changes no comparison
      weight = np.exp(
        (similarity - similarity.max(axis=1, keepdims=True)) / self._temperature
      )
    np.add.at(votes, (np.arange(len(label))[:, None], label), weight)
    return votes.argmax(axis=1)


def neighbours(
  queries: np.ndarray, keys: np.ndarray, k: int
) -> tuple[np.ndarray, np.ndarray]:
  """Similarities and indices of the k nearest keys (n, k), nearest first."""
  similarity = queries @ keys.T
  nearest = np.argpartition(-similarity, k - 1, axis=1)[:, :k]
  found = np.take_along_axis(similarity, nearest, axis=1)
  order = np.argsort(-found, axis=1, kind="stable")
  return (
    np.take_along_axis(found, order, axis=1).astype(np.float64),
    np.take_along_axis(nearest, order, axis=1),
  )


def _unit(x: np.ndarray) -> np.ndarray:
  return x / np.maximum(np.linalg.norm(x, axis=1, keepdims=True), 1e-12)
