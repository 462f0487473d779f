"""Files that are read at an offset, without a position that threads share.

All that reads parts of a data file opens it here.
"""

import io
import os

from vitjax.data.tf import tf


class LocalFile:
  """A file of this machine.

  Attributes:
    path: its path.
    size: its length in bytes.
    modified: when it was last changed, in nanoseconds.
  """

  def __init__(self, path: str):
    self.path = path
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
  """The same for file systems that only TensorFlow reaches, such as gs://."""

  def __init__(self, path: str):
    self.path = path
    status = tf.io.gfile.stat(path)
    self.size, self.modified = status.length, status.mtime_nsec
    self._file = tf.io.gfile.GFile(path, "rb")

  def read(self, offset: int, size: int) -> bytes:
    self._file.seek(offset)
    return self._file.read(size)

  def __enter__(self):
    return self

  def __exit__(self, *_):
    self._file.close()


File = LocalFile | RemoteFile


def open_file(path: str) -> File:
  """Opens a file by its path or URL; to be used in a `with`."""
  return RemoteFile(path) if "://" in path else LocalFile(path)


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
