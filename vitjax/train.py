"""Trains and evaluates one run: assembles the parts and runs the loop.

What happens at a step is a function of (config, step) alone, and everything
recorded up to a step is on disk before the checkpoint of that step is. So a
run that is killed at any moment and started again ends as if nothing had
happened.
"""

import pathlib
import signal
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from absl import logging
from clu import parameter_overview

from vitjax import (
  checkpoint,
  evaluators,
  losses,
  metrics,
  models,
  optim,
  run_folder,
  sharding,
  weights,
)
from vitjax import config as config_lib
from vitjax import step as step_lib
from vitjax.config import ConfigError, RunConfig
from vitjax.data import device, pipeline, sources
from vitjax.data.pp import builder
from vitjax.evaluators.base import EvalData
from vitjax.optim import schedules


class Preempted(Exception):
  """The run was told to stop, and has saved its state."""


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
    Preempted: on SIGTERM or Ctrl-C; the state is saved before.
    FloatingPointError: if the loss is not finite.
    CheckpointError: if a checkpoint cannot be written or read.
  """
  check(run)
  is_main = jax.process_index() == 0
  mesh = sharding.make_mesh(run.mesh.data, run.mesh.fsdp)
  check_batch_size(run, mesh.size)

  source = sources.open_source(
    run.input.data, run.input.split, data_dir=run.input.data_dir
  )
  num_classes = number_of_classes(run, source)
  preprocess = builder.build(run.input.pp)
  spec = pipeline.example_spec(source, preprocess, run.input.batch_size)

  def steps(duration, total=None):
    return duration and config_lib.to_steps(
      duration,
      batch_size=run.input.batch_size,
      num_examples=source.num_examples,
      total_steps=total,
    )

  total_steps = steps(run.total)
  save_every = steps(run.checkpoint.every, total_steps)
  report_every = steps(run.report.every, total_steps)
  eval_every = {
    name: steps(section.every, total_steps) or total_steps
    for name, section in run.evals.items()
  }
  schedule = schedules.make_schedule(
    run.schedule.decay,
    total_steps=total_steps,
    warmup_steps=steps(run.schedule.warmup, total_steps) or 0,
    end_value=run.schedule.end_value,
    timescale_steps=steps(run.schedule.timescale, total_steps) or 10_000,
  )

  model = create_model(run, num_classes)
  tx = optim.make_optimizer(**run.optim, schedule=schedule)
  init = step_lib.make_init_fn(model, tx, spec["image"].shape)
  key = jax.random.key(run.seed)
  abstract = jax.eval_shape(init, key)
  shardings = sharding.of_state(abstract, run.sharding, mesh)
  metadata = describe_model(run, num_classes, source, spec)
  if is_main:
    run_folder.write(workdir, run, metadata)
    log_overview(run, source, num_classes, total_steps, abstract.params)

  with checkpoint.Checkpointer(
    workdir / "checkpoints",
    keep_every_steps=steps(run.checkpoint.keep_every, total_steps),
    best_metric=run.checkpoint.best_metric,
    best_mode=run.checkpoint.best_mode,
  ) as checkpointer:
    # Our own checkpoint first: a restarted run must not start over.
    wanted = jax.tree.map(
      lambda x, s: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=s),
      abstract,
      shardings,
    )
    restored = checkpointer.restore(vars(wanted))
    if restored is None:
      state = jax.jit(init, out_shardings=shardings)(key)
      first_step = 0
    else:
      first_step, items, info = restored
      state = step_lib.TrainState(**items)
      check_fingerprint(info["fingerprint"], source)
      logging.info("Going on after step %d of %d.", first_step, total_steps)

    predict = step_lib.make_predict_fn(model, preprocess.on_device)
    evals = {
      name: make_evaluator(section, run, predict, source, num_classes, mesh)
      for name, section in run.evals.items()
    }
    writer = metrics.MetricsWriter(
      workdir, start_step=first_step, is_main=is_main
    )
    progress = metrics.Progress(total_steps, run.input.batch_size)
    profiler = metrics.ProfilerWindow(
      workdir, run.report.profile_first_step, run.report.profile_num_steps
    )

    train_step = jax.jit(
      step_lib.make_train_step(
        model,
        tx,
        loss_fn=losses.LOSSES[run.loss],
        normalise=preprocess.on_device,
        num_classes=num_classes,
        seed=run.seed,
        schedule=lambda t: schedule(t) * run.optim["learning_rate"],
        mixup_alpha=run.mixing.mixup_alpha,
        label_smoothing=run.mixing.label_smoothing,
        accumulation_steps=run.accumulation_steps,
      ),
      donate_argnums=0,
      in_shardings=(shardings, sharding.over_batch(mesh)),
      out_shardings=(shardings, sharding.replicated(mesh)),
    )
    feed = device.to_device(
      pipeline.train_batches(
        source,
        preprocess,
        batch_size=run.input.batch_size,
        seed=run.seed,
        start_step=first_step,
        total_steps=total_steps,
        process_index=jax.process_index(),
        process_count=jax.process_count(),
      ),
      sharding.over_batch(mesh),
    )

    def report(step, measured):
      measured = jax.device_get(measured)
      for name in ("train/loss", "train/param_norm"):
        if not jnp.isfinite(measured[name]):
          raise FloatingPointError(
            f"{name} is {measured[name]} at step {step}; training stops. The "
            f"last checkpoint is step {checkpointer.latest_step}. Usual "
            "causes: a learning rate that is too high, a warm-up that is too "
            "short, or no config.optim.grad_clip_norm."
          )
      if step % report_every == 0 or step == total_steps:
        writer.write(step, measured)
        logging.info("%s", progress.line(step, **measured))

    def evaluate(names, step):
      results = {}
      with progress.paused("eval"):
        for name in names:
          for metric, value in evals[name].run(state.params):
            results[f"{name}/{metric}"] = value
      if results:
        logging.info("step %d · %s", step, format_metrics(results))
      return results

    def save(step, results=None):
      writer.flush()  # the record of this step is on disk before its state
      with progress.paused("checkpoint"):
        checkpointer.save(
          step,
          vars(state),
          metrics=results,
          info={"fingerprint": source.fingerprint},
        )

    if first_step == total_steps:
      logging.info("This run is already finished; evaluating it.")
      results = evaluate(evals, first_step)
      finish(run, workdir, checkpointer, results)
      return results

    pending = None  # metrics of the step before, still on the device
    results = {}
    with StopRequest() as stop:
      for step in range(first_step + 1, total_steps + 1):
        try:
          with progress.paused("input"):
            batch = next(feed)
        except pipeline.InputError:
          if jax.process_count() == 1 and step > 1:
            save(step - 1)
          raise
        with jax.transfer_guard("disallow"):
          state, measured = train_step(state, batch)
        if pending:
          report(*pending)
        pending = step, measured

        is_last = step == total_steps
        names = [n for n in evals if is_last or step % eval_every[n] == 0]
        is_save = is_last or step % save_every == 0 or stop.requested
        is_save |= bool(names and run.checkpoint.best_metric)
        if names or is_save:
          report(*pending)
          pending = None
        if names:
          results = evaluate(names, step)
          writer.write(step, results)
        if is_save:
          save(step, results if names else None)
        if stop.requested and not is_last:
          checkpointer.wait()
          raise Preempted(
            f"Stopped by {stop.requested} after step {step} of {total_steps}; "
            "everything is saved. Run the same command again to go on."
          )
    checkpointer.wait()
    finish(run, workdir, checkpointer, results)
    return results


def log_overview(
  run: RunConfig, source, num_classes: int, total_steps: int, params
) -> None:
  """Says what is about to happen."""
  logging.info(
    "Parameters:\n%s",
    parameter_overview.get_parameter_overview(params, include_stats=False),
  )
  logging.info(
    "Training data: %s %s, %s examples, %d classes. %s steps of %d examples, "
    "%.1f epochs, on %d %s.",
    source.data,
    source.split,
    f"{source.num_examples:,}",
    num_classes,
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
