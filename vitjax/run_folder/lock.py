"""One run at a time in a run folder: `lock.json` says which.

The lock is a file and nothing else, so it works on any file system that the
processes share, NFS included, and in an object store: it is created
exclusively, and its holder renews it every few seconds, see `lock_files`. That
of a dead process is removed under a second such file, so that of several
processes one takes it over.

A holder on the same machine is dead if its process is. Whether one elsewhere
is alive shows in the file: it is renewed, or it is not for a minute. No two
clocks are compared.

A holder that was thought dead and is not, such as one on a suspended machine,
notices at its next `check` and stops.
"""

import contextlib
import datetime
import json
import math
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

from vitjax.config import places
from vitjax.run_folder.lock_files import open_file

LOCK = "lock.json"
_BEAT_SECONDS = 10
_SILENT_SECONDS = 60  # a silent holder on another machine then counts as dead
_POLL_SECONDS = 0.5
_GUARD_POLLS = 10
# In an object store each look costs a request; nobody takes a lock over that
# was seen to be held within the last minute.
_TRUSTED_SECONDS = 20


class RunFolderInUseError(RuntimeError):
  """Another run uses this run folder."""


@contextlib.contextmanager
def held(
  workdir: pathlib.Path, is_main: bool = True
) -> Generator[Callable[..., None]]:
  """Holds the lock of a run folder.

  Args:
    workdir: the run folder; made if absent.
    is_main: whether this is process 0 of the run, which holds the lock for
      all of them. In the others nothing happens.

  Yields:
    A function that raises if the lock was lost. Call it before each write; with
    `now=False` it may trust a look of the last seconds.

  Raises:
    RunFolderInUseError: if another run holds the lock.
  """
  if not is_main:
    yield lambda now=True: None
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
    self._path, self._file = file, open_file(file)
    self._checked = -math.inf
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
    while not self._file.create(self._text):
      text = self._file.read()
      if text is None:
        continue  # just released
      if self._is_held(text):
        raise RunFolderInUseError(
          f"{self._path.parent} is in use: {_describe(text)} trains there, and "
          "two runs in one folder would mix their checkpoints. Wait for it, "
          "stop it, or use another --workdir. If no such process exists, "
          f"delete {self._path}."
        )
      if self._remove(text):
        logging.info(
          "Taking over %s: %s ended without releasing it.",
          self._path.parent,
          _describe(text),
        )

  def check(self, now: bool = True) -> None:
    """Raises if this process no longer holds the lock."""
    is_fresh = 0 <= time.time() - self._checked < _TRUSTED_SECONDS
    if not now and is_fresh and places.is_remote(self._path):
      return
    with contextlib.suppress(OSError):  # the next write reports it
      for _ in range(3):
        text = self._file.read()
        if text == self._text:
          self._checked = time.time()
          return
        if text is not None:
          raise RunFolderInUseError(
            f"{self._path.parent} was taken over by {_describe(text)} while "
            "this process was suspended or cut off from the folder. It stops "
            "without writing; the other one continues the run."
          )
        time.sleep(_POLL_SECONDS)  # another process may hold it open
      if self._file.create(self._text):
        logging.warning("%s was deleted; wrote it again.", self._path)

  def renew_until(self, ended: threading.Event) -> None:
    """Shows others that this process is alive, until the event is set."""
    while not ended.wait(_BEAT_SECONDS):
      with contextlib.suppress(OSError):
        if self._file.read() == self._text:
          self._file.renew()

  def release(self) -> None:
    """Removes the file, if it is still that of this process."""
    with contextlib.suppress(OSError):
      if self._file.read() == self._text:
        self._file.remove()

  def _is_held(self, text: bytes) -> bool:
    """Whether the process that wrote `text` is alive."""
    holder = _parse(text)
    if holder.get("machine") == _machine():
      alive = _is_running(holder)
      if alive is not None:
        return alive
    logging.info(
      "%s is in use by %s; watching for %d seconds whether it is alive.",
      self._path.parent,
      _describe(text),
      _SILENT_SECONDS,
    )
    before = self._file.sign()
    end = time.monotonic() + _SILENT_SECONDS
    while time.monotonic() < end:
      time.sleep(_POLL_SECONDS)
      now = self._file.sign()
      if now is None:
        return False
      if now != before:
        return True
    return False

  def _remove(self, text: bytes) -> bool:
    """Removes the file if `text` is still in it; of several, one succeeds."""
    guard = open_file(self._path.with_name(f".{LOCK}.removing"))
    own = uuid.uuid4().bytes
    for _ in range(_GUARD_POLLS):
      if guard.create(own):
        break
      time.sleep(_POLL_SECONDS)
      if self._file.read() != text:
        return False
    # The guard may be missing if its creator was killed at this moment.
    try:
      # Another process may have been quicker, and hold it.
      if self._file.read() != text:
        return False
      self._file.remove()
      return True
    finally:
      guard.remove()


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
