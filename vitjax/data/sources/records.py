"""TFDS data sets as numbered examples, from ArrayRecord or TFRecord files.

TFRecord files have no index, so one is made on first use of a shard by
walking the record headers, see `kept_index`.

Nothing here downloads anything.
"""

import concurrent.futures
import hashlib
import os
import pathlib
import struct
import threading
from collections.abc import Sequence
from typing import Any

import cv2
import numpy as np
import psutil
import tensorflow_datasets as tfds
from absl import logging
from array_record.python import array_record_module

from vitjax.config import messages
from vitjax.data.pp.kinds import Features
from vitjax.data.sources import files, kept_index
from vitjax.data.sources.source import (
  DatasetNotPreparedError,
  NoSplitError,
  Source,
)
from vitjax.data.tf import tf

_FASHION_MNIST = pathlib.Path("/usr/share/datasets/fashion-mnist")
# Shards whose labels are read at once, and records of each.
_LABEL_THREADS, _LABEL_CHUNK = 8, 64
_HEADER_BYTES, _FOOTER_BYTES = 12, 4  # length and its CRC; the data's CRC.


class TfdsSource(Source):
  """A prepared data set of TensorFlow Datasets."""

  def __init__(
    self,
    data: str,
    split: str,
    data_dir: str | None = None,
    cache: bool = False,
  ):
    builder = _prepared_builder(data, data_dir)
    info = builder.info
    try:
      instructions = info.splits[split].file_instructions
    except (KeyError, ValueError, AssertionError) as error:
      known = ", ".join(
        f"{name} ({split.num_examples})" for name, split in info.splits.items()
      )
      raise NoSplitError(
        f"{data!r} has no split {split!r} ({error}). It has: {known} "
        "(examples), and slices such as 'train[:99%]' and 'train[10:20]'."
      ) from None
    takes = [instruction.take for instruction in instructions]
    self.data, self.split = data, split
    self.num_examples = sum(takes)
    if not self.num_examples:
      raise ValueError(f"Split {split!r} of {data!r} has no examples.")
    layout = [(i.skip, i.take, i.examples_in_shard) for i in instructions]
    self.fingerprint = hashlib.sha256(
      f"{info.full_name} {split} {layout}".encode()
    ).hexdigest()

    self._features = info.features
    self._image_key = _image_key(data, info.features)
    self._caption_key = _caption_key(info.features)
    self._image = image = info.features[self._image_key]
    if (
      self._caption_key is None
      and isinstance(image, tfds.features.Image)
      and None not in image.shape
      and image.shape[-1] in (1, 3)
      and image.np_dtype == np.uint8
    ):
      self.image_shape = image.shape
    self._label_keys = [
      key
      for key, feature in info.features.items()
      if isinstance(feature, tfds.features.ClassLabel)
    ]
    self._kept = None
    if cache and self.image_shape is not None:
      _check_memory(
        data, split, self.num_examples * int(np.prod(self.image_shape))
      )
      self._kept = self._empty(self.num_examples)
      self._is_kept = np.zeros(self.num_examples, bool)
    classes = _classes(info.features)
    if classes is not None:
      self.num_classes = classes.num_classes
      self.class_names = tuple(classes.names)
    self._instructions = instructions
    self._ends = np.cumsum(takes)
    # Add this to the index of an example to get its place in the shard.
    self._shifts = [i.skip for i in instructions] - (self._ends - takes)
    self._shards = [
      _shard(info.file_format, os.fspath(i.filename), i.examples_in_shard)
      for i in instructions
    ]

  def fetch(self, indices: tf.Tensor) -> Features:
    count = indices.shape[0]
    if self.image_shape is None:
      records = tf.numpy_function(
        self._read, [indices], tf.string, stateful=False
      )
      return {"record": tf.ensure_shape(records, (count,))}
    keys = ["image", *self._label_keys]
    arrays = tf.numpy_function(
      self._read_decoded,
      [indices],
      [tf.uint8] + [tf.int32] * len(self._label_keys),
      stateful=False,
    )
    features = dict(zip(keys, arrays))
    for key, value in features.items():
      shape = self.image_shape if key == "image" else ()
      features[key] = tf.ensure_shape(value, (count, *shape))
    return features

  def _read_decoded(self, indices: np.ndarray) -> list[np.ndarray]:
    """Images of one size and class labels; kept if there is a cache."""
    if self._kept is None:
      return self._decode(self._read(indices))
    # Threads may read an example twice, and then store the same values.
    missing = np.unique(indices[~self._is_kept[indices]])
    if len(missing):
      for kept, new in zip(self._kept, self._decode(self._read(missing))):
        kept[missing] = new
      self._is_kept[missing] = True
    return [kept[indices] for kept in self._kept]

  def _decode(self, records: np.ndarray) -> list[np.ndarray]:
    images, *labels = self._empty(len(records))
    for row, record in enumerate(records):
      feature = tf.train.Example.FromString(record).features.feature
      data = feature[self._image_key].bytes_list.value[0]
      images[row] = _decode_image(data, self._image.shape)
      for key, values in zip(self._label_keys, labels):
        values[row] = feature[key].int64_list.value[0]
    return [images, *labels]

  def _empty(self, count: int) -> list[np.ndarray]:
    labels = [np.empty(count, np.int32) for _ in self._label_keys]
    return [np.empty((count, *self._image.shape), np.uint8), *labels]

  def _read(self, indices: np.ndarray) -> np.ndarray:
    records = np.empty(len(indices), object)
    shards = np.searchsorted(self._ends, indices, side="right")
    for shard in np.unique(shards):
      rows = np.flatnonzero(shards == shard)
      places = indices[rows] + self._shifts[shard]
      for row, record in zip(rows, self._shards[shard].read(places)):
        records[row] = record
    return records

  def known_labels(self) -> np.ndarray:
    """See `Source`: reads all records once, without decoding an image.

    The labels of each shard are kept, see `kept_index`.
    """
    if self.labels is None and "label" in self._label_keys:
      with concurrent.futures.ThreadPoolExecutor(_LABEL_THREADS) as pool:
        found = pool.map(_labels_of, self._shards, self._instructions)
        self.labels = np.concatenate(list(found))
    return super().known_labels()

  def parse(self, features: Features) -> Features:
    if self.image_shape is not None:
      return features
    encoded = isinstance(self._image, tfds.features.Image)
    features = self._features.deserialize_example(
      features["record"],
      decoders={self._image_key: tfds.decode.SkipDecoding()} if encoded else {},
    )
    features["image"] = features.pop(self._image_key)
    features = _flat(features)
    if self._caption_key is not None:
      features["captions"] = tf.reshape(features[self._caption_key], [-1])
    for key in self._label_keys:
      features[key] = tf.cast(features[key], tf.int32)
    return features

  def describe(self, index: int) -> str:
    shard = int(np.searchsorted(self._ends, index, side="right"))
    place = index + self._shifts[shard]
    return f"record {place} of {self._shards[shard].path}"


