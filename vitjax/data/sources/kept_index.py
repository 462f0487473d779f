"""Indexes of data files: made once, and kept under the user's cache folder.

An index says where in a file each example is. Random access then needs
neither a shuffle buffer nor a replay when a run resumes.
"""

import hashlib
import os
import pathlib
import tempfile
import zipfile
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from absl import logging

from vitjax.data.sources import files
from vitjax.data.sources.files import File, LocalFile
from vitjax.data.sources.source import warn_once

Index = Mapping[str, np.ndarray]


def load(file: File, kind: str, make: Callable[[LocalFile], Index]) -> Index:
  """The index of a file, made anew if the file has changed.

  Args:
    file: the open file. It has changed if its size or time of change has.
    kind: name of the format of the index; another format needs another name.
    make: makes the index, of a copy on this machine.
  """
  name = hashlib.sha256(_absolute(file.path).encode()).hexdigest()
  path = _folder() / kind / f"{name}.npz"
  stamp = np.array([file.size, file.modified], np.int64)
  try:
    with np.load(path) as stored:
      if np.array_equal(stored["stamp"], stamp):
        return {name: stored[name] for name in stored.files}
  except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
    pass  # There is none, or it is damaged.
  logging.log_every_n_seconds(
    logging.INFO, "Making the index of %s; this is done once.", 10, file.path
  )
  with files.as_local(file) as local:
    index = make(local)
  _save(path, {**index, "stamp": stamp})
  return index


def of_column(kind: str, column: str) -> str:
  """The kind of an index of what a column of the data says."""
  return f"{kind}_{hashlib.sha256(column.encode()).hexdigest()[:16]}"


def _absolute(path: str) -> str:
  return path if "://" in path else os.path.abspath(path)


def _folder() -> pathlib.Path:
  base = os.environ.get("XDG_CACHE_HOME") or pathlib.Path.home() / ".cache"
  return pathlib.Path(base, "vitjax", "indexes")


def _save(path: pathlib.Path, index: Index) -> None:
  """Saves an index if the folder can be written; other processes may too."""
  arrays: Any = index
  try:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile(dir=path.parent, delete=False) as file:
      try:
        np.savez(file, **arrays)
      except OSError:
        os.unlink(file.name)
        raise
    os.replace(file.name, path)
  except OSError as error:
    warn_once(
      f"Cannot keep indexes of data files in {path.parent} ({error.strerror}): "
      "they are made again at each start. Set XDG_CACHE_HOME to a folder that "
      "can be written."
    )
