"""Trains and evaluates one run: assembles the parts and runs the loop.

`vitjax.program` assembles the parts before any array exists, `vitjax.start`
finds or makes the arrays before the first step, and `vitjax.step` is a step.

What happens at a step is a function of (config, step) alone, and everything
recorded up to a step is on disk before the checkpoint of that step is. So a
run that is killed at any moment and started again ends as if nothing had
happened.
"""

import contextlib
import dataclasses
import pathlib
from collections.abc import Iterable

import jax
from absl import logging

from vitjax import checks, program, start, weights
from vitjax import step as step_lib
from vitjax.checkpoint.checkpointer import Checkpointer
from vitjax.checkpoint.patience import Patience
from vitjax.config.schema import RunConfig
from vitjax.data import pipeline, sources
from vitjax.evaluators import subject, tables
from vitjax.parallel import memory, preemption, processes, sharding
from vitjax.program import overview
from vitjax.program.compiled import Steps
from vitjax.program.evals import make_evaluators
from vitjax.run_folder import files, identity, lock
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
      overview.log(parts)
    checkpointer = stack.enter_context(make_checkpointer(parts, workdir))
    is_new = checkpointer.latest_step is None
    origin = start.origin_of(run, workdir, is_new=is_new)
    first_step, initial, saved = start.find_state(
      parts, checkpointer, workdir, origin.get("init", {})
    )
    patience = Patience(run.checkpoint, saved)
    info = identity.describe(workdir, run, source.fingerprint, saved)
    teacher = start.load_teacher(parts, saved)
    if teacher is not None:
      info["teacher"] = teacher.checksum
    if is_main:
      model_file = {**metadata, **origin}
      files.write(workdir, run, model_file, overview.table(parts), info["run"])
    feed = stack.enter_context(start.make_feed(parts, first_step, teacher))
    reporter = stack.enter_context(make_reporter(parts, workdir, first_step))

    def report(step, measured, index):
      check_lock(now=False)
      reporter.train_step(step, measured, index, checkpointer.latest_step)

    def save(step, results=None, *, is_last=False):
      check_lock()
      with reporter.saving(step):
        checkpointer.save(
          step,
          state.checkpoint_items,
          metrics=results,
          info=info | patience.info,
          is_last=is_last,
        )

    results = {}
    stop = stack.enter_context(preemption.StopRequest(first_step, total_steps))
    steps = Steps(parts)
    end = first_step if patience.is_over else total_steps
    if initial is not None and first_step == end:
      state = initial
      logging.info("This run is finished already; evaluating it once more.")
      results = evaluate(evals, evals, state, end, reporter.progress)
    else:
      compiled, step_memory, state = start.compile_with_state(parts, initial)
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


def format_metrics(results: dict[str, float]) -> str:
  """One line of metrics for people, without those of single classes."""
  return " · ".join(
    f"{name} {tables.text(value)}"
    for name, value in results.items()
    if "[" not in name
  )


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


if __name__ == "__main__":
  raise SystemExit(
    "vitjax.train is a library. To train: python -m vitjax.main --config=FILE"
  )
