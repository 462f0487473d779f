"""A local folder that stands for a run folder in an object store.

Objects cannot be appended to, and libraries that write curves and profiles
know local files only. So a run appends to files here, and sends those that
have changed before each checkpoint and at the end.
"""

import os
import pathlib
import shutil
import tempfile
from typing import Any

from vitjax.config import places

# What a resumed run continues, see `writer` and `trackers`.
_CONTINUED = (".json", ".jsonl", ".csv")


class Mirror:
  """The folder in which a run appends to its files; see the module.

  Args:
    workdir: the run folder. If it is local, it is the folder itself.
    is_used: whether this process writes; otherwise nothing is copied.

  Attributes:
    folder: the local folder.
  """

  def __init__(self, workdir: Any, is_used: bool = True):
    self._remote = workdir if places.is_remote(workdir) else None
    self._sent: dict[pathlib.Path, tuple[int, int]] = {}
    self.folder = workdir
    if self._remote is None:
      return
    self._temporary = tempfile.mkdtemp(prefix="vitjax-")
    self.folder = pathlib.Path(self._temporary, self._remote.name)
    self.folder.mkdir()
    is_resumed = is_used and self._remote.exists()
    for path in self._remote.iterdir() if is_resumed else ():
      if path.suffix in _CONTINUED and not path.is_dir():
        copy = self.folder / path.name
        copy.write_bytes(path.read_bytes())
        self._sent[copy] = _state(copy)

  def send(self) -> None:
    """Copies the files that have changed to the run folder.

    Raises:
      OSError: if one cannot be written there.
    """
    if self._remote is None:
      return
    for path in sorted(self.folder.rglob("*")):
      # Hidden files are not complete yet; links are other files once more.
      if path.name.startswith(".") or path.is_symlink() or not path.is_file():
        continue
      state = _state(path)
      if self._sent.get(path) != state:
        target = self._remote / path.relative_to(self.folder).as_posix()
        try:
          target.write_bytes(path.read_bytes())
        except Exception as e:  # stores raise errors of any class
          raise OSError(
            f"{target} cannot be written ({type(e).__name__}: {e}). Check the "
            "bucket and the access to it, then start the same command again "
            "to resume from the last checkpoint."
          ) from e
        self._sent[path] = state

  def close(self) -> None:
    """Sends what is left, and removes the local folder."""
    if self._remote is None:
      return
    try:
      self.send()
    finally:
      shutil.rmtree(self._temporary, ignore_errors=True)


def _state(path: pathlib.Path) -> tuple[int, int]:
  stat = os.stat(path)
  return stat.st_mtime_ns, stat.st_size
