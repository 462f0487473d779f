"""Images whose label may be wrong, by what models say that never saw them.

Confident Learning, https://arxiv.org/abs/1911.00068, "prune by class": a model
is confident of a class if it gives the class at least the mean probability that
it gives images with this label. The share of the images of a label where it is
confident of another class estimates how many of them have a wrong label. So
many are suspicious: those with the smallest probability of their label, the
self-confidence.
"""

import csv
import dataclasses
import json
import pathlib
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from vitjax.config import messages


@dataclasses.dataclass(frozen=True)
class Suspect:
  """An image whose label may be wrong.

  Attributes:
    file: path of the image.
    label: its label.
    suggested: the most probable other class.
    self_confidence: probability of the label.
    margin: probability of the suggested class minus that of the label.
  """

  file: str
  label: str
  suggested: str
  self_confidence: float
  margin: float


@dataclasses.dataclass(frozen=True)
class Prediction:
  """Probabilities of the most probable classes of an image."""

  file: str
  label: str
  top: Mapping[str, float]

  def probability(self, name: str) -> float:
    """Of a class that is not among the most probable, the most it can be."""
    rest = max(0.0, 1 - sum(self.top.values()))
    return self.top.get(name, min([rest, *self.top.values()]))


def read(paths: Sequence[str]) -> list[Prediction]:
  """Predictions that `vitjax.evaluate --examples` wrote.

  Raises:
    ValueError: if a file is not readable or none of these, or if an image is
      in several: then its model may have been trained on it.
  """
  found: dict[str, str] = {}
  predictions = []
  for path in paths:
    for prediction in _rows(pathlib.Path(path)):
      if prediction.file in found:
        raise ValueError(
          f"{path}: {prediction.file} is predicted already, in "
          f"{found[prediction.file]}. Give one prediction of each image, by a "
          "model that was not trained on it: --evals with one eval on val of "
          "each fold=I/K."
        )
      found[prediction.file] = path
      predictions.append(prediction)
  return predictions


def find(predictions: Sequence[Prediction]) -> list[Suspect]:
  """The images with suspicious labels, the most suspicious first."""
  members = defaultdict(list)
  for x in predictions:
    members[x.label].append(x)
  threshold = {
    label: np.mean([x.probability(label) for x in images])
    for label, images in members.items()
  }
  found = []
  for label, images in members.items():
    sure = [_confident(x, threshold) for x in images]
    others = sum(name not in (None, label) for name in sure)
    count = round(others / max(1, others + sure.count(label)) * len(images))
    images.sort(key=lambda x: (x.probability(label), x.file))
    found += [x for x in map(_suspect, images[:count]) if x.margin > 0]
  return sorted(found, key=lambda x: (x.self_confidence, x.file))


def _confident(x: Prediction, threshold: Mapping[str, float]) -> str | None:
  """The class that the model is confident of, if there is one."""
  names = [
    name
    for name in {**x.top, x.label: None}
    if x.probability(name) >= threshold.get(name, np.inf)
  ]
  return max(names, key=x.probability, default=None)


def _suspect(x: Prediction) -> Suspect:
  own = x.probability(x.label)
  others = [name for name in x.top if name != x.label]
  best = max(others, key=x.probability, default=x.label)
  return Suspect(x.file, x.label, best, own, x.probability(best) - own)


def for_files(
  predictions: Sequence[Prediction], label_of: Mapping[str, str | None]
) -> tuple[list[Prediction], list[str]]:
  """The predictions for the images of a data set, with its labels.

  Args:
    predictions: predictions.
    label_of: path of each image -> its label.

  Returns:
    The predictions, and sentences about images that have none.

  Raises:
    ValueError: if there is no prediction for any image.
  """
  kept = [
    dataclasses.replace(x, label=label)
    for x in predictions
    if (label := label_of.get(x.file)) is not None
  ]
  if not kept:
    first = predictions[0].file if predictions else "nothing"
    raise ValueError(
      f"--predictions: none of the images of the data set is predicted, but "
      f"{first}. Give the path of the data set as in the run's input.data."
    )
  absent = sorted({*label_of} - {x.file for x in kept})
  notes = []
  if absent:
    notes.append(
      f"{len(absent)} image(s) without a prediction, whose labels were not "
      f"judged: {messages.shorten(absent, 5)}"
    )
  return kept, notes


def _rows(path: pathlib.Path) -> Iterator[Prediction]:
  try:
    text = path.read_text(encoding="utf-8")
    if path.suffix == ".jsonl":
      for row in map(json.loads, text.splitlines()):
        top = {str(x["label"]): float(x["probability"]) for x in row["top"]}
        yield Prediction(row["file"], str(row["label"]), top)
      return
    for row in csv.DictReader(text.splitlines()):
      top = {}
      for i in range(1, len(row)):
        if row.get(f"top{i}"):
          top[row[f"top{i}"]] = float(row[f"probability{i}"])
      yield Prediction(row["file"], row["label"], top)
  except (KeyError, TypeError, ValueError) as e:
    raise ValueError(
      f"{path} is no file of predictions ({type(e).__name__}: {e}). Write one "
      "with python -m vitjax.evaluate --examples=FILE.jsonl."
    ) from e
