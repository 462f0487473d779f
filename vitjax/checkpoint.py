"""Checkpoints that are whole, or a loud error.

Owns: saving a state in the background, which steps are kept, restoring the
newest step that is intact onto any mesh, and reading one part of a checkpoint
(the parameters) without the rest. Orbax does the reading and writing; what is
added here is what it leaves open: a checksum of every leaf (a flipped bit is
otherwise restored silently), a comparison of shapes and dtypes (a dtype is
otherwise cast silently), falling back to an older step, and errors that say
what is lost, what is not and what to do. It does not decide when to save.

On disk, `<directory>/<step>/` holds one Orbax item per entry of the state,
each a nested dict by leaf name, and the JSON item `info`: names, shapes,
dtypes and checksums of all leaves, the metrics and what the caller adds. A
step appears under its name only when it is complete.
"""

import contextlib
import json
import logging as python_logging
import math
import os
import re
import shutil
import sys
import uuid
import zlib
from collections.abc import Iterable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
from absl import logging
from etils import epath
from jax.experimental import multihost_utils

import vitjax
from vitjax import checksums, trees

PyTree = Any

_INFO = "info"
_BARE_LEAF = "value"  # the name of the leaf of an item that is a bare array
_DAMAGED = ".damaged"


class CheckpointError(RuntimeError):
  """A checkpoint cannot be used; the message says which, why and what next."""


class SaveError(CheckpointError):
  """A checkpoint could not be written; the older ones are untouched."""


