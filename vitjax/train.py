"""Trains and evaluates one run: assembles the parts and runs the loop.

What happens at step t is a function of (config, t) alone, and everything that
is recorded up to t is on disk before the checkpoint of t is, so a run that is
killed at any moment and started again ends as if nothing had happened.
"""

import importlib.metadata
import json
import pathlib
import platform
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from typing import Any

import jax
import numpy as np
from absl import logging
from clu import parameter_overview

from vitjax import checkpoint
from vitjax import config as config_lib
from vitjax import evaluators
from vitjax import losses
from vitjax import metrics as metrics_lib
from vitjax import models
from vitjax import optim
from vitjax import sharding
from vitjax import step as step_lib
from vitjax import trained
from vitjax.config import ConfigError, RunConfig, to_steps
from vitjax.data import device, pipeline, sources
from vitjax.data.pp import builder
from vitjax.evaluators import base
from vitjax.optim import schedules

PACKAGES = (
  "vitjax",
  "jax",
  "jaxlib",
  "flax",
  "optax",
  "orbax-checkpoint",
  "tensorflow",
  "tensorflow-cpu",
  "tensorflow-datasets",
  "numpy",
)


class Preempted(Exception):
  """The run was told to stop, and has saved its state."""


def check(run: RunConfig) -> None:
  """Checks the open sections against what will read them.

  Raises:
    ConfigError: with everything that is wrong.
  """
  errors = []

  def attempt(fn, *args):
    try:
      return fn(*args)
    except ValueError as e:
      errors.append(str(e))

  def check_section(options_of, section, path):
    known = attempt(options_of, section["name"])
    if known is not None:
      section = {k: v for k, v in section.items() if k != "name"}
      known = {k: v for k, v in known.items() if k != "name"}
      errors.extend(config_lib.check_call(known, section, path))

  check_section(models.options, run.model, "model")
  check_section(optim.options, run.optim, "optim")
  if "learning_rate" not in run.optim:
    errors.append("config.optim.learning_rate is missing.")
  if run.loss not in losses.LOSSES:
    errors.append(
      f"config.loss={run.loss!r} is not one of {', '.join(losses.LOSSES)}."
    )
  attempt(builder.build, run.input.pp)
  for name, section in run.evals.items():
    attempt(builder.build, section.pp)
    evaluator = attempt(evaluators.find, section.type)
    if evaluator is not None:
      errors += config_lib.check_call(
        evaluator.__init__,
        section.options,
        f"evals.{name}",
        filled=("self", "predict_fn", "data", "loss"),
      )
  config_lib.fail_on(errors)


def train_and_evaluate(run: RunConfig, workdir: pathlib.Path) -> dict:
  """Trains until `run.total`, or goes on from the last checkpoint.

  Args:
    run: a resolved config.
    workdir: where the run keeps everything; created if it does not exist.

  Returns:
    The metrics of the last evaluation.

  Raises:
    ConfigError: if the config cannot be run, or is not that of the workdir.
    Preempted: on SIGTERM or SIGINT, after a checkpoint was saved.
    FloatingPointError: if the loss is not finite.
  """
  check(run)
  is_main = jax.process_index() == 0
  mesh = sharding.make_mesh(run.mesh.data, run.mesh.fsdp)
  check_batch_size(run, jax.device_count(), jax.process_count())

  # Data.
  source = sources.open_source(
    run.input.data, run.input.split, data_dir=run.input.data_dir
  )
  preprocess = builder.build(run.input.pp)
  num_classes = run.num_classes or source.num_classes
  if not num_classes or num_classes < (source.num_classes or 0):
    raise ConfigError(
      f"config.num_classes={run.num_classes}, but {source.data} has "
      f"{source.num_classes or 'no'} classes. Set config.num_classes."
    )
  logging.info(
    "Training on %s, %s: %s examples, %d classes.",
    source.data, source.split, f"{source.num_examples:,}", num_classes,
  )  # fmt: skip

  # Durations in steps.
  def steps(duration, total=None):
    return duration and to_steps(
      duration,
      batch_size=run.input.batch_size,
      num_examples=source.num_examples,
      total_steps=total,
    )

  total_steps = steps(run.total)
  schedule = schedules.make_schedule(
    run.schedule.decay,
    total_steps=total_steps,
    warmup_steps=steps(run.schedule.warmup, total_steps) or 0,
    end_value=run.schedule.end_value,
    timescale_steps=steps(run.schedule.timescale, total_steps) or 10_000,
  )
  save_every = steps(run.checkpoint.every, total_steps)
  report_every = steps(run.report.every, total_steps)

  # Model, optimizer and the shape of the state.
  model = create_model(run, num_classes)
  tx = optim.make_optimizer(**run.optim, schedule=schedule)
  spec = pipeline.example_spec(source, preprocess, run.input.batch_size)
  init = step_lib.make_init_fn(model, tx, spec["image"].shape)
  key = jax.random.key(run.seed)
  abstract = jax.eval_shape(init, key)
  shardings = sharding.of_state(abstract, run.sharding, mesh)
  if is_main:
    logging.info(
      "Parameters:\n%s",
      parameter_overview.get_parameter_overview(
        abstract.params, include_stats=False
      ),
    )

  # The run folder.
  if is_main:
    write_run_files(run, workdir, model, num_classes, source, spec)
  checkpointer = checkpoint.Checkpointer(
    workdir / "checkpoints",
    keep_every_steps=steps(run.checkpoint.keep_every, total_steps),
    best_metric=run.checkpoint.best_metric,
    best_mode=run.checkpoint.best_mode,
  )
  restored = checkpointer.restore(_items(_with_sharding(abstract, shardings)))
  if restored is None:
    state = jax.jit(init, out_shardings=shardings)(key)
    first_step = 0
  else:
    first_step, items, info = restored
    state = step_lib.TrainState(**items)
    check_same_data(info["fingerprint"], source)
    logging.info("Resuming after step %d of %d.", first_step, total_steps)
  writer = metrics_lib.MetricsWriter(
    workdir, start_step=first_step, is_main=is_main
  )

  # Evaluators.
  predict_fn = step_lib.make_predict_fn(model, preprocess_on_device(run))
  evals = {
    name: make_evaluator(run, name, source, num_classes, mesh)
    for name in run.evals
  }
  due = {
    name: steps(section.every, total_steps) or total_steps
    for name, section in run.evals.items()
  }
  del predict_fn
