"""Checkpoints in stores that Orbax does not reach: s3://.

Orbax writes and reads a local folder; what it wrote is sent, and what it reads
is copied. A step in the store is complete when its record is there, which is
sent last and removed first.
"""

import contextlib
import pathlib
import shutil
import tempfile
from collections.abc import Generator, Sequence
from typing import Any

from etils import epath

from vitjax.config import places

_RECORD = "info/metadata"


def is_needed(directory: Any) -> bool:
  """Whether Orbax cannot use a directory itself."""
  return str(directory).startswith("s3://")


def list_steps(directory: epath.Path) -> list[int]:
  """The complete steps in a store, in order."""
  store = places.store(directory)
  with places.errors(directory):
    try:
      found = store.glob(f"{directory}/*/{_RECORD}")
    except FileNotFoundError:
      return []
  names = [path.removesuffix(f"/{_RECORD}").split("/")[-1] for path in found]
  return sorted(int(name) for name in names if name.isdecimal())


@contextlib.contextmanager
def readable(folder: epath.Path) -> Generator[epath.Path]:
  """The folder itself, or for the time of a `with` a copy that Orbax reads."""
  if not is_needed(folder):
    yield folder
    return
  with tempfile.TemporaryDirectory(prefix="vitjax-") as copy:
    with places.errors(folder):
      places.store(folder).get(f"{folder}/", f"{copy}/", recursive=True)
    yield epath.Path(copy)


class Stage:
  """The local folder for a directory of steps in a store.

  It has a folder for each step in the store, empty but for the one that Orbax
  is writing, so that Orbax knows what there is and may remove it.

  Args:
    directory: where the steps go.

  Attributes:
    folder: where Orbax writes them: `directory` itself, if it can.
  """

  def __init__(self, directory: epath.Path):
    self._directory = directory
    self.folder = directory
    if is_needed(directory):
      self.folder = epath.Path(tempfile.mkdtemp(prefix="vitjax-"))
      self.refresh()

  def refresh(self) -> None:
    """Makes the folder anew from what is in the store."""
    if self.folder == self._directory:
      return
    self._remove(self._local())
    for step in list_steps(self._directory):
      (self.folder / str(step)).mkdir()

  def send(self) -> None:
    """Sends the step that is new, then removes those that Orbax removed.

    Raises:
      OSError: if the store cannot be written.
    """
    if self.folder == self._directory:
      return
    local, there = self._local(), list_steps(self._directory)
    store = places.store(self._directory)
    with places.errors(self._directory, "written"):
      for step in (step for step in local if step not in there):
        folder = pathlib.Path(self.folder / str(step))
        files = [x for x in sorted(folder.rglob("*")) if x.is_file()]
        names = [x.relative_to(folder).as_posix() for x in files]
        names.sort(key=lambda name: name == _RECORD)
        for name in names:
          target = f"{self._directory}/{step}/{name}"
          store.put_file(str(folder / name), target)
        self._remove([step])
        folder.mkdir()  # the next one needs its room
      for step in (step for step in there if step not in local):
        self._delete(step)

  def rename(self, step: int, name: str) -> None:
    """Renames a step where it is kept.

    Raises:
      OSError: if the store cannot be written.
    """
    source, target = self._directory / str(step), self._directory / name
    if self.folder == self._directory:
      source.rename(target)
      return
    store = places.store(source)
    with places.errors(source, "renamed"):
      for path in store.find(str(source)):
        below = path.removeprefix(str(source).partition("://")[2])
        store.cp_file(path, f"{target}{below}")
      self._delete(step)

  def _delete(self, step: int) -> None:
    store, target = places.store(self._directory), f"{self._directory}/{step}"
    store.rm_file(f"{target}/{_RECORD}")
    store.rm(target, recursive=True)

  def close(self) -> None:
    """Removes the local folder."""
    if self.folder != self._directory:
      shutil.rmtree(self.folder, ignore_errors=True)

  def _local(self) -> list[int]:
    names = [path.name for path in self.folder.iterdir()]
    return sorted(int(name) for name in names if name.isdecimal())

  def _remove(self, steps: Sequence[int]) -> None:
    for step in steps:
      shutil.rmtree(self.folder / str(step))
