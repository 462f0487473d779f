"""A folder of class folders as a data set: "folder:/path".

    /path/train/cat/1.jpg        or, without train/ and val/,
    /path/val/cat/2.jpg          /path/cat/1.jpg

Without split folders, an example belongs to `val` if a hash of its path below
the class folders says so (10 %), else to `train`; adding files never moves
others. Images may lie deeper than the class folder.

Classes are numbered in natural order (0, 1, 2, 10; not 0, 1, 10, 2) of the
folders in train, so that a split which lacks a class has the same labels.
"""

import dataclasses
import hashlib
import os
import pathlib
import re
import unicodedata
from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np
from absl import logging

from vitjax.config import messages
from vitjax.data.pp.kinds import Features
from vitjax.data.sources.source import (
  DatasetNotPreparedError,
  Source,
  split_indices,
)
from vitjax.data.tf import tf

EXTENSIONS = (
  *(".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif"),
  *(".tif", ".tiff"),
)
SPLIT_NAMES = {
  "train": "train",
  "val": "val",
  "validation": "val",
  "test": "test",
}
_VAL_PERCENT = 10


@dataclasses.dataclass(frozen=True, order=True)
class File:
  """An image with the class that it is of; `size` is in bytes."""

  path: str  # Below the root, with forward slashes.
  size: int
  class_name: str


class LabelledFiles(Source):
  """Image files that have a class each, read when their example is used."""

  def __init__(
    self,
    data: str,
    split: str,
    root: pathlib.Path,
    splits: Mapping[str, Sequence[File]],
    class_names: Sequence[str],
  ):
    """Takes the files of every split, relative to `root`.

    Raises:
      ValueError: if there is no such split, or a class of it is unknown.
    """
    self.class_names = tuple(class_names)
    self.num_classes = len(self.class_names)
    parts = split_indices(
      data, split, {name: len(files) for name, files in splits.items()}
    )
    for name, _ in parts:
      unknown = {f.class_name for f in splits[name]} - set(self.class_names)
      if unknown:
        listed = [repr(x) for x in sorted(unknown, key=natural)]
        raise ValueError(
          f"{data!r}: split {name!r} has class folders or labels that are not "
          f"among the {self.num_classes} classes of training: "
          f"{messages.shorten(listed)}. Classes are those of the "
          "training images; rename or remove these."
        )
    files = [splits[name][i] for name, indices in parts for i in indices]
    label_of = {name: i for i, name in enumerate(self.class_names)}
    self.data, self.split = data, split
    self.num_examples = len(files)
    content = hashlib.sha256(repr(self.class_names).encode())
    for file in sorted(files):
      content.update(f"{file.path}\0{file.size}\0".encode())
    self.fingerprint = content.hexdigest()
    self._paths = tf.constant([str(root / file.path) for file in files])
    self.labels = np.array([label_of[file.class_name] for file in files])
    self._labels = tf.constant(self.labels, tf.int32)

  def fetch(self, indices: tf.Tensor) -> Features:
    return {
      "path": tf.gather(self._paths, indices),
      "label": tf.gather(self._labels, indices),
    }

  def parse(self, features: Features) -> Features:
    return {
      "image": tf.io.read_file(features["path"]),
      "label": features["label"],
    }

  def describe(self, index: int) -> str:
    return self._paths[index].numpy().decode()


class FolderSource(LabelledFiles):
  """See the module."""

  def __init__(
    self, data: str, split: str, class_names: Sequence[str] | None = None
  ):
    root, splits = read(data)
    if class_names is None:
      class_names = classes_of(data, splits)
    super().__init__(data, split, root, splits, class_names)


def read(data: str) -> tuple[pathlib.Path, dict[str, list[File]]]:
  """The folder that "folder:/path" names, and the files of each split in it.

  Raises:
    DatasetNotPreparedError: if there is no such folder.
    ValueError: if it has no images in class folders.
  """
  root = pathlib.Path(data.removeprefix("folder:")).expanduser()
  if not root.is_dir():
    kind = "is not a folder" if root.exists() else "does not exist"
    raise DatasetNotPreparedError(f"{data!r}: {str(root)!r} {kind}.")
  layout = _split_folders(root)
  if not layout:
    return root, _hash_split(_scan(root, root))
  return root, {name: _scan(root, folder) for name, folder in layout.items()}


