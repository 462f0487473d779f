"""Checks a config against models, optimizers, ops and evaluators.

The schema finds wrong keys, types and ranges. This file asks the readers of
the open sections, and checks what must fit together. It allocates nothing and
opens no data.
"""

import inspect
from collections.abc import Mapping
from typing import Any

from vitjax import evaluators, losses, models, optim
from vitjax.config import messages, places, resolving, schema
from vitjax.config.schema import ConfigError, RunConfig, split_name
from vitjax.data.pp import builder
from vitjax.evaluators.subject import EMA_SUFFIX
from vitjax.run_folder import trackers

_MIXED = "mixing.mixup_alpha or mixing.cutmix_alpha"
# Key -> keys that it needs; without any one of them it has no effect. A key is
# given if it differs from its default. A needed key is set if it is not None,
# and not zero unless its default is None; KEY=VALUE is set with that value
# only. The keys of weight decay are not listed: a sweep over weight_decay may
# contain 0.
NEEDS = {
  "checkpoint.best_mode": ("checkpoint.best_metric",),
  "checkpoint.patience": ("checkpoint.best_metric",),
  "distill.cache": ("distill.teacher", "input.views"),
  "distill.dtype": ("distill.teacher",),
  "distill.label_weight": ("distill.teacher",),
  "distill.loss": ("distill.teacher",),
  "distill.temperature": ("distill.teacher", "distill.loss=kl"),
  "ema.warmup": ("ema.decay",),
  "flexible.image_shares": ("flexible.image_sizes",),
  "init.channels": ("init.weights",),
  "init.ignore": ("init.weights",),
  "init.reinit": ("init.weights",),
  "mixing.mode": (_MIXED,),
  "mixing.partner": (_MIXED,),
  "mixing.prob": (_MIXED,),
  "mixing.switch_prob": ("mixing.mixup_alpha", "mixing.cutmix_alpha"),
  "optim.accumulator_dtype": ("optim.momentum",),
  "optim.agc_exclude": ("optim.agc_clip",),
  "optim.momentum_dtype": ("optim.momentum",),
  "optim.nesterov": ("optim.momentum",),
  "pretrained_dir": ("init.weights or distill.teacher",),
  "report.profile_num_steps": ("report.profile_first_step",),
  "sam.alpha": ("sam.rho",),
  "sam.rho_min": ("sam.rho",),
  "schedule.end_value": ("schedule.decay=cosine or schedule.decay=linear",),
  "schedule.timescale": ("schedule.decay=rsqrt or schedule.decay=exponential",),
  "target_threshold": (f"{_MIXED} or mixing.label_smoothing",),
}


def check(run: RunConfig) -> None:
  """Raises ConfigError with all `problems` of a config, if there are any."""
  resolving.fail_on(problems(run))


def problems(run: RunConfig) -> list[str]:
  """Problems of the open sections, and of sections that contradict."""
  errors: list[str] = []

  def attempt(where, fn, *args):
    try:
      return fn(*args)
    except ValueError as e:
      errors.append(messages.at(where, e))

  for path, package in (("model", models), ("optim", optim)):
    name, section = split_name(getattr(run, path))
    known = attempt(f"config.{path}.name", package.options, name)
    if known is not None:
      errors += resolving.check_call(known, section, path)
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
    errors += without_effect(run) + average_problems(run)
  two_towers = run.loss in losses.CONTRASTIVE
  if error := loss_problem(run, model):
    errors.append(error)
  sizes, shares = run.flexible.image_sizes, run.flexible.image_shares
  if shares and sizes and len(shares) != len(sizes):
    errors.append(
      f"config.flexible.image_shares={shares!r} must have a number for each of "
      f"the {len(sizes)} config.flexible.image_sizes."
    )
  preprocess = attempt("config.input.pp", builder.build, run.input.pp)
  if losses.reads_texts(run.loss):
    errors += text_problems(run, model, preprocess)
  elif run.loss in losses.MASKED:
    errors += label_settings(run)
  for name, section in run.evals.items():
    errors += eval_problems(
      f"evals.{name}",
      section,
      two_towers=two_towers,
      pixel_statistics=preprocess and preprocess.pixel_statistics,
    )
  if model is not None and preprocess is not None:
    errors += naflex_problems(run, model)
  errors += cache_problems(run) + name_problems(run)
  return errors + tracker_problems(run)


