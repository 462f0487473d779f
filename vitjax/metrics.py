"""What a run reports: a record to compare, curves to look at, a line to read.

Owns: `metrics.jsonl` (the record), `timing.jsonl` (everything that depends on
the clock), the TensorBoard files, the throughput clock and the profiler
window. It does not compute metrics and does not decide when to report.

The record holds nothing but what follows from the config and the seed, so a
run that was killed and resumed ends with the same bytes as one that was not.
"""

import collections
import contextlib
import json
import math
import os
import pathlib
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import jax
import numpy as np
from absl import logging

METRICS_FILE = "metrics.jsonl"
TIMING_FILE = "timing.jsonl"
_KINDS = ("compile", "step", "input", "eval", "checkpoint")


class MetricsError(OSError):
  """The record cannot be written; the run would go on unrecorded."""


class MetricsWriter:
  """Writes scalars to `metrics.jsonl`, `timing.jsonl` and TensorBoard.

  Each line of the files is one JSON object, `{"step": 400, "train/loss":
  0.2134}`. Floats are written so that they read back bit for bit; NaN and
  infinities, which JSON lacks, are the strings "nan", "inf" and "-inf".

  Args:
    workdir: a local or mounted directory; made if absent.
    start_step: the step of the checkpoint that the run goes on from. Lines
      of later steps, and a last line cut short by a kill, are dropped: they
      are written again. 0 means that the run starts from nothing: files of
      an earlier one are renamed to `*.old`.
    is_main: only the main process (0) writes; in others nothing happens.
    tensorboard: also write TensorBoard event files, to `tensorboard/`. If
      that fails, the run goes on with one warning.

  Raises:
    MetricsError: if the files cannot be written, here or later.
  """

  def __init__(
    self,
    workdir: str | os.PathLike,
    *,
    start_step: int = 0,
    is_main: bool = True,
    tensorboard: bool = True,
  ):
    self._files: dict[str, _JsonLines] = {}
    self._board = None
    if not is_main:
      return
    if "://" in str(workdir):
      raise ValueError(
        f"workdir={str(workdir)!r}: metrics are appended line by line, which "
        "object stores cannot do. Use a local or mounted directory."
      )
    workdir = pathlib.Path(workdir)
    for name in (METRICS_FILE, TIMING_FILE):
      self._files[name] = _JsonLines(workdir / name, start_step)
    if tensorboard:
      self._board = _Board(workdir / "tensorboard")

  def write(self, step: int, scalars: Mapping[str, Any]) -> None:
    """Adds one line to the record; nothing in it may depend on the clock.

    Args:
      step: number of optimizer steps taken.
      scalars: e.g. `{"train/loss": loss}`; Python, NumPy or device scalars.
    """
    self._write(METRICS_FILE, step, scalars)

  def write_timing(self, step: int, scalars: Mapping[str, Any]) -> None:
    """Adds one line to `timing.jsonl`: rates, seconds, shares, memory."""
    self._write(TIMING_FILE, step, scalars)

  def _write(self, name: str, step: int, scalars: Mapping[str, Any]) -> None:
    if not self._files:
      return
    host = jax.device_get(list(scalars.values()))
    values = {n: _number(n, value) for n, value in zip(scalars, host)}
    if "step" in values:
      raise ValueError("'step' is an argument, not a scalar.")
    self._files[name].append({"step": int(step), **values})
    if self._board is not None:
      self._board.write(step, values)

  def flush(self) -> None:
    """Returns when the record is on the disk; call before each checkpoint.

    Otherwise a power cut could keep the checkpoint of a step and lose its
    metrics, which are never computed again.
    """
    for file in self._files.values():
      file.flush()
    if self._board is not None:
      self._board.flush()

  def close(self) -> None:
    for file in self._files.values():
      file.close()
    if self._board is not None:
      self._board.close()
    self._files, self._board = {}, None

  def __enter__(self) -> "MetricsWriter":
    return self

  def __exit__(self, kind, error, traceback) -> None:
    self.close()


