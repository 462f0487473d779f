"""The clock of a training loop, its progress line, and the profiler window.

Owns: how fast a run goes and where its time goes. It writes no file but the
profiler's trace; `writer` records what is measured here.
"""

import collections
import contextlib
import math
import os
import time
from collections.abc import Callable, Generator, Mapping
from typing import Any

import jax
from absl import logging

# "lost": seconds of killed processes in steps that were recomputed.
_KINDS = ("compile", "step", "lost", "input", "eval", "checkpoint")
_PAUSES = ("compile", "input", "eval", "checkpoint")


class Progress:
  """The clock of a training loop.

  Call `update(step)` after each step, and put what is not training into
  `with progress.paused("eval")` (or "checkpoint", or "compile" for a step that
  is compiled later), the wait for a batch into `with progress.waiting()`. The
  time up to the first update is compilation.
  Rates are those of the last `window_steps` steps, and leave compilation,
  evaluation and checkpoints out.

  Args:
    total_steps: the last step of the run.
    batch_size: examples per step, over all devices.
    start_step: the step before the first one of this process.
    num_devices: default `jax.device_count()`.
    unit: what an example is called in `line`.
    window_steps: number of last steps over which rates are measured.
    before: seconds by kind that earlier processes of the run have spent,
      from `reader.seconds_spent`.
    clock: function that returns monotonic seconds.
  """

  def __init__(
    self,
    total_steps: int,
    batch_size: int,
    *,
    start_step: int = 0,
    num_devices: int | None = None,
    unit: str = "images",
    window_steps: int = 100,
    before: Mapping[str, float] | None = None,
    clock: Callable[[], float] = time.monotonic,
  ):
    self._total_steps = total_steps
    self._batch_size = batch_size
    self._num_devices = num_devices or jax.device_count()
    self._unit = unit
    self._clock = clock
    self._step = start_step
    self._seconds = dict.fromkeys(_KINDS, 0.0) | dict(before or {})
    self._kind = "compile"
    self._since = clock()
    # (step, seconds of training, seconds of input among these, all seconds)
    # after each update; the first is the end of compilation.
    self._first: tuple[int, float, float, float] | None = None
    self._window = collections.deque(maxlen=window_steps + 1)

  def _charge(self, kind: str) -> None:
    now = self._clock()
    self._seconds[self._kind] += now - self._since
    self._since, self._kind = now, kind

  @contextlib.contextmanager
  def paused(self, kind: str) -> Generator[None]:
    """Charges the time inside to `kind`, one of `_PAUSES`."""
    if kind not in _PAUSES:
      raise ValueError(f"kind={kind!r}; use one of {', '.join(_PAUSES)}.")
    before = self._kind
    self._charge(kind)
    try:
      yield
    finally:
      self._charge(before)

  def waiting(self) -> contextlib.AbstractContextManager[None]:
    """Charges the time inside to the wait for input, which rates include."""
    return self.paused("input")

  def update(self, step: int) -> None:
    """Notes that `step` steps have been taken."""
    self._charge("step")
    self._step = step
    training = self._seconds["step"] + self._seconds["input"]
    total = sum(self._seconds.values())
    mark = (step, training, self._seconds["input"], total)
    self._first = self._first or mark
    self._window.append(mark)

  def _over_window(self) -> tuple[int, float, float]:
    if len(self._window) < 2:
      return 0, 0.0, 0.0
    first, last = self._window[0], self._window[-1]
    return last[0] - first[0], last[1] - first[1], last[2] - first[2]

  @property
  def step_seconds(self) -> float | None:
    """Seconds per step; None before the second step."""
    steps, seconds, _ = self._over_window()
    return seconds / steps if steps and seconds > 0 else None

  @property
  def examples_per_second(self) -> float | None:
    return self._batch_size / self.step_seconds if self.step_seconds else None

  @property
  def examples_per_second_per_device(self) -> float | None:
    rate = self.examples_per_second
    return rate and rate / self._num_devices

  @property
  def input_wait_share(self) -> float | None:
    """Part of the training time spent waiting for a batch, in [0, 1]."""
    _, seconds, waited = self._over_window()
    return waited / seconds if seconds > 0 else None

  @property
  def eta_seconds(self) -> float | None:
    """Seconds to the last step, at the rate of all steps so far."""
    if self._first is None or self._step == self._first[0]:
      return None
    seconds = self._window[-1][3] - self._first[3]
    left = max(self._total_steps - self._step, 0)
    return left * seconds / (self._step - self._first[0])

  def scalars(self) -> dict[str, float]:
    """Returns what is known, for `MetricsWriter.write_timing`.

    Rates are those of now; seconds, and "goodput", the share of them spent in
    steps that counted, those of the whole run with all its restarts.
    """
    values = {
      "examples_per_second": self.examples_per_second,
      "examples_per_second_per_device": self.examples_per_second_per_device,
      "step_seconds": self.step_seconds,
      "input_wait_share": self.input_wait_share,
      "goodput": self.shares()["step"],
    } | {f"seconds/{kind}": s for kind, s in self.seconds().items()}
    return {name: value for name, value in values.items() if value is not None}

  def seconds(self) -> dict[str, float]:
    """Seconds by kind since the run began; they sum to the time that passed.

    The time in which no process ran, and that from its start to this object,
    does not count.
    """
    self._charge(self._kind)
    return dict(self._seconds)

  def shares(self) -> dict[str, float]:
    """`seconds` divided by their sum."""
    seconds = self.seconds()
    total = sum(seconds.values())
    return {kind: s / total if total else 0.0 for kind, s in seconds.items()}

  def line(
    self, step: int, scalars: Mapping[str, float] | None = None, **more: float
  ) -> str:
    """Returns e.g. `step 400/1,100 (36 %) · loss 0.2134 · ETA 0:48`."""
    percent = 100 * step // max(self._total_steps, 1)
    parts = [f"step {step:,}/{self._total_steps:,} ({percent} %)"]
    for name, value in {**(scalars or {}), **more}.items():
      parts.append(f"{name} {_readable(float(value))}")
    share = self.input_wait_share
    waited = () if share is None else (f"input wait {100 * share:.0f} %",)
    return " · ".join([*parts, *self._rate(), *waited, *self._eta()])

  def short_line(self, step: int, loss: float) -> str:
    """Returns e.g. `400/1,100 · loss 0.2134 · 1,600 images/s · ETA 0:48`."""
    parts = [f"{step:,}/{self._total_steps:,}", f"loss {_readable(loss)}"]
    return " · ".join([*parts, *self._rate(), *self._eta()])

  def _rate(self) -> list[str]:
    if (rate := self.examples_per_second) is None:
      return []
    number = f"{rate:,.0f}" if rate >= 10 else f"{rate:.2f}"
    return [f"{number} {self._unit}/s"]

  def _eta(self) -> list[str]:
    eta = self.eta_seconds
    return [] if eta is None else [f"ETA {_duration(eta)}"]

  def summary(self) -> str:
    """Returns where the time went, e.g. `3:20: step 81 %, eval 10 %, ...`."""
    shares = sorted(self.shares().items(), key=lambda item: -item[1])
    parts = [f"{kind} {100 * share:.0f} %" for kind, share in shares if share]
    return f"{_duration(sum(self._seconds.values()))}: {', '.join(parts)}"