class Checkpointer:
  """Saves and restores `{item: pytree of arrays}` in a directory of steps.

  All processes of a run call every method, in the same order. Usable as a
  context manager, which closes it.

  Args:
    directory: where the steps go; made if absent. A local path, or one that
      Orbax understands (gs://...).
    keep_latest: how many of the newest steps to keep. While a save is under
      way there is one more, so the disk needs room for that.
    keep_every_steps: also keep the steps that this number divides.
    best_metric: also keep the step whose metric of this name is best. Steps
      saved without it, or with a NaN, are never the best.
    best_mode: "max" or "min".
    async_save: write in the background; `save` then returns once the state
      is copied to host memory, and donating its buffers is safe.

  Raises:
    CheckpointError: if the directory cannot be made or written to.
  """

  def __init__(
    self,
    directory: str | os.PathLike,
    *,
    keep_latest: int = 1,
    keep_every_steps: int | None = None,
    best_metric: str | None = None,
    best_mode: str = "max",
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
    _quieten_orbax()
    self._directory = _absolute(directory)
    self._keep_latest = keep_latest
    self._keep_every_steps = keep_every_steps
    self._best = (best_metric, best_mode)
    self._async_save = async_save
    self._pending: int | None = None  # a step whose save may still fail
    self._current: int | None = None  # the step last saved or restored
    self._closed = False
    self._check_directory()
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
    policies = [ocp.checkpoint_managers.LatestN(self._keep_latest)]
    if self._keep_every_steps is not None:
      every = ocp.checkpoint_managers.EveryNSteps(self._keep_every_steps)
      policies.append(every)
    metric, mode = self._best
    self._keep_best = _KeepBest(mode)
    if metric is not None:
      policies.append(self._keep_best)
    self._manager = ocp.CheckpointManager(
      self._directory,
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

    Raises:
      SaveError: if this save or the one before it failed.
      ValueError, TypeError: if the arguments cannot be a checkpoint.
    """
    self.wait()
    if step == self._current:
      logging.info("Step %d is already saved in %s.", step, self._directory)
      return
    newest = self.latest_step
    if newest is not None and step <= newest:
      raise ValueError(
        f"cannot save step {step}: {self._directory} already holds step "
        f"{newest}. Restore it, or use a fresh workdir."
      )
    _check_state(state)
    record = _seal(
      {
        "format": 1,
        "step": int(step),
        "vitjax": vitjax.__version__,
        "items": {name: _describe(tree) for name, tree in state.items()},
        "metrics": _json_floats(metrics or {}),
        "best": {"metric": self._best[0], "mode": self._best[1]},
        "info": _json_value(info or {}),
      }
    )
    stored = {name: _stored(tree) for name, tree in state.items()}
    self._keep_best.add(step, record["metrics"].get(self._best[0]))
    self._size = sum(x.nbytes for x in jax.tree.leaves(stored))
    args = {
      n: ocp.args.StandardSave(tree) for n, tree in stored.items() if tree
    }
    args[_INFO] = ocp.args.JsonSave(record)
    self._pending = step
    with self._save_errors(), jax.transfer_guard("allow"):
      if not self._manager.save(step, args=ocp.args.Composite(**args)):
        raise RuntimeError("Orbax declined to save it")
    if not self._async_save:
      self.wait()
    self._current = step

  def wait(self) -> None:
    """Blocks until nothing is being written.

    Raises:
      SaveError: if the save under way failed. It is raised once; in a run of
        one process the object can then be used again.
    """
    if self._pending is None:
      return
    with self._save_errors():
      self._manager.wait_until_finished()
      # Orbax has returned from failed saves without a word before.
      if not (self._directory / str(self._pending) / _INFO).exists():
        raise RuntimeError("the save ended, but the step is not there")
    self._pending = None

  @contextlib.contextmanager
  def _save_errors(self):
    """Turns a failure into one clear error and makes the object usable."""
    try:
      yield
    except Exception as error:
      step, self._pending, self._current = self._pending, None, None
      with contextlib.suppress(Exception):
        self._reopen_after_failure()
      newest = max(_steps(self._directory), default=None)
      good = (
        "No older checkpoint exists."
        if newest is None
        else f"Step {newest} is intact and is what a restart continues from."
      )
      raise SaveError(
        f"the checkpoint of step {step} could not be written to "
        f"{self._directory}: {_reason(error)}. {self._space()}{good} Make "
        "room or fix the directory, then start the same command again."
      ) from error

  def _reopen_after_failure(self) -> None:
    # The failed manager forgets the older steps, refuses to save again and
    # leaves its files on the full disk.
    with contextlib.suppress(Exception):
      self._manager.close()
    if jax.process_count() > 1:
      return  # the processes fail at different moments: do not wait for all
    for path in self._directory.glob("*.orbax-checkpoint-tmp*"):
      path.rmtree(missing_ok=True)
    self._open()

  def _space(self) -> str:
    try:
      free = shutil.disk_usage(self._directory).free
    except OSError:
      return ""
    return (
      f"{free / 1e6:,.1f} MB are free there; one checkpoint takes up to "
      f"{self._size / 1e6:,.1f} MB, beside those that are kept. "
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
        result = _restore_step(self._directory, step, abstract_state)
      except _MismatchError as error:
        mismatch = ValueError(str(error))
      except Exception as error:
        reason = _reason(error)
      if mismatch is not None:
        raise mismatch
      if _on_all_processes(reason is None):
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
        (self._directory / str(step)).rename(target)
        logging.warning("Renamed the damaged step %d to %s.", step, target.name)
    if jax.process_count() > 1:
      multihost_utils.sync_global_devices("vitjax.checkpoint.set_aside")
    self._manager.close()
    self._open()

  def close(self) -> None:
    """Waits for the save under way and releases the threads of Orbax."""
    if self._closed:
      return
    self._closed = True
    try:
      self.wait()
    finally:
      self._manager.close()

  def __enter__(self) -> "Checkpointer":
    return self

  def __exit__(self, kind, error, traceback) -> None:
    try:
      self.close()
    except CheckpointError as failure:
      if error is None:
        raise
      logging.error("%s", failure)  # the error under way matters more


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
  _quieten_orbax()
  directory = _absolute(directory)
  step = _resolve_step(directory, step)
  record = read_record(directory, step)
  if item not in record["items"]:
    raise CheckpointError(
      f"step {step} in {directory} has no item {item!r}. "
      f"It has: {', '.join(sorted(record['items']))}."
    )
  described = record["items"][item]
  flat = {
    name: np.zeros(leaf["shape"], _dtype(leaf))
    for name, leaf in described.items()
    if 0 in leaf["shape"]
  }
  # Orbax takes a NumPy array as the wish for one; this one has no memory.
  wanted = {
    name: np.broadcast_to(np.zeros((), _dtype(leaf)), leaf["shape"])
    for name, leaf in described.items()
    if name not in flat
  }
  try:
    if wanted:
      flat |= trees.flatten(_read(directory / str(step) / item, wanted))
    flat = {name or _BARE_LEAF: leaf for name, leaf in flat.items()}
    flat = {name: flat[name or _BARE_LEAF] for name in described}
    found = {n: checksums.of_array(x) for n, x in flat.items()}
    _verify(found, described, item)
  except Exception as error:
    others = [s for s in _steps(directory) if s != step]
    raise CheckpointError(
      f"{item} of step {step} in {directory} is damaged: {_reason(error)}. "
      f"Other steps there: {others or 'none'}."
    ) from error
  params = flat[""] if list(flat) == [""] else trees.unflatten(flat)
  return step, params, record["info"]


def read_record(directory: str | os.PathLike, step: int) -> dict[str, Any]:
  """Returns what is known about a step without reading any array.

  Keys: step, vitjax (the version), items (`{item: {leaf: {shape, dtype,
  checksum}}}`), metrics, best (`{metric, mode}`), info (the caller's).

  Raises:
    CheckpointError: if it is missing, unreadable or altered.
  """
  path = _absolute(directory) / str(step) / _INFO / "metadata"
  try:
    record = json.loads(path.read_text())
    if _seal(record)["crc32"] != record["crc32"]:
      raise ValueError("its contents do not match their CRC-32")
  except Exception as error:
    raise CheckpointError(f"{path} is damaged: {_reason(error)}") from error
  metrics = record["metrics"].items()
  return record | {"metrics": {name: float(x) for name, x in metrics}}


class _MismatchError(Exception):
  """The checkpoint is fine, but it is of something else."""


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


def _check_state(state: Mapping[str, PyTree]) -> None:
  if _INFO in state:
    raise ValueError(f"an item of the state cannot be called {_INFO!r}.")
  for name, leaf in trees.flatten(dict(state)).items():
    if not isinstance(leaf, jax.Array | np.ndarray):
      raise TypeError(
        f"state leaf {name} is a {type(leaf).__name__}; a state holds arrays "
        "only: wrap a number in jnp.asarray, or put it in info."
      )
    restored = jax.dtypes.canonicalize_dtype(
      leaf.dtype, allow_extended_dtype=True
    )
    if restored != leaf.dtype:
      raise TypeError(
        f"state leaf {name} is {leaf.dtype}, which JAX would restore as "
        f"{restored}; convert it first."
      )


def _describe(tree: PyTree) -> dict[str, dict[str, Any]]:
  sums = checksums.of_tree(tree)
  return {
    name: {
      "shape": list(leaf.shape),
      "dtype": str(leaf.dtype),
      "checksum": f"{sums[name]:016x}",
    }
    for name, leaf in trees.flatten(tree).items()
  }


def _dtype(leaf: Mapping[str, Any]) -> np.dtype:
  return jnp.dtype(leaf["dtype"])


def _stored(tree: PyTree) -> dict[str, Any]:
  """Returns the nested dict that goes to disk: no empty array, no None.

  Orbax cannot write an array without elements, and a dict by names can be
  read without the optimizer's own classes.
  """
  flat = {name: x for name, x in trees.flatten(tree).items() if x.size}
  return trees.unflatten({name or _BARE_LEAF: x for name, x in flat.items()})


def _seal(record: dict[str, Any]) -> dict[str, Any]:
  body = {key: value for key, value in record.items() if key != "crc32"}
  text = json.dumps(body, sort_keys=True)
  return body | {"crc32": zlib.crc32(text.encode())}


def _json_floats(metrics: Mapping[str, Any]) -> dict[str, float | str]:
  # JSON has no NaN and no infinity: they are strings that float() reads.
  values = {name: float(value) for name, value in metrics.items()}
  return {n: x if math.isfinite(x) else str(x) for n, x in values.items()}


def _json_value(info: dict[str, Any]) -> dict[str, Any]:
  try:
    return json.loads(json.dumps(info, allow_nan=False))
  except (TypeError, ValueError) as error:
    raise TypeError(f"info cannot be written as JSON: {error}") from error


def _restore_step(
  directory: epath.Path, step: int, abstract_state: Mapping[str, PyTree]
) -> tuple[dict[str, PyTree], dict[str, Any]]:
  record = read_record(directory, step)
  saved = {
    name: {
      leaf_name or _BARE_LEAF: jax.ShapeDtypeStruct(leaf["shape"], _dtype(leaf))
      for leaf_name, leaf in item.items()
    }
    for name, item in record["items"].items()
  }
  wanted = {
    name: {leaf or _BARE_LEAF: x for leaf, x in trees.flatten(tree).items()}
    for name, tree in abstract_state.items()
  }
  if difference := trees.compare(wanted, saved):
    raise _MismatchError(
      f"the checkpoint of step {step} in {directory} does not fit this run "
      f"(wanted vs saved). {difference.message()} The config has changed: "
      "use the old one, or a fresh workdir."
    )
  state = {}
  for name, tree in abstract_state.items():
    described = record["items"][name]
    targets = {n: _target(leaf) for n, leaf in trees.flatten(tree).items()}
    filled = {n: t for n, t in targets.items() if math.prod(t.shape)}
    flat = {}
    if filled:
      flat = trees.flatten(_read(directory / str(step) / name, filled))
    leaves = [
      flat[n or _BARE_LEAF] if n in filled else _empty(target)
      for n, target in targets.items()
    ]
    state[name] = jax.tree.unflatten(jax.tree.structure(tree), leaves)
    _verify(checksums.of_tree(state[name]), described, name)
  return state, record["info"]


def _target(leaf: Any) -> jax.ShapeDtypeStruct:
  sharding = getattr(leaf, "sharding", None)
  if sharding is None:
    if jax.process_count() > 1:
      mesh = jax.sharding.Mesh(np.array(jax.devices()), ("all",))
      sharding = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec())
    else:
      sharding = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
  return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding)


def _empty(target: jax.ShapeDtypeStruct) -> jax.Array:
  return jax.make_array_from_callback(
    target.shape,
    target.sharding,
    lambda index: np.zeros(target.shape, target.dtype)[index],
  )


def _read(path: epath.Path, targets: Mapping[str, Any]) -> dict[str, Any]:
  named = {name or _BARE_LEAF: target for name, target in targets.items()}
  handler = ocp.StandardCheckpointHandler()
  with ocp.Checkpointer(handler) as reader, jax.transfer_guard("allow"):
    return reader.restore(
      path, args=ocp.args.StandardRestore(trees.unflatten(named))
    )


def _verify(
  found: Mapping[str, int], described: Mapping[str, Any], item: str
) -> None:
  wrong = [
    n for n, x in found.items() if f"{x:016x}" != described[n]["checksum"]
  ]
  if wrong:
    more = f" and {len(wrong) - 3} more" if len(wrong) > 3 else ""
    listed = ", ".join(f"{item}/{n}".strip("/") for n in wrong[:3])
    raise ValueError(f"wrong checksum of {listed}{more}")


def _steps(directory: epath.Path) -> list[int]:
  if not directory.is_dir():
    return []
  names = ocp.path.step.standard_name_format()
  return sorted(found.step for found in names.find_all(directory))


def _resolve_step(directory: epath.Path, step: int | str) -> int:
  steps = _steps(directory)
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


def _absolute(directory: str | os.PathLike) -> epath.Path:
  path = epath.Path(directory)
  return path if "://" in str(directory) else path.expanduser().absolute()


def _reason(error: BaseException) -> str:
  """Returns an error as one short line, without its wrappings."""
  text = " ".join(str(error).split()) or type(error).__name__
  # Storage errors name files for five lines before they say what is wrong.
  if code := re.search(r"os_error_code='(\d+)'", text):
    return os.strerror(int(code[1]))
  return text if len(text) <= 300 else text[:300] + "…"


class _OrbaxFilter(python_logging.Filter):
  """Hides what Orbax reports of its work, some thirty lines per save.

  Its errors go too: they reach the caller as a CheckpointError, and are
  logged up to five times on the way there, with tracebacks.
  """

  def filter(self, record: python_logging.LogRecord) -> bool:
    theirs = f"{os.sep}orbax{os.sep}" in record.pathname
    return not theirs or record.levelno == python_logging.WARNING


def _ignore_leftovers(previous: Any) -> Any:
  """Drops the tracebacks of work that Orbax gives up after a failure.

  Each write still queued prints "Event loop is closed", and each read still
  pending prints its error when it is collected: up to thousands of
  tracebacks, of a failure that is raised as one CheckpointError already.
  """

  def hook(unraisable: Any) -> None:
    error, code = (
      unraisable.exc_value,
      getattr(unraisable.object, "cr_code", None),
    )
    queued = (
      unraisable.object is None
      and isinstance(error, RuntimeError)
      and str(error) == "Event loop is closed"
    )
    pending = code is not None and f"{os.sep}orbax{os.sep}" in code.co_filename
    if not queued and not pending:
      previous(unraisable)

  hook.is_vitjax = True
  return hook


def _quieten_orbax() -> None:
  logger = logging.get_absl_logger()
  if not any(isinstance(f, _OrbaxFilter) for f in logger.filters):
    logger.addFilter(_OrbaxFilter())
  if not hasattr(sys.unraisablehook, "is_vitjax"):
    sys.unraisablehook = _ignore_leftovers(sys.unraisablehook)
