"""The start of a run: its state, its teacher, its compiled step, its batches.

A run starts at step 1 or, if it was killed, after its last checkpoint.
"""

import dataclasses
import pathlib
from collections.abc import Callable, Mapping
from concurrent import futures
from typing import Any

import jax
from absl import logging

from vitjax import pretrained, program
from vitjax import step as step_lib
from vitjax.checkpoint.checkpointer import Checkpointer
from vitjax.config.schema import ConfigError, RunConfig
from vitjax.data import device, pipeline
from vitjax.data.sources.source import Source
from vitjax.distill import cache
from vitjax.distill import teacher as teacher_lib
from vitjax.parallel import memory, sharding
from vitjax.program.compiled import compile_step
from vitjax.run_folder import files, identity, reader


def origin_of(
  run: RunConfig, workdir: pathlib.Path, *, is_new: bool
) -> dict[str, Any]:
  """{"init": commits of the repositories that the run began with}, or {}.

  A run that is started again keeps them, since branches move.
  """
  file = workdir / files.MODEL
  found = reader.read_json(file).get("init", {}) if file.exists() else {}
  if is_new:
    found = pretrained.commits(run, found)
  return {"init": found} if found else {}


def find_state(
  parts: program.Program,
  checkpointer: Checkpointer,
  workdir: pathlib.Path,
  commits: Mapping[str, str],
) -> tuple[int, step_lib.TrainState | None, dict | None]:
  """The state before the first step of this process.

  The newest checkpoint of the run; without one `config.init.weights`, else
  random parameters, which `compile_with_state` makes.

  Returns:
    The number of the last step taken; the state, None if it is random; and
    what its checkpoint says about the run, None without one.

  Raises:
    ConfigError: if config or training data have changed since the run began.
    ForeignCheckpointError: if the newest checkpoint is of another run.
    CheckpointError: if there are checkpoints and none can be read.
  """
  run, shardings = parts.run, parts.shardings.without_teacher
  restored = checkpointer.restore(parts.placed.checkpoint_items)
  if restored is not None:
    step, items, saved = restored
    identity.check_checkpoint(workdir, step, saved, run)
    check_fingerprint(saved["fingerprint"], parts.source)
    logging.info("Resuming after step %d of %d.", step, parts.total_steps)
    return step, step_lib.TrainState(**items), saved
  if run.init.weights is not None:
    shape = parts.spec["image"].shape
    loaded = pretrained.load(run, parts.model, shape, commits)
    loaded = jax.device_put(loaded, shardings.weights)
    make_state = jax.jit(parts.make_state, out_shardings=shardings)
    return 0, make_state(loaded), None
  return 0, None, None


def check_fingerprint(saved: str, source: Source) -> None:
  """Raises ConfigError if the training data is not what the run began with."""
  if saved != source.fingerprint:
    raise ConfigError(
      f"the training data {source.data} {source.split} has changed since this "
      "run began: files were added, removed or rewritten, or the run is older "
      "than today's rule of splits (docs/data.md#without-splits). Restore the "
      "data to resume, or start a new run with another --workdir."
    )


def random_state(parts: program.Program) -> step_lib.TrainState:
  """The state before the first step, with random weights."""
  init = jax.jit(parts.init, out_shardings=parts.shardings.without_teacher)
  return init(jax.random.key(parts.run.seed))


def load_teacher(
  parts: program.Program, saved: dict | None
) -> teacher_lib.Loaded | None:
  """The weights of the run's teacher on the devices; None without one.

  Raises:
    ConfigError: if they cannot be read, or are not those that the run began
      with, by what its checkpoint says.
  """
  if parts.teaching is None:
    return None
  teacher = parts.teaching.teacher
  loaded = teacher.load(parts.run.pretrained_dir)
  if saved is not None:
    teacher.check_same(saved["teacher"], loaded.checksum)
  where = parts.shardings.teacher or sharding.replicated(parts.mesh)
  placed = jax.device_put(loaded.weights, where)
  return dataclasses.replace(loaded, weights=placed)


def compile_with_state(
  parts: program.Program, state: step_lib.TrainState | None
) -> tuple[Callable, memory.StepMemory, step_lib.TrainState]:
  """What `compile_step` returns, and the state before the first step.

  Makes a random state if `state` is None: both programs are compiled at the
  same time.
  """
  if state is not None:
    return *compile_step(parts), state
  with futures.ThreadPoolExecutor(1) as pool:
    made = pool.submit(random_state, parts)
    compiled, step = compile_step(parts)
  return compiled, step, made.result()


def make_feed(
  parts: program.Program,
  first_step: int,
  teacher: teacher_lib.Loaded | None = None,
):
  """The batches of steps `first_step + 1` to the last, on the devices."""
  run = parts.run
  batches = pipeline.train_batches(
    parts.source,
    parts.preprocess,
    batch_size=run.input.batch_size,
    sampling=run.input.sampling,
    repeats=run.input.repeats,
    views=run.input.views,
    prefetch=run.input.prefetch,
    seed=run.seed,
    start_step=first_step,
    total_steps=parts.total_steps,
    process_index=jax.process_index(),
    process_count=jax.process_count(),
  )
  teaching = parts.teaching
  if teacher is not None and teaching is not None and teaching.is_cached:
    batches = cache.with_outputs(
      batches,
      run,
      parts.source,
      teaching,
      teacher,
      parts.preprocess.on_device,
      parts.mesh,
    )
  return device.to_device(
    batches, sharding.over_batch(parts.mesh), prefetch=run.input.prefetch
  )
