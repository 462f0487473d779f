"""Folder for uploads of the demo. It is removed however the server ends."""

import contextlib
import os
import pathlib
import shutil
import tempfile
import time
from collections.abc import Generator

try:
  import fcntl
except ImportError:  # not on Windows
  fcntl = None

_PREFIX = "vitjax_demo_"
# A new folder is not locked at once.
_MIN_AGE_SECONDS = 60


@contextlib.contextmanager
def folder() -> Generator[str]:
  """A folder that is removed at the end, and locked until then.

  Folders that a killed server left behind are removed first.
  """
  remove_old()
  with tempfile.TemporaryDirectory(
    prefix=_PREFIX, ignore_cleanup_errors=True
  ) as path:
    with _lock(path):
      yield path


def remove_old() -> None:
  """Removes this user's folders of servers that no longer run."""
  for path in pathlib.Path(tempfile.gettempdir()).glob(f"{_PREFIX}*"):
    try:
      facts = path.lstat()
      age = time.time() - facts.st_mtime
      if facts.st_uid == os.getuid() and age > _MIN_AGE_SECONDS:
        with _lock(path):
          shutil.rmtree(path, ignore_errors=True)
    except (OSError, AttributeError):  # in use, just removed, or Windows
      continue


@contextlib.contextmanager
def _lock(path: str | os.PathLike) -> Generator[None]:
  """Locks a folder; the lock ends with the process at the latest.

  Raises:
    OSError: if another process has locked it.
  """
  if fcntl is None:
    yield
    return
  descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW)
  try:
    fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    yield
  finally:
    os.close(descriptor)
