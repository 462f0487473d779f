"""Trains and evaluates one run: assembles the parts and runs the loop.

What happens at a step is a function of (config, step) alone, and everything
recorded up to a step is on disk before the checkpoint of that step is. So a
run that is killed at any moment and started again ends as if nothing had
happened.
"""

import contextlib
import dataclasses
import functools
import pathlib
from collections.abc import Callable, Iterable, Mapping
from concurrent import futures
from typing import Any

import jax
from absl import logging
from clu import parameter_overview

from vitjax import checks, optim, pretrained, program, weights
from vitjax import (
  step as step_lib,
)
from vitjax.checkpoint.checkpointer import Checkpointer
from vitjax.checkpoint.patience import Patience
from vitjax.config.schema import ConfigError, RunConfig
from vitjax.data import device, pipeline, sources
from vitjax.data.sources.source import DatasetNotPreparedError
from vitjax.distill import cache
from vitjax.distill import teacher as teacher_lib
from vitjax.evaluators import subject, tables
from vitjax.parallel import devices, memory, preemption, processes, sharding
from vitjax.program import variants
from vitjax.program.labels import describe_classes, describe_labels
from vitjax.run_folder import files, identity, lock, reader
from vitjax.run_folder.clock import Progress
from vitjax.run_folder.mirror import Mirror
from vitjax.run_folder.reporter import Reporter

# Files of a run folder, for the last lines of the log: those that exist.
FILES = {
  "Checkpoints": "checkpoints",
  "Metrics": "metrics.jsonl",
  "Table": "metrics.csv",
  "TensorBoard": "tensorboard",
}


