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
from collections.abc import Sequence

import tensorflow as tf
from absl import logging

from vitjax.data.pp.kinds import Features
from vitjax.data.sources import DatasetNotPreparedError, Source, split_indices

EXTENSIONS = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif")
_SPLIT_FOLDERS = {
  "train": "train",
  "val": "val",
  "validation": "val",
  "test": "test",
}
_VAL_PERCENT = 10


@dataclasses.dataclass(frozen=True, order=True)
class _File:
  path: str  # Below the root, with forward slashes.
  size: int
  class_name: str


class FolderSource(Source):
  """See the module. Files are read when their example is used."""

  def __init__(
    self, data: str, split: str, class_names: Sequence[str] | None = None
  ):
    root = pathlib.Path(data.removeprefix("folder:")).expanduser()
    if not root.is_dir():
      kind = "is not a folder" if root.exists() else "does not exist"
      raise DatasetNotPreparedError(f"{data!r}: {str(root)!r} {kind}.")
    layout = _split_folders(root)
    if layout:
      splits = {name: _scan(root, folder) for name, folder in layout.items()}
    else:
      splits = _hash_split(_scan(root, root))
    self._set_classes(data, splits, class_names)

    parts = split_indices(
      data, split, {name: len(files) for name, files in splits.items()}
    )
    used = dict(parts)
    self._check_labels(data, {name: splits[name] for name in used})
    files = [splits[name][i] for name, indices in parts for i in indices]
    label_of = {name: i for i, name in enumerate(self.class_names)}
    self.data, self.split = data, split
    self.num_examples = len(files)
    content = hashlib.sha256(repr(self.class_names).encode())
    for file in sorted(files):
      content.update(f"{file.path}\0{file.size}\0".encode())
    self.fingerprint = content.hexdigest()
    self._root = root
    self._paths = tf.constant([str(root / file.path) for file in files])
    self._labels = tf.constant(
      [label_of[file.class_name] for file in files], tf.int32
    )

  def _set_classes(self, data, splits, class_names) -> None:
    train = sorted(
      {f.class_name for f in splits.get("train", ())}, key=_natural
    )
    if class_names is not None:
      self.class_names = tuple(class_names)
    elif train:
      self.class_names = tuple(train)
    else:
      raise ValueError(
        f"{data!r} has no training images, so its classes are unknown. Add a "
        "train folder, or give class_names."
      )
    self.num_classes = len(self.class_names)

  def _check_labels(self, data, splits) -> None:
    for name, files in splits.items():
      unknown = {file.class_name for file in files} - set(self.class_names)
      if unknown:
        raise ValueError(
          f"{data!r}: split {name!r} has class folders that are not among the "
          f"{self.num_classes} classes of training: "
          f"{some(sorted(unknown, key=_natural))}. Labels follow the training "
          "folders; rename or remove these."
        )

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


def _split_folders(root: pathlib.Path) -> dict[str, pathlib.Path]:
  """The split folders, or {} if the folders in the root are classes.

  They are splits if each has folders of its own, and one is train: so a class
  of trains is no split.
  """
  found = {}
  for folder in _sub_folders(root):
    name = _SPLIT_FOLDERS.get(folder.name.lower())
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


def _scan(root: pathlib.Path, folder: pathlib.Path) -> list[_File]:
  """All images of the class folders in `folder`, by class and path."""
  classes = sorted(_sub_folders(folder), key=lambda path: _natural(path.name))
  files, skipped, empty = [], Counter(), []
  skipped.update(
    path.suffix or path.name
    for path in folder.iterdir()
    if path.is_file() and not path.name.startswith(".")
  )
  for class_folder in classes:
    found = []
    for parent, folders, names in os.walk(class_folder, followlinks=True):
      folders[:] = [name for name in folders if not name.startswith(".")]
      for name in names:
        if name.startswith("."):
          continue
        extension = os.path.splitext(name)[1]
        if extension.lower() not in EXTENSIONS:
          skipped[extension or name] += 1
          continue
        path = pathlib.Path(parent, name)
        relative = path.relative_to(root).as_posix()
        found.append(_File(relative, path.stat().st_size, class_folder.name))
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
      f"No images in class folder(s) of {str(folder)!r}: {some(empty)}. "
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


def _hash_split(files: list[_File]) -> dict[str, list[_File]]:
  splits = {"train": [], "val": []}
  for file in files:
    splits[hash_split(file.path)].append(file)
  return splits


def _natural(name: str) -> list:
  parts = re.split(r"(\d+)", name)
  # Odd places are numbers; the name itself tells 01 from 1.
  return [
    (0, int(part), "") if i % 2 else (1, 0, part)
    for i, part in enumerate(parts)
  ] + [(-1, 0, name)]


def some(names: list[str]) -> str:
  """The first ten of some names, for messages."""
  more = f" and {len(names) - 10} more" if len(names) > 10 else ""
  return ", ".join(map(repr, names[:10])) + more
