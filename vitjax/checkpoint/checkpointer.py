"""Saves, keeps and restores the checkpoints of a run, and verifies them.

Owns: saving a state in the background, which steps are kept, restoring the
newest intact step onto any mesh, and reading one item of a checkpoint, such as
the parameters. Orbax reads and writes; this file adds a checksum of every leaf
(Orbax restores a flipped bit silently), a comparison of shapes and dtypes
(Orbax casts a dtype silently), the fall-back to an older step, and errors that
say what is lost, what is not and what to do. It does not decide when to save.

A step appears in the directory under its number only when it is complete;
`step_files` says what is in it.
"""

import contextlib
import math
import os
import shutil
import time
import uuid
from collections.abc import Iterable, Mapping
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp
from absl import logging
from etils import epath
from jax.experimental import multihost_utils

from vitjax.checkpoint import orbax_noise, staging, step_files
from vitjax.checkpoint.step_files import INFO, CheckpointError, read_record

PyTree = Any

_DAMAGED = ".damaged"


class SaveError(CheckpointError):
  """A checkpoint could not be written; the older ones are untouched."""


class Checkpointer:
  """Saves and restores `{item: pytree of arrays}` in a directory of steps.

  All processes of a run call every method, in the same order. Only one run
  at a time may have a Checkpointer on a directory (see `run_folder.lock`): it
  removes half-written steps, which may be another run's. To read, use
  `load_params`. Usable as a
  context manager, which closes it.

  Args:
    directory: where the steps go; made if absent. A local path, or at gs:// or
      s3://. At s3:// each save is waited for, and there is one process.
    keep_latest: how many of the newest steps to keep. During a save there is
      one more, so the disk needs room for that.
    keep_every_steps: also keep the steps that this number divides.
    best_metric: also keep the step whose metric of this name is best. Steps
      saved without it, or with a NaN, are never the best.
    best_mode: "max" or "min".
    max_failures: how many saves in a row may fail until `save` raises. What
      failed before that is logged, and lost if the process dies before the
      next save. Several processes stop at the first: they fail at different
      moments.
    async_save: write in the background; `save` then returns once the state
      is copied to host memory, and donating its buffers is safe.

  Raises:
    CheckpointError: if the directory cannot be made or written to.
    ValueError: if an argument is wrong, or there are several processes at s3://.
  """

  def __init__(
    self,
    directory: str | os.PathLike,
    *,
    keep_latest: int = 1,
    keep_every_steps: int | None = None,
    best_metric: str | None = None,
    best_mode: str = "max",
    max_failures: int = 1,
    async_save: bool = True,
  ):
    if keep_latest < 1:
      raise ValueError(f"keep_latest={keep_latest}; at least 1 is needed.")
    if keep_every_steps is not None and keep_every_steps < 1:
      raise ValueError(
        f"keep_every_steps={keep_every_steps}; use >= 1 or None."
      )
    if best_mode not in ("max", "min"):
      raise ValueError(f"best_mode={best_mode!r}; use 'max' or 'min'.")
    orbax_noise.quieten()
    self._directory = step_files.absolute(directory)
    self._keep_latest = keep_latest
    self._keep_every_steps = keep_every_steps
    self._best = (best_metric, best_mode)
    is_staged = staging.is_needed(self._directory)
    if is_staged and jax.process_count() > 1:
      raise ValueError(
        f"{self._directory}: a run of {jax.process_count()} processes cannot "
        "write checkpoints to s3://. Mount the bucket (mountpoint-s3), or use "
        "gs:// or a shared folder."
      )
    self._async_save = async_save and not is_staged
    self._max_failures = max_failures if jax.process_count() == 1 else 1
    self._failures = 0  # in a row
    self._pending: int | None = None  # a step whose save may still fail
    self._current: int | None = None  # the step last saved or restored
    self._closed = False
    self._check_directory()
    self._stage = staging.Stage(self._directory)
    self._open()

  def _check_directory(self) -> None:
    if jax.process_index() == 0:
      try:
        self._directory.mkdir(parents=True, exist_ok=True)
        probe = self._directory / f".write-test-{uuid.uuid4().hex}"
        probe.touch()
        probe.unlink()
      except OSError as error:
        raise CheckpointError(
          f"checkpoints cannot be written to {self._directory}: "
          f"{error.strerror or error}. Choose another workdir, or make this "
          "one a writable directory with free space."
        ) from error

  def _open(self) -> None:
    policies: list[ocp.checkpoint_managers.PreservationPolicy] = [
      ocp.checkpoint_managers.LatestN(self._keep_latest)
    ]
    if self._keep_every_steps is not None:
      every = ocp.checkpoint_managers.EveryNSteps(self._keep_every_steps)
      policies.append(every)
    metric, mode = self._best
    self._keep_best = _KeepBest(mode)
    if metric is not None:
      policies.append(self._keep_best)
    self._manager = ocp.CheckpointManager(
      self._stage.folder,
      options=ocp.CheckpointManagerOptions(
        preservation_policy=ocp.checkpoint_managers.AnyPreservationPolicy(
          policies
        ),
        cleanup_tmp_directories=True,
        enable_async_checkpointing=self._async_save,
      ),
    )
    for step in self.steps if metric is not None else ():
      with contextlib.suppress(CheckpointError):
        record = read_record(self._directory, step)
        self._keep_best.add(step, record["metrics"].get(metric))

  @property
  def steps(self) -> list[int]:
    """The steps of the complete checkpoints (and of one being written)."""
    return sorted(self._manager.all_steps())

  @property
  def latest_step(self) -> int | None:
    return max(self.steps, default=None)

  def save(
    self,
    step: int,
    state: Mapping[str, PyTree],
    *,
    metrics: Mapping[str, float] | None = None,
    info: dict[str, Any] | None = None,
    is_last: bool = False,
  ) -> None:
    """Starts to save a state; waits for the save before it, if any.

    Saving the step that this object saved or restored last does nothing: it
    is that state.

    Args:
      step: greater than every step in the directory.
      state: items, each a pytree of arrays; None and empty containers in
        them are fine. The entry "params" is what `load_params` reads.
      metrics: e.g. the evaluation of this state, see `best_metric`.
      info: anything that JSON can hold; returned by `restore`.
      is_last: nothing is saved after it: wait for it, and raise if it fails.

    Raises:
      SaveError: if this save or the one before it failed, and `max_failures`
        have now, or this one is the last.
      ValueError, TypeError: if the arguments cannot be a checkpoint.
    """
    with self._tolerance():
      self.wait()
    with contextlib.nullcontext() if is_last else self._tolerance():
      self._start(step, state, metrics, info)
    if is_last:
      self.wait()

  @contextlib.contextmanager
  def _tolerance(self):
    """Reports a failed save; raises it if there were too many in a row."""
    try:
      yield
    except SaveError as error:
      self._failures += 1
      if self._failures >= self._max_failures:
        raise
      logging.error(
        "%s\nThis is failure %d in a row; the run continues, and stops at %d.",
        error,
        self._failures,
        self._max_failures,
      )

  def _start(self, step, state, metrics, info) -> None:
    if step == self._current:
      logging.info("Step %d is already saved in %s.", step, self._directory)
      return
    newest = self.latest_step
    if newest is not None and step <= newest:
      raise ValueError(
        f"cannot save step {step}: {self._directory} already holds step "
        f"{newest}. Restore it, or use a fresh workdir."
      )
    step_files.check_state(state)
    record = step_files.make_record(
      step,
      state,
      metrics or {},
      {"metric": self._best[0], "mode": self._best[1]},
      info or {},
    )
    stored = step_files.to_store(state)
    self._keep_best.add(step, record["metrics"].get(self._best[0]))
    self._size = sum(x.nbytes for x in jax.tree.leaves(stored))
    args = {name: ocp.args.StandardSave(tree) for name, tree in stored.items()}
    items = ocp.args.Composite(**args, **{INFO: ocp.args.JsonSave(record)})
    self._pending = step
    with self._save_errors(), jax.transfer_guard("allow"):
      if not self._manager.save(step, args=items):
        raise RuntimeError("Orbax declined to save it")
    if not self._async_save:
      self.wait()
    self._current = step

  def wait(self) -> None:
    """Blocks until nothing is being written.

    Raises:
      SaveError: if the current save failed. It is raised once; in a run of
        one process the object can then be used again.
    """
    if self._pending is None:
      return
    with self._save_errors():
      self._manager.wait_until_finished()
      # Orbax has returned from failed saves without an error.
      if not (self._stage.folder / str(self._pending) / INFO).exists():
        raise RuntimeError("the save ended, but wrote no step")
      self._stage.send()
    self._pending = None
    self._failures = 0

  @contextlib.contextmanager
  def _save_errors(self):
    """Turns a failure into one clear error and makes the object usable."""
    try:
      yield
    except Exception as error:
      step, self._pending, self._current = self._pending, None, None
      with contextlib.suppress(Exception):
        self._reopen_after_failure()
      steps: list[int] = []
      with contextlib.suppress(OSError):  # of a store
        steps = step_files.list_steps(self._directory)
      newest = max(steps, default=None)
      good = (
        "No older checkpoint exists."
        if newest is None
        else f"Step {newest} is complete; a restart continues from it."
      )
      raise SaveError(
        f"the checkpoint of step {step} could not be written to "
        f"{self._directory}: {step_files.reason(error)}. {self._space()}"
        f"{good} Make room or fix the directory, then start the same command "
        "again."
      ) from error

  def _reopen_after_failure(self) -> None:
    # The failed manager forgets the older steps, refuses to save again and
    # leaves its files on the full disk.
    with contextlib.suppress(Exception):
      self._manager.close()
    if jax.process_count() > 1:
      return  # the processes fail at different moments: do not wait for all
    for _ in range(50):
      # Orbax reports the first write that fails; others continue: a folder
      # cannot be removed while they put files into it.
      with contextlib.suppress(OSError):
        self._remove_unfinished()
        self._stage.refresh()
        self._open()
        return
      time.sleep(0.1)

  def _remove_unfinished(self) -> None:
    for path in self._stage.folder.glob("*.orbax-checkpoint-tmp*"):
      path.rmtree(missing_ok=True)

  def _space(self) -> str:
    try:
      free = shutil.disk_usage(self._stage.folder).free
    except OSError:
      return ""
    return (
      f"{free / 1e6:,.1f} MB are free there; one checkpoint takes up to "
      f"{self._size / 1e6:,.1f} MB, in addition to those that are kept. "
    )

  def restore(
    self, abstract_state: Mapping[str, PyTree]
  ) -> tuple[int, dict[str, PyTree], dict[str, Any]] | None:
    """Restores the newest step that is intact.

    A damaged step is reported as a warning and, once an older one has been
    restored, renamed to `<step>.damaged`, so that training can save that
    step again; nothing is deleted.

    Args:
      abstract_state: the items with a `jax.ShapeDtypeStruct` (or an array)
        for each leaf. Its sharding is where the leaf goes, whatever the mesh
        that saved it; without one, a leaf goes to the default device.

    Returns:
      (step, state, info as given to `save`), or None if there has never been
      a checkpoint here.

    Raises:
      ValueError: if the checkpoint is of another model or optimizer: names,
        shapes or dtypes differ.
      CheckpointError: if there are checkpoints and all of them are damaged.
    """
    self.wait()
    failures: dict[int, str] = {}
    for step in reversed(self.steps):
      result = reason = mismatch = None
      try:
        result = step_files.restore_step(self._directory, step, abstract_state)
      except step_files.MismatchError as error:
        mismatch = ValueError(str(error))
      except Exception as error:
        reason = step_files.reason(error)
      if mismatch is not None:
        raise mismatch
      everywhere = _on_all_processes(result is not None)
      if result is not None and everywhere:
        self._set_aside(failures)
        self._current = step
        return step, *result
      failures[step] = reason or "another process could not read it"
      logging.warning(
        "Checkpoint step %d in %s is damaged: %s. Trying the one before it.",
        step,
        self._directory,
        failures[step],
      )
    if not failures and not list(self._directory.glob(f"*{_DAMAGED}*")):
      return None
    tried = "; ".join(f"step {s}: {why}" for s, why in failures.items())
    raise CheckpointError(
      f"no checkpoint in {self._directory} is intact ({tried or 'none left'}). "
      "Nothing was changed or deleted. Repair or copy back a step, or start "
      "again in a fresh workdir."
    )

  def _set_aside(self, steps: Mapping[int, str]) -> None:
    if not steps:
      return
    if jax.process_index() == 0:
      for step in steps:
        target, n = self._directory / f"{step}{_DAMAGED}", 1
        while target.exists():
          n += 1
          target = self._directory / f"{step}{_DAMAGED}-{n}"
        self._stage.rename(step, target.name)
        logging.warning("Renamed the damaged step %d to %s.", step, target.name)
    if jax.process_count() > 1:
      multihost_utils.sync_global_devices("vitjax.checkpoint.set_aside")
    self._manager.close()
    self._stage.refresh()
    self._open()

  def close(self) -> None:
    """Waits for the current save and releases the threads of Orbax."""
    if self._closed:
      return
    self._closed = True
    try:
      self.wait()
    finally:
      self._manager.close()
      if jax.process_count() == 1:
        with contextlib.suppress(OSError):  # the next start removes it
          self._remove_unfinished()  # of writes that outlived a failed save
      self._stage.close()

  def __enter__(self) -> "Checkpointer":
    return self

  def __exit__(self, kind, error, traceback) -> None:
    if error is not None and jax.process_count() > 1:
      return  # closing waits for the other processes, which may not come
    try:
      self.close()
    except CheckpointError as failure:
      if error is None:
        raise
      logging.error("%s", failure)  # the first error matters more


