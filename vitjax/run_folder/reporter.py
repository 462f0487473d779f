"""Reports training: the record, progress, the clock, a diverged loss."""

import contextlib
import math
import pathlib
import sys
from collections.abc import Callable, Generator, Mapping
from typing import Any

import jax
from absl import logging

from vitjax.config.schema import Report
from vitjax.parallel import sharding
from vitjax.run_folder import files, trackers
from vitjax.run_folder.bar import Bar, is_wanted
from vitjax.run_folder.clock import ProfilerWindow, Progress
from vitjax.run_folder.mirror import Mirror
from vitjax.run_folder.reader import seconds_spent
from vitjax.run_folder.writer import MetricsWriter


class Reporter(contextlib.AbstractContextManager):
  """Writes what a run measures; a context manager that closes its files.

  On a terminal a bar shows how far training is, elsewhere a line for each row
  of the record.

  Attributes:
    progress: the clock; pause it for what is not training.
  """

  def __init__(
    self,
    workdir: pathlib.Path,
    config: Report,
    *,
    every: int,
    total_steps: int,
    batch_size: int,
    start_step: int,
    is_main: bool,
    describe: Callable[[int], str],
  ):
    """Opens the record and starts the clock.

    Args:
      workdir: the run folder.
      config: the section of the config.
      every: steps between two rows of the record.
      total_steps: number of steps of the run.
      batch_size: global examples per step.
      start_step: step of the checkpoint that the run resumes from, or 0.
      is_main: whether this is process 0, the only one that writes.
      describe: maps an index to the place of an example.
    """
    self._workdir, self._is_main = workdir, is_main
    self._every, self._total_steps = every, total_steps
    self._describe = describe
    self._mirror = Mirror(workdir, is_main)
    folder = self._mirror.folder
    spent = seconds_spent(folder, start_step) if is_main else {}
    self._writer = MetricsWriter(
      folder,
      start_step=start_step,
      is_main=is_main,
      trackers=trackers.sections(config.trackers),
    )
    profiles = config.profile_first_step is not None and is_main
    self._profiler = ProfilerWindow(
      folder / "profile",
      config.profile_first_step or 0,
      config.profile_num_steps * profiles,
    )
    self.progress = Progress(
      total_steps, batch_size, start_step=start_step, before=spent
    )
    self._bar = None
    if is_main and start_step < total_steps and is_wanted(sys.stderr):
      self._bar = Bar(total_steps, start_step)

  def __exit__(self, *exc_info: Any) -> None:
    with contextlib.ExitStack() as stack:
      stack.callback(self._mirror.close)
      stack.callback(self._writer.close)
      stack.callback(self._profiler.close)
      if self._bar is not None:
        stack.callback(self._bar.close)

  def begin_step(self, step: int, state: Any) -> None:
    """Starts or ends the profile; `state` is that of the step before."""
    self._profiler.update(step - 1, wait_for=state)

  def train_step(
    self,
    step: int,
    measured: Mapping[str, jax.Array],
    index: jax.Array,
    latest_step: int | None,
  ) -> None:
    """Records a step if it is due, and stops a run that has diverged.

    Args:
      step: number of the step.
      measured: its metrics, still on the device.
      index: numbers of its examples, over all devices.
      latest_step: step of the newest checkpoint, if there is one.

    Raises:
      FloatingPointError: if the loss or the parameters are not finite.
    """
    values = jax.device_get(measured)
    for name in ("train/loss", "train/param_norm"):
      if not math.isfinite(values[name]):
        self._diverged(name, step, values, index, latest_step)
    if step % self._every == 0 or step == self._total_steps:
      self._writer.write(step, values)
      self._writer.write_timing(step, self.progress.scalars())
      if self._bar is None:
        shown = {"loss": values["train/loss"]}
        shown["lr"] = values["train/learning_rate"]
        logging.info("%s", self.progress.line(step, shown))
    if self._bar is not None:
      loss = float(values["train/loss"])
      self._bar.show(step, self.progress.short_line(step, loss))

  def _diverged(self, name, step, values, index, latest_step) -> None:
    examples = sharding.to_host(index).tolist()
    if self._is_main:
      files.write_divergence(
        self._workdir, step, values, latest_step, examples, self._describe
      )
    kept = "No checkpoint" if latest_step is None else f"Step {latest_step}"
    raise FloatingPointError(
      f"{name} is {values[name]} at step {step}; training stops. "
      f"{kept} was saved before. {files.DIVERGENCE} lists the "
      "examples of the step. Usual causes: a learning rate that is too "
      "high, a warm-up that is too short, or no "
      "config.optim.grad_clip_norm."
    )

  def evals(self, step: int, results: Mapping[str, float]) -> None:
    """Records the metrics of an evaluation."""
    self._writer.write(step, results)

  @contextlib.contextmanager
  def saving(self, step: int) -> Generator[None]:
    """Wraps the saving of a step: its record is on disk before its state."""
    self._writer.write_timing(step, self.progress.scalars())
    with self.progress.paused("checkpoint"):
      self._writer.flush()
      self._mirror.send()
      yield