def _readable(value: float) -> str:
  if value == 0 or 1e-3 <= abs(value) < 1e5 or not math.isfinite(value):
    return f"{value:.4f}"
  return f"{value:.1e}"


def _duration(seconds: float) -> str:
  minutes, seconds = divmod(round(seconds), 60)
  hours, minutes = divmod(minutes, 60)
  if hours:
    return f"{hours}:{minutes:02d}:{seconds:02d}"
  return f"{minutes}:{seconds:02d}"


class ProfilerWindow:
  """Traces a few steps with `jax.profiler`, for TensorBoard or Perfetto.

  Args:
    logdir: folder of the trace.
    first_step: number of steps taken before the first one that is traced;
      10 or so leaves compilation out.
    num_steps: number of steps to trace; 0 for none.
  """

  def __init__(
    self, logdir: str | os.PathLike, first_step: int, num_steps: int
  ):
    self._logdir = os.fspath(logdir)
    self._first, self._end = first_step, first_step + num_steps
    self._state = "waiting" if num_steps > 0 else "done"

  def update(self, step: int, wait_for: Any = None) -> None:
    """Starts or stops the trace; call before each step.

    Args:
      step: number of steps taken so far.
      wait_for: arrays of the latest step: its devices may still be busy when
        the trace ends, and what they do later would be missing.
    """
    if self._state == "tracing" and step >= self._end:
      self._stop(wait_for)
    elif self._state == "waiting" and self._first <= step < self._end:
      self._guarded(lambda: jax.profiler.start_trace(self._logdir), "tracing")

  def close(self, wait_for: Any = None) -> None:
    """Ends a trace that the end of the run has cut short."""
    if self._state == "tracing":
      self._stop(wait_for)

  def _stop(self, wait_for: Any) -> None:
    jax.block_until_ready(wait_for)
    self._guarded(jax.profiler.stop_trace, "done")
    logging.info("Wrote a profile to %s.", self._logdir)

  def _guarded(self, action: Callable[[], None], state: str) -> None:
    self._state = "done"
    try:
      action()
      self._state = state
    except Exception as error:  # e.g. another trace is being taken
      logging.warning("No profile is written: %s", error)