def train_and_evaluate(
  run: RunConfig, workdir: pathlib.Path
) -> dict[str, float]:
  """Trains until `run.total`; resumes from the last checkpoint, if any.

  Ends early if `checkpoint.patience` is over.

  Args:
    run: a resolved config.
    workdir: the run folder; created if it does not exist.

  Returns:
    The metrics of the evaluation at the end.

  Raises:
    ConfigError: if the config cannot be run, or is not that of the folder.
    InputError: if an example cannot be read; the state is saved before.
    preemption.Preempted: on SIGTERM or Ctrl-C; the state is saved before.
    FloatingPointError: if the loss is not finite.
    CheckpointError: if checkpoints cannot be written or read.
    RunFolderInUseError: if another run uses the folder.
    OutOfMemoryError: if the train step or an eval does not fit the memory.
    DistributedError: if the processes of the run see different data.
  """
  checks.check(run)
  is_main = jax.process_index() == 0
  if not is_main:
    logging.set_verbosity(logging.WARNING)
  mesh = sharding.make_mesh(**vars(run.mesh))
  checks.check_batch_size(run, sharding.batch_parts(mesh))
  source = sources.open_source(
    run.input.data,
    run.input.split,
    data_dir=run.input.data_dir,
    cache=run.input.cache,
  )
  processes.check_alike("training data", source.fingerprint)
  parts = program.assemble(run, source, mesh)
  total_steps = parts.total_steps
  save_every = parts.steps(run.checkpoint.every)
  eval_every = {
    name: parts.steps(section.every) or total_steps
    for name, section in run.evals.items()
  }
  metadata = program.describe_model(parts)
  evals = make_evaluators(parts)

  with contextlib.ExitStack() as stack:
    check_lock = stack.enter_context(lock.held(workdir, is_main))
    if is_main:
      identity.check_config(workdir, run)
      log_overview(parts)
    checkpointer = stack.enter_context(make_checkpointer(parts, workdir))
    is_new = checkpointer.latest_step is None
    origin = origin_of(run, workdir, is_new=is_new)
    first_step, start, saved = start_state(
      parts, checkpointer, workdir, origin.get("init", {})
    )
    patience = Patience(run.checkpoint, saved)
    info = identity.describe(workdir, run, source.fingerprint, saved)
    teacher = load_teacher(parts, saved)
    if teacher is not None:
      info["teacher"] = teacher.checksum
    if is_main:
      write_folder(parts, {**metadata, **origin}, info["run"], workdir)
    feed = stack.enter_context(make_feed(parts, first_step, teacher))
    reporter = stack.enter_context(make_reporter(parts, workdir, first_step))

    def report(step, measured, index):
      check_lock(now=False)
      reporter.train_step(step, measured, index, checkpointer.latest_step)

    def save(step, results=None, *, is_last=False):
      check_lock()
      with reporter.saving(step):
        checkpointer.save(
          step,
          items_of(state),
          metrics=results,
          info=info | patience.info,
          is_last=is_last,
        )

    results = {}
    stop = stack.enter_context(preemption.StopRequest(first_step, total_steps))
    steps = variants.Steps(parts.variants, functools.partial(lower, parts))
    end = first_step if patience.is_over else total_steps
    if start is not None and first_step == end:
      state = start
      logging.info("This run is finished already; evaluating it once more.")
      results = evaluate(evals, evals, state, end, reporter.progress)
    else:
      compiled, step_memory, state = compile_with_state(parts, start)
      if teacher is not None and parts.abstract.teacher is not None:
        state = dataclasses.replace(state, teacher=teacher.weights)
      stack.enter_context(step_memory.explained())
      steps.keep(parts.variants.all[0], compiled)
    pending = None  # metrics of the step before, still on the device
    for step in range(first_step + 1, end + 1):
      reporter.begin_step(step, state.step)
      try:
        with reporter.progress.waiting():
          batch = next(feed)
      except pipeline.InputError:
        if step > 1 and jax.process_count() == 1:
          if pending:
            report(*pending)
          # The run can then resume when the data has been repaired.
          save(step - 1, is_last=True)
        raise
      train_step = steps.at(step, reporter.progress.paused)
      with jax.transfer_guard("disallow"):
        state, measured = train_step(state, batch)
      reporter.progress.update(step)
      if pending:
        report(*pending)
      pending = step, measured, batch["index"]

      is_last = step == total_steps
      stopping = stop.after(step)  # once a step: one may come in between
      names = [n for n in evals if is_last or step % eval_every[n] == 0]
      is_save = is_last or step % save_every == 0 or bool(stopping)
      is_save |= bool(names and run.checkpoint.best_metric)
      if names or is_save:
        report(*pending)
        pending = None
      if names:
        results = evaluate(evals, names, state, step, reporter.progress)
        if patience.after(step, results) and not is_last:
          rest = [n for n in evals if n not in names]
          results |= evaluate(evals, rest, state, step, reporter.progress)
          is_last, end = True, step
        reporter.evals(step, results)
      if is_save:
        last = is_last or bool(stopping)
        save(step, results if names else None, is_last=last)
      if stopping and not is_last:
        raise preemption.Preempted(
          f"Stopped by {stopping} after step {step} of {total_steps}; "
          "everything is saved. Run the same command again to resume."
        )
      if is_last:
        break
    if end < total_steps:
      why = patience.why(end, total_steps)
      logging.info("%s", why)
      if is_main:
        files.write_early_end(workdir, end, total_steps, why)
    table = tables.summary(results, elsewhere="metrics.jsonl")
    logging.info("Metrics after step %d:\n%s", end, "\n".join(table))
    logging.info("Time: %s", reporter.progress.summary())
    end_folder(parts, state.weights, metadata, workdir)
  return results


def write_folder(
  parts: program.Program, metadata: dict, run_id: str, workdir: pathlib.Path
) -> None:
  """Writes the files of the run folder before step 1."""
  overview = parameter_overview.get_parameter_overview(
    parts.abstract.params, include_stats=False
  )
  files.write(workdir, parts.run, metadata, overview, run_id)


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


