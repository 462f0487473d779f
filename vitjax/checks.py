"""Everything that can be wrong with a config, as one report.

The schema finds wrong keys and types; this file asks those who will read the
open sections, and looks at what does not fit together. Nothing is allocated
and no data is opened.
"""

from collections.abc import Mapping
from typing import Any

import jax

from vitjax import evaluators, losses, models, optim
from vitjax.config import schema
from vitjax.config.schema import ConfigError, RunConfig, split_name
from vitjax.data.pp import builder
from vitjax.evaluators.subject import EMA_SUFFIX


def check(run: RunConfig) -> None:
  """Raises ConfigError with all `problems` of a config, if there are any."""
  schema.fail_on(problems(run))


def problems(run: RunConfig) -> list[str]:
  """What is wrong with the open sections, by those who will read them."""
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
      errors += schema.check_call(known, section, path)
  if "learning_rate" not in run.optim:
    errors.append("config.optim.learning_rate is missing.")
  model = None
  if not errors:
    name, section = split_name(run.model)
    model = attempt("config.model", lambda: models.create(name, **section))
    attempt(
      "config.optim",
      lambda: optim.make_optimizer(**run.optim, schedule=lambda step: 1.0),
    )
  two_towers = run.loss in losses.CONTRASTIVE
  known = [*losses.LOSSES, *losses.CONTRASTIVE]
  if run.loss not in known:
    errors.append(f"config.loss={run.loss!r} is not one of {', '.join(known)}.")
  elif model is not None and has_two_towers(model) != two_towers:
    kind = "is not two_tower" if two_towers else "has two towers"
    other = losses.LOSSES if two_towers else losses.CONTRASTIVE
    errors.append(
      f"config.loss={run.loss!r} does not fit config.model.name="
      f"{run.model['name']!r}, which {kind}: use one of {', '.join(other)}."
    )
  preprocess = attempt("config.input.pp", builder.build, run.input.pp)
  if two_towers:
    errors += check_contrastive(run, model, preprocess)
  for name, section in run.evals.items():
    errors += eval_problems(
      f"evals.{name}",
      section,
      two_towers=two_towers,
      pixel_statistics=preprocess and preprocess.pixel_statistics,
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
  elif best is not None:
    name = best.partition("/")[0]
    section = run.evals.get(name) or run.evals[name.removesuffix(EMA_SUFFIX)]
    if section.optional:
      errors.append(
        f"config.checkpoint.best_metric={best!r} is of an eval that is left "
        "out if its data is not there. Set its optional=False."
      )
  return errors


def eval_problems(
  path: str,
  section: schema.Eval,
  *,
  two_towers: bool,
  pixel_statistics: Mapping[str, Any] | None,
) -> list[str]:
  """What is wrong with one eval of a model.

  Args:
    path: of the section, for the messages.
    section: the eval.
    two_towers: whether the model has two.
    pixel_statistics: what the model was trained on, see `pp.builder`; None if
      that is not known.
  """
  errors: list[str] = []
  try:
    preprocess = builder.build(section.pp)
  except ValueError as e:
    errors.append(f"config.{path}.pp: {e}")
  else:
    if pixel_statistics not in (None, preprocess.pixel_statistics):
      errors.append(
        f"config.{path}.pp={section.pp!r} normalises images otherwise than "
        "those of training were: the model would not see what it was trained "
        "on. End it with the value_range or normalize of training."
      )
  try:
    evaluator = evaluators.find(section.type)
  except ValueError as e:
    return [*errors, f"config.{path}.type: {e}"]
  filled = ("self", "predict_fn", "data", *evaluators.FILLED)
  errors += schema.check_call(
    evaluator.__init__, section.options, path, filled=filled
  )
  needs = getattr(evaluator, "two_towers", two_towers)
  if needs != two_towers:
    errors.append(
      f"config.{path}.type={section.type!r} needs a model with "
      f"{'two towers' if needs else 'class logits'}, and this one has none."
    )
  return errors


def has_two_towers(model) -> bool:
  """Whether it obeys the contract of `models.two_tower`."""
  return hasattr(model, "text_tower")


def check_contrastive(run: RunConfig, model, preprocess) -> list[str]:
  """What is wrong with a run on images and texts; see `check` for Args."""
  errors = []
  where = f"with config.loss={run.loss!r}"
  if run.accumulation_steps > 1:
    errors.append(
      f"config.accumulation_steps={run.accumulation_steps} {where}: all images "
      "of a batch are compared with all its texts, so it has to be whole. Use "
      "1 and a smaller config.input.batch_size."
    )
  for name in ("num_classes", "target_threshold"):
    if getattr(run, name) is not None:
      errors.append(f"config.{name} {where}: there are no classes. Remove it.")
  if run.mixing != schema.Mixing():
    errors.append(f"config.mixing {where}: there are no labels. Remove it.")
  if preprocess is None:
    return errors
  if preprocess.tokenize is None:
    errors.append(
      f"config.input.pp {where} has to end with texts: add an op such as "
      "tokenize('bert', 'vocab.txt', max_len=16)."
    )
  elif model is not None and has_two_towers(model):
    have = model.text_tower().vocab_size
    need = preprocess.tokenize.tokenizer.vocab_size
    if have < need:
      errors.append(
        f"config.model.text.vocab_size={have}, but the tokenizer of "
        f"config.input.pp has {need} ids. Use {need}."
      )
  return errors


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