def _labels_of(shard: "ArrayRecordShard | TfRecordShard", part) -> np.ndarray:
  """int32: the `label` of each record of the part of a shard."""

  def make(_) -> kept_index.Index:
    labels = np.empty(part.examples_in_shard, np.int32)
    for start in range(0, len(labels), _LABEL_CHUNK):
      places = range(start, min(start + _LABEL_CHUNK, len(labels)))
      for place, record in zip(places, shard.read(places)):
        example = tf.train.Example.FromString(record)
        labels[place] = example.features.feature["label"].int64_list.value[0]
    return {"labels": labels}

  with files.open_file(shard.path) as file:
    labels = kept_index.load(file, "tfds_labels", make)["labels"]
  return labels[part.skip : part.skip + part.take]


def _check_memory(data: str, split: str, num_bytes: int) -> None:
  """Raises ValueError if decoded images do not fit into the memory."""
  available = psutil.virtual_memory().available
  if num_bytes > available:
    raise ValueError(
      f"input.cache would keep {num_bytes / 2**30:.1f} GiB of decoded images "
      f"of {data!r}, split {split!r}, in each process, but "
      f"{available / 2**30:.1f} GiB of memory are available. Set "
      "input.cache=False."
    )


def _decode_image(data: bytes, shape: tuple[int, int, int]) -> np.ndarray:
  """Decodes an image; PNG, being lossless, by the faster library."""
  if data.startswith(b"\x89PNG"):
    flags = cv2.IMREAD_GRAYSCALE if shape[-1] == 1 else cv2.IMREAD_COLOR_RGB
    image = cv2.imdecode(np.frombuffer(data, np.uint8), flags)
    if image is None:
      raise ValueError("a PNG image that cannot be decoded")
    return image.reshape(shape)
  image = tf.io.decode_image(data, channels=shape[-1], expand_animations=False)
  return image.numpy().reshape(shape)