def naflex_problems(run: RunConfig, model) -> list[str]:
  """Problems of strips of patches: who makes them, reads them, changes them."""
  tower = model.towers().get("img", model)
  reads = getattr(tower, "naflex", False)
  where = "config.model.image" if model.towers() else "config.model"
  sections = {"input": run.input.pp}
  sections |= {f"evals.{name}": x.pp for name, x in run.evals.items()}
  errors = []
  for name, pp in sections.items():
    try:
      calls = builder.calls(pp)
    except ValueError:  # reported elsewhere
      continue
    sizes = {x["patch_size"] for op, x in calls if op == "naflex"}
    makes = bool(sizes)
    if makes and not reads:
      errors.append(
        f"config.{name}.pp={pp!r} makes strips of patches with naflex, which "
        f"the model does not read. Use resize, or set {where}.naflex=True, "
        "posemb_grid=16 and posemb_resize='linear'."
      )
    elif reads and not makes:
      errors.append(
        f"{where}.naflex=True reads strips of patches, which config.{name}.pp="
        f"{pp!r} does not make. Put naflex(256, {tower.patch_size}) in the "
        "place of its resize or crop."
      )
    elif reads and sizes != {tower.patch_size}:
      errors.append(
        f"config.{name}.pp={pp!r} makes patches of {min(sizes)} pixels, and "
        f"{where}.patch_size is {tower.patch_size}. They must be equal."
      )
  changes = {
    f"mixing.{key}": getattr(run.mixing, key)
    for key in ("mixup_alpha", "cutmix_alpha", "erase_prob")
  }
  changes["distill.teacher"] = run.distill.teacher
  changes |= {
    f"flexible.{key}": getattr(run.flexible, key)
    for key in ("patch_sizes", "image_sizes")
  }
  return errors + [
    f"config.{key}={value!r} takes whole images, and {where}.naflex=True reads "
    "strips of patches. Remove one of the two."
    for key, value in changes.items()
    if reads and value
  ]


def cache_problems(run: RunConfig) -> list[str]:
  """Problems of `distill.cache`: its place, and views that never return."""
  cache = run.distill.cache
  if cache is None:
    return []
  changes = {
    f"mixing.{key}": getattr(run.mixing, key)
    for key in ("mixup_alpha", "cutmix_alpha", "erase_prob")
  }
  changes["flexible.image_sizes"] = tuple(run.flexible.image_sizes)
  errors = [
    f"config.distill.cache={cache!r}: with config.{key}={value} the teacher "
    "sees other images in later steps, so its outputs cannot be used again. "
    "Remove one of the two."
    for key, value in changes.items()
    if value
  ]
  if places.is_remote(cache):
    errors.append(
      f"config.distill.cache={cache!r} must be a local or mounted folder."
    )
  return errors


def loss_problem(run: RunConfig, model) -> str | None:
  """What is wrong with `config.loss`; `model` is None if it is unknown."""
  # What a model is for -> the losses that train it.
  fitting = {
    "predicts labels": list(losses.LOSSES | losses.OUTPUT_LOSSES),
    "has two towers": list(losses.CONTRASTIVE),
    "predicts masked patches": list(losses.MASKED),
    "writes captions": list(losses.CAPTIONS),
  }
  known = [loss for group in fitting.values() for loss in group]
  if run.loss not in known:
    return f"config.loss={run.loss!r} is not one of {', '.join(known)}."
  if model is None:
    return None
  kind = "predicts labels"
  if has_two_towers(model):
    kind = "has two towers"
  elif is_masked_autoencoder(model):
    kind = "predicts masked patches"
  elif is_captioner(model):
    kind = "writes captions"
  if run.loss in fitting[kind]:
    return None
  return (
    f"config.loss={run.loss!r} does not fit config.model.name="
    f"{run.model['name']!r}, which {kind}: use one of "
    f"{', '.join(fitting[kind])}."
  )


