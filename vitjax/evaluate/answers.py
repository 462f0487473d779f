"""Answers of a classifier to each example of an eval set.

`Evaluator` obeys the contract of `vitjax.evaluators`, so that it sees the same
images and labels as the type "classification".
"""

import copy
import csv
import dataclasses
import io
import json
import pathlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import scipy.special

from vitjax import losses
from vitjax.evaluate import intervals
from vitjax.evaluate.outputs import OutputAnswers
from vitjax.evaluators import base, counts
from vitjax.evaluators.classes import Classes
from vitjax.evaluators.classification import correct_at_k

MOST_CLASSES = 5  # classes to keep per answer
SUFFIXES = (".csv", ".jsonl")


@dataclasses.dataclass(frozen=True)
class Answers:
  """Answers to the examples of an eval set, in their order.

  Attributes:
    label: (n,) int, the true class, as an id of the model; -1 if unknown.
    prediction: (n,) int, the class of the largest logit; `num_classes` if
      several are the largest, or one is NaN.
    top: (n, k) int, the most probable classes, best first.
    probability: (n, k) float32, their probabilities by a softmax, or by a
      sigmoid if the loss of training is one.
    values: metric -> (n,) float32, whose mean is the metric; of the examples
      whose label is known.
    num_classes: number of the model's classes.
    names: their names, by id; None if they have none.
    data: the eval set.
    total: number of examples in the eval set; n may be fewer.
    is_sigmoid: whether probabilities are those of a sigmoid.
    logits: (n, num_classes) float32, if they were asked for.
  """

  label: np.ndarray
  prediction: np.ndarray
  top: np.ndarray
  probability: np.ndarray
  values: Mapping[str, np.ndarray]
  num_classes: int
  names: tuple[str, ...] | None
  data: base.EvalData
  total: int
  is_sigmoid: bool
  logits: np.ndarray | None = None

  def rows(self) -> Iterator[dict[str, Any]]:
    """Plain data of each example: its file, label and most probable classes."""

    def name(i):
      if i < 0:
        return None
      return self.names[i] if self.names else int(i)

    for i, label in enumerate(self.label):
      yield {
        "file": self.data.source.describe(i),
        "label": name(label),
        "top": [
          {"label": name(c), "probability": float(p)}
          for c, p in zip(self.top[i], self.probability[i])
        ],
      }

  def scores(self) -> tuple[Sequence[str], np.ndarray, np.ndarray]:
    """Names of the classes, and probability and truth (n, classes) of each.

    Needs `logits`.
    """
    assert self.logits is not None
    logits = self.logits.astype(np.float64)
    score = (
      scipy.special.expit(logits)
      if self.is_sigmoid
      else scipy.special.softmax(logits, axis=1)
    )
    truth = self.label[:, None] == np.arange(self.num_classes)
    names = self.names or tuple(map(str, range(self.num_classes)))
    known = self.label[:, None] >= 0
    return names, score, np.where(known, truth, np.nan)

  def cells(self) -> Iterator[dict[str, Any]]:
    """`rows` as cells of a table, by column."""
    for row in self.rows():
      cells = {"file": row["file"], "label": row["label"]}
      for i, one in enumerate(row["top"], 1):
        cells[f"top{i}"] = one["label"]
        cells[f"probability{i}"] = one["probability"]
      yield cells

  def intervals(self, resamples: int) -> dict[str, tuple[float, float]]:
    """95 % confidence interval of each metric; see `intervals.bootstrap`."""

    def means(drawn):
      return {
        name: values[drawn].mean(dtype=np.float64)
        for name, values in self.values.items()
      }

    count = int((self.label >= 0).sum())
    return intervals.bootstrap(means, count, resamples)


