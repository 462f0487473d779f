"""Metrics of classes, from exact counts: precision, recall, balance.

Counts are summed on the devices, where every example counts once, and divided
here, on the host. A class without any image in the set has no recall, so means
over classes are over those that occur. The definitions are scikit-learn's.
"""

from collections.abc import Iterator, Mapping, Sequence

import jax
import jax.numpy as jnp
import numpy as np

# Names of metrics, and whether there is one for each class.
METRICS = {
  "majority": False,
  "balanced_acc": False,
  "macro_precision": False,
  "macro_f1": False,
  "precision": True,
  "recall": True,
  "f1": True,
  "support": True,
}
# A confusion matrix of more classes would be mostly zeros.
MOST_CONFUSED = 100


def predicted(logits: jax.Array) -> jax.Array:
  """(b,) int32: the class of the largest logit; of a tie and of NaN, n."""
  is_top = ~(logits < logits.max(axis=1, keepdims=True))
  single = is_top.sum(axis=1) == 1
  return jnp.where(single, logits.argmax(axis=1), logits.shape[1])


def sums(
  logits: jax.Array, label: jax.Array, mask: jax.Array, *, confusion: bool
) -> dict[str, jax.Array]:
  """Counts of a batch, as int32.

  Args:
    logits: (b, n).
    label: (b,); what is not in 0..n-1 is not counted.
    mask: (b,), False where a row only fills up the batch.
    confusion: whether to count pairs of classes.

  Returns:
    `support` (n,), images of each class; `right` (n,), those among them that
    are predicted as it; `predicted` (n + 1,), predictions of each class, and
    of none; and perhaps `confusion` (n, n + 1), by class and prediction.
  """
  n = logits.shape[1]
  guess = predicted(logits)
  counted = mask & (label >= 0) & (label < n)
  label = jnp.where(counted, label, 0)

  def count(shape, *index, rows=counted):
    return jnp.zeros(shape, jnp.int32).at[index].add(rows.astype(jnp.int32))

  found = {
    "support": count((n,), label),
    "predicted": count((n + 1,), guess),
    "right": count((n,), label, rows=counted & (guess == label)),
  }
  if confusion:
    found["confusion"] = count((n, n + 1), label, guess)
  return found


def names(metrics: Sequence[str], classes: Sequence[str]) -> Iterator[str]:
  """The names of the numbers that `values` gives, in order."""
  for metric in metrics:
    if metric == "confusion":
      yield from (
        f"confusion[{a}->{b}]" for a in classes for b in (*classes, "none")
      )
    elif METRICS[metric]:
      yield from (f"{metric}[{name}]" for name in classes)
    else:
      yield metric


def values(
  metrics: Sequence[str], sums: Mapping[str, np.ndarray]
) -> Iterator[float]:
  """The numbers of some metrics.

  Args:
    metrics: keys of `METRICS`, or "confusion".
    sums: see the function `sums`, over the whole set.
  """
  support, right = sums["support"], sums["right"]
  guesses = sums["predicted"][:-1]
  occurs = support > 0
  recall = _ratio(right, support)
  precision = _ratio(right, guesses)
  f1 = _ratio(2 * right, support + guesses)
  found = {
    "majority": support.max() / support.sum(),
    "balanced_acc": recall[occurs].mean(),
    "macro_precision": precision[occurs].mean(),
    "macro_f1": f1[occurs].mean(),
    "precision": precision,
    "recall": np.where(occurs, recall, np.nan),
    "f1": f1,
    "support": support,
  }
  for metric in metrics:
    if metric == "confusion":
      yield from map(int, sums["confusion"].ravel())
    elif metric == "support":
      yield from map(int, support)
    else:
      yield from map(float, np.atleast_1d(found[metric]))


def majority(labels: np.ndarray, classes: Sequence[str]) -> str:
  """A sentence about the largest class of a set, for the start of a run."""
  support = np.bincount(labels, minlength=len(classes))
  at = int(support.argmax())
  most, total = support[at], len(labels)
  return (
    f"{most:,} of {total:,} images ({most / total:.1%}) are of the largest "
    f"class, {classes[at]!r}: always answering it has this accuracy."
  )


def _ratio(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
  """`part / whole`, and 0 of nothing."""
  return np.divide(part, whole, out=np.zeros(len(whole)), where=whole > 0)


def only_prediction(sums: Mapping[str, np.ndarray]) -> int | None:
  """The class that all predictions are, if the labels are not; n for none."""
  found = np.flatnonzero(sums["predicted"])
  if len(found) == 1 and np.count_nonzero(sums["support"]) > 1:
    return int(found[0])
  return None


def ranking(
  metric: str, logits: np.ndarray, label: np.ndarray, *, sigmoid: bool
) -> float:
  """The mean over classes of how well their probability ranks the images.

  Args:
    metric: "auroc", area under the ROC curve, or "ap", average precision: of
      each class against all others.
    logits: (m, n) of all images.
    label: (m,).
    sigmoid: whether a probability is a sigmoid, or else a softmax.

  Returns:
    The mean over classes that have images and are not the only one; NaN if
    there is none, or a logit is not finite.
  """
  from sklearn import metrics

  score = logits.astype(np.float64)
  if not np.isfinite(score).all():
    return float("nan")
  if not sigmoid:  # a sigmoid does not change the order
    score = np.exp(score - score.max(axis=1, keepdims=True))
    score /= score.sum(axis=1, keepdims=True)
  fn = {"auroc": metrics.roc_auc_score, "ap": metrics.average_precision_score}
  classes = np.unique(label)
  if len(classes) < 2:
    return float("nan")
  each = [fn[metric](label == c, score[:, c]) for c in classes]
  return float(np.mean(each))
