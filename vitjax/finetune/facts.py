"""What `vitjax finetune` finds out about the data and the device."""

import dataclasses
import os
from collections.abc import Sequence

import jax
import numpy as np

from vitjax.data import pipeline, sources
from vitjax.data.pp import builder
from vitjax.data.sources.source import KINDS, NoSplitError
from vitjax.parallel import devices

# Images that are decoded to see sizes and colours; `data check` reads all.
_LOOKED_AT = 200


@dataclasses.dataclass(frozen=True)
class Data:
  """A data set.

  Attributes:
    data: as in `config.input.data`.
    train, val: the splits to train and to choose checkpoints on.
    test: the split for the last evaluation; None without one.
    num_train, num_val, num_test: images in them.
    class_names: names of the classes, or their numbers.
    counts: training images of each class; None if unknown.
    side: median of the images' shorter sides in pixels.
    sizes: the smallest and the largest image looked at, as (height, width).
    is_grey: whether all images looked at are grey.
  """

  data: str
  train: str
  val: str
  test: str | None
  num_train: int
  num_val: int
  num_test: int
  class_names: Sequence[str]
  counts: Sequence[int] | None
  side: int
  sizes: tuple[tuple[int, int], tuple[int, int]]
  is_grey: bool

  @property
  def imbalance(self) -> float:
    """Images of the largest class by those of the smallest; 1 if unknown."""
    return max(self.counts) / max(1, min(self.counts)) if self.counts else 1.0

  def __str__(self) -> str:
    (low, width), (high, wide) = self.sizes
    size = f"{low}x{width}"
    if self.sizes[0] != self.sizes[1]:
      size += f" to {high}x{wide}"
    tested = f", {self.num_test:,} test" if self.test else ""
    classes = f"{len(self.class_names):,} classes"
    if self.counts:
      least, most = min(self.counts), max(self.counts)
      classes += f" of {least:,} to {most:,} training images"
    colour = "grey" if self.is_grey else "colour"
    return (
      f"{self.num_train:,} training, {self.num_val:,} validation{tested} "
      f"images, {size} pixels, {colour}; {classes}"
    )


@dataclasses.dataclass(frozen=True)
class Device:
  """The devices of this machine.

  Attributes:
    platform: "cpu", "gpu" or "tpu".
    kind: name of the product.
    count: number of devices.
    memory_bytes: memory of one device; None if unknown.
    cores: cores of the host that this process may use.
  """

  platform: str
  kind: str
  count: int
  memory_bytes: int | None
  cores: int

  def __str__(self) -> str:
    memory = ""
    if self.memory_bytes:
      memory = f" with {self.memory_bytes / 2**30:.0f} GiB"
    return f"{self.count} x {self.kind}{memory}, {self.cores} cores of the host"


def of_data(data: str) -> Data:
  """Opens the splits of a data set and decodes some of its images.

  Raises:
    ValueError: if it has no classes, or cannot be read; see `open_source`.
  """
  data, train, val, test = find_splits(sources.with_kind(data))
  source = sources.open_source(data, train)
  if source.num_classes is None:
    raise ValueError(
      f"{data!r} has no classes. `vitjax finetune` trains classifiers: give a "
      "folder of class folders, folder:/path, or a table of labels, "
      "labels:/path/labels.csv."
    )
  if source.kind in ("multi_label", "regression"):
    raise ValueError(
      f"each image of {data!r} has {KINDS[source.kind]}. `vitjax finetune` "
      "needs images with one class each. Run `vitjax train --config="
      "transfer.py:MODEL,DATA`, which sets loss and metric for them."
    )
  labels = source.labels
  counts = None
  if labels is not None:
    known = labels[labels >= 0]  # -1: unknown
    counts = np.bincount(known, minlength=source.num_classes).tolist()
  looked = look_at(source)
  shapes = sorted((x.shape[:2] for x in looked), key=lambda x: (min(x), x))
  names = source.class_names or map(str, range(source.num_classes))
  return Data(
    data=data,
    train=train,
    val=val,
    test=test,
    num_train=source.num_examples,
    num_val=sources.open_source(data, val).num_examples,
    num_test=sources.open_source(data, test).num_examples if test else 0,
    class_names=tuple(names),
    counts=counts,
    side=int(np.median([min(x) for x in shapes])),
    sizes=(shapes[0], shapes[-1]),
    is_grey=all(bool((x == x[..., :1]).all()) for x in looked),
  )


def find_splits(data: str) -> tuple[str, str, str, str | None]:
  """(data, train, val, test), each of the splits in TFDS notation.

  Data without `val` hold back a tenth of train, so that `test`, if any, is
  evaluated once. Data with folds do so by class, as their fold 1 of 10.
  """
  test = "test" if _has_split(data, "test") else None
  for val in ("val", "validation"):
    if _has_split(data, val):
      return data, "train", val, test
  if data.startswith(("folder:", "labels:", "wds:", "parquet:")):
    return f"{data}:fold=1/10", "train", "val", test
  return data, "train[:90%]", "train[90%:]", test


def _has_split(data: str, split: str) -> bool:
  try:
    sources.open_source(data, split)
  except NoSplitError:
    return False
  return True


def look_at(source) -> list[np.ndarray]:
  """Some images of a source, evenly spaced, as uint8 (h, w, 3)."""
  decode = builder.build("decode")
  count = min(source.num_examples, _LOOKED_AT)
  indices = np.linspace(0, source.num_examples - 1, count).astype(int)
  return [pipeline.example(source, decode, int(i))["image"] for i in indices]


def of_device() -> Device:
  """The devices that JAX computes on.

  Raises:
    RuntimeError: if JAX finds none.
  """
  first = devices.find()[0]
  return Device(
    platform=first.platform,
    kind=first.device_kind,
    count=jax.device_count(),
    memory_bytes=devices.memory_of(first),
    cores=len(os.sched_getaffinity(0))
    if hasattr(os, "sched_getaffinity")
    else os.cpu_count() or 1,
  )


def check_characters(data: str) -> None:
  """Raises ValueError for a comma, which separates the options of a config."""
  if "," in data:
    raise ValueError(
      f"{data!r} has a comma, which separates the options of a config file. "
      "Rename the folder, or make a link to it without a comma."
    )
