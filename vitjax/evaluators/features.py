"""Features of a train and a test split, for classifiers on frozen features.

Memory on the host grows with the splits: examples x width float32 numbers (3 GB
for a million images with a ViT-B/16, whose width is 768). Use a part of a large
training set, such as `train_split="train[:65000]"`.
"""

import dataclasses
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import numpy as np

from vitjax.evaluators import base


@dataclasses.dataclass(frozen=True)
class Split:
  """Features (n, d) float32 and class ids (n,) of every example of a split."""

  x: np.ndarray
  label: np.ndarray


class TrainAndTest:
  """Collects the features of two splits of a labelled data set.

  Attributes:
    num_classes: number of classes of the data set.
    train_split: name of the split to train on.
  """

  def __init__(
    self,
    predict_fn: Callable,
    data: base.EvalData,
    train_split: str,
    feature: str,
  ):
    """See `evaluators`.

    Args:
      predict_fn: from `step.make_predict_fn`.
      data: the test split, with an int `label`.
      train_split: another split of the same data set.
      feature: name of an output (b, d) of the model. "pre_logits" is the input
        of the head; of two towers, the image embedding.

    Raises:
      ValueError: if the data set has no classes, or the splits are the same.
    """
    self.num_classes = base.number_of_classes(data.source)
    self.train_split = train_split

    def rows(params, batch):
      x = features(predict_fn(params, {"image": batch["image"]}), feature)
      return {"x": x, "label": batch["label"]}

    self._train = base.Collected(rows, data.of_split(train_split))
    self._test = base.Collected(rows, data)

  def trace(self, params: base.Params) -> None:
    """See `evaluators`."""
    self._train.trace(params)
    self._test.trace(params)

  def __call__(self, params: base.Params) -> tuple[Split, Split]:
    """The train and the test split.

    Raises:
      FloatingPointError: if a feature is not finite.
    """
    return self._split(self._train, params), self._split(self._test, params)

  def _split(self, collected: base.Collected, params: base.Params) -> Split:
    rows = collected(params)
    if not np.isfinite(rows["x"]).all():
      source = collected.data.source
      raise FloatingPointError(
        f"features of {source.data} {source.split} are not finite: no metric "
        "is reported."
      )
    return Split(**rows)


def features(outputs: tuple, name: str) -> jax.Array:
  """The output `name` of a predict function for images, as (b, d) float32.

  Raises:
    ValueError: if there is no such output, or it is not one vector per image.
  """
  *results, out = outputs
  if name == "pre_logits" and len(results) == 2:
    return results[0].astype(jnp.float32)
  known = [key for key, x in out.items() if jnp.ndim(x) == 2]
  if name not in known:
    what = f"has shape {out[name].shape}" if name in out else "does not exist"
    raise ValueError(
      f"feature={name!r}: this output of the model {what}. Outputs with one "
      f"vector per image: {', '.join(known) or 'none'}."
    )
  return out[name].astype(jnp.float32)


def num_correct(scores: np.ndarray, label: np.ndarray) -> int:
  """How many labels have the largest score (n, classes); no tie counts."""
  own = np.take_along_axis(scores, label[:, None], axis=1)
  return int(((~(scores < own)).sum(axis=1) <= 1).sum())


def best(scores: Sequence[float]) -> int:
  """The index of the highest score; of several equal ones, the middle one.

  Penalties that do equally well on a few images do not on others; the smallest
  and the largest of them do worst.
  """
  highest = np.flatnonzero(np.equal(scores, max(scores)))
  return int(highest[len(highest) // 2])
