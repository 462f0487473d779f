"""Files that are read at an offset, without a position that threads share.

All that reads parts of a data file opens it here.
"""

import contextlib
import functools
import glob
import hashlib
import io
import os
import tempfile
from collections.abc import Generator, Sequence

from vitjax.config import places


class LocalFile:
  """A file of this machine.

  Attributes:
    path: its path, or the address of the file that it is a copy of.
    size: its length in bytes.
    modified: when it was last changed, in nanoseconds.
  """

  def __init__(self, path: str, copy_of: str | None = None):
    self.path = copy_of or path
    self._descriptor = os.open(path, os.O_RDONLY)
    status = os.fstat(self._descriptor)
    self.size, self.modified = status.st_size, status.st_mtime_ns

  def read(self, offset: int, size: int) -> bytes:
    """Bytes from `offset` on: `size` of them, or fewer at the end."""
    return os.pread(self._descriptor, size, offset)

  def __enter__(self):
    return self

  def __exit__(self, *_):
    os.close(self._descriptor)


class RemoteFile:
  """The same for an object in a store; `modified` tells its versions apart."""

  def __init__(self, path: str):
    self.path = path
    self._store = places.store(path)

  @functools.cached_property
  def _facts(self) -> dict:
    with places.errors(self.path):
      return self._store.info(self.path)

  @property
  def size(self) -> int:
    return self._facts["size"]

  @property
  def modified(self) -> int:
    names = ("ETag", "generation", "LastModified")
    version = next(self._facts[name] for name in names if name in self._facts)
    digest = hashlib.sha256(str(version).encode()).digest()
    return int.from_bytes(digest[:8], signed=True)

  def read(self, offset: int, size: int) -> bytes:
    [part] = read_parts([(self.path, offset, size)])
    return part

  def __enter__(self):
    return self

  def __exit__(self, *_):
    pass


File = LocalFile | RemoteFile
Part = tuple[str, int, int]


def open_file(path: str) -> File:
  """Opens a file by its path or URL; to be used in a `with`."""
  return RemoteFile(path) if places.is_remote(path) else LocalFile(path)


@contextlib.contextmanager
def as_local(file: File) -> Generator[LocalFile]:
  """The file itself, or for the time of a `with` a copy on this machine."""
  if isinstance(file, LocalFile):
    yield file
    return
  with tempfile.TemporaryDirectory(prefix="vitjax-") as folder:
    copy = os.path.join(folder, "copy")
    with places.errors(file.path):
      places.store(file.path).get_file(file.path, copy)
    with LocalFile(copy, copy_of=file.path) as local:
      yield local


def read_parts(parts: Sequence[Part]) -> list[bytes]:
  """Bytes of each (path, offset, size); of a store all at once."""
  if not parts or not places.is_remote(parts[0][0]):
    found = []
    for path, offset, size in parts:
      with LocalFile(path) as file:
        found.append(file.read(offset, size))
    return found
  paths, starts, sizes = zip(*parts)
  ends = [start + size for start, size in zip(starts, sizes)]
  with places.errors(paths[0]):
    found = places.store(paths[0]).cat_ranges(
      list(paths), list(starts), ends, on_error="raise"
    )
  return list(map(bytes, found))


def matching(pattern: str, extension: str) -> list[str]:
  """The files that a path with wildcards names, or that are in a folder.

  Args:
    pattern: a path or URL.
    extension: that of the files that count in a folder.
  """
  if not places.is_remote(pattern):
    if os.path.isdir(pattern):
      pattern = f"{glob.escape(pattern)}/**/*{extension}"
    elif os.path.isfile(pattern):
      pattern = glob.escape(pattern)
    return glob.glob(pattern, recursive=True)
  scheme = f"{pattern.partition('://')[0]}://"
  store = places.store(pattern)
  try:
    with places.errors(pattern):
      if glob.has_magic(pattern):
        found = store.glob(pattern)
      else:
        found = store.find(pattern)
        if pattern.removeprefix(scheme) not in found:
          found = [x for x in found if x.endswith(extension)]
  except FileNotFoundError:  # the bucket
    return []
  return [scheme + name for name in found]


def stream(file: File, start: int = 0, size: int | None = None) -> io.IOBase:
  """A part of an open file, as libraries want it: with seek and read."""
  size = file.size - start if size is None else size
  return io.BufferedReader(_Part(file, start, size))


class _Part(io.RawIOBase):
  def __init__(self, file: File, start: int, size: int):
    self._file, self._start, self._size, self._at = file, start, size, 0

  def seekable(self) -> bool:
    return True

  def readable(self) -> bool:
    return True

  def seek(self, offset: int, whence: int = 0) -> int:
    self._at = (0, self._at, self._size)[whence] + offset
    return self._at

  def tell(self) -> int:
    return self._at

  def readinto(self, buffer) -> int:
    size = max(0, min(len(buffer), self._size - self._at))
    data = self._file.read(self._start + self._at, size)
    buffer[: len(data)] = data
    self._at += len(data)
    return len(data)
