"""The file of a lock, on a file system or in an object store.

Both create it exclusively, and show whether its holder is alive: `sign`
changes while the holder calls `renew`.
"""

import contextlib
import errno
import hashlib
import os
import pathlib
import uuid
from typing import Any

from vitjax.config import places

_EXISTS = ("PreconditionFailed", "ConditionalRequestConflict")


class LocalFile:
  """A file; its holder renews its time of modification."""

  def __init__(self, path: pathlib.Path):
    self._path = path

  def create(self, text: bytes) -> bool:
    """Whether the file was absent, and now holds `text`."""
    try:
      file = open(self._path, "xb")
    except FileExistsError:
      return False
    try:
      with file:
        file.write(text)
    except OSError as e:
      self._path.unlink(missing_ok=True)
      raise OSError(
        e.errno, f"{self._path} cannot be written: {e.strerror}"
      ) from e
    return True

  def read(self) -> bytes | None:
    """The content; None if there is no file."""
    try:
      return self._path.read_bytes()
    except FileNotFoundError:
      return None

  def renew(self) -> None:
    os.utime(self._path)

  def sign(self) -> Any:
    """When the file was last modified, by the clock of its file system.

    None if there is no file.
    """
    try:
      with open(self._path, "rb") as file:  # makes NFS ask its server
        return os.fstat(file.fileno()).st_mtime_ns
    except FileNotFoundError:
      return None

  def remove(self) -> None:
    self._path.unlink(missing_ok=True)


class RemoteFile:
  """An object; its holder writes a second one of its own, again and again.

  The second one's name follows from the content of the first, so the holder
  never writes to a lock that another process has taken over meanwhile.
  """

  def __init__(self, path: Any):
    self._url = str(path)
    self._store = places.store(path)

  def create(self, text: bytes) -> bool:
    """Whether the object was absent, and now holds `text`."""
    try:
      with self._errors():
        self._store.pipe_file(self._url, text, mode="create")
    except OSError as e:
      # S3 has its own words for a file that exists.
      answer = getattr(e.__cause__, "response", {}).get("Error", {})
      if (
        not isinstance(e, FileExistsError) and answer.get("Code") not in _EXISTS
      ):
        raise
      return self.read() == text  # sent again after a lost answer
    return True

  def read(self) -> bytes | None:
    """The content; None if there is no object."""
    return self._read(self._url)

  def renew(self) -> None:
    if (text := self.read()) is not None:
      with self._errors():
        self._store.pipe_file(self._beat(text), uuid.uuid4().bytes)

  def sign(self) -> Any:
    """What its holder wrote last; None if there is no object."""
    text = self.read()
    return None if text is None else (text, self._read(self._beat(text)))

  def remove(self) -> None:
    text = self.read()
    for url in [self._url, *([] if text is None else [self._beat(text)])]:
      with self._errors(), contextlib.suppress(FileNotFoundError):
        self._store.rm_file(url)

  def _beat(self, text: bytes) -> str:
    return f"{self._url}.{hashlib.sha256(text).hexdigest()[:12]}"

  def _read(self, url: str) -> bytes | None:
    try:
      with self._errors():
        return self._store.cat_file(url)
    except FileNotFoundError:
      return None

  @contextlib.contextmanager
  def _errors(self):
    """Turns the errors of a store, which are of any class, into OSError."""
    try:
      yield
    except OSError:
      raise
    except Exception as e:
      raise OSError(errno.EIO, f"{self._url}: {e}") from e


def open_file(path: Any) -> LocalFile | RemoteFile:
  return RemoteFile(path) if places.is_remote(path) else LocalFile(path)