def tracker_problems(run: RunConfig) -> list[str]:
  """Problems of the trackers and of their options."""
  errors = []
  for name, given in trackers.sections(run.report.trackers).items():
    where = f"report.trackers.{name}"
    if not isinstance(given, Mapping):
      errors.append(f"config.{where}={given!r} must be a section of options.")
      continue
    try:
      make = trackers.find(name).__init__
    except ValueError as e:
      errors.append(f"config.report.trackers: {e}")
    else:
      filled = trackers.FILLED
      errors += resolving.check_call(make, given, where, filled=filled)
  return errors


def without_effect(run: RunConfig) -> list[str]:
  """Keys that have no effect, because what they need is not set: `NEEDS`."""
  name = run.optim["name"]
  optimizer = {
    k: p.default
    for fn in (optim.make_optimizer, optim.OPTIMIZERS[name])
    for k, p in inspect.signature(fn).parameters.items()
  }

  def value_and_default(path):
    section, _, key = path.rpartition(".")
    if section == "optim":
      default = optimizer.get(key)
      return run.optim.get(key, default), default
    owner = getattr(run, section) if section else run
    return getattr(owner, key), getattr(type(owner), key)

  def is_there(alternatives):
    for path in alternatives.split(" or "):
      path, _, wanted = path.partition("=")
      value, default = value_and_default(path)
      is_set = value is not None if default is None else bool(value)
      if value == wanted if wanted else is_set:
        return True
    return False

  errors = []
  for path, needed in NEEDS.items():
    value, default = value_and_default(path)
    absent = [x for x in needed if not is_there(x)]
    if absent and value != default:
      errors.append(
        f"config.{path}={value!r} has no effect without {' and '.join(absent)}:"
        f" set what is missing, or remove config.{path}."
      )
  return errors


def average_problems(run: RunConfig) -> list[str]:
  """Problems of averages of the weights, in `ema` and in the optimizer."""
  errors = []
  if run.ema.decay is not None and run.ema.uniform_from is not None:
    errors.append(
      f"config.ema.decay={run.ema.decay} and config.ema.uniform_from="
      f"{run.ema.uniform_from}: a run keeps one average. Remove decay for the "
      "uniform one, or uniform_from_* for the exponential one."
    )
  name, schedule = run.optim["name"], run.schedule
  if optim.is_schedule_free(name):
    why = f"does not fit config.optim.name={name!r}, which averages weights"
    if schedule.decay != "constant":
      errors.append(
        f"config.schedule.decay={schedule.decay!r} {why} in place of a decay. "
        "Use config.schedule.decay='constant'; a warm-up may stay."
      )
    elif schedule.cooldown is not None:
      errors.append(
        f"config.schedule.cooldown={schedule.cooldown} {why} in place of a "
        "cool-down. Remove it."
      )
  return errors


def eval_names(run: RunConfig) -> list[str]:
  """Names that evals report under; those of averaged weights come last."""
  names = [*run.evals]
  if run.ema.is_on:
    names += [f"{name}{EMA_SUFFIX}" for name in run.evals]
  return names


def name_problems(run: RunConfig) -> list[str]:
  """Problems of the names of evals and of `checkpoint.best_metric`."""
  averages = {}
  kind = "uniform_from" if run.ema.decay is None else "decay"
  if run.ema.is_on:
    averages = {f"{name}{EMA_SUFFIX}": name for name in run.evals}
  errors = [
    f"config.evals.{name}: with config.ema.{kind}, eval {averages[name]!r} "
    f"reports the averaged parameters under this name. Use another one."
    for name in run.evals
    if name in averages
  ]
  metric = run.checkpoint.best_metric
  if metric is None:
    return errors
  where = f"config.checkpoint.best_metric={metric!r}"
  name = metric.partition("/")[0]
  known = eval_names(run)
  section = run.evals.get(averages.get(name, name))
  if section is None or "/" not in metric:
    errors.append(
      f"{where} names no eval. Use EVAL/METRIC with EVAL one of "
      f"{', '.join(known) or '(there are none)'}."
    )
  elif section.optional:
    errors.append(
      f"{where} is a metric of an optional eval, which is skipped if its data "
      "are absent. Set its optional=False."
    )
  elif run.checkpoint.patience and section.every is None:
    errors.append(
      f"config.checkpoint.patience={run.checkpoint.patience} counts evals, and "
      f"eval {name!r} runs at the end only. Set "
      f"config.evals.{averages.get(name, name)}.every_epochs=1, or remove "
      "patience."
    )
  return errors


