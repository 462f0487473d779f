"""Loss and top-k accuracy of a classifier over a labelled set."""

from collections.abc import Callable, Iterator, Sequence

import jax
import jax.numpy as jnp
import numpy as np

from vitjax import losses
from vitjax.evaluators import base
from vitjax.evaluators.classes import Classes, present

# Of the calibration error, as published.
NUM_BINS = 15


def correct_at_k(logits: jax.Array, label: jax.Array, k: int) -> jax.Array:
  """(b,) bool: is the label among the k largest logits?

  Classes that tie with the label's logit count as larger, and so does NaN: a
  model that gives every class the same logit, or none, scores nothing.
  """
  own = jnp.take_along_axis(logits, label[:, None], axis=1)
  return (~(logits < own)).sum(axis=1) <= k


def correct_in_set(logits: jax.Array, labels: jax.Array) -> jax.Array:
  """(b,) bool: is the largest logit that of one of the labels (b, n) bool?

  Ties with other classes and NaN count as above.
  """
  best = jnp.where(labels, logits, -jnp.inf).max(axis=1, keepdims=True)
  return ~(~labels & ~(logits < best)).any(axis=1)


def calibration_sums(
  logits: jax.Array, label: jax.Array, mask: jax.Array
) -> jax.Array:
  """(bins, 2): by confidence, sums of the confidence and of what is right.

  On calibration of modern neural networks, https://arxiv.org/abs/1706.04599,
  sec. 2: bin m of M holds the confidences in ((m - 1) / M, m / M], and the
  confidence is the largest probability.
  """
  confidence = jax.nn.softmax(logits).max(axis=1)
  m = jnp.ceil(confidence * NUM_BINS) - 1
  in_bin = jax.nn.one_hot(
    jnp.clip(m.astype(jnp.int32), 0, NUM_BINS - 1), NUM_BINS
  )
  rows = jnp.stack([confidence, correct_at_k(logits, label, 1)], axis=1)
  rows = jnp.where(mask[:, None], rows, 0.0)
  return jnp.matmul(in_bin.T, rows, precision=jax.lax.Precision.HIGHEST)


class Evaluator:
  """`loss`, `acc@1`, `acc@5` and `n_seen`; options give more.

  With `calibration` also `ece`; with `labels` only `acc@1`, `n_counted` and
  `n_seen`.
  """

  two_towers = False

  def __init__(
    self,
    predict_fn: Callable,
    data: base.EvalData,
    *,
    loss: str = "softmax_xent",
    classes: Classes | None = None,
    same_classes: bool = False,
    among: str | Sequence[str] = "all",
    labels: str | None = None,
    calibration: bool = False,
  ):
    """See `evaluators`.

    Args:
      predict_fn: from `step.make_predict_fn`.
      data: examples with an int `label`.
      loss: which of `vitjax.losses` to report, without label smoothing.
      classes: of the model; None: those of the data set.
      same_classes: the data set's class ids are those of the model; without
        it, classes of other data are matched by their names.
      among: which of the model's classes can be predicted: "all", those that
        occur in the split ("present", as for ImageNet-A and -R), names, or a
        text file with a name on each line.
      labels: feature with several acceptable classes for an image, such as
        `real_label`: an image is right if the largest logit is one of them,
        and does not count without any. Are we done with ImageNet?,
        https://arxiv.org/abs/2006.07159.
      calibration: report the expected calibration error, see
        `calibration_sums`.

    Raises:
      ValueError: if classes cannot be matched, or options contradict.
    """
    source = data.source
    num_classes = base.number_of_classes(source)
    own = classes or _same(source)
    ids = own.ids_of(source, same=same_classes)
    columns = _columns(among, own, source, ids)
    if calibration and loss != "softmax_xent":
      raise ValueError(
        "calibration needs probabilities of a softmax, but the model was "
        f"trained with {loss!r}."
      )
    if labels and (calibration or len(columns) != own.num_classes):
      raise ValueError(
        f"labels={labels!r} goes neither with among nor with calibration."
      )
    self._several = labels is not None
    if labels:
      data = data.with_ops(
        f"onehot({num_classes}, key={labels!r}, key_result='labels')"
        "|keep('image', 'labels')"
      )
    # From a class of the data to a place among the columns, or to -1.
    place = np.full(own.num_classes, -1, np.int32)
    place[columns] = np.arange(len(columns))
    place = place[ids]
    loss_fn = losses.LOSSES[loss]

    def sums(params, batch):
      logits, _ = predict_fn(params, batch)
      if logits.shape[-1] != own.num_classes:
        raise ValueError(
          f"the model has {logits.shape[-1]} logits, not {own.num_classes}."
        )
      if len(columns) < own.num_classes:
        logits = logits[:, columns]
      mask = batch["mask"]
      if labels:
        of_data = batch["labels"] > 0
        several = jnp.zeros(logits.shape, bool).at[:, place].set(of_data)
        counted = mask & of_data.any(axis=1)
        right = counted & correct_in_set(logits, several)
        return {"acc@1": right.sum(), "n_counted": counted.sum()}
      label = jnp.asarray(place)[batch["label"]]
      targets = jax.nn.one_hot(label, logits.shape[-1])
      result = {"loss": jnp.where(mask, loss_fn(logits, targets), 0.0)}
      result["acc@1"] = mask & correct_at_k(logits, label, 1)
      if logits.shape[-1] > 5:
        result["acc@5"] = mask & correct_at_k(logits, label, 5)
      result = {name: x.sum() for name, x in result.items()}
      if (place < 0).any():
        result["n_outside"] = (mask & (label < 0)).sum()
      if calibration:
        result["ece"] = calibration_sums(logits, label, mask)
      return result

    self._sums = base.MaskedSums(sums, data)

  def run(self, params) -> Iterator[tuple[str, float]]:
    """Yields each metric with its name.

    Raises:
      RuntimeError: if no image counts, or a class was left out by `among`.
    """
    sums = self._sums(params)
    n_seen = n_counted = sums.pop("n_seen")
    source = self._sums.data.source
    if outside := sums.pop("n_outside", 0):
      raise RuntimeError(
        f"classification: {outside:g} examples of {source.data} {source.split} "
        "are of classes that `among` leaves out: no metric is reported."
      )
    if self._several:
      n_counted = sums.pop("n_counted")
      if not n_counted:
        raise RuntimeError(
          f"classification: no example of {source.data} {source.split} has a "
          "label."
        )
    for name, value in sums.items():
      if name == "ece":
        value = np.abs(value[:, 0] - value[:, 1]).sum()
      yield name, float(value / n_counted)
    if self._several:
      yield "n_counted", int(n_counted)
    yield "n_seen", int(n_seen)


def _same(source) -> Classes:
  """The classes of a model that was trained on this data."""
  return Classes(source.data, source.num_classes, source.class_names)


def _columns(among, own: Classes, source, ids) -> np.ndarray:
  """The logits to look at, in order."""
  if among == "all":
    return np.arange(own.num_classes)
  if among == "present":
    return np.unique(ids[present(source)])
  return own.find(base.lines(among))
