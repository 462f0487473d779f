"""Accuracy and speed of an exported file, beside those of the model."""

import dataclasses
import re
import time
from collections.abc import Callable, Iterator

import numpy as np

from vitjax.data import pipeline, sources
from vitjax.data.pp import builder
from vitjax.graphs import forward

_BATCH_SIZE = 32

Run = Callable[[np.ndarray], np.ndarray]


@dataclasses.dataclass(frozen=True)
class Accuracy:
  """What was measured on labelled images.

  Attributes:
    data: the data set and its split.
    images: number of images with a known label.
    file, model: share of them that the file and the model classify correctly.
    same: share of them to which both give the same class.
    images_per_second: of the file, after the images are prepared if its input
      is prepared images.
  """

  data: str
  images: int
  file: float
  model: float
  same: float
  images_per_second: float

  def __str__(self) -> str:
    return (
      f"Accuracy on {self.data}, n = {self.images:,}: {self.file:.4f} by the "
      f"file, {self.model:.4f} by the model in float32; the same class for "
      f"{self.same:.2%} of the images. {self.images_per_second:,.0f} images/s "
      "by the file."
    )


def check(trained, data: str) -> None:
  """Raises ValueError if the accuracy cannot be measured."""
  if trained.has_two_towers or trained.is_regression:
    raise ValueError("--accuracy is for models with classes.")
  _data_and_split(data)


def _data_and_split(data: str) -> tuple[str, str]:
  match = re.fullmatch(r"(.+):([^:\[\]]+(?:\[[^\[\]]*\])?)", data)
  if match is None:
    raise ValueError(
      f"--accuracy={data} must be DATA:SPLIT, such as fashion_mnist:test."
    )
  return match[1], match[2]


def measure(trained, run: Run, input: forward.Input, data: str) -> Accuracy:
  """Classifies all images of a split by a file and by its model.

  Args:
    trained: from `vitjax.load`.
    run: runs the file.
    input: what the file takes.
    data: DATA:SPLIT, with data as `input.data` of a config.

  Raises:
    ValueError: if the data are unknown or their labels are not class ids.
  """
  ours = forward.of_images(trained, "tensor")
  hits = np.zeros(3, np.int64)
  count, seconds = 0, 0.0
  for images, labels in _batches(trained, data):
    prepared = np.stack([trained.prepare(x) for x in images])
    start = time.perf_counter()
    if input == "tensor":
      got = run(prepared)
    elif len({x.shape for x in images}) == 1:
      got = run(np.stack(images))
    else:
      got = np.concatenate([run(x[None]) for x in images])
    seconds += time.perf_counter() - start
    got, want = got.argmax(-1), ours(prepared).argmax(-1)
    hits += [x.sum() for x in (got == labels, want == labels, got == want)]
    count += len(labels)
  file, model, same = hits / count
  return Accuracy(data, count, file, model, same, count / seconds)


def _batches(
  trained, data: str
) -> Iterator[tuple[list[np.ndarray], np.ndarray]]:
  """Pixels and class ids."""
  name, split = _data_and_split(data)
  source = sources.open_source(name, split, class_names=trained.class_names)
  decode = builder.build(f"decode(channels={trained.channels})")
  images, labels = [], []
  for i in range(source.num_examples):
    example = pipeline.example(source, decode, i)
    if "label" not in example:
      raise ValueError(f"--accuracy={data}: its images do not have one class.")
    if example["label"] >= 0:
      images.append(example["image"])
      labels.append(int(example["label"]))
    if len(images) == _BATCH_SIZE or (images and i + 1 == source.num_examples):
      yield images, np.array(labels)
      images, labels = [], []
