"""Trains and evaluates one run: assembles the parts and runs the loop.

What happens at a step is a function of (config, step) alone, and everything
recorded up to a step is on disk before the checkpoint of that step is. So a
run that is killed at any moment and started again ends as if nothing had
happened.
"""

import contextlib
import math
import pathlib

import jax
from absl import logging
from clu import parameter_overview

from vitjax import build, optim, pretrained, program, weights
from vitjax import (
  step as step_lib,
)
from vitjax.checkpoint.checkpointer import Checkpointer
from vitjax.config.schema import ConfigError, RunConfig
from vitjax.data import device, pipeline, sources
from vitjax.data.sources.source import DatasetNotPreparedError
from vitjax.parallel import preemption, processes, sharding
from vitjax.run_folder import files
from vitjax.run_folder.clock import ProfilerWindow, Progress
from vitjax.run_folder.reader import seconds_spent
from vitjax.run_folder.writer import MetricsWriter

# What is where in a run folder, for the last lines of the log.
FILES = {
  "Checkpoints": "checkpoints",
  "Metrics": "metrics.jsonl",
  "TensorBoard": "tensorboard",
}


def train_and_evaluate(
  run: RunConfig, workdir: pathlib.Path
) -> dict[str, float]:
  """Trains until `run.total`; goes on from the last checkpoint if there is.

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
    DistributedError: if the processes of the run see different data.
  """
  build.check(run)
  is_main = jax.process_index() == 0
  if not is_main:
    logging.set_verbosity(logging.WARNING)
  mesh = sharding.make_mesh(**vars(run.mesh))
  build.check_batch_size(run, sharding.batch_parts(mesh))
  source = sources.open_source(
    run.input.data,
    run.input.split,
    data_dir=run.input.data_dir,
    cache=run.input.cache,
  )
  processes.check_alike("training data", source.fingerprint)
  parts = program.assemble(run, source, mesh)
  abstract, shardings = parts.abstract, parts.shardings
  preprocess, model, spec = parts.preprocess, parts.model, parts.spec
  num_classes, total_steps = parts.num_classes, parts.total_steps
  save_every = parts.steps(run.checkpoint.every)
  report_every = parts.steps(run.report.every)
  eval_every = {
    name: parts.steps(section.every) or total_steps
    for name, section in run.evals.items()
  }
  metadata = build.describe_model(run, num_classes, source, spec["image"].shape)
  if is_main:
    overview = parameter_overview.get_parameter_overview(
      abstract.params, include_stats=False
    )
    files.write(workdir, run, metadata, overview)
    log_overview(run, source, num_classes, total_steps, abstract.params)
    for line in optim.describe(abstract.params, **run.optim, model=model):
      logging.info("%s", line)

  with contextlib.ExitStack() as stack:
    checkpointer = stack.enter_context(
      Checkpointer(
        workdir / "checkpoints",
        keep_latest=2,  # one to fall back to if the newest is damaged
        keep_every_steps=parts.steps(run.checkpoint.keep_every),
        best_metric=run.checkpoint.best_metric,
        best_mode=run.checkpoint.best_mode,
        max_failures=run.checkpoint.max_failures,
      )
    )
    # Our own checkpoint first: a run that is restarted must not start over.
    restored = checkpointer.restore(
      items_of(
        jax.tree.map(
          lambda x, s: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=s),
          abstract,
          shardings,
        )
      )
    )
    if restored is None and run.init.weights is not None:
      first_step = 0
      params = pretrained.load(run, model, spec["image"].shape)
      params = jax.device_put(params, shardings.params)
      state = jax.jit(parts.make_state, out_shardings=shardings)(params)
    elif restored is None:
      first_step = 0
      state = jax.jit(
        lambda key: parts.make_state(parts.init_params(key)),
        out_shardings=shardings,
      )(jax.random.key(run.seed))
    else:
      first_step, items, info = restored
      state = step_lib.TrainState(**items)
      check_fingerprint(info["fingerprint"], source)
      logging.info("Going on after step %d of %d.", first_step, total_steps)

    predict = step_lib.make_predict_fn(
      model, preprocess.on_device, parts.objective.inputs
    )
    evals = make_evaluators(run, source, predict, mesh)
    feed = stack.enter_context(
      device.to_device(
        pipeline.train_batches(
          source,
          preprocess,
          batch_size=run.input.batch_size,
          repeats=run.input.repeats,
          prefetch=run.input.prefetch,
          seed=run.seed,
          start_step=first_step,
          total_steps=total_steps,
          process_index=jax.process_index(),
          process_count=jax.process_count(),
        ),
        sharding.over_batch(mesh),
        prefetch=run.input.prefetch,
      )
    )
    spent = seconds_spent(workdir, first_step) if is_main else {}
    writer = stack.enter_context(
      MetricsWriter(workdir, start_step=first_step, is_main=is_main)
    )
    profiler = ProfilerWindow(
      workdir / "profile",
      run.report.profile_first_step or 0,
      run.report.profile_num_steps
      * (run.report.profile_first_step is not None and is_main),
    )
    stack.callback(profiler.close)
    progress = Progress(
      total_steps, run.input.batch_size, start_step=first_step, before=spent
    )

    def report(step, measured, index):
      measured = jax.device_get(measured)
      for name in ("train/loss", "train/param_norm"):
        if not math.isfinite(measured[name]):
          latest = checkpointer.latest_step
          examples = sharding.to_host(index).tolist()
          if is_main:
            files.write_divergence(
              workdir, step, measured, latest, examples, source.describe
            )
          kept = "No checkpoint" if latest is None else f"Step {latest}"
          raise FloatingPointError(
            f"{name} is {measured[name]} at step {step}; training stops. "
            f"{kept} was saved before. {files.DIVERGENCE} lists the "
            "examples of the step. Usual causes: a learning rate that is too "
            "high, a warm-up that is too short, or no "
            "config.optim.grad_clip_norm."
          )
      if step % report_every == 0 or step == total_steps:
        writer.write(step, measured)
        writer.write_timing(step, progress.scalars())
        shown = {"loss": measured["train/loss"]}
        shown["lr"] = measured["train/learning_rate"]
        logging.info("%s", progress.line(step, shown))

    def evaluate(names, step):
      results = {}
      with progress.paused("eval"):
        for name in names:
          for metric, value in evals[name].run(state.params):
            results[f"{name}/{metric}"] = value
          if state.ema_params is not None:
            for metric, value in evals[name].run(state.ema_params):
              results[f"{name}{build.EMA_SUFFIX}/{metric}"] = value
      if results:
        logging.info("step %d · %s", step, format_metrics(results))
      return results

    def save(step, results=None, *, is_last=False):
      writer.write_timing(step, progress.scalars())
      with progress.paused("checkpoint"):
        writer.flush()  # the record of a step is on disk before its state
        checkpointer.save(
          step,
          items_of(state),
          metrics=results,
          info={"fingerprint": source.fingerprint},
          is_last=is_last,
        )

    results = {}
    if first_step == total_steps:
      logging.info("This run is finished already; evaluating it once more.")
      results = evaluate(evals, total_steps)
    stop = stack.enter_context(preemption.StopRequest())
    pending = None  # metrics of the step before, still on the device
    for step in range(first_step + 1, total_steps + 1):
      profiler.update(step - 1, wait_for=state.step)
      try:
        with progress.waiting():
          batch = next(feed)
      except pipeline.InputError:
        if step > 1 and jax.process_count() == 1:
          if pending:
            report(*pending)
          # The data can be mended and the run go on.
          save(step - 1, is_last=True)
        raise
      with jax.transfer_guard("disallow"):
        state, measured = parts.train_step(state, batch)
      progress.update(step)
      if pending:
        report(*pending)
      pending = step, measured, batch["index"]

      is_last = step == total_steps
      stopping = stop.after(step)  # asked once: it may come while it saves
      names = [n for n in evals if is_last or step % eval_every[n] == 0]
      is_save = is_last or step % save_every == 0 or bool(stopping)
      is_save |= bool(names and run.checkpoint.best_metric)
      if names or is_save:
        report(*pending)
        pending = None
      if names:
        results = evaluate(names, step)
        writer.write(step, results)
      if is_save:
        last = is_last or bool(stopping)
        save(step, results if names else None, is_last=last)
      if stopping and not is_last:
        raise preemption.Preempted(
          f"Stopped by {stopping} after step {step} of {total_steps}; "
          "everything is saved. Run the same command again to go on."
        )
    logging.info("Time: %s", progress.summary())

  if run.export_npz:
    params = sharding.to_host(state.params)
    if is_main:
      weights.save(workdir / "params.npz", params, model, metadata=metadata)
      logging.info("Weights: %s", workdir / "params.npz")
  if is_main:
    for title, file in FILES.items():
      logging.info("%s: %s", title, workdir / file)
  return results


