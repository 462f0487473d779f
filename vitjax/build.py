"""Builds the parts of a run from its config, and checks that they can be.

The commands share these: what trains a model and what evaluates it later have
to agree on every one of them.
"""

from typing import Any

import jax

from vitjax import config as config_lib
from vitjax import evaluators, losses, models, optim
from vitjax.config import ConfigError, RunConfig
from vitjax.data import sources
from vitjax.data.pp import builder
from vitjax.evaluators.base import EvalData

# Behind the name of an eval, where it is of the averaged parameters.
EMA_SUFFIX = "_ema"


def check(run: RunConfig) -> None:
  """Checks the open sections against what will read them.

  Raises:
    ConfigError: with everything that is wrong.
  """
  errors: list[str] = []

  def attempt(where, fn, *args):
    try:
      return fn(*args)
    except ValueError as e:
      errors.append(f"{where}: {e}")

  for path, package in (("model", models), ("optim", optim)):
    name, section = split_name(getattr(run, path))
    known = attempt(f"config.{path}.name", package.options, name)
    if known is not None:
      errors += config_lib.check_call(known, section, path)
  if "learning_rate" not in run.optim:
    errors.append("config.optim.learning_rate is missing.")
  if not errors:
    name, section = split_name(run.model)
    attempt("config.model", lambda: models.create(name, **section))
    attempt(
      "config.optim",
      lambda: optim.make_optimizer(**run.optim, schedule=lambda step: 1.0),
    )
  if run.loss not in losses.LOSSES:
    errors.append(
      f"config.loss={run.loss!r} is not one of {', '.join(losses.LOSSES)}."
    )
  attempt("config.input.pp", builder.build, run.input.pp)
  for name, section in run.evals.items():
    where = f"config.evals.{name}"
    attempt(f"{where}.pp", builder.build, section.pp)
    evaluator = attempt(f"{where}.type", evaluators.find, section.type)
    if evaluator is not None:
      filled = ("self", "predict_fn", "data", "loss")
      errors += config_lib.check_call(
        evaluator.__init__, section.options, f"evals.{name}", filled=filled
      )
  best = run.checkpoint.best_metric
  known = list(run.evals)
  if run.ema.decay is not None:
    known += [f"{name}{EMA_SUFFIX}" for name in run.evals]
  if best is not None and best.partition("/")[0] not in known:
    errors.append(
      f"config.checkpoint.best_metric={best!r} names no eval. Use EVAL/METRIC "
      f"with EVAL one of {', '.join(known) or '(there are none)'}."
    )
  config_lib.fail_on(errors)


def split_name(section: Any) -> tuple[str, dict[str, Any]]:
  """The `name` of an open section, and the rest of it."""
  rest = dict(section)
  return rest.pop("name"), rest


def check_batch_size(run: RunConfig, num_devices: int) -> None:
  """Raises ConfigError if the batch does not divide over the devices."""
  size, parts = run.input.batch_size, run.accumulation_steps * num_devices
  if size % parts:
    lower = size // parts * parts
    choices = [str(n) for n in (lower, lower + parts) if n]
    accumulated = (
      f" times config.accumulation_steps={run.accumulation_steps}"
      if run.accumulation_steps > 1
      else ""
    )
    raise ConfigError(
      f"config.input.batch_size={size} does not divide over {num_devices} "
      f"devices ({jax.process_count()} hosts x {jax.local_device_count()})"
      f"{accumulated}. Use {' or '.join(choices)}."
    )


def number_of_classes(run: RunConfig, source: sources.Source) -> int:
  """The width of the head: the config's, or that of the training data.

  Raises:
    ConfigError: if neither says, or the data has more classes than that.
  """
  num_classes = run.num_classes or source.num_classes
  if not num_classes or num_classes < (source.num_classes or 0):
    raise ConfigError(
      f"config.num_classes={run.num_classes}, but {source.data} has "
      f"{source.num_classes or 'no known number of'} classes."
    )
  return num_classes


def create_model(section: Any, num_classes: int):
  """The model; bfloat16 compute on TPU and GPU, float32 on a CPU."""
  dtype = "float32" if jax.default_backend() == "cpu" else "bfloat16"
  name, options = split_name(section)
  return models.create(
    name, **{"dtype": dtype, "num_classes": num_classes, **options}
  )


def describe_model(
  run: RunConfig, num_classes: int, source: sources.Source, image_shape
) -> dict[str, Any]:
  """What it takes to use the parameters, as plain data for `model.json`.

  The preprocessing is that of the first eval: how images are meant to be
  seen after training.
  """
  first = next(iter(run.evals.values()), run.input)
  return {
    "model": {"num_classes": num_classes, **run.model},
    "image_size": list(image_shape[1:3]),
    "channels": image_shape[3],
    "preprocess": first.pp,
    "class_names": source.class_names and list(source.class_names),
    "data": source.data,
    "loss": run.loss,
  }


def make_evaluator(
  section: config_lib.Eval,
  run: RunConfig,
  predict_fn,
  source: sources.Source,
  mesh: jax.sharding.Mesh,
):
  """The evaluator of one section of `config.evals`.

  What the section leaves out is taken from `config.input`.

  Raises:
    ConfigError: if the eval set has more classes than the model.
  """
  same = section.data in (None, run.input.data)
  eval_source = sources.open_source(
    section.data or run.input.data,
    section.split,
    data_dir=section.data_dir or run.input.data_dir,
    class_names=source.class_names if same else None,
  )
  num_classes = number_of_classes(run, source)
  if (eval_source.num_classes or 0) > num_classes:
    raise ConfigError(
      f"{eval_source.data} has {eval_source.num_classes} classes, but the "
      f"model only {num_classes}: set config.num_classes, or evaluate on other "
      "data."
    )
  # Any multiple of the number of devices will do: metrics do not depend on it.
  batch_size = section.batch_size or run.input.batch_size
  batch_size += -batch_size % mesh.size
  return evaluators.find(section.type)(
    predict_fn,
    EvalData(eval_source, builder.build(section.pp), batch_size, mesh),
    loss=run.loss,
    **section.options,
  )
