"""Being told to stop: SIGTERM from a scheduler, Ctrl-C from a person."""

import signal
from typing import Any


class Preempted(RuntimeError):
  """The run was told to stop, and has saved its state."""


class StopRequest:
  """Notes SIGTERM and Ctrl-C; the second one ends the process at once."""

  def __init__(self):
    self.requested: str | None = None
    self._old: dict[int, Any] = {}

  def __enter__(self):
    for number in (signal.SIGTERM, signal.SIGINT):
      self._old[number] = signal.signal(number, self._note)
    return self

  def __exit__(self, *_):
    for number, handler in self._old.items():
      signal.signal(number, handler)

  def _note(self, number, _):
    self.requested = signal.Signals(number).name
    signal.signal(number, signal.SIG_DFL)
