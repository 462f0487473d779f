"""Writes the metrics of a run: a record to compare, curves to look at.

Owns: `metrics.jsonl` (the record) and `timing.jsonl` (everything that depends
on the clock), and hands the same rows to the trackers that the config chooses.
The clock itself and the profiler window are in `clock`. It does not compute
metrics and does not decide when to report.

The record holds nothing but what follows from the config and the seed, so a
run that was killed and resumed ends with the same bytes as one that was not.
"""

import contextlib
import functools
import json
import math
import os
import pathlib
import shutil
import types
from collections.abc import Generator, Mapping
from typing import Any

import jax
import numpy as np
from absl import logging

from vitjax.run_folder import trackers as trackers_lib
from vitjax.run_folder.reader import METRICS_FILE, TIMING_FILE, whole_lines
from vitjax.run_folder.trackers.background import Background


class MetricsError(OSError):
  """The record cannot be written, so the run must stop."""


class MetricsWriter:
  """Writes scalars to `metrics.jsonl`, `timing.jsonl` and the trackers.

  Each line of the files is one JSON object, `{"step": 400, "train/loss":
  0.2134}`. Floats are written so that they read back bit for bit; NaN and
  infinities, which JSON lacks, are the strings "nan", "inf" and "-inf".

  Args:
    workdir: a local or mounted directory; made if absent.
    start_step: the step of the checkpoint that the run resumes from. Lines
      of later steps, and a last line cut short by a kill, are dropped: they
      are written again. 0 means that the run starts from nothing: files of
      an earlier one are renamed to `*.old`.
    is_main: only the main process (0) writes; in others nothing happens.
    trackers: name -> options, see `vitjax.run_folder.trackers`. If one fails,
      the run continues with one warning.

  Raises:
    MetricsError: if the files cannot be written, here or later.
  """

  def __init__(
    self,
    workdir: str | os.PathLike,
    *,
    start_step: int = 0,
    is_main: bool = True,
    trackers: Mapping[str, Mapping[str, Any]] = types.MappingProxyType({}),
  ):
    self._files: dict[str, _JsonLines] = {}
    self._trackers: list[Background] = []
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
    for name, options in trackers.items():
      make = functools.partial(_make, name, workdir, start_step, options)
      self._trackers.append(Background(name, make))

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
    numbers = {
      n: float(x) if isinstance(x, str) else x for n, x in values.items()
    }
    for tracker in self._trackers:
      tracker.write(int(step), numbers)

  def flush(self) -> None:
    """Returns when the record is on the disk; call before each checkpoint.

    All lines of a step come before its checkpoint: a run that resumes from
    it does not compute them again, so after a kill or a power cut they would
    be missing.
    """
    for file in self._files.values():
      file.flush()
    for tracker in self._trackers:
      tracker.flush()

  def close(self) -> None:
    parts = [*self._files.values(), *self._trackers]
    self._files, self._trackers = {}, []
    with contextlib.ExitStack() as stack:  # closes all, whichever fails
      for part in parts:
        stack.callback(part.close)

  def __enter__(self) -> "MetricsWriter":
    return self

  def __exit__(self, kind, error, traceback) -> None:
    self.close()


def _make(name, workdir, start_step, options):
  return trackers_lib.find(name)(workdir, start_step, **options)


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
    for line in whole_lines(data):
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
  def _errors(self) -> Generator[None]:
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
        "again to resume from the last checkpoint",
      ) from error