def make_evaluators(run: RunConfig, source, predict, mesh) -> dict:
  """Name -> evaluator; without the optional ones whose data is not there."""
  model, evals = build.subject(run, source), {}
  for name, section in run.evals.items():
    try:
      evals[name] = build.make_evaluator(name, section, model, predict, mesh)
    except DatasetNotPreparedError as e:
      if not section.optional:
        raise
      reason = str(e).splitlines()[0]
      logging.warning("config.evals.%s is left out: %s", name, reason)
  return evals


def items_of(state: step_lib.TrainState) -> dict:
  """What a checkpoint holds: the fields that this run has."""
  return {name: x for name, x in vars(state).items() if x is not None}


def log_overview(
  run: RunConfig, source, num_classes: int | None, total_steps: int, params
) -> None:
  """Says what is about to happen."""
  logging.info(
    "Model: %s, %s parameters.",
    " ".join(f"{k}={v}" for k, v in run.model.items()),
    f"{sum(x.size for x in jax.tree.leaves(params)):,}",
  )
  logging.info(
    "Training data: %s %s, %s examples, %s. %s steps of %d examples, "
    "%.1f epochs, on %d %s.",
    source.data,
    source.split,
    f"{source.num_examples:,}",
    "with texts" if num_classes is None else f"{num_classes} classes",
    f"{total_steps:,}",
    run.input.batch_size,
    total_steps * run.input.batch_size / source.num_examples,
    jax.device_count(),
    jax.devices()[0].device_kind,
  )


def check_fingerprint(saved: str, source) -> None:
  """Raises ConfigError if the training data is not what the run began with."""
  if saved != source.fingerprint:
    raise ConfigError(
      f"the training data {source.data} {source.split} has changed since this "
      "run began (files were added, removed or rewritten), so it cannot go on "
      "as if nothing had happened. Restore the data, or start a new run with "
      "another --workdir."
    )


def format_metrics(results: dict[str, float]) -> str:
  """One line of metrics for people."""
  return " · ".join(
    f"{name} {value:,}" if isinstance(value, int) else f"{name} {value:.4f}"
    for name, value in results.items()
  )