def load_params(
  directory: str | os.PathLike,
  *,
  step: int | str = "latest",
  item: str = "params",
) -> tuple[int, PyTree, dict[str, Any]]:
  """Reads one item of a checkpoint to host memory, and nothing else of it.

  Needs no model code and no mesh, and leaves the directory as it is. The
  checksums are verified.

  Args:
    directory: of a `Checkpointer`.
    step: a number, "latest", or "best" by the metric of the run.
    item: e.g. "params" or "ema_params".

  Returns:
    (step, nested dicts of NumPy arrays, info as given to `save`).

  Raises:
    CheckpointError: if that step is absent or damaged. There is no fallback:
      a number reported for other weights than asked for would be wrong.
  """
  orbax_noise.quieten()
  directory = step_files.absolute(directory)
  step = _resolve_step(directory, step)
  record = read_record(directory, step)
  if item not in record["items"]:
    raise CheckpointError(
      f"step {step} in {directory} has no item {item!r}. "
      f"It has: {', '.join(sorted(record['items']))}."
    )
  try:
    params = step_files.read_item(directory, step, item, record)
  except Exception as error:
    if not (directory / str(step)).exists():
      raise CheckpointError(
        f"step {step} in {directory} was deleted while it was read; a run is "
        "saving newer steps there. Try again."
      ) from error
    others = [s for s in step_files.list_steps(directory) if s != step]
    raise CheckpointError(
      f"{item} of step {step} in {directory} is damaged: "
      f"{step_files.reason(error)}. Other steps there: {others or 'none'}."
    ) from error
  return step, params, record["info"]


