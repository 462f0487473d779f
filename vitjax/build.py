"""Builds the parts of a run from its config, and checks that they can be.

The commands share these: what trains a model and what evaluates it later have
to agree on every one of them.
"""

import dataclasses
import functools
import inspect
from collections.abc import Mapping
from typing import Any

import jax

from vitjax import evaluators, losses, mixing, models, objectives, optim
from vitjax.config import schema
from vitjax.config.schema import ConfigError, RunConfig
from vitjax.data import sources, tokenizers
from vitjax.data.pp import builder
from vitjax.data.sources.source import DatasetNotPreparedError, Source
from vitjax.evaluators.base import EvalData
from vitjax.evaluators.classes import Classes

# Behind the name of an eval, where it is of the averaged parameters.
EMA_SUFFIX = "_ema"


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


def number_of_classes(run: RunConfig, source: Source) -> int | None:
  """The width of the head: the config's, or that of the training data.

  None if the run has no classes but texts.

  Raises:
    ConfigError: if neither says, or the data has more classes than that.
  """
  if run.loss in losses.CONTRASTIVE:
    return None
  num_classes = run.num_classes or source.num_classes
  if not num_classes or num_classes < (source.num_classes or 0):
    raise ConfigError(
      f"config.num_classes={run.num_classes}, but {source.data} has "
      f"{source.num_classes or 'no known number of'} classes."
    )
  return num_classes


def default_dtype(platform: str) -> str:
  """Of computation: bfloat16 on TPU and GPU, float32 on a CPU."""
  return "float32" if platform == "cpu" else "bfloat16"


def create_model(section: Any, num_classes: int | None, platform: str):
  """The model, computing in `default_dtype`."""
  dtype = default_dtype(platform)
  name, options = split_name(section)
  return models.create(
    name, **{"dtype": dtype, **_head(num_classes), **options}
  )


def _head(num_classes: int | None) -> dict[str, int]:
  return {} if num_classes is None else {"num_classes": num_classes}


def make_objective(run: RunConfig, model, num_classes: int | None):
  """What the run makes small, see `vitjax.objectives`."""
  if run.loss in losses.CONTRASTIVE:
    return objectives.contrastive(model, loss_fn=losses.CONTRASTIVE[run.loss])
  return objectives.classification(
    model,
    loss_fn=losses.LOSSES[run.loss],
    num_classes=num_classes,
    augment=functools.partial(
      mixing.augment,
      **vars(run.mixing),
      target_threshold=run.target_threshold,
    ),
  )


def describe_model(
  run: RunConfig, num_classes: int | None, source: Source, image_shape
) -> dict[str, Any]:
  """What it takes to use the parameters, as plain data for `model.json`.

  The preprocessing is that of the first eval on the data of training: how
  images are meant to be seen afterwards. The tokenizer is that of training.
  """
  first = next(
    filter(functools.partial(_is_own, run), run.evals.values()), None
  )
  first = first or next(iter(run.evals.values()), run.input)
  metadata = {
    "model": {**_head(num_classes), **run.model},
    "image_size": list(image_shape[1:3]),
    "channels": image_shape[3],
    "preprocess": first.pp,
    "class_names": source.class_names and list(source.class_names),
    "data": source.data,
    "loss": run.loss,
  }
  tokenize = builder.build(run.input.pp).tokenize
  if tokenize is not None:
    metadata["tokenizer"] = tokenize.facts
  return metadata


def _is_own(run: RunConfig, section: schema.Eval) -> bool:
  """Whether an eval is of what is trained: its data, and its classes."""
  own_classes = getattr(evaluators.find(section.type), "own_classes", False)
  return section.data in (None, run.input.data) and not own_classes


@dataclasses.dataclass(frozen=True)
class Subject:
  """What evaluators have to know of a model, and what evals leave out.

  Attributes:
    data: what it was trained on, if known.
    data_dir: where TFDS looks for it.
    cache: whether decoded images are kept, see `sources.open_source`.
    batch_size: of evals that do not say.
    num_classes: of its head; None without classes.
    class_names: of the head, if known.
    loss: of training, by name.
    pixel_statistics: how images are normalised for it, see `pp.builder`.
    tokenizer: of its texts, if it reads texts.
  """

  data: str | None
  data_dir: str | None
  cache: bool
  batch_size: int
  num_classes: int | None
  class_names: tuple[str, ...] | None
  loss: str
  pixel_statistics: Mapping[str, Any]
  tokenizer: tokenizers.Tokenizer | None


def subject(run: RunConfig, source: Source) -> Subject:
  """The model of a run, whose training data is `source`."""
  preprocess = builder.build(run.input.pp)
  return Subject(
    data=run.input.data,
    data_dir=run.input.data_dir,
    cache=run.input.cache,
    batch_size=run.input.batch_size,
    num_classes=number_of_classes(run, source),
    class_names=source.class_names,
    loss=run.loss,
    pixel_statistics=preprocess.pixel_statistics,
    tokenizer=preprocess.tokenize and preprocess.tokenize.tokenizer,
  )


def make_evaluator(
  name: str,
  section: schema.Eval,
  model: Subject,
  predict_fn,
  mesh: jax.sharding.Mesh,
):
  """The evaluator of one section of `config.evals`.

  Args:
    name: of the section, for messages.
    section: what it leaves out is taken from `model`.
    model: what is evaluated.
    predict_fn: of it, see `step.make_predict_fn`.
    mesh: whose devices compute.

  Raises:
    ConfigError: if the options do not go with the data or the model.
    DatasetNotPreparedError: if the data is not there.
  """
  evaluator = evaluators.find(section.type)
  data = section.data or model.data
  # Files of classes get the ids of the model, also if some are lacking.
  named = data == model.data or data.startswith(("folder:", "labels:"))
  own_classes = getattr(evaluator, "own_classes", False)
  open_split = functools.partial(
    sources.open_source,
    data,
    data_dir=section.data_dir or model.data_dir,
    class_names=model.class_names if named and not own_classes else None,
    cache=model.cache,
  )
  # Any multiple of the number of devices will do: metrics do not depend on it.
  batch_size = section.batch_size or model.batch_size
  batch_size += -batch_size % mesh.size
  filled = {"loss": model.loss, "tokenizer": model.tokenizer}
  if model.num_classes is not None:
    known = (model.data, model.num_classes, model.class_names)
    filled["classes"] = Classes(*known)
  wanted = inspect.signature(evaluator.__init__).parameters
  lacking = [k for k in evaluators.FILLED if k in wanted and not filled.get(k)]
  if lacking:
    raise ConfigError(
      f"config.evals.{name}: the model has no {lacking[0]}, which "
      f"type={section.type!r} needs."
    )
  filled = {k: v for k, v in filled.items() if k in wanted}
  try:
    source = open_split(section.split)
    preprocess = builder.build(section.pp, class_names=source.class_names)
    return evaluator(
      predict_fn,
      EvalData(source, preprocess, batch_size, mesh, open_split),
      **filled,
      **section.options,
    )
  except DatasetNotPreparedError:
    raise
  except ValueError as e:
    raise ConfigError(f"config.evals.{name}: {e}") from e