def classes_of(data: str, splits: Mapping[str, Sequence[File]]) -> list[str]:
  """The classes of the training images, in natural order.

  Raises:
    ValueError: if there are no training images.
  """
  train = {file.class_name for file in splits.get("train", ())}
  if not train:
    raise ValueError(
      f"{data!r} has no training images, so its classes are unknown. Add a "
      "train split, or give class_names."
    )
  return sorted(train, key=natural)


def _split_folders(root: pathlib.Path) -> dict[str, pathlib.Path]:
  """The split folders, or {} if the folders in the root are classes.

  They are splits if each has folders of its own, and one is train: so a class
  of trains is no split.
  """
  found = {}
  for folder in _sub_folders(root):
    name = SPLIT_NAMES.get(folder.name.lower())
    if name is None or not _sub_folders(folder):
      continue
    if name in found:
      raise ValueError(
        f"{str(root)!r} has two folders for split {name!r}: "
        f"{found[name].name} and {folder.name}."
      )
    found[name] = folder
  return dict(sorted(found.items(), key=lambda item: item[0] != "train"))


def _sub_folders(folder: pathlib.Path) -> list[pathlib.Path]:
  return [
    path
    for path in folder.iterdir()
    if path.is_dir() and not path.name.startswith(".")
  ]


def walk(
  folder: pathlib.Path,
) -> tuple[list[pathlib.Path], list[pathlib.Path]]:
  """The images below a folder, and the other files; hidden ones are neither.

  What is an image is told by its name; both lists are sorted.
  """
  images, others = [], []
  for parent, folders, names in os.walk(folder, followlinks=True):
    folders[:] = [name for name in folders if not name.startswith(".")]
    for name in names:
      if not name.startswith("."):
        path = pathlib.Path(parent, name)
        known = path.suffix.lower() in EXTENSIONS
        (images if known else others).append(path)
  return sorted(images), sorted(others)


def _scan(root: pathlib.Path, folder: pathlib.Path) -> list[File]:
  """All images of the class folders in `folder`, by class and path."""
  classes = sorted(_sub_folders(folder), key=lambda path: natural(path.name))
  files, skipped, empty = [], Counter(), []
  skipped.update(
    path.suffix or path.name
    for path in folder.iterdir()
    if path.is_file() and not path.name.startswith(".")
  )
  for class_folder in classes:
    images, others = walk(class_folder)
    skipped.update(path.suffix or path.name for path in others)
    found = [
      File(
        path.relative_to(root).as_posix(),
        path.stat().st_size,
        class_folder.name,
      )
      for path in images
    ]
    if not found:
      empty.append(class_folder.name)
    files += sorted(found)
  if not files:
    raise ValueError(
      f"No images in class folders below {str(folder)!r}. Put them into one "
      f"folder per class; the extensions are {' '.join(EXTENSIONS)}."
    )
  if empty:
    raise ValueError(
      f"No images in class folder(s) of {str(folder)!r}: "
      f"{messages.shorten([repr(x) for x in empty])}. "
      "Remove these folders or fill them: they would count as classes."
    )
  if skipped:
    counts = ", ".join(f"{n} x {kind}" for kind, n in skipped.most_common(10))
    logging.warning(
      "%s: skipped files that are no images in a class folder: %s",
      folder,
      counts,
    )
  return files


def hash_split(path: str) -> str:
  """The split of an image, from its path below the data set's folder."""
  name = unicodedata.normalize("NFC", path).encode()
  number = int.from_bytes(hashlib.sha256(name).digest()[:8], "big")
  return "val" if number % 100 < _VAL_PERCENT else "train"


def _hash_split(files: list[File]) -> dict[str, list[File]]:
  splits = {"train": [], "val": []}
  for file in files:
    splits[hash_split(file.path)].append(file)
  return splits


def natural(name: str) -> list:
  """Sorts names as people do: 0, 1, 2, 10."""
  parts = re.split(r"(\d+)", name)
  # Odd places are numbers; the name itself tells 01 from 1.
  return [
    (0, int(part), "") if i % 2 else (1, 0, part)
    for i, part in enumerate(parts)
  ] + [(-1, 0, name)]