def _image_key(data: str, features: tfds.features.FeaturesDict) -> str:
  if "image" in features:
    return "image"
  keys = [k for k, v in features.items() if isinstance(v, tfds.features.Image)]
  if len(keys) != 1:
    raise ValueError(
      f"{data!r} has no feature 'image', and {len(keys)} features are images. "
      f"Its features: {', '.join(features)}."
    )
  return keys[0]


def _classes(
  features: tfds.features.FeaturesDict,
) -> tfds.features.ClassLabel | None:
  """The classes of "label", or of all labels if they agree, as in ReaL."""
  if "label" in features:
    found = [features["label"]]
  else:
    found = [getattr(x, "feature", x) for x in features.values()]
  found = [x for x in found if isinstance(x, tfds.features.ClassLabel)]
  alike = all(x.names == found[0].names for x in found)
  return found[0] if found and alike else None


def _caption_key(features: tfds.features.FeaturesDict) -> str | None:
  """Feature with the texts of an image, such as COCO's "captions/text"."""
  if "captions" not in features:
    return "caption" if "caption" in features else None
  inner = getattr(features["captions"], "feature", None)
  nested = isinstance(inner, tfds.features.FeaturesDict)
  return "captions/text" if nested else "captions"


def _flat(features: Features) -> Features:
  """Nested features with names as "captions/text"."""
  flat = {}
  for key, value in features.items():
    if isinstance(value, dict):
      flat |= {f"{key}/{k}": v for k, v in _flat(value).items()}
    else:
      flat[key] = value
  return flat


def _prepared_builder(
  data: str, data_dir: str | None
) -> tfds.core.DatasetBuilder:
  """Finds a data set on disk, without touching the network."""
  name = data.split("/")[0].split(":")[0]
  version = data.split("/")[0].partition(":")[2]
  if version and not version[0].isdigit():
    raise ValueError(
      f"{data!r}: {name!r} is not a kind of data. Write folder:/path, "
      "labels:/path/labels.csv, wds:/path/{000..099}.tar, parquet:/path, "
      "mixture:WEIGHT*DATA+WEIGHT*DATA, captions:/path/captions.csv, "
      "images:/path, digits, fake:NUM,HxWxC,CLASSES, or a TFDS name such as "
      "imagenet2012."
    )
  try:
    builder = tfds.builder(data, data_dir=data_dir)
  except tfds.core.DatasetNotFoundError:
    if pathlib.Path(data).exists():
      kind = "folder" if pathlib.Path(data).is_dir() else "labels"
      raise ValueError(
        f"{data!r} is not a TFDS data set. To use the path of this name, write "
        f"{kind}:{data}."
      ) from None
    registered = tfds.list_builders(with_community_datasets=False)
    hint = messages.did_you_mean(name, registered, most=3)
    raise ValueError(
      f"{data!r} is not a TFDS data set.{hint} For a data set of your own, use "
      "folder:/path, or import the module of its builder first."
    ) from None
  except (ValueError, TypeError):
    raise ValueError(
      f"{data!r} is not a TFDS name, such as imagenet2012, name/config or "
      "name:1.2.3. For a data set of your own, write folder:/path or "
      "labels:/path/labels.csv."
    ) from None
  except AssertionError as error:  # a version that TFDS does not have
    raise ValueError(f"{data!r} cannot be opened: {error}") from None
  if builder.is_prepared():
    return builder
  if name == "fashion_mnist":
    return _prepare_fashion_mnist(data, data_dir)
  raise DatasetNotPreparedError(_how_to_prepare(builder, name, data_dir))


def _how_to_prepare(builder, name: str, data_dir: str | None) -> str:
  root = pathlib.Path(os.fspath(builder.data_dir)).parent
  others = sorted(path.name for path in root.iterdir()) if root.is_dir() else []
  prepared = (
    f"\n  There is {name} {', '.join(others)}: ask for {name}:VERSION (or "
    "name/config:VERSION)."
    if others
    else ""
  )
  option = f" --data_dir={data_dir}" if data_dir else ""
  return (
    f"Data set {builder.info.full_name!r} is not prepared in "
    f"{os.fspath(builder.data_dir)!r}, and vitjax does not download it."
    f"{prepared}\n"
    f"  To prepare it: tfds build {name}{option} --file_format=array_record\n"
    "  If it is elsewhere: set data_dir (or TFDS_DATA_DIR) to the folder that "
    f"contains {name}/.\n"
    "  To train on a folder of images instead: folder:/path."
  )


