"""Being told to stop: SIGTERM from a scheduler, Ctrl-C from a person."""

import os
import signal
from typing import Any

import jax
from jax.experimental import multihost_utils


class Preempted(RuntimeError):
  """The run was told to stop, and has saved its state."""


class StopRequest:
  """Notes SIGTERM and Ctrl-C; the second Ctrl-C ends the process at once.

  A second SIGTERM changes nothing: launchers send it to a process and to its
  parent, which passes it on.

  With several processes, one that is told to stop stops all, at one step.
  """

  def __init__(self):
    self._signal: str | None = None
    self._old: dict[int, Any] = {}
    self._alone = jax.process_count() == 1

  def __enter__(self):
    # SIGTERM of several processes goes to JAX, which tells the others.
    for number in (signal.SIGINT, signal.SIGTERM)[: 1 + self._alone]:
      self._old[number] = signal.signal(number, self._note)
    return self

  def __exit__(self, *_):
    for number, handler in self._old.items():
      signal.signal(number, handler)

  def _note(self, number, _):
    self._signal = signal.Signals(number).name
    if number == signal.SIGINT:
      signal.signal(number, signal.SIG_DFL)
      if not self._alone:
        os.kill(os.getpid(), signal.SIGTERM)

  def after(self, step: int) -> str | None:
    """What stops the run after this step; None if it goes on.

    Several processes call it at every step, and get the answer at the same.
    """
    if self._alone:
      return self._signal
    if multihost_utils.reached_preemption_sync_point(step):
      return self._signal or "SIGTERM to one of the processes"
    return None
