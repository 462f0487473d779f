"""One run at a time in a run folder: `lock.json` says which.

The lock is a file and nothing else, so it works on any file system that the
processes share, NFS included: it is created exclusively, and its holder renews
its time of modification every few seconds. That of a dead process is removed
under a second such file, so that of several processes one takes it over.

A holder on the same machine is dead if its process is. Whether one elsewhere
is alive shows in the time of modification: it changes, or it does not for a
minute. No two clocks are compared.

A holder that was thought dead and is not, such as one on a suspended machine,
notices at its next `check` and stops.
"""

import contextlib
import datetime
import json
import os
import pathlib
import socket
import threading
import time
import uuid
from collections.abc import Callable, Generator
from typing import Any

import psutil
from absl import logging

LOCK = "lock.json"
_BEAT_SECONDS = 10
_SILENT_SECONDS = 60  # a silent holder on another machine then counts as dead
_POLL_SECONDS = 0.5
_GUARD_POLLS = 10


class RunFolderInUseError(RuntimeError):
  """Another run uses this run folder."""


@contextlib.contextmanager
def held(
  workdir: pathlib.Path, is_main: bool = True
) -> Generator[Callable[[], None]]:
  """Holds the lock of a run folder.

  Args:
    workdir: the run folder; made if absent.
    is_main: whether this is process 0 of the run, which holds the lock for
      all of them. In the others nothing happens.

  Yields:
    A function that raises if the lock was lost. Call it before each write.

  Raises:
    RunFolderInUseError: if another run holds the lock.
  """
  if not is_main:
    yield lambda: None
    return
  workdir.mkdir(parents=True, exist_ok=True)
  lock = _Lock(workdir / LOCK)
  lock.acquire()
  ended = threading.Event()
  thread = threading.Thread(
    target=lock.renew_until, args=(ended,), name="lock", daemon=True
  )
  thread.start()
  try:
    yield lock.check
  finally:
    ended.set()
    thread.join()
    lock.release()


class _Lock:
  """The lock file of a run folder, and what this process writes into it."""

  def __init__(self, file: pathlib.Path):
    self._file = file
    self._text = json.dumps(
      {
        "host": socket.gethostname(),
        "process": os.getpid(),
        "since": datetime.datetime.now().astimezone().isoformat(" ", "seconds"),
        "process_started": psutil.Process().create_time(),
        "machine": _machine(),
        "id": uuid.uuid4().hex,
      },
      indent=2,
    ).encode()

  def acquire(self) -> None:
    """Creates the file; takes that of a dead process over."""
    while not self._create():
      text = self._read()
      if text is None:
        continue  # just released
      if self._is_held(text):
        raise RunFolderInUseError(
          f"{self._file.parent} is in use: {_describe(text)} trains there, and "
          "two runs in one folder would mix their checkpoints. Wait for it, "
          "stop it, or use another --workdir. If no such process exists, "
          f"delete {self._file}."
        )
      if self._remove(text):
        logging.info(
          "Taking over %s: %s ended without releasing it.",
          self._file.parent,
          _describe(text),
        )

  def check(self) -> None:
    """Raises if this process no longer holds the lock."""
    with contextlib.suppress(OSError):  # the next write reports it
      for _ in range(3):
        text = self._read()
        if text == self._text:
          return
        if text is not None:
          raise RunFolderInUseError(
            f"{self._file.parent} was taken over by {_describe(text)} while "
            "this process was suspended or cut off from the folder. It stops "
            "without writing; the other one continues the run."
          )
        time.sleep(_POLL_SECONDS)  # another process may hold it open
      if self._create():
        logging.warning("%s was deleted; wrote it again.", self._file)

  def renew_until(self, ended: threading.Event) -> None:
    """Shows others that this process is alive, until the event is set."""
    while not ended.wait(_BEAT_SECONDS):
      with contextlib.suppress(OSError):
        if self._read() == self._text:
          os.utime(self._file)

  def release(self) -> None:
    """Removes the file, if it is still that of this process."""
    with contextlib.suppress(OSError):
      if self._read() == self._text:
        self._file.unlink()

  def _create(self) -> bool:
    try:
      file = open(self._file, "xb")
    except FileExistsError:
      return False
    try:
      with file:
        file.write(self._text)
    except OSError as e:
      self._file.unlink(missing_ok=True)
      raise OSError(
        e.errno, f"{self._file} cannot be written: {e.strerror}"
      ) from e
    return True

  def _read(self) -> bytes | None:
    try:
      return self._file.read_bytes()
    except FileNotFoundError:
      return None

  def _is_held(self, text: bytes) -> bool:
    """Whether the process that wrote `text` is alive."""
    holder = _parse(text)
    if holder.get("machine") == _machine():
      alive = _is_running(holder)
      if alive is not None:
        return alive
    logging.info(
      "%s is in use by %s; watching for %d seconds whether it is alive.",
      self._file.parent,
      _describe(text),
      _SILENT_SECONDS,
    )
    before = self._renewed()
    end = time.monotonic() + _SILENT_SECONDS
    while time.monotonic() < end:
      time.sleep(_POLL_SECONDS)
      now = self._renewed()
      if now is None:
        return False
      if now != before:
        return True
    return False

  def _renewed(self) -> int | None:
    """When the file was last modified, by the clock of its file system."""
    try:
      with open(self._file, "rb") as file:  # makes NFS ask its server
        return os.fstat(file.fileno()).st_mtime_ns
    except FileNotFoundError:
      return None

  def _remove(self, text: bytes) -> bool:
    """Removes the file if `text` is still in it; of several, one succeeds."""
    guard = self._file.with_name(f".{LOCK}.removing")
    for _ in range(_GUARD_POLLS):
      with contextlib.suppress(FileExistsError):
        open(guard, "xb").close()
        break
      time.sleep(_POLL_SECONDS)
      if self._read() != text:
        return False
    # The guard may be missing if its creator was killed at this moment.
    try:
      if self._read() != text:  # another process was quicker, and may hold it
        return False
      self._file.unlink()
      return True
    finally:
      guard.unlink(missing_ok=True)


def _machine() -> str:
  """Names where ids of processes are unique: a boot of a machine, a container.

  Containers may have the same host name, and processes with the same ids.
  """
  parts = [socket.gethostname()]
  with contextlib.suppress(OSError):
    boot = pathlib.Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    parts += [boot, os.readlink("/proc/self/ns/pid")]
  return " ".join(parts)


def _is_running(holder: dict[str, Any]) -> bool | None:
  """Whether a process of this machine runs; None if its id may be reused."""
  try:
    process = psutil.Process(holder["process"])
    if process.status() == psutil.STATUS_ZOMBIE:
      return False
    age = abs(process.create_time() - holder["process_started"])
    return True if age < 1 else None
  except psutil.NoSuchProcess:
    return False
  except (psutil.Error, KeyError, TypeError, ValueError):
    return None


def _parse(text: bytes) -> dict[str, Any]:
  """The content of a lock file; empty if it is damaged or being written."""
  try:
    content = json.loads(text)
  except ValueError:
    return {}
  return content if isinstance(content, dict) else {}


def _describe(text: bytes) -> str:
  holder = _parse(text)
  if not {"process", "host", "since"} <= {*holder}:
    return f"an unknown process (the content of {LOCK} is damaged)"
  return (
    f"process {holder['process']} on {holder['host']} (since {holder['since']})"
  )
