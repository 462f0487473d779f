"""A tracker in a thread of its own, so that it cannot stop or delay a run."""

import queue
import threading
import time
from collections.abc import Callable, Mapping
from typing import Any

from absl import logging

from vitjax.run_folder.reader import METRICS_FILE

_PATIENCE_SECONDS = 60
_POLL_SECONDS = 0.05


class Background:
  """Calls a tracker in a thread; gives it up with one warning if it fails.

  Args:
    name: name of the tracker, for the warning.
    make: returns the tracker, see the package.
    patience_seconds: how long `flush` and `close` wait for it.
  """

  def __init__(
    self,
    name: str,
    make: Callable[[], Any],
    patience_seconds: float = _PATIENCE_SECONDS,
  ):
    self._name, self._patience = name, patience_seconds
    self._given_up = threading.Event()
    self._lock = threading.Lock()
    self._actions: queue.SimpleQueue[Callable] = queue.SimpleQueue()
    # A daemon: one that hangs does not keep the process.
    threading.Thread(
      target=self._work, args=(make,), name=name, daemon=True
    ).start()

  def write(self, step: int, values: Mapping[str, int | float]) -> None:
    self._add(lambda tracker: tracker.write(step, values))

  def flush(self) -> None:
    """Returns when all rows are delivered, or the tracker is given up."""
    self._add(lambda tracker: tracker.flush())
    self._wait()

  def close(self) -> None:
    self._add(lambda tracker: tracker.close())
    self._wait()
    self._given_up.set()

  def _add(self, action: Callable[[Any], None]) -> None:
    if not self._given_up.is_set():
      self._actions.put(action)

  def _wait(self) -> None:
    done = threading.Event()
    self._add(lambda _: done.set())
    end = time.monotonic() + self._patience
    while not (done.wait(_POLL_SECONDS) or self._given_up.is_set()):
      if time.monotonic() > end:
        self._give_up(f"it has not answered for {self._patience:g} seconds")

  def _work(self, make: Callable[[], Any]) -> None:
    try:
      tracker = make()
      while not self._given_up.is_set():
        self._actions.get()(tracker)
    except BaseException as error:  # packages also exit or interrupt
      lines = str(error).strip().splitlines() or ["no reason given"]
      self._give_up(f"{type(error).__name__}: {lines[0]}")

  def _give_up(self, reason: str) -> None:
    with self._lock:
      if self._given_up.is_set():
        return
      self._given_up.set()
    logging.warning(
      "Tracker %s is switched off (%s). The run continues, and %s has all "
      "metrics.",
      self._name,
      reason,
      METRICS_FILE,
    )