def read_metrics(path: str | os.PathLike) -> list[dict[str, Any]]:
  """Reads `metrics.jsonl` or `timing.jsonl`, also of a run under way.

  Args:
    path: the file, or the workdir for its `metrics.jsonl`.

  Returns:
    One dict per line; "nan", "inf" and "-inf" are floats again. A last line
    that is cut short is left out.

  Raises:
    ValueError: if another line is not JSON.
  """
  path = pathlib.Path(path)
  if path.is_dir():
    path = path / METRICS_FILE
  rows = []
  for number, line in enumerate(_whole_lines(path.read_bytes()), 1):
    try:
      row = json.loads(line)
    except ValueError as error:
      raise ValueError(f"{path}, line {number} is not JSON: {error}") from error
    rows.append(
      {k: float(v) if isinstance(v, str) else v for k, v in row.items()}
    )
  return rows


def _whole_lines(data: bytes) -> list[bytes]:
  return [line for line in data.splitlines(True) if line.endswith(b"\n")]


def _number(name: str, value: Any) -> int | float | str:
  array = np.asarray(value)
  # np.issubdtype does not know bfloat16; jax.dtypes does.
  real = jax.dtypes.issubdtype(array.dtype, np.number) or array.dtype == bool
  if array.size != 1 or not real or array.dtype.kind == "c":
    raise TypeError(
      f"metric {name!r} is not one number: {type(value).__name__} of shape "
      f"{array.shape}, dtype {array.dtype}. Reduce it first."
    )
  if array.dtype.kind in "biu":
    return int(array.item())
  number = float(array.item())
  return number if math.isfinite(number) else str(number)


class _JsonLines:
  """An append-only file of JSON objects that survives kills and resumes."""

  def __init__(self, path: pathlib.Path, start_step: int):
    self._path = path
    with self._errors():
      path.parent.mkdir(parents=True, exist_ok=True)
      if path.exists() and path.stat().st_size:
        if start_step:
          self._drop_after(start_step)
        else:
          os.replace(path, path.with_name(path.name + ".old"))
      # Line by line, so that `tail -f` shows whole lines.
      self._file = open(path, "a", buffering=1, encoding="utf-8", newline="\n")

  def _drop_after(self, step: int) -> None:
    data = self._path.read_bytes()
    kept, unreadable = [], 0
    for line in _whole_lines(data):
      try:
        if json.loads(line)["step"] <= step:
          kept.append(line)
      except (ValueError, KeyError, TypeError):
        unreadable += 1
    if unreadable:
      logging.warning("Dropped %d broken lines of %s.", unreadable, self._path)
    if b"".join(kept) == data:
      return
    temporary = self._path.with_name(self._path.name + ".tmp")
    with open(temporary, "wb") as file:
      file.writelines(kept)
      file.flush()
      os.fsync(file.fileno())
    os.replace(temporary, self._path)

  def append(self, row: Mapping[str, Any]) -> None:
    with self._errors():
      self._file.write(json.dumps(row, allow_nan=False) + "\n")

  def flush(self) -> None:
    with self._errors():
      self._file.flush()
      os.fsync(self._file.fileno())

  def close(self) -> None:
    try:
      if not self._file.closed:
        self.flush()
    finally:
      with contextlib.suppress(OSError):  # what flush could not write
        self._file.close()

  @contextlib.contextmanager
  def _errors(self) -> Iterator[None]:
    try:
      yield
    except OSError as error:
      try:
        free = f"{shutil.disk_usage(self._path.parent).free / 1e6:,.1f} MB"
      except OSError:
        free = "unknown space"
      raise MetricsError(
        error.errno,
        f"{self._path} cannot be written: {error.strerror or error} ({free} "
        "free). Make room or fix the directory, then start the same command "
        "again: it goes on from the last checkpoint",
      ) from error


