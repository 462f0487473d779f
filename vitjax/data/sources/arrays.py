"""Sources that need no files: arrays, digits, random images, absent data."""

import hashlib
import re
from collections.abc import Sequence
from importlib import metadata

import numpy as np

from vitjax.data.pp.kinds import Features
from vitjax.data.sources.source import Source, split_indices
from vitjax.data.tf import tf


class ArraySource(Source):
  """Images and labels in memory."""

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
    self.labels = labels
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
  """A data set whose files are missing: it has shapes, but no examples."""

  def __init__(
    self,
    data: str,
    split: str,
    *,
    num_examples: int,
    num_classes: int | None = None,
    image_shape: tuple[int, int, int] | None = None,
    kind: str = "single_label",
  ):
    self.data, self.split = data, split
    self.num_examples = num_examples
    self.num_classes = num_classes
    self.image_shape = image_shape
    self.kind = kind
    if kind != "single_label":
      self.targets = np.zeros((num_examples, num_classes or 1), np.float32)
    self.labels = np.broadcast_to(0, num_examples)  # as `fetch` gives them
    self.fingerprint = ""

  def fetch(self, indices: tf.Tensor) -> Features:
    def blank(shape, dtype):
      return tf.zeros(tf.concat([tf.shape(indices), shape], 0), dtype)

    image = tf.uint8, self.image_shape
    dtype, shape = (tf.string, ()) if self.image_shape is None else image
    found = {
      "image": blank(tf.constant(shape, tf.int32), dtype),
      "label": blank(tf.constant((), tf.int32), tf.int32),
      "captions": blank([1], tf.string),
    }
    if self.targets is not None:
      found["labels"] = blank(self.targets.shape[1:], tf.float32)
    return found


def digits(split: str) -> ArraySource:
  """Scikit-learn's handwritten digits: train 1437, test 360, all 1797.

  A fixed permutation splits the images into train and test. Values 0..16 become
  0..255.
  """
  # Read the file directly: `import sklearn` takes a second.
  file = metadata.distribution("scikit-learn").locate_file(
    "sklearn/datasets/data/digits.csv.gz"
  )
  table = np.loadtxt(str(file), delimiter=",")
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


# A prime: this many examples of a split are all different.
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
    num, height, width, channels, self.num_classes = map(int, match.groups())
    sizes = dict.fromkeys(self._SPLITS, max(1, num // 10)) | {"train": num}
    parts = split_indices(data, split, sizes)
    self.data, self.split = data, split
    self._shape = self.image_shape = (height, width, channels)
    # An example is identified by its split and its index there.
    ids = np.concatenate(
      [
        np.stack([np.full_like(i, self._SPLITS.index(name)), i], axis=1)
        for name, i in parts
      ]
    )
    # Where an image is in the noise; it decides the label as well.
    self._places = ids @ (21841, 40503) % _NOISE_PLACES
    self._labels = self.labels = self._places % self.num_classes
    self._noise = np.frombuffer(
      np.random.Generator(np.random.PCG64(0)).bytes(
        int(np.prod(self._shape)) + _NOISE_PLACES
      ),
      np.uint8,
    )
    self.num_examples = len(ids)
    self.class_names = tuple(map(str, range(self.num_classes)))
    self.fingerprint = hashlib.sha256(f"{data} {split}".encode()).hexdigest()

  def fetch(self, indices: tf.Tensor) -> Features:
    images, labels = tf.numpy_function(
      self._generate, [indices], (tf.uint8, tf.int32), stateful=False
    )
    count = indices.shape[0]
    return {
      "image": tf.ensure_shape(images, (count, *self._shape)),
      "label": tf.ensure_shape(labels, (count,)),
    }

  def _generate(self, indices: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Crops each image from one array of noise, each at its own place."""
    size = int(np.prod(self._shape))
    images = np.stack(
      [self._noise[p : p + size] for p in self._places[indices]]
    )
    labels = self._labels[indices].astype(np.int32)
    return images.reshape(-1, *self._shape), labels
