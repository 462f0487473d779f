"""k nearest neighbours among the features of a training set.

DINO, https://arxiv.org/abs/2104.14294, sec. 4.1 and its code: the k training
images of largest cosine similarity s vote for their classes, with weight
exp(s / temperature); published with k = 20 and temperature 0.07.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Literal

import numpy as np

from vitjax.evaluators import base
from vitjax.evaluators.features import TrainAndTest

# Similarities that are in memory at a time.
_MOST = 2**24


class Evaluator:
  """`20nn`: accuracy with k = 20, `n_train` and `n_seen`."""

  own_classes = True

  def __init__(
    self,
    predict_fn: Callable,
    data: base.EvalData,
    *,
    train_split: str,
    k: int | Sequence[int] = 20,
    temperature: float = 0.07,
    vote: Literal["softmax", "majority"] = "softmax",
    feature: str = "pre_logits",
  ):
    """See `evaluators`; memory: `evaluators.features`.

    All pairs are compared, in parts, on the host.

    Args:
      predict_fn: from `step.make_predict_fn`.
      data: the test split, with an int `label`.
      train_split: the neighbours.
      k: how many of them vote; several give a metric each.
      temperature: of the weights of the votes.
      vote: "softmax" weighs votes as above, "majority" counts them; of classes
        with as many votes, the first is taken.
      feature: output of the model, see `features.TrainAndTest`.

    Raises:
      ValueError: if an option is out of range, or see `TrainAndTest`.
    """
    self._ks = (k,) if isinstance(k, int) else tuple(k)
    if not self._ks or min(self._ks) < 1 or temperature <= 0:
      raise ValueError(
        f"k={k} has to be at least 1, temperature={temperature} above 0."
      )
    self._temperature = temperature
    self._weighted = vote == "softmax"
    self._splits = TrainAndTest(predict_fn, data, train_split, feature)

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
    if self._weighted:  # less the largest, which changes no comparison
      weight = np.exp(
        (similarity - similarity.max(axis=1, keepdims=True)) / self._temperature
      )
    np.add.at(votes, (np.arange(len(label))[:, None], label), weight)
    return votes.argmax(axis=1)


def neighbours(
  queries: np.ndarray, keys: np.ndarray, k: int
) -> tuple[np.ndarray, np.ndarray]:
  """Similarities and numbers of the k nearest keys (n, k), nearest first."""
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
