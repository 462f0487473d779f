"""What a source is, and the notation of splits.

Every source maps example numbers to features, so that the order of training is
a function of (seed, step) alone: see `vitjax.data.pipeline`.
"""

import functools
import re
from collections.abc import Mapping

import numpy as np
from absl import logging

from vitjax.data import order
from vitjax.data.pp.kinds import Features
from vitjax.data.tf import tf

# Kind of labels -> what an image has, in words for people.
KINDS = {
  "single_label": "one class",
  "multi_label": "any number of classes",
  "soft_label": "a probability of each class",
  "regression": "numbers",
}


class DatasetNotPreparedError(ValueError):
  """The data set is known, but its files are not there."""


class NoSplitError(ValueError):
  """The data set has no split of this name."""


class Source:
  """A split of a data set with random access.

  Attributes:
    data: name of the data set, such as "imagenet2012" or "folder:/photos".
    split: notation of the split, such as "train[:99%]".
    num_examples: length of the split.
    kind: kind of its labels, one of `KINDS`.
    num_classes: number of classes, if there are class labels; of a regression
      the number of its targets.
    class_names: names of the classes by id, or of the targets, if known.
    labels: class id of each example, if they are known without reading any; of
      soft labels the most probable one. None where an image may have several
      classes, or has numbers.
    targets: (num_examples, num_classes) float32, what `labels` of each example
      is, for all kinds but single labels.
    has_unknown: whether some labels are unknown. They are -1 in `label` and
      NaN in `labels`, and have no weight in losses and metrics.
    image_shape: (h, w, c) of the images if all have one size. `fetch` then
      gives them as uint8 arrays, and `parse` changes nothing.
    fingerprint: a hash of the content, so that a run does not resume on other
      data.
  """

  data: str
  split: str
  num_examples: int
  kind: str = "single_label"
  num_classes: int | None = None
  class_names: tuple[str, ...] | None = None
  labels: np.ndarray | None = None
  targets: np.ndarray | None = None
  has_unknown: bool = False
  image_shape: tuple[int, int, int] | None = None
  fingerprint: str

  def fetch(self, indices: tf.Tensor) -> Features:
    """Reads a chunk of examples, in graph mode or eagerly.

    Args:
      indices: int64 [n], each in [0, num_examples).

    Returns:
      Features with a leading axis of length n.
    """
    raise NotImplementedError

  def parse(self, features: Features) -> Features:
    """Turns one fetched example into `image`, `label` and so on.

    Runs in a parallel map. `image` is a string until decoded, else uint8
    [h, w, c]; `label` is a scalar int32, `labels` float32 [num_classes],
    `captions` a vector of strings.
    """
    return features

  def known_labels(self) -> np.ndarray:
    """`labels`, for what cannot do without them.

    Raises:
      ValueError: if they are not known.
    """
    if self.kind in ("multi_label", "regression"):
      raise ValueError(
        f"each image of {self.data!r} has {KINDS[self.kind]}. This needs "
        "images with one class each."
      )
    if self.labels is None:
      raise ValueError(
        f"the classes of {self.data!r} are not known before its images are "
        "read. They are for folder:/path, labels:/path/labels.csv, "
        "wds:/path/{000..099}.tar, parquet:/path/*.parquet, digits, "
        "fake:NUM,HxWxC,CLASSES, and data sets of TFDS with a feature 'label'."
      )
    return self.labels

  def training_order(self, sampling: str | None, seed: int) -> order.Order:
    """Which example is shown when, in training.

    Args:
      sampling: how often each class is shown, see `order.by_class`. None: each
        example once in each epoch.
      seed: seed of the order.

    Raises:
      ValueError: if classes are needed and not known.
    """
    if sampling is None:
      return order.by_epoch(self.num_examples, seed)
    return order.by_class(self.known_labels(), sampling, seed)

  def shares(self, sampling: str | None) -> np.ndarray:
    """(num_classes,): share of each class in what training shows."""
    assert self.num_classes is not None
    return order.shares(self.known_labels(), sampling, self.num_classes)

  def describe(self, index: int) -> str:
    """Says where example `index` of the split is, for error messages."""
    return f"example {index} of {self.data!r}, split {self.split!r}"


@functools.cache
def warn_once(line: str) -> None:
  """Logs a warning, unless it was logged before."""
  logging.warning("%s", line)


@functools.cache
def log_once(line: str) -> None:
  """Logs a line, unless it was logged before."""
  logging.info("%s", line)


# Name of a split, in lower case -> its name here.
SPLIT_NAMES = {
  **dict.fromkeys(("train", "training"), "train"),
  **dict.fromkeys(("val", "valid", "validation", "dev"), "val"),
  **dict.fromkeys(("test", "testing"), "test"),
}
_PART = re.compile(r"(\w+)(?:\[(-?\d+%?)?:(-?\d+%?)?\])?")


def split_indices(
  data: str, split: str, sizes: Mapping[str, int]
) -> list[tuple[str, np.ndarray]]:
  """Resolves a split in TFDS notation.

  Args:
    data: for the message.
    split: such as "train[:10%]+test". A percentage is rounded to the nearest
      example.
    sizes: examples in each split that there is.

  Returns:
    For each part in order, the name of its split and its example numbers.

  Raises:
    NoSplitError: if it names a split that does not exist.
    ValueError: if it is malformed, or has no examples.
  """
  same = {SPLIT_NAMES.get(name.lower(), name): name for name in sizes}
  parts = []
  for part in split.replace(" ", "").split("+"):
    match = _PART.fullmatch(part)
    if not match:
      raise ValueError(
        f"Split {split!r} of {data!r} is malformed at {part!r}. Write it as "
        "'train', 'train[:99%]', 'train[10:20]' or 'train+test'."
      )
    name, start, stop = match.groups()
    if name not in sizes:
      name = same.get(SPLIT_NAMES.get(name.lower(), name), name)
    if name not in sizes:
      known = ", ".join(f"{k} ({v})" for k, v in sizes.items())
      raise NoSplitError(
        f"{data!r} has no split {name!r}. It has: {known} (examples)."
      )
    size = sizes[name]
    bounds = slice(_absolute(start, size), _absolute(stop, size))
    parts.append((name, np.arange(size, dtype=np.int64)[bounds]))
  if not any(len(indices) for _, indices in parts):
    raise ValueError(f"Split {split!r} of {data!r} has no examples.")
  return parts


def _absolute(bound: str | None, size: int) -> int | None:
  if bound is None:
    return None
  if bound.endswith("%"):
    return round(int(bound[:-1]) * size / 100)
  return int(bound)