class Evaluator:
  """Classifies an eval set and keeps the answer to each example."""

  two_towers = False

  def __init__(
    self,
    predict_fn,
    data: base.EvalData,
    *,
    loss: str = "softmax_xent",
    classes: Classes | None = None,
    same_classes: bool = False,
    num_examples: int | None = None,
    keep_logits: bool = False,
  ):
    """See `evaluators`.

    Args:
      predict_fn: from `step.make_predict_fn`.
      data: examples with an int `label`.
      loss: loss of training, which decides between softmax and sigmoid.
      classes: classes of the model; None: those of the data set.
      same_classes: see `classification.Evaluator`.
      num_examples: only the first N examples; None for all.
      keep_logits: keep the logits of all classes, for rankings and thresholds.
    """
    source = data.source
    self.total = source.num_examples
    if num_examples is not None and num_examples < self.total:
      source = copy.copy(source)
      source.num_examples = num_examples
      data = dataclasses.replace(data, source=source)
    self.data = data
    self._predict = predict_fn
    self._loss = loss
    self._classes = classes
    self._same_classes = same_classes
    self._keep_logits = keep_logits

  def answers(self, params) -> Answers:
    """The answer to every example.

    Raises:
      ValueError: if the data has no labels, or they cannot be matched.
    """
    source = self.data.source
    count = base.number_of_classes(source, unknown=True)
    own = self._classes or Classes(source.data, count, source.class_names)
    ids = jnp.asarray(own.ids_of(source, same=self._same_classes))
    loss_fn = losses.LOSSES[self._loss]
    is_sigmoid = losses.is_sigmoid(self._loss)

    def rows(params, batch):
      logits, _ = self._predict(params, batch)
      label = jnp.where(batch["label"] < 0, -1, ids[batch["label"]])
      probabilities = (jax.nn.sigmoid if is_sigmoid else jax.nn.softmax)(logits)
      # Sort by logits: several probabilities may be rounded to 1.
      _, top = jax.lax.top_k(logits, min(MOST_CLASSES, logits.shape[-1]))
      targets = jax.nn.one_hot(label, logits.shape[-1])
      if source.kind == "soft_label":
        shares = jnp.nan_to_num(batch["labels"])
        targets = jnp.zeros_like(logits).at[:, ids].set(shares)
      result = {
        "label": label,
        "prediction": counts.predicted(logits),
        "top": top,
        "probability": jnp.take_along_axis(probabilities, top, axis=-1),
        "loss": loss_fn(logits, targets),
        "acc@1": correct_at_k(logits, label, 1),
      }
      if logits.shape[-1] > 5:
        result["acc@5"] = correct_at_k(logits, label, 5)
      if self._keep_logits:
        result["logits"] = logits
      return result

    found = base.Collected(rows, self.data)(params)
    kept = ("label", "prediction", "top", "probability", "logits")
    known = {name: found.pop(name) for name in kept if name in found}
    is_known = known["label"] >= 0
    return Answers(
      **known,
      values={
        name: x[is_known].astype(np.float32) for name, x in found.items()
      },
      num_classes=own.num_classes,
      names=own.names,
      data=self.data,
      total=self.total,
      is_sigmoid=is_sigmoid,
    )

  def run(self, params) -> Iterator[tuple[str, float]]:
    """Yields each metric with its name."""
    answers = self.answers(params)
    for name, values in answers.values.items():
      yield name, float(values.mean(dtype=np.float64))
    yield "n_seen", len(answers.label)


def check_file(path: pathlib.Path) -> None:
  """Raises ValueError for a file that `to_text` has no format for."""
  if path.suffix not in SUFFIXES or not path.absolute().parent.is_dir():
    raise ValueError(
      f"--examples={path} must end in {' or '.join(SUFFIXES)} and be in a "
      "folder that exists."
    )


def to_text(answers: Mapping[str, Answers | OutputAnswers], suffix: str) -> str:
  """A line for each example of each eval.

  Args:
    answers: eval -> its answers.
    suffix: ".jsonl" or ".csv". A table has a header and the columns eval, file,
      label, and label and probability of the most probable classes; of outputs
      with targets of their own, label and output of each.
  """
  if suffix == ".jsonl":
    return "\n".join(
      json.dumps({"eval": name, **row}, ensure_ascii=False)
      for name, given in answers.items()
      for row in given.rows()
    )
  rows = [
    {"eval": name, **cells}
    for name, given in answers.items()
    for cells in given.cells()
  ]
  columns = dict.fromkeys(name for row in rows for name in row)
  text = io.StringIO()
  writer = csv.DictWriter(text, columns, lineterminator="\n")
  writer.writeheader()
  writer.writerows(rows)
  return text.getvalue().rstrip("\n")