def eval_problems(
  path: str,
  section: schema.Eval,
  *,
  two_towers: bool,
  pixel_statistics: Mapping[str, Any] | None,
) -> list[str]:
  """Problems of one eval of a model.

  Args:
    path: path of the section, for the messages.
    section: the eval.
    two_towers: whether the model has two towers.
    pixel_statistics: normalisation that the model was trained with, see
      `pp.builder`; None if unknown.
  """
  errors: list[str] = []
  try:
    preprocess = builder.build(section.pp)
  except ValueError as e:
    errors.append(messages.at(f"config.{path}.pp", e))
  else:
    if pixel_statistics not in (None, preprocess.pixel_statistics):
      errors.append(
        f"config.{path}.pp={section.pp!r} does not normalise images as "
        "training did, so its metrics would be wrong. End it with the "
        "value_range or normalize of training."
      )
  try:
    evaluator = evaluators.find(section.type)
  except ValueError as e:
    return [*errors, messages.at(f"config.{path}.type", e)]
  filled = ("self", "predict_fn", "data", *evaluators.FILLED)
  errors += resolving.check_call(
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
  """Whether the model compares images with texts and has no classes."""
  return bool(model.towers())


def is_masked_autoencoder(model) -> bool:
  """Whether the model predicts masked patches and has no classes."""
  from vitjax.models import mae  # imports Flax

  return isinstance(model, mae.Model)


def is_captioner(model) -> bool:
  """Whether the model writes captions of images and has no classes."""
  from vitjax.models import captioner  # imports Flax

  return isinstance(model, captioner.Model)


def text_problems(run: RunConfig, model, preprocess) -> list[str]:
  """Problems of a run on images and texts; see `check` for Args."""
  errors = []
  where = f"with config.loss={run.loss!r}"
  errors += label_settings(run)
  if preprocess is None:
    return errors
  if preprocess.tokenize is None:
    errors.append(
      f"config.input.pp={run.input.pp!r} {where} must produce texts: add an op "
      "such as tokenize('bert', 'vocab.txt', max_len=16)."
    )
  elif model is not None and (has_two_towers(model) or is_captioner(model)):
    reader = model.towers().get("txt", model)
    where = "model" if reader is model else "model.text"
    need = preprocess.tokenize.tokenizer.vocab_size
    if reader.vocab_size < need:
      errors.append(
        f"config.{where}.vocab_size={reader.vocab_size}, but the tokenizer of "
        f"config.input.pp has {need} ids. Use {need}."
      )
  return errors


def label_settings(run: RunConfig) -> list[str]:
  """Settings about labels, which the loss of the run does not read."""
  where = f"with config.loss={run.loss!r}"
  errors = [
    f"config.{name} {where}: there are no classes. Remove it."
    for name in ("num_classes", "target_threshold", "class_weights")
    if getattr(run, name) is not None
  ]
  if run.mixing != schema.Mixing():
    errors.append(f"config.mixing {where}: there are no labels. Remove it.")
  return errors


def check_batch_size(run: RunConfig, mesh_parts: int) -> None:
  """Raises ConfigError if the batch does not divide into the mesh's parts."""
  size, parts = run.input.batch_size, run.accumulation_steps * mesh_parts
  if size % parts:
    lower = size // parts * parts
    choices = [str(n) for n in (lower, lower + parts) if n]
    accumulated = (
      f" times config.accumulation_steps={run.accumulation_steps}"
      if run.accumulation_steps > 1
      else ""
    )
    raise ConfigError(
      f"config.input.batch_size={size} does not divide into the {mesh_parts} "
      f"parts of config.mesh (data x fsdp){accumulated}. "
      f"Use {' or '.join(choices)}."
    )