class _Board:
  """TensorBoard through clu, in a thread; gives up with one warning."""

  def __init__(self, logdir: pathlib.Path):
    self._writer = None
    with self._never_fatal():
      # TensorFlow takes seconds to import and is needed for nothing else.
      import tensorflow as tf

      with contextlib.suppress(RuntimeError):  # it already runs, as it was set
        tf.config.set_visible_devices([], "GPU")  # it would take its memory
      from clu import metric_writers

      writer = metric_writers.SummaryWriter(str(logdir))
      self._writer = metric_writers.AsyncWriter(writer)

  def write(self, step: int, values: Mapping[str, Any]) -> None:
    with self._never_fatal():
      if self._writer is not None:
        scalars = {name: float(value) for name, value in values.items()}
        self._writer.write_scalars(step, scalars)

  def flush(self) -> None:
    with self._never_fatal():
      if self._writer is not None:
        self._writer.flush()

  def close(self) -> None:
    with self._never_fatal():
      if self._writer is not None:
        self._writer.close()
    self._writer = None

  @contextlib.contextmanager
  def _never_fatal(self) -> Iterator[None]:
    try:
      yield
    except Exception as error:
      self._writer = None
      logging.warning(
        "TensorBoard files are no longer written (%s: %s); %s goes on.",
        type(error).__name__,
        str(error).split("\n")[0],
        METRICS_FILE,
      )


class Progress:
  """The clock of a training loop.

  Call `update(step)` after each step, and put what is not training into
  `with progress.paused("eval")` (or "checkpoint"), the wait for a batch into
  `with progress.waiting()`. The time up to the first update is compilation.
  Rates are those of the last `window_steps` steps, and leave compilation,
  evaluation and checkpoints out.

  Args:
    total_steps: the last step of the run.
    batch_size: examples per step, over all devices.
    start_step: the step before the first one of this process.
    num_devices: default `jax.device_count()`.
    unit: what an example is called in `line`.
    window_steps: how many steps the rates look back.
    clock: seconds that never jump.
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
    clock: Callable[[], float] = time.monotonic,
  ):
    self._total_steps = total_steps
    self._batch_size = batch_size
    self._num_devices = num_devices or jax.device_count()
    self._unit = unit
    self._clock = clock
    self._step = start_step
    self._seconds = dict.fromkeys(_KINDS, 0.0)
    self._kind = "compile"
    self._since = clock()
    # (step, seconds of training, of these in input, all seconds) after each
    # update: the first is the end of compilation.
    self._first: tuple[int, float, float, float] | None = None
    self._window = collections.deque(maxlen=window_steps + 1)

  def _charge(self, kind: str) -> None:
    now = self._clock()
    self._seconds[self._kind] += now - self._since
    self._since, self._kind = now, kind

  @contextlib.contextmanager
  def paused(self, kind: str) -> Iterator[None]:
    """Charges the time inside to `kind`: "eval", "checkpoint" or "input"."""
    if kind not in _KINDS[2:]:
      raise ValueError(f"kind={kind!r}; use one of {', '.join(_KINDS[2:])}.")
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
    """Seconds to the last step, if evals and checkpoints go on as so far."""
    if self._first is None or self._step == self._first[0]:
      return None
    seconds = self._window[-1][3] - self._first[3]
    left = max(self._total_steps - self._step, 0)
    return left * seconds / (self._step - self._first[0])

  def scalars(self) -> dict[str, float]:
    """Returns what is known, for `MetricsWriter.write_timing`."""
    values = {
      "examples_per_second": self.examples_per_second,
      "examples_per_second_per_device": self.examples_per_second_per_device,
      "step_seconds": self.step_seconds,
      "input_wait_share": self.input_wait_share,
    } | {f"seconds/{kind}": s for kind, s in self.seconds().items()}
    return {name: value for name, value in values.items() if value is not None}

  def seconds(self) -> dict[str, float]:
    """Seconds by kind since the start; they sum to the time that passed."""
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
    if (rate := self.examples_per_second) is not None:
      number = f"{rate:,.0f}" if rate >= 10 else f"{rate:.2f}"
      parts.append(f"{number} {self._unit}/s")
      parts.append(f"input wait {100 * self.input_wait_share:.0f} %")
    if (eta := self.eta_seconds) is not None:
      parts.append(f"ETA {_duration(eta)}")
    return " · ".join(parts)

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
    logdir: where the trace goes.
    first_step: number of steps taken before the first one that is traced;
      10 or so leaves compilation out.
    num_steps: how many to trace; 0 for none.
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