class _KeepBest:
  """Orbax preservation policy: the one step with the best finite metric.

  Orbax's own BestN is not used: it keeps every step without metrics unless
  told otherwise, fails on a metric that is absent, ranks NaN anywhere, and
  after a restart knows no metrics at all unless its deprecated `best_fn` is
  set too.
  """

  def __init__(self, mode: str):
    self._sign = {"max": 1, "min": -1}[mode]
    self._scores: dict[int, float] = {}

  def add(self, step: int, metric: Any) -> None:
    if metric is not None and not math.isnan(float(metric)):
      self._scores[step] = self._sign * float(metric)

  def best(self, steps: Iterable[int]) -> int | None:
    """Returns the best of these steps; of equals, the newest."""
    scored = [step for step in steps if step in self._scores]
    return max(scored, key=lambda s: (self._scores[s], s), default=None)

  def should_preserve(self, checkpoints, *, context) -> list[bool]:
    del context
    best = self.best(c.step for c in checkpoints)
    return [c.step == best for c in checkpoints]


def _resolve_step(directory: epath.Path, step: int | str) -> int:
  steps = step_files.list_steps(directory)
  if not steps:
    raise CheckpointError(f"there is no checkpoint in {directory}.")
  if step == "latest":
    return steps[-1]
  if step == "best":
    records = {s: read_record(directory, s) for s in steps}
    best = records[steps[-1]]["best"]
    scored = _KeepBest(best["mode"])
    for s, record in records.items():
      scored.add(s, record["metrics"].get(best["metric"]))
    chosen = scored.best(steps)
    if chosen is None:
      raise CheckpointError(
        f"no step in {directory} has a best metric (best_metric="
        f"{best['metric']!r}; steps {steps}). Use step='latest' or a number."
      )
    return chosen
  if step not in steps:
    raise CheckpointError(f"no step {step!r} in {directory}; it has {steps}.")
  return int(step)


def _on_all_processes(ok: bool) -> bool:
  if jax.process_count() == 1:
    return ok
  return bool(multihost_utils.process_allgather(np.asarray(ok)).all())
