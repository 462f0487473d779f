"""Mistakes of a classifier: the confusion matrix and the worst mistakes."""

import dataclasses
import functools
import pathlib
from collections.abc import Mapping, Sequence

import numpy as np

from vitjax import step as step_lib
from vitjax.config import schema
from vitjax.data import pipeline
from vitjax.data.pp import builder
from vitjax.evaluate.answers import Answers, Evaluator
from vitjax.evaluators import base, counts
from vitjax.evaluators.subject import Subject, make_evaluator
from vitjax.parallel import sharding
from vitjax.trained import Trained


@dataclasses.dataclass(frozen=True)
class Judged:
  """Answers of a classifier to the examples of an eval set, in their order.

  Attributes:
    label: (n,) int, the true class.
    prediction: (n,) int, the class of the largest logit; the number of classes
      if several are the largest, or one is NaN.
    confidence: (n,) float32, its probability by a softmax, or by a sigmoid if
      the loss of training is one.
    names: names of the classes, by id.
    data: the eval set.
    total: number of examples in the eval set; n may be fewer.
    ranked: AUROC and AP, see `counts.rankings`; empty if they are not known.
  """

  label: np.ndarray
  prediction: np.ndarray
  confidence: np.ndarray
  names: Sequence[str]
  data: base.EvalData
  total: int
  ranked: Mapping[str, np.ndarray]

  @functools.cached_property
  def accuracy(self) -> float:
    return float((self.label == self.prediction).mean())

  @functools.cached_property
  def measures(self) -> Mapping[str, np.ndarray]:
    """The metrics of the classes, as evals report them."""
    sums = counts.of_predictions(self.label, self.prediction, len(self.names))
    return {**counts.measures(sums), **self.ranked}

  def said(self, prediction: int) -> str:
    """The name of a predicted class."""
    names = [*self.names, "no class"]
    return names[prediction]

  def worst(self, most: int) -> np.ndarray:
    """Numbers of the wrong examples, the most confident first."""
    wrong = np.flatnonzero(self.label != self.prediction)
    order = np.argsort(-self.confidence[wrong], kind="stable")
    return wrong[order][:most]

  def pairs(self, most: int) -> list[tuple[int, int, int]]:
    """The most frequent (label, prediction, count) that are wrong."""
    wrong = self.label != self.prediction
    pairs = np.stack([self.label[wrong], self.prediction[wrong]], axis=1)
    pairs, counts = np.unique(pairs, axis=0, return_counts=True)
    order = np.argsort(-counts, kind="stable")[:most]
    return [
      (int(a), int(b), int(n)) for (a, b), n in zip(pairs[order], counts[order])
    ]

  def most_confused(self, most: int) -> np.ndarray:
    """Ids of the classes in the most mistakes, of either side; ascending."""
    wrong = self.label != self.prediction
    size = len(self.names)
    count = np.bincount(self.label[wrong], minlength=size)
    count += np.bincount(self.prediction[wrong], minlength=size + 1)[:size]
    return np.sort(np.argsort(-count, kind="stable")[:most])

  def confusion(self, classes: np.ndarray) -> np.ndarray:
    """Counts of examples by their class (row) and the prediction (column).

    Args:
      classes: (m,) ids.

    Returns:
      (m, m + 1) counts; the last column has all other predictions.
    """
    place = np.full(len(self.names) + 1, len(classes))
    place[classes] = np.arange(len(classes))
    rows, columns = place[self.label], place[self.prediction]
    matrix = np.zeros((len(classes) + 1, len(classes) + 1), np.int64)
    np.add.at(matrix, (rows, columns), 1)
    return matrix[:-1]

  def image(self, number: int) -> np.ndarray:
    """Example `number` as the model gets it: uint8 (h, w, c)."""
    return image_of(self.data, number)


def image_of(data: base.EvalData, number: int) -> np.ndarray:
  """An example after the preprocessing on the host: uint8 (h, w, c)."""
  image = pipeline.example(data.source, data.preprocess, number)["image"]
  return np.clip(np.rint(image), 0, 255).astype(np.uint8)


def file_of(data: base.EvalData, number: int) -> pathlib.Path | None:
  """The file of an example; None if it is no file of its own."""
  path = pathlib.Path(data.source.describe(int(number)))
  return path if path.is_file() else None


def judge(
  trained: Trained, run: schema.RunConfig, num_examples: int | None = None
) -> tuple[str, Judged]:
  """Classifies the first labelled eval set of a run with the run's model.

  Args:
    trained: from `vitjax.load` of the run folder.
    run: the config of the run.
    num_examples: only the first N examples; None for all.

  Returns:
    The name of the eval, and the answers.

  Raises:
    ValueError: if the run is not a classifier, has no labelled eval, or its
      data is missing.
  """
  if trained.has_two_towers:
    raise ValueError("the model compares images with texts; it has no classes.")
  names = [n for n, e in run.evals.items() if e.type == "classification"]
  if not names:
    raise ValueError(
      "the run has no eval of type 'classification', in which an image has one "
      "class. `python -m vitjax.evaluate --examples=rows.csv` writes the "
      "outputs for each image."
    )
  few = trained.model.num_classes <= counts.MOST_CONFUSED
  options = {"num_examples": num_examples, "keep_logits": few}
  evaluator = _evaluator(trained, run, names[0], options)
  found = evaluator.answers(trained.params)
  return names[0], judged(found, trained.labels)


def judged(given: Answers, names: Sequence[str] | None) -> Judged:
  """Judges answers.

  Args:
    given: the answers.
    names: names of the model's classes, by id; None for their numbers.
  """
  known = np.flatnonzero(given.label >= 0)
  if len(known) < len(given.label):
    raise ValueError(
      f"{len(given.label) - len(known):,} images of the eval have an unknown "
      "class."
    )
  ranked = {}
  if given.logits is not None:
    ranked = counts.rankings(
      ("auroc", "ap"), given.logits, given.label, sigmoid=given.is_sigmoid
    )
  return Judged(
    label=given.label,
    prediction=given.prediction,
    confidence=given.probability[:, 0],
    names=names or tuple(map(str, range(given.num_classes))),
    data=given.data,
    total=given.total,
    ranked=ranked,
  )


def eval_data(
  trained: Trained, run: schema.RunConfig
) -> tuple[str, base.EvalData]:
  """The first eval set of a run, of any type, and its name.

  Raises:
    ValueError: if there is none, or the data is missing.
  """
  if not run.evals:
    raise ValueError("the run has no evals.")
  name = next(iter(run.evals))
  return name, _evaluator(trained, run, name, {}).data


def _evaluator(trained, run, name, options) -> Evaluator:
  pp = builder.for_images(run.evals[name].pp)
  preprocess = builder.build(pp)
  subject = Subject(
    data=run.input.data,
    data_dir=run.input.data_dir,
    cache=run.input.cache,
    batch_size=run.input.batch_size,
    num_classes=trained.metadata["model"].get("num_classes"),
    class_names=trained.class_names,
    loss=run.loss,
    pixel_statistics=preprocess.pixel_statistics,
    tokenizer=None,
  )
  return make_evaluator(
    name,
    dataclasses.replace(
      run.evals[name],
      type=Evaluator.__module__,
      pp=pp,
      patch_sizes=(),
      options=options,
    ),
    subject,
    step_lib.make_predict_fn(trained.model, preprocess.on_device),
    sharding.make_mesh(),
  )
