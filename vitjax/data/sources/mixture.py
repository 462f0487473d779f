"""Several data sets in one: "mixture:0.7*folder:/a+0.3*wds:/b".

A weight says how often examples of its part are shown, see `order.mixed`.
Evaluation takes the parts one after another. Classes are joined by name: those
of the first part in their order, then the others of the second, and so on.

Images are files, and arrays of equal size become PNG files, so that all parts
are decoded alike.
"""

import hashlib
import math
import re
from collections.abc import Sequence

import numpy as np

from vitjax.config import messages
from vitjax.data import order, seeds
from vitjax.data.pp.kinds import Features
from vitjax.data.sources.source import KINDS, Source
from vitjax.data.tf import tf

_PART = re.compile(r"([\d.]+)\*(.+)")


def parse(data: str) -> list[tuple[float, str]]:
  """[(0.7, "folder:/a"), (0.3, "wds:/b")]; weights sum to one.

  Raises:
    ValueError: if it is malformed.
  """
  texts = re.split(r"\s*\+\s*(?=[\d.]+\*)", data.removeprefix("mixture:"))
  parts = []
  for text in texts:
    match = _PART.fullmatch(text.strip())
    try:
      weight = float(match[1]) if match else 0.0
    except ValueError:
      weight = 0.0
    if match is None or weight <= 0 or match[2].startswith("mixture:"):
      raise ValueError(
        f"{data!r} is malformed at {text!r}. Write WEIGHT*DATA+WEIGHT*DATA "
        "with positive weights, such as mixture:0.7*folder:/a+0.3*wds:/b."
      )
    parts.append((weight, match[2]))
  names = [name for _, name in parts]
  if twice := [name for name in names if names.count(name) > 1]:
    raise ValueError(f"{data!r} has {twice[0]!r} twice. Add its weights.")
  total = math.fsum(weight for weight, _ in parts)
  return [(weight / total, part) for weight, part in parts]


class MixtureSource(Source):
  """See the module."""

  def __init__(
    self,
    data: str,
    split: str,
    parts: Sequence[Source],
    class_names: Sequence[str] | None = None,
  ):
    """Takes the same split of each part, in the order of `parse`.

    Raises:
      ValueError: if a part has no class names, or others than `class_names`.
    """
    names_of = [_names_of(data, part) for part in parts]
    if class_names is None:
      class_names = list(dict.fromkeys(x for names in names_of for x in names))
    self.data, self.split = data, split
    self.class_names = tuple(class_names)
    self.num_classes = len(class_names)
    self._parts = parts
    self._weights = [weight for weight, _ in parse(data)]
    self._class_ids = [
      _ids(part.data, names, class_names)
      for part, names in zip(parts, names_of)
    ]
    sizes = [part.num_examples for part in parts]
    self.num_examples = sum(sizes)
    self._starts = np.cumsum([0, *sizes])
    if all(part.labels is not None for part in parts):
      self.labels = np.concatenate(
        [ids[part.labels] for ids, part in zip(self._class_ids, parts)]
      )
    content = [self.class_names, *(x.fingerprint for x in parts)]
    self.fingerprint = hashlib.sha256(repr(content).encode()).hexdigest()

  def training_order(self, sampling: str | None, seed: int) -> order.Order:
    """Of a part as that part has it; see `order.mixed`."""
    orders = [
      part.training_order(sampling, seeds.of_part(seed, number))
      for number, part in enumerate(self._parts)
    ]
    sizes = [part.num_examples for part in self._parts]
    return order.mixed(orders, sizes, self._weights, seed)

  def known_labels(self) -> np.ndarray:
    """See `Source`; those of records of TFDS are read now."""
    if self.labels is None:
      self.labels = np.concatenate(
        [
          ids[part.known_labels()]
          for ids, part in zip(self._class_ids, self._parts)
        ]
      )
    return self.labels

  def shares(self, sampling: str | None) -> np.ndarray:
    assert self.num_classes is not None  # all parts have classes
    total = np.zeros(self.num_classes)
    for weight, ids, part in zip(self._weights, self._class_ids, self._parts):
      np.add.at(total, ids, weight * part.shares(sampling))
    return total

  def fetch(self, indices: tf.Tensor) -> Features:
    starts = tf.constant(self._starts, tf.int64)
    part = tf.searchsorted(starts, indices, side="right") - 1
    return {"part": part, "row": indices - tf.gather(starts, part)}

  def parse(self, features: Features) -> Features:
    row = features["row"][None]
    branches = [
      lambda part=part, ids=ids: _example(part, ids, row)
      for part, ids in zip(self._parts, self._class_ids)
    ]
    image, label = tf.switch_case(features["part"], branches)
    return {"image": image, "label": label}

  def describe(self, index: int) -> str:
    part = int(np.searchsorted(self._starts, index, side="right")) - 1
    return self._parts[part].describe(index - int(self._starts[part]))


def _names_of(data: str, part: Source) -> Sequence[str]:
  if part.kind != "single_label" or part.has_unknown:
    what = "some unknown classes" if part.has_unknown else KINDS[part.kind]
    raise ValueError(
      f"{data!r}: the images of {part.data!r} have {what}. Each image of a "
      "mixture must have one class."
    )
  if part.class_names is None:
    raise ValueError(
      f"{data!r}: {part.data!r} has no names of classes, by which those of a "
      "mixture are joined."
    )
  return part.class_names


def _ids(data: str, names: Sequence[str], known: Sequence[str]) -> np.ndarray:
  """The id among `known` names of each of a part's classes."""
  id_of = {name: i for i, name in enumerate(known)}
  unknown = [repr(name) for name in names if name not in id_of]
  if unknown:
    raise ValueError(
      f"{data!r} has classes that the model was not trained with: "
      f"{messages.shorten(unknown)}."
    )
  return np.array([id_of[name] for name in names], np.int32)


def _example(
  part: Source, ids: np.ndarray, row: tf.Tensor
) -> tuple[tf.Tensor, tf.Tensor]:
  """The image, as in a file, and the label of one example."""
  features = {name: x[0] for name, x in part.fetch(row).items()}
  features = part.parse(features)
  image, label = features["image"], features["label"]
  if image.dtype != tf.string:
    image = tf.io.encode_png(image)
  known = tf.gather(tf.constant(ids), tf.maximum(label, 0))
  return image, tf.where(label < 0, label, known)  # -1: it is secret
