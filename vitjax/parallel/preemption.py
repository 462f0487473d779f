"""Stops a run on SIGTERM from a scheduler or Ctrl-C from a person."""

import contextlib
import os
import signal
import socket
import threading
from typing import Any

import jax
from jax.experimental import multihost_utils

_EXIT_INTERRUPTED = 130  # as a shell reports Ctrl-C


class Preempted(RuntimeError):
  """The run was told to stop, and has saved its state."""


class StopRequest:
  """Notes SIGTERM and Ctrl-C; a second Ctrl-C ends the process at once.

  A second SIGTERM changes nothing: launchers send it to a process and to its
  parent, which passes it on.

  If one of several processes is told to stop, all stop after the same step.

  Python's own handlers run between two instructions of the main thread, which
  may compile or wait for a device for minutes. So a thread reads the signals.

  Args:
    first_step: number of steps taken so far.
    total_steps: number of steps of the run.
  """

  def __init__(self, first_step: int, total_steps: int):
    self._step, self._total_steps = first_step, total_steps
    self._signal: str | None = None
    self._old: dict[int, Any] = {}
    self._alone = jax.process_count() == 1

  def __enter__(self):
    self._read, self._write = socket.socketpair()
    self._write.setblocking(False)
    self._old_fd = signal.set_wakeup_fd(
      self._write.fileno(), warn_on_full_buffer=False
    )
    threading.Thread(target=self._watch, name="signals", daemon=True).start()
    # With several processes JAX handles SIGTERM and tells the others.
    for number in (signal.SIGINT, signal.SIGTERM)[: 1 + self._alone]:
      self._old[number] = signal.signal(number, lambda *_: None)
    return self

  def __exit__(self, *_):
    for number, handler in self._old.items():
      signal.signal(number, handler)
    signal.set_wakeup_fd(self._old_fd)
    self._write.close()  # ends the thread

  def _watch(self) -> None:
    with self._read:
      while numbers := self._read.recv(64):
        for number in numbers:
          if number in self._old:
            self._note(signal.Signals(number))

  def _note(self, number: signal.Signals) -> None:
    interrupted = number == signal.SIGINT
    if interrupted and self._signal == number.name:
      _say("\nstopped without saving.\n")
      os._exit(_EXIT_INTERRUPTED)
    step = min(self._step + 1, self._total_steps)
    if interrupted:
      _say(f"\nsaving step {step} ...; press Ctrl-C again to quit at once.\n")
    elif self._signal is None:
      _say(f"{number.name}: saving step {step} ...\n")
    self._signal = number.name
    if interrupted and not self._alone:
      os.kill(os.getpid(), signal.SIGTERM)

  def after(self, step: int) -> str | None:
    """The signal that stops the run after this step, or None.

    Several processes call it at every step, and get the signal at the same
    step.
    """
    self._step = step
    if self._alone:
      return self._signal
    if multihost_utils.reached_preemption_sync_point(step):
      return self._signal or "SIGTERM to one of the processes"
    return None


def _say(text: str) -> None:
  """Writes to stderr, even while the main thread writes."""
  with contextlib.suppress(OSError):  # it is closed
    os.write(2, text.encode())