def end_folder(
  parts: program.Program,
  tree: step_lib.Weights,
  metadata: dict,
  workdir: pathlib.Path,
) -> None:
  """Exports the weights if the config says so; logs where the files are."""
  is_main = jax.process_index() == 0
  if parts.run.export_npz:
    tree = sharding.to_host(tree)
    if is_main:
      with contextlib.closing(Mirror(workdir, is_used=False)) as mirror:
        file = mirror.folder / "params.npz"
        weights.save(file, tree, parts.model, metadata=metadata)
      logging.info("Weights: %s", workdir / file.name)
  if is_main:
    for title, file in FILES.items():
      if (workdir / file).exists():
        logging.info("%s: %s", title, workdir / file)


def make_checkpointer(
  parts: program.Program, workdir: pathlib.Path
) -> Checkpointer:
  """The checkpoints of a run."""
  config = parts.run.checkpoint
  return Checkpointer(
    workdir / "checkpoints",
    keep_latest=2,  # one to fall back to if the newest is damaged
    keep_every_steps=parts.steps(config.keep_every),
    best_metric=config.best_metric,
    best_mode=config.best_mode or "max",  # None without a metric
    max_failures=config.max_failures,
  )


def start_state(
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
  run, shardings = parts.run, without_teacher(parts.shardings)
  restored = checkpointer.restore(items_of(parts.placed))
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


def random_state(parts: program.Program) -> step_lib.TrainState:
  """The state before the first step, with random weights."""
  init = jax.jit(parts.init, out_shardings=without_teacher(parts.shardings))
  return init(jax.random.key(parts.run.seed))


def lower(
  parts: program.Program, variant: variants.Variant
) -> jax.stages.Lowered:
  """The train step of a variant, ready to compile."""
  return parts.step_of(variant).lower(
    parts.abstract, device.on_arrival(parts.batch)
  )


def without_teacher(state: step_lib.TrainState) -> step_lib.TrainState:
  """The state, or its shardings, without the teacher."""
  return dataclasses.replace(state, teacher=None)


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


def compile_step(
  parts: program.Program,
) -> tuple[Callable, memory.StepMemory]:
  """The compiled train step, the largest of all, and the memory that it uses.

  Raises:
    OutOfMemoryError: if it cannot fit the memory that there is.
  """
  run, state, shardings = parts.run, parts.abstract, parts.shardings
  compiled = memory.compile_step(
    parts.train_step.lower(state, device.on_arrival(parts.batch))
  )
  grad_bytes = sharding.bytes_per_device(state.trained, shardings.trained)
  step = memory.StepMemory(
    used_bytes=memory.used_bytes(compiled),
    limit_bytes=devices.memory_of(jax.local_devices()[0]),
    fixed_bytes=grad_bytes + sharding.bytes_per_device(state, shardings),
    grad_bytes=grad_bytes,
    batch_size=run.input.batch_size,
    batch_parts=sharding.batch_parts(parts.mesh),
    accumulation_steps=run.accumulation_steps,
  )
  step.check()
  return compiled, step


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


def make_reporter(
  parts: program.Program, workdir: pathlib.Path, first_step: int
) -> Reporter:
  """The reporter of a run."""
  return Reporter(
    workdir,
    parts.run.report,
    every=parts.steps(parts.run.report.every),
    total_steps=parts.total_steps,
    batch_size=parts.run.input.batch_size,
    start_step=first_step,
    is_main=jax.process_index() == 0,
    describe=parts.source.describe,
  )


def make_evaluators(parts: program.Program) -> dict:
  """Name -> evaluator; without the optional ones whose data are absent.

  Raises:
    ConfigError: if an eval cannot be run, or none gives the best metric.
  """
  predict = step_lib.make_predict_fn(
    parts.model, parts.preprocess.on_device, parts.objective.inputs
  )
  model = subject.of_run(
    parts.run,
    parts.source,
    parts.num_classes,
    parts.preprocess,
    parts.spec["image"].shape[1:],
    parts.scale,
  )
  evals = {}
  for name, section in parts.run.evals.items():
    try:
      evals[name] = subject.make_evaluator(
        name, section, model, predict, parts.mesh
      )
    except DatasetNotPreparedError as e:
      if not section.optional:
        raise
      reason = str(e).splitlines()[0]
      logging.warning("config.evals.%s is left out: %s", name, reason)
    else:
      subject.trace(name, evals[name], parts.placed.weights)
  subject.check_metric(parts.run.checkpoint.best_metric, evals)
  return evals


def evaluate(
  evals: dict,
  names: Iterable[str],
  state: step_lib.TrainState,
  step: int,
  progress: Progress,
) -> dict[str, float]:
  """The metrics of these evals, also of the averaged parameters if kept."""
  results = {}
  with progress.paused("eval"):
    for name in names:
      with memory.explained(f"Use a smaller --config.evals.{name}.batch_size."):
        for metric, value in evals[name].run(state.weights):
          results[f"{name}/{metric}"] = value
        if state.ema_params is not None:
          for metric, value in evals[name].run(state.ema_params):
            results[f"{name}{subject.EMA_SUFFIX}/{metric}"] = value
  if results:
    logging.info("step %d · %s", step, format_metrics(results))
  return results


def items_of(state: step_lib.TrainState) -> dict:
  """The items of a checkpoint: the fields of the state that have arrays.

  The teacher is none of them.
  """
  fields = vars(without_teacher(state))
  return {name: x for name, x in fields.items() if jax.tree.leaves(x)}


def log_overview(parts: program.Program) -> None:
  """Logs the model, the data, the length of the run, and the optimizer."""
  run, source, total_steps = parts.run, parts.source, parts.total_steps
  logging.info(
    "Model: %s, %s parameters.",
    " ".join(f"{k}={v}" for k, v in run.model.items()),
    f"{sum(x.size for x in jax.tree.leaves(parts.abstract.params)):,}",
  )
  logging.info(
    "Training data: %s %s, %s examples, %s. %s steps of %d examples, "
    "%.1f epochs, on %d %s.",
    source.data,
    source.split,
    f"{source.num_examples:,}",
    describe_labels(run, source, parts.num_classes),
    f"{total_steps:,}",
    run.input.batch_size,
    total_steps * run.input.batch_size / source.num_examples,
    jax.device_count(),
    jax.devices()[0].device_kind,
  )
  for line in describe_classes(run, source, parts.num_classes):
    logging.info("%s", line)
  if parts.abstract.statistics and run.accumulation_steps > 1:
    logging.warning(
      "Batch normalisation sees each of the %d parts of a batch alone "
      "(config.accumulation_steps), so the run is not the one without parts: "
      "see docs/training.md#batch-normalisation.",
      run.accumulation_steps,
    )
  if parts.teaching is not None:
    teacher = parts.teaching.teacher
    logging.info("Teacher: %s.", teacher)
    if teacher.has_features and not run.distill.label_weight:
      logging.warning(
        "The head stays random: features alone are learned "
        "(config.distill.label_weight=0). Fine-tune the model afterwards, or "
        "use its features."
      )
  if parts.scale is not None:
    scaled = zip(source.class_names or (), *parts.scale, strict=True)
    for name, mean, deviation in scaled:
      logging.info(
        "Target %s: normalised by its mean %.6g and deviation %.6g in the "
        "training data; metrics and predictions are in its own units.",
        name,
        mean,
        deviation,
      )
  trained = parts.abstract.trained
  for line in optim.describe(trained, **run.optim, model=parts.model):
    logging.info("%s", line)


def check_fingerprint(saved: str, source) -> None:
  """Raises ConfigError if the training data is not what the run began with."""
  if saved != source.fingerprint:
    raise ConfigError(
      f"the training data {source.data} {source.split} has changed since this "
      "run began: files were added, removed or rewritten, or the run is older "
      "than today's rule of splits (docs/data.md#without-splits). Restore the "
      "data to resume, or start a new run with another --workdir."
    )


def format_metrics(results: dict[str, float]) -> str:
  """One line of metrics for people, without those of single classes."""
  return " · ".join(
    f"{name} {tables.text(value)}"
    for name, value in results.items()
    if "[" not in name
  )


if __name__ == "__main__":
  raise SystemExit(
    "vitjax.train is a library. To train: python -m vitjax.main --config=FILE"
  )
