"""Starts vitjax's commands as a user does, and waits for what they write."""

import dataclasses
import json
import os
import pathlib
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np

ROOT = pathlib.Path(__file__).parents[2]
PREEMPTED = 75


def tiny(workdir: pathlib.Path, *overrides: str) -> list[str]:
  """The command of the run that `tiny.py` describes."""
  return [
    "vitjax.main",
    "--config=tests/e2e/tiny.py",
    f"--workdir={workdir}",
    *(f"--config.{x}" for x in overrides),
  ]


def on_folder(
  workdir: pathlib.Path, data: pathlib.Path | str, *overrides: str
) -> list[str]:
  """The command of a short run on a folder of images, or other data."""
  if isinstance(data, pathlib.Path):
    data = f"folder:{data}"
  return tiny(
    workdir,
    f"input.data={data}",
    "input.batch_size=8",
    "input.repeats=1",
    "input.pp=decode_jpeg_and_inception_crop(16)|flip_lr|randaug(2,10)"
    "|value_range(-1,1)",
    "evals.test.split=val",
    "evals.test.pp=decode|resize_small(18)|central_crop(16)|value_range(-1,1)",
    "evals.test.batch_size=16",
    "evals.test.every_steps=10",
    "checkpoint.every_steps=100",
    "checkpoint.best_metric=test/loss",
    "checkpoint.best_mode=min",
    "report.every_steps=1",
    "total_steps=20",
    *overrides,
  )


@dataclasses.dataclass(frozen=True)
class Finished:
  """The result of a process."""

  code: int
  text: str  # what was on the screen
  seconds: float

  def assert_done(self) -> "Finished":
    assert self.code == 0, self.text
    assert "Traceback" not in self.text, self.text
    return self

  def assert_refused(self, *parts: str) -> "Finished":
    """It ended with one message, which has all of `parts`, and no traceback."""
    assert self.code == 1, self.text
    assert "Traceback (most recent" not in self.text, self.text
    _, *messages = self.text.split("vitjax.main: ")
    assert len(messages) == 1, self.text
    for part in parts:
      assert part in messages[0], self.text
    return self


class Process:
  """`python -m MODULE ARGS` under way; used in a `with`, it never outlives it.

  Args:
    *args: the module and its arguments.
    cache: folder of compiled programs, so that only the first start compiles.
    devices: how many virtual CPU devices the process sees.
    preexec_fn: runs in the process before Python does.
  """

  def __init__(
    self, *args, cache: pathlib.Path, devices: int = 1, preexec_fn=None
  ):
    settings = {
      "JAX_PLATFORMS": "cpu",
      "JAX_NUM_CPU_DEVICES": str(devices),
      "JAX_COMPILATION_CACHE_DIR": str(cache),
      "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
      "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1",
      "TF_CPP_MIN_LOG_LEVEL": "3",
    }
    self._start = time.monotonic()
    self._process = subprocess.Popen(
      [sys.executable, "-m", *map(str, args)],
      cwd=ROOT,
      env=os.environ | settings,
      stdout=subprocess.PIPE,
      stderr=subprocess.STDOUT,
      text=True,
      preexec_fn=preexec_fn,
    )

  def wait_for_step(self, workdir: pathlib.Path, step: int) -> None:
    """Returns when the record has a step that is not before `step`."""
    self.wait_until(lambda: last_step(workdir) >= step)

  def wait_for_checkpoint(self, workdir: pathlib.Path) -> None:
    """Returns when a checkpoint is complete; steps do not wait for it."""
    self.wait_until(lambda: saved_steps(workdir))

  def wait_until(self, condition: Callable[[], Any]) -> None:
    """Returns when a condition is true, and the process still runs."""
    while not condition() and self._process.poll() is None:
      time.sleep(0.005)
    assert self._process.poll() is None, self.finish().text

  def send(self, number: int) -> None:
    self._process.send_signal(number)

  def finish(self, timeout: float = 300) -> Finished:
    text, _ = self._process.communicate(timeout=timeout)
    seconds = time.monotonic() - self._start
    return Finished(self._process.returncode, text, seconds)

  def __enter__(self) -> "Process":
    return self

  def __exit__(self, *_) -> None:
    if self._process.poll() is None:
      self._process.kill()
      self._process.communicate()


def run(*args, **options) -> Finished:
  """Runs `python -m MODULE ARGS` to its end."""
  with Process(*args, **options) as process:
    return process.finish()


def last_step(workdir: pathlib.Path) -> int:
  """The newest step in the record of a run; 0 if there is none."""
  try:
    data = (workdir / "metrics.jsonl").read_bytes()
  except FileNotFoundError:
    return 0
  lines = data[: data.rfind(b"\n") + 1].splitlines()
  return json.loads(lines[-1])["step"] if lines else 0


def record(workdir: pathlib.Path) -> bytes:
  return (workdir / "metrics.jsonl").read_bytes()


def saved_steps(workdir: pathlib.Path) -> list[int]:
  names = [path.name for path in workdir.glob("checkpoints/*")]
  return sorted(int(name) for name in names if name.isdigit())


def contents(folder: pathlib.Path) -> dict[str, bytes]:
  """Path -> bytes of all files below a folder."""
  return {
    str(path.relative_to(folder)): path.read_bytes()
    for path in folder.rglob("*")
    if path.is_file()
  }


def assert_same_run(workdir: pathlib.Path, expected: pathlib.Path) -> None:
  """The record, the weights and the checkpoints are equal to the last bit."""
  assert record(workdir) == record(expected)
  # A run that was stopped may have kept the step at which it was.
  common = sorted({*saved_steps(workdir)} & {*saved_steps(expected)})
  assert common[-1:] == saved_steps(expected)[-1:] != []
  for step in common:
    checksums = [_checksums(folder, step) for folder in (workdir, expected)]
    assert checksums[0] == checksums[1]
  with (
    np.load(workdir / "params.npz") as given,
    np.load(expected / "params.npz") as wanted,
  ):
    assert sorted(given) == sorted(wanted) and len(wanted.files) > 10
    for name in wanted:
      assert given[name].tobytes() == wanted[name].tobytes(), name


def assert_resumes(arguments, workdir, expected, *, cache) -> None:
  """A run that loses its last checkpoint ends as `expected`, which did not.

  It is as if it had been killed before.

  Args:
    arguments: the command of the run in `workdir`.
    workdir: folder of the run.
    expected: folder of a finished run of the same config.
    cache: folder of compiled programs.
  """
  run(*arguments, cache=cache).assert_done()
  shutil.rmtree(workdir / "checkpoints" / str(saved_steps(workdir)[-1]))
  (workdir / "params.npz").unlink()
  run(*arguments, cache=cache).assert_done()
  assert_same_run(workdir, expected)


def _checksums(workdir: pathlib.Path, step: int) -> dict:
  """Of all leaves of the state: parameters, optimizer and step."""
  file = workdir / "checkpoints" / str(step) / "info" / "metadata"
  items = json.loads(file.read_text())["items"]
  assert {"params", "opt_state", "step"} <= set(items)
  return items