def _prepare_fashion_mnist(
  data: str, data_dir: str | None
) -> tfds.core.DatasetBuilder:
  """Prepares Fashion-MNIST from the files of the Debian package."""
  # Of any type, since DatasetBuilder itself has no URL.
  builder: Any = tfds.builder(
    data, data_dir=data_dir, file_format="array_record"
  )
  if not _FASHION_MNIST.is_dir():
    raise DatasetNotPreparedError(
      f"{_how_to_prepare(builder, 'fashion_mnist', data_dir)}\n"
      "  On Debian and Ubuntu: apt-get install dataset-fashion-mnist; it is "
      "then prepared from there."
    )
  logging.info(
    "Preparing fashion_mnist from %s in %s", _FASHION_MNIST, builder.data_dir
  )
  builder.URL = f"{_FASHION_MNIST.as_uri()}/"
  tfds.disable_progress_bar()
  try:
    builder.download_and_prepare()
  except Exception:
    # Another process may have prepared it meanwhile.
    if not tfds.builder(data, data_dir=data_dir).is_prepared():
      raise
  return tfds.builder(data, data_dir=data_dir)


def _shard(file_format, path: str, num_examples: int):
  formats = {
    tfds.core.FileFormat.ARRAY_RECORD: ArrayRecordShard,
    tfds.core.FileFormat.TFRECORD: TfRecordShard,
  }
  if file_format not in formats:
    raise ValueError(
      f"{path}: records in format {file_format} have no random access. Prepare "
      "the data set with --file_format=array_record."
    )
  return formats[file_format](path, num_examples)


class ArrayRecordShard:
  """One file; opened on first use, then kept open."""

  def __init__(self, path: str, num_examples: int):
    self.path = path
    self._lock = threading.Lock()
    self._reader = None

  def read(self, places: Sequence[int]) -> list[bytes]:
    with self._lock:
      if self._reader is None:
        self._reader = array_record_module.ArrayRecordReader(
          self.path, "readahead_buffer_size:0"
        )
    return self._reader.read([int(place) for place in places])


class TfRecordShard:
  """One file, with an index of its records made on first use."""

  def __init__(self, path: str, num_examples: int):
    self.path = path
    self._num_examples = num_examples
    self._lock = threading.Lock()
    self._offsets = None

  def read(self, places: Sequence[int]) -> list[bytes]:
    with self._lock:
      if self._offsets is None:
        self._offsets = self._load_offsets()
    parts = []
    for place in places:
      start, end = map(int, self._offsets[place : place + 2])
      size = end - start - _HEADER_BYTES - _FOOTER_BYTES
      parts.append((self.path, start + _HEADER_BYTES, size))
    records = files.read_parts(parts)
    for place, record, (_, _, size) in zip(places, records, parts):
      if len(record) != size:
        raise ValueError(f"{self.path} ends within record {place}.")
    return records

  def _load_offsets(self) -> np.ndarray:
    """Start of each record and end of the last one, in bytes."""
    with files.open_file(self.path) as file:
      offsets = kept_index.load(file, "tfrecord", record_offsets)["offsets"]
    if len(offsets) != self._num_examples + 1:
      raise ValueError(
        f"{self.path} has {len(offsets) - 1} records, but the data set's info "
        f"says {self._num_examples}. Prepare or copy it again."
      )
    return offsets


def record_offsets(file: files.File) -> kept_index.Index:
  """Walks the headers of a TFRecord file.

  Returns:
    "offsets", int64 [records + 1]: the start of each record, and the size of
    the file.

  Raises:
    ValueError: if the file ends within a record.
  """
  offsets = [0]
  while offsets[-1] < file.size:
    header = file.read(offsets[-1], _HEADER_BYTES)
    if len(header) == _HEADER_BYTES:
      (length,) = struct.unpack("<Q", header[:8])
      offsets.append(offsets[-1] + _HEADER_BYTES + length + _FOOTER_BYTES)
    if len(header) < _HEADER_BYTES or offsets[-1] > file.size:
      raise ValueError(
        f"{file.path} is not a TFRecord file, or is truncated: record "
        f"{len(offsets) - 2} does not fit. Prepare or copy it again."
      )
  return {"offsets": np.array(offsets, np.int64)}
