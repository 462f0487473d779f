"""Where examples come from, as random access to numbered examples.

Every source maps example numbers to features, so that the order of training
is a function of (seed, step) alone: see `vitjax.data.pipeline`. This file owns
what a source is, the notation of splits, and the sources that need no files;
`vitjax.data.folder`, `labels`, `captions` and `records` read from disk.
"""

import hashlib
import re
from collections.abc import Mapping, Sequence
from importlib import metadata

import numpy as np
import tensorflow as tf
from absl import logging

from vitjax.data.pp.kinds import Features


class DatasetNotPreparedError(ValueError):
  """The data set is known, but its files are not there."""


class Source:
  """A split of a data set with random access.

  Attributes:
    data: what was asked for, such as "imagenet2012" or "folder:/photos".
    split: such as "train[:99%]".
    num_examples: length of the split.
    num_classes: if it has class labels.
    class_names: by class id, if known.
    image_shape: if all images have one size, their (h, w, c): `fetch` then
      gives them as uint8 arrays, and `parse` has nothing left to do.
    fingerprint: changes when the content does: to notice, on resume, that the
      data are not those that the run began with.
  """

  data: str
  split: str
  num_examples: int
  num_classes: int | None = None
  class_names: tuple[str, ...] | None = None
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
    [h, w, c]; `label` is a scalar int32, `captions` a vector of strings.
    """
    return features

  def describe(self, index: int) -> str:
    """Says where example `index` of the split is, for error messages."""
    return f"example {index} of {self.data!r}, split {self.split!r}"


def open_source(
  data: str,
  split: str,
  *,
  data_dir: str | None = None,
  class_names: Sequence[str] | None = None,
  cache: bool = False,
) -> Source:
  """Opens a split of a data set.

  Args:
    data: a TFDS name ("imagenet2012", "name/config:version"), a folder of
      class folders ("folder:/path"), a file of labels
      ("labels:/path/labels.csv") or of captions
      ("captions:/path/captions.jsonl"), "digits" (scikit-learn's 1797 images
      of 8x8), or random images ("fake:NUM,HxWxC,CLASSES").
    split: in TFDS notation: "train", "train[:99%]", "train[10:20]+test".
    data_dir: where TFDS looks for prepared data sets; its default if none.
    class_names: the classes that the model knows, by class id; if given, the
      source labels examples with these or refuses.
    cache: keeps decoded images in memory once they are read, if they are
      records of one size: decoding is nearly all the work for small ones.
      Others are not kept; see docs/data.md.

  Returns:
    The source. Nothing is downloaded.

  Raises:
    DatasetNotPreparedError: if a TFDS data set has to be prepared first.
    ValueError: if there is no such data set or split, its classes differ, or
      the images that are to be kept do not fit into the memory.
  """
  if data.startswith("folder:"):
    from vitjax.data import folder

    source = folder.FolderSource(data, split, class_names)
  elif data.startswith("labels:"):
    from vitjax.data import labels

    source = labels.LabelsSource(data, split, class_names)
  elif data.startswith("captions:"):
    from vitjax.data import captions

    source = captions.CaptionsSource(data, split)
  elif data.startswith("fake:"):
    source = FakeSource(data, split)
  elif data == "digits":
    source = _digits(split)
  else:
    from vitjax.data import records

    source = records.TfdsSource(data, split, data_dir, cache)
  if cache and source.image_shape is None:
    logging.warning("%s: input.cache keeps no images of various sizes.", data)
  if class_names is not None:
    _check_class_names(source, tuple(class_names))
  return source


def _check_class_names(source: Source, expected: tuple[str, ...]) -> None:
  found = source.class_names
  if found is None or found == expected:
    return
  if len(found) != len(expected):
    difference = f"{len(found)} classes instead of {len(expected)}"
  else:
    at = next(i for i, (a, b) in enumerate(zip(found, expected)) if a != b)
    difference = f"class {at} is {found[at]!r} instead of {expected[at]!r}"
  raise ValueError(
    f"{source.data!r} has other classes than the model was trained with: "
    f"{difference}. Labels would mean something else; use matching data."
  )


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
    ValueError: if it is malformed, or names a split that does not exist.
  """
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
      known = ", ".join(f"{k} ({v})" for k, v in sizes.items())
      raise ValueError(
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


class ArraySource(Source):
  """Images and labels that are in memory."""

  def __init__(
    self,
    data: str,
    split: str,
    images: np.ndarray,
    labels: np.ndarray,
    class_names: Sequence[str],
  ):
    """Takes uint8 images [n, h, w, c] and labels [n] of the whole split."""
    self.data, self.split = data, split
    self.num_examples = len(images)
    self.image_shape = images.shape[1:]
    self.class_names = tuple(class_names)
    self.num_classes = len(self.class_names)
    content = hashlib.sha256(images.tobytes())
    content.update(labels.astype(np.int32).tobytes())
    self.fingerprint = content.hexdigest()
    self._images = tf.constant(images)
    self._labels = tf.constant(labels, tf.int32)

  def fetch(self, indices: tf.Tensor) -> Features:
    return {
      "image": tf.gather(self._images, indices),
      "label": tf.gather(self._labels, indices),
    }


class AbsentSource(Source):
  """A data set whose files are not there: it has shapes, but no examples."""

  def __init__(
    self,
    data: str,
    split: str,
    *,
    num_examples: int,
    num_classes: int | None = None,
    image_shape: tuple[int, int, int] | None = None,
  ):
    self.data, self.split = data, split
    self.num_examples = num_examples
    self.num_classes = num_classes
    self.image_shape = image_shape
    self.fingerprint = ""

  def fetch(self, indices: tf.Tensor) -> Features:
    def blank(shape, dtype):
      return tf.zeros(tf.concat([tf.shape(indices), shape], 0), dtype)

    image = tf.uint8, self.image_shape
    dtype, shape = (tf.string, ()) if self.image_shape is None else image
    return {
      "image": blank(tf.constant(shape, tf.int32), dtype),
      "label": blank(tf.constant((), tf.int32), tf.int32),
      "captions": blank([1], tf.string),
    }


def _digits(split: str) -> ArraySource:
  """Scikit-learn's handwritten digits: train 1437, test 360, all 1797.

  The rows are dealt to train and test by a fixed permutation. Values 0..16
  become 0..255.
  """
  # Its file alone: `import sklearn` takes a second.
  file = metadata.distribution("scikit-learn").locate_file(
    "sklearn/datasets/data/digits.csv.gz"
  )
  table = np.loadtxt(file, delimiter=",")
  images = np.rint(table[:, :-1] * (255 / 16)).astype(np.uint8)
  images = images.reshape(-1, 8, 8, 1)
  order = np.random.Generator(np.random.PCG64(0)).permutation(len(images))
  rows = {"train": order[:1437], "test": order[1437:], "all": order}
  parts = split_indices("digits", split, {k: len(v) for k, v in rows.items()})
  chosen = np.concatenate([rows[name][indices] for name, indices in parts])
  return ArraySource(
    "digits",
    split,
    images[chosen],
    table[chosen, -1].astype(np.int32),
    [str(digit) for digit in range(10)],
  )


# Prime, so that up to as many examples of a split are different.
_NOISE_PLACES = 65521


class FakeSource(Source):
  """Random images with random labels, for smoke tests and benchmarks.

  "fake:1000,224x224x3,10" has 1000 training examples of 10 classes, and a
  tenth of that (at least one) in each of val and test.
  """

  _SPLITS = ("train", "val", "test")

  def __init__(self, data: str, split: str):
    match = re.fullmatch(r"fake:(\d+),(\d+)x(\d+)x(\d+),(\d+)", data)
    if not match or "0" in match.groups():
      raise ValueError(
        f"{data!r} is malformed. Write fake:NUM,HxWxC,CLASSES, such as "
        "fake:1000,224x224x3,10."
      )
    num, *shape, self.num_classes = map(int, match.groups())
    sizes = dict.fromkeys(self._SPLITS, max(1, num // 10)) | {"train": num}
    parts = split_indices(data, split, sizes)
    self.data, self.split = data, split
    self.image_shape = tuple(shape)
    # The identity of an example: its split and its number there.
    self._ids = np.concatenate(
      [
        np.stack([np.full_like(i, self._SPLITS.index(name)), i], axis=1)
        for name, i in parts
      ]
    )
    self._noise = np.frombuffer(
      np.random.Generator(np.random.PCG64(0)).bytes(
        int(np.prod(shape)) + _NOISE_PLACES
      ),
      np.uint8,
    )
    self.num_examples = len(self._ids)
    self.class_names = tuple(map(str, range(self.num_classes)))
    self.fingerprint = hashlib.sha256(f"{data} {split}".encode()).hexdigest()

  def fetch(self, indices: tf.Tensor) -> Features:
    images, labels = tf.numpy_function(
      self._generate, [indices], (tf.uint8, tf.int32), stateful=False
    )
    count = indices.shape[0]
    return {
      "image": tf.ensure_shape(images, (count, *self.image_shape)),
      "label": tf.ensure_shape(labels, (count,)),
    }

  def _generate(self, indices: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Cuts each image out of one piece of noise, at a place of its own."""
    ids = self._ids[indices]
    places = (ids[:, 0] * 21841 + ids[:, 1] * 40503) % _NOISE_PLACES
    size = int(np.prod(self.image_shape))
    images = np.stack([self._noise[p : p + size] for p in places])
    labels = places % self.num_classes
    return images.reshape(-1, *self.image_shape), labels.astype(np.int32)
