"""Metrics of classes, from exact counts: precision, recall, balance.

Counts are summed on the devices, where every example counts once, and divided
here, on the host. The definitions are scikit-learn's. Precision and F1 of
nothing are 0. A class without any image in the set has no recall: it is NaN,
and means over classes are over those that occur.
"""

from collections.abc import Iterator, Mapping, Sequence

import jax
import jax.numpy as jnp
import numpy as np
import scipy.special

from vitjax.evaluators import tables

# Metrics from counts, and whether there is one for each class.
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
# Metrics that need the logits of all images at once; "class_ap" are the values
# whose mean is "ap".
RANKINGS = {"auroc": False, "ap": False, "class_auroc": True, "class_ap": True}
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


def of_predictions(
  label: np.ndarray, guess: np.ndarray, num_classes: int
) -> dict[str, np.ndarray]:
  """The counts of `sums`, of predictions on the host."""
  n = num_classes
  return {
    "support": np.bincount(label, minlength=n),
    "predicted": np.bincount(guess, minlength=n + 1),
    "right": np.bincount(label[label == guess], minlength=n),
  }


def names(metrics: Sequence[str], classes: Sequence[str]) -> Iterator[str]:
  """The names of the numbers that `values` gives, in order."""
  for metric in metrics:
    if metric == "confusion":
      yield from tables.confusion_names(classes)
    elif (METRICS | RANKINGS)[metric]:
      yield from tables.names(metric, classes)
    else:
      yield metric


def measures(sums: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
  """Each of `METRICS`: a number, or one for each class.

  Args:
    sums: see the function `sums`, over the whole set.
  """
  support, right = sums["support"], sums["right"]
  guesses = sums["predicted"][:-1]
  occurs = support > 0
  recall = _ratio(right, support)
  precision = _ratio(right, guesses)
  f1 = _ratio(2 * right, support + guesses)
  return {
    "majority": support.max() / support.sum(),
    "balanced_acc": recall[occurs].mean(),
    "macro_precision": precision[occurs].mean(),
    "macro_f1": f1[occurs].mean(),
    "precision": precision,
    "recall": np.where(occurs, recall, np.nan),
    "f1": f1,
    "support": support.astype(np.int64),
  }


def values(
  metrics: Sequence[str],
  sums: Mapping[str, np.ndarray],
  ranked: Mapping[str, np.ndarray],
) -> Iterator[float]:
  """The numbers of some metrics.

  Args:
    metrics: keys of `METRICS` and `RANKINGS`, or "confusion".
    sums: see the function `sums`, over the whole set.
    ranked: see `rankings`; empty if no metric needs it.
  """
  found = {**measures(sums), **ranked}
  if "confusion" in metrics:
    found["confusion"] = sums["confusion"].astype(np.int64)
  for metric in metrics:
    yield from np.ravel(found[metric]).tolist()


def majority(support: np.ndarray, classes: Sequence[str]) -> str:
  """A sentence about the largest class of a set, for the start of a run."""
  at = int(support.argmax())
  most, total = int(support[at]), int(support.sum())
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


def rankings(
  metrics: Sequence[str],
  logits: np.ndarray,
  label: np.ndarray,
  *,
  sigmoid: bool,
) -> dict[str, np.ndarray]:
  """How well the probability of each class ranks the images.

  Equal probabilities are neither before nor after each other, as in
  scikit-learn.

  Args:
    metrics: of `RANKINGS`: area under the ROC curve, and average precision, of
      each class against all others.
    logits: (m, n) of all images.
    label: (m,).
    sigmoid: whether a probability is a sigmoid, or else a softmax.

  Returns:
    (n,) for the metrics of each class, NaN for a class without images, for one
    that all images are of, and if a logit is not finite; for the others the
    mean over the classes that have a value, NaN if none has.
  """
  from sklearn import metrics as sklearn

  score = logits.astype(np.float64)
  classes = np.unique(label)
  if len(classes) < 2 or not np.isfinite(score).all():
    classes = classes[:0]
  elif not sigmoid:  # a sigmoid does not change the order
    score = scipy.special.softmax(score, axis=1)
  found = {}
  for name, measure in (
    ("auroc", sklearn.roc_auc_score),
    ("ap", sklearn.average_precision_score),
  ):
    if not {name, f"class_{name}"} & {*metrics}:
      continue
    each = np.full(logits.shape[1], np.nan)
    for c in classes:
      each[c] = measure(label == c, score[:, c])
    found[f"class_{name}"] = each
    found[name] = np.array(each[classes].mean() if len(classes) else np.nan)
  return found
