"""Loss, accuracy and other metrics of a classifier over a labelled set."""

import re
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from absl import logging

from vitjax import losses
from vitjax.config import messages
from vitjax.data.sources.source import warn_once
from vitjax.evaluators import base, counts
from vitjax.evaluators.classes import Classes, present

# Bins of the calibration error, as published.
NUM_BINS = 15
# Metrics of `counts`, in the order of "all".
_ADDED = (*counts.METRICS, *counts.RANKINGS, "confusion")


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
  """Loss and accuracy of a classifier on a labelled data set.

  Metrics: `loss`, `acc@1`, `acc@5`, `n_seen` (the number of images) and those
  that `metrics` adds; with `calibration` also `ece`. With `labels` only
  `acc@1`, `n_counted` (the number of images with a label) and `n_seen`.

  Attributes:
    metrics: names of all metrics, in the order of `run`.
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
    metrics: Sequence[str] = (),
  ):
    """See `evaluators`.

    Args:
      predict_fn: from `step.make_predict_fn`.
      data: examples with an int `label`. A label of -1 is unknown: its image
        is not counted. Of soft labels the most probable class is the label, and
        the loss is that of all.
      loss: which of `vitjax.losses` to report, without label smoothing.
      classes: classes of the model. None: those of the data set.
      same_classes: take the class ids of the data set for those of the model.
        False: match the classes of other data sets by their names.
      among: classes of the model that can be predicted: "all", "present" (those
        that occur in the split, as for ImageNet-A and -R), a list of names, or
        a text file with one name on each line.
      labels: feature with several correct classes for each image, such as
        `real_label`. An image is right if the largest logit is one of them; an
        image without any is not counted. Are we done with ImageNet?,
        https://arxiv.org/abs/2006.07159.
      calibration: add the expected calibration error `ece`, with 15 bins.
      metrics: metrics to add: "acc@K" for any K, those of `counts.METRICS` and
        `counts.RANKINGS`, "confusion", or "all". Rankings evaluate the set a
        second time and keep all logits in memory.

    Raises:
      ValueError: if classes cannot be matched, or options contradict.
    """
    source = data.source
    num_classes = base.number_of_classes(source, unknown=True)
    own = classes or _same(source)
    ids = own.ids_of(source, same=same_classes)
    columns = _columns(among, own, source, ids)
    metrics = _expanded(metrics, len(columns))
    if calibration and losses.is_sigmoid(loss):
      raise ValueError(
        "calibration needs probabilities of a softmax, but the model was "
        f"trained with {loss!r}."
      )
    if labels and (calibration or metrics or len(columns) != own.num_classes):
      raise ValueError(
        f"labels={labels!r} cannot be combined with among, calibration or "
        "metrics."
      )
    self._several = labels is not None
    self._sigmoid = losses.is_sigmoid(loss)
    if labels:
      data = data.with_ops(
        f"onehot({num_classes}, key={labels!r}, key_result='labels')"
        "|keep('image', 'labels')"
      )
    # Class of the data -> index among the columns, or -1.
    place = np.full(own.num_classes, -1, np.int32)
    place[columns] = np.arange(len(columns))
    place = place[ids]
    if source.kind == "soft_label" and (place < 0).any():
      raise ValueError(
        f"among={among!r} leaves out classes of {source.data!r}, which has "
        "probabilities of all."
      )
    self._class_names = [own.names[i] if own.names else str(i) for i in columns]
    tops = _tops(metrics, len(columns))
    self._added = [m for m in metrics if m in _ADDED]
    self._rankings = [m for m in metrics if m in counts.RANKINGS]
    self.metrics = ("acc@1", "n_counted", "n_seen")
    if not labels:
      self.metrics = (
        *sorted([f"acc@{k}" for k in tops] + ["ece"] * calibration + ["loss"]),
        *counts.names(self._added, self._class_names),
        "n_seen",
      )
    if source.has_unknown and not labels:
      self.metrics = (*self.metrics[:-1], "n_counted", "n_seen")
    loss_fn = losses.LOSSES[loss]

    def predict(params, batch):
      logits, _ = predict_fn(params, batch)
      if logits.shape[-1] != own.num_classes:
        raise ValueError(
          f"the model has {logits.shape[-1]} logits, not {own.num_classes}."
        )
      return logits[:, columns] if len(columns) < own.num_classes else logits

    def sums(params, batch):
      logits = predict(params, batch)
      mask = batch["mask"]
      if labels:
        of_data = batch["labels"] > 0
        several = jnp.zeros(logits.shape, bool).at[:, place].set(of_data)
        counted = mask & of_data.any(axis=1)
        right = counted & correct_in_set(logits, several)
        return {"acc@1": right.sum(), "n_counted": counted.sum()}
      label = jnp.asarray(place)[batch["label"]]
      if source.has_unknown:
        mask = mask & (batch["label"] >= 0)
      if source.kind == "soft_label":
        shares = jnp.where(mask[:, None], batch["labels"], 0.0)
        targets = jnp.zeros_like(logits).at[:, place].set(shares)
      else:
        targets = jax.nn.one_hot(label, logits.shape[-1])
      result: dict[str, Any] = {
        "loss": jnp.where(mask, loss_fn(logits, targets), 0.0)
      }
      for k in tops:
        result[f"acc@{k}"] = mask & correct_at_k(logits, label, k)
      result = {name: x.sum() for name, x in result.items()}
      if source.has_unknown:
        result["n_counted"] = mask.sum()
      if (place < 0).any():
        result["n_outside"] = (mask & (label < 0)).sum()
      if calibration:
        result["ece"] = calibration_sums(logits, label, mask)
      confusion = "confusion" in self._added
      result["counts"] = counts.sums(logits, label, mask, confusion=confusion)
      return result

    def rows(params, batch):
      label = jnp.where(
        batch["label"] < 0, -1, jnp.asarray(place)[batch["label"]]
      )
      return {"logits": predict(params, batch), "label": label}

    self._sums = base.MaskedSums(sums, data)
    self._rows = base.Collected(rows, data)
    self._said_majority = False
    if not labels and source.labels is not None:
      known = source.class_names or range(num_classes)
      labelled = source.labels[source.labels >= 0]
      support = np.bincount(labelled, minlength=num_classes)
      self._say_majority(support, [str(x) for x in known])

  def trace(self, params) -> None:
    """See `evaluators`."""
    self._sums.trace(params)

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
    if self._several or source.has_unknown:
      n_counted = sums.pop("n_counted")
      if not n_counted:
        raise RuntimeError(
          f"classification: no example of {source.data} {source.split} has a "
          "label."
        )
    by_class = sums.pop("counts", None)
    for name, value in sums.items():
      if name == "ece":
        value = np.abs(value[:, 0] - value[:, 1]).sum()
      yield name, float(value / n_counted)
    if by_class is not None:
      self._say_majority(by_class["support"], self._class_names)
      self._warn_of_one_class(by_class)
      ranked = {}
      if self._rankings:
        rows = self._rows(params)
        is_known = rows["label"] >= 0
        rows = {name: x[is_known] for name, x in rows.items()}
        ranked = counts.rankings(self._rankings, **rows, sigmoid=self._sigmoid)
      self._warn_of_nan(by_class["support"], ranked)
      yield from zip(
        counts.names(self._added, self._class_names),
        counts.values(self._added, by_class, ranked),
        strict=True,
      )
    if self._several or source.has_unknown:
      yield "n_counted", int(n_counted)
    yield "n_seen", int(n_seen)

  def _say_majority(self, support, class_names) -> None:
    """Once: at the start if labels are known, else at the first eval."""
    if not self._said_majority and jax.process_index() == 0:
      source = self._sums.data.source
      sentence = counts.majority(support, class_names)
      logging.info("%s %s: %s", source.data, source.split, sentence)
    self._said_majority = True

  def _warn_of_one_class(self, by_class) -> None:
    at = counts.only_prediction(by_class)
    if at is None or jax.process_index():
      return
    source, support = self._sums.data.source, by_class["support"]
    total = int(support.sum())
    if at == len(support):
      what = f"no class has the largest logit alone for any of {total} images."
    else:
      what = (
        f"all {total} images are predicted as {self._class_names[at]!r}, and "
        f"{support[at] / total:.1%} of them are of this class."
      )
    logging.warning(
      "%s %s: %s Accuracy hides this; the eval's metrics=('balanced_acc', "
      "'recall') show it.",
      source.data,
      source.split,
      what,
    )

  def _warn_of_nan(self, support, ranked) -> None:
    """Says why metrics are NaN; of classes without images once."""
    if not self._added or jax.process_index():
      return
    where = f"{self._sums.data.source.data} {self._sums.data.source.split}"
    absent = [n for n, count in zip(self._class_names, support) if not count]
    if absent:
      warn_once(
        f"{where}: {len(absent)} of {len(support)} classes have no images: "
        f"{messages.shorten(absent)}. Their recall, AUROC and AP are nan, and "
        "means over classes leave them out."
      )
    if any(np.isnan(x).all() for x in ranked.values()):
      why = (
        "all images are of one class, and nothing can be ranked against it"
        if len(absent) == len(support) - 1
        else "the model gives logits that are nan or infinite"
      )
      names = ", ".join(self._rankings)
      logging.warning("%s: %s are nan, because %s.", where, names, why)


def _expanded(metrics: Sequence[str], num_classes: int) -> Sequence[str]:
  """The metrics, each once, with what "all" stands for."""
  if "all" in metrics:
    most = _ADDED if num_classes <= counts.MOST_CONFUSED else _ADDED[:-1]
    metrics = [m for m in metrics if m != "all"] + list(most)
  return list(dict.fromkeys(metrics))


def _tops(metrics: Sequence[str], num_classes: int) -> list[int]:
  """The K of each "acc@K" to report, in order.

  Raises:
    ValueError: if a metric is not known, or K classes are all there are.
  """
  known = ("loss", *_ADDED, "all")
  tops = {1, 5} if num_classes > 5 else {1}
  for metric in metrics:
    match = re.fullmatch(r"acc@([1-9]\d*)", str(metric))
    if match is None and metric not in known:
      hint = messages.did_you_mean(str(metric), known)
      raise ValueError(
        f"metrics has {metric!r}, which is not one of acc@K, "
        f"{', '.join(known)}.{hint}"
      )
    if match:
      k = int(match[1])
      if k > 1 and k >= num_classes:
        raise ValueError(
          f"metrics has {metric!r}, but there are only {num_classes} classes: "
          "it would always be 1."
        )
      tops.add(k)
  if "confusion" in metrics and num_classes > counts.MOST_CONFUSED:
    raise ValueError(
      f"metrics has 'confusion', but there are {num_classes} classes, and the "
      f"matrix is reported for at most {counts.MOST_CONFUSED}."
    )
  return sorted(tops)


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
