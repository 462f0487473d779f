"""The schema of a run: frozen dataclasses, and how a config file fills them.

A config file gives the keys that differ from the defaults below; `resolve`
turns it into a `RunConfig`, or reports everything that is wrong with it at
once. An annotation is all that declares a key: its type, its range (see
`ranges`) and its choices. The open sections (`model`, `optim`, the options of
each eval) belong to the packages that read them: there the signature of the
callee is the schema.

A duration is written with its unit as the suffix, for example
`total_epochs=90` or `every_steps=1000`; `to_steps` is the only converter.
"""

import dataclasses
import inspect
import json
import math
import re
import typing
from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Any, Literal

from vitjax.config import kinds
from vitjax.config.ranges import (
  Count,
  Index,
  NonNegative,
  Probability,
  Range,
  Rate,
)

UNITS = ("steps", "epochs", "examples", "percent")


class ConfigError(ValueError):
  """A config that cannot be run, with every reason in its message."""


@dataclasses.dataclass(frozen=True)
class Duration:
  """A length of training: `value` times `unit`, see `UNITS`."""

  value: float
  unit: str

  def __str__(self):
    return f"{self.value:g} {self.unit}"


def to_steps(
  duration: Duration,
  *,
  batch_size: int,
  num_examples: int,
  total_steps: int | None = None,
) -> int:
  """Number of training steps, at least 1, that last as long as `duration`.

  Args:
    duration: what the config says.
    batch_size: global examples per step.
    num_examples: examples in one epoch.
    total_steps: length of the run, needed for "percent" only.
  """
  if duration.unit == "percent":
    if total_steps is None:
      raise ConfigError(
        f"config.total_percent={duration.value:g}: the length of a run cannot "
        "be a share of itself. Give total_steps, total_epochs or "
        "total_examples."
      )
    steps = duration.value / 100 * total_steps
  else:
    examples = {"steps": batch_size, "epochs": num_examples, "examples": 1}
    steps = duration.value * examples[duration.unit] / batch_size
  return max(1, int(steps))


@dataclasses.dataclass(frozen=True, kw_only=True)
class Input:
  """Training data.

  Attributes:
    data: the data set: a TFDS name, "folder:/path", "labels:/path/file.csv",
      "captions:/path/file.jsonl" or "digits".
    split: the part of it to train on, in TFDS notation, such as "train",
      "train[:90%]" or "train+val".
    data_dir: folder in which TFDS looks for prepared data sets. None: TFDS's
      default.
    batch_size: images per step, over all devices and processes. At least 1; a
      multiple of the number of devices times `accumulation_steps`.
    repeats: repeated augmentation: how often an image appears in a batch, each
      time with other random ops. At least 1.
    prefetch: batches buffered ahead, on each host and on its devices. At least
      1. Changes no result.
    cache: keep decoded images in memory, those of evals too, if all have one
      size. Changes no result.
    pp: preprocessing ops, separated by "|".
  """

  data: str
  split: str = "train"
  data_dir: str | None = None
  batch_size: Count
  repeats: Count = 1
  prefetch: Count = 2
  cache: bool = False
  pp: str


@dataclasses.dataclass(frozen=True, kw_only=True)
class Init:
  """Weights to start from; a resumed run loads its own checkpoint instead.

  Position tables are resized to the images of the run.

  Attributes:
    weights: a path, a URL, a published name or a run folder; for a model with
      two towers also {"img": ..., "txt": ...}, with weights of one tower each.
      None: random parameters.
    reinit: parameters to re-initialise: names, names of modules or regexes,
      such as ("head",).
    ignore: arrays of the file to leave out, likewise, such as
      ("pre_logits",).
  """

  weights: str | Mapping[str, str] | None = None
  reinit: Sequence[str] = ()
  ignore: Sequence[str] = ()


@dataclasses.dataclass(frozen=True, kw_only=True)
class Mixing:
  """Mixing and erasing of images on the device, over the global batch.

  Attributes:
    mixup_alpha: parameter of mixup's Beta distribution. 0 or more; 0: no
      mixup.
    cutmix_alpha: parameter of CutMix's Beta distribution. 0 or more; 0: no
      CutMix.
    prob: probability of mixing a batch, or with mode="elem" an example. 0 to 1.
    switch_prob: probability of CutMix rather than mixup, where both are on. 0
      to 1.
    mode: "batch" draws once for the batch, "elem" for each example.
    partner: an example is mixed with the one before it ("roll", as in
      big_vision) or with the one at the other end of the batch ("flip", as in
      timm).
    erase_prob: probability of replacing a box of an image by noise. 0 to 1.
    label_smoothing: share of the target that is spread over all classes. 0 or
      more and below 1.
  """

  mixup_alpha: NonNegative = 0.0
  cutmix_alpha: NonNegative = 0.0
  prob: Probability = 1.0
  switch_prob: Probability = 0.5
  mode: Literal["batch", "elem"] = "batch"
  partner: Literal["roll", "flip"] = "roll"
  erase_prob: Probability = 0.0
  label_smoothing: Rate = 0.0


@dataclasses.dataclass(frozen=True, kw_only=True)
class Ema:
  """Exponential moving average of the parameters, updated at each step.

  Attributes:
    decay: weight of the average so far. 0 or more and below 1, such as 0.9999.
      None: no average.
    warmup: start with a smaller weight: min(decay, (1 + step) / (10 + step)).
  """

  decay: Rate | None = None
  warmup: bool = False


@dataclasses.dataclass(frozen=True, kw_only=True)
class Sam:
  """Sharpness-aware minimisation (SAM, GSAM): two gradients a step.

  Attributes:
    rho: radius of the neighbourhood in parameter space. 0 or more; 0: off.
    rho_min: the radius then follows the learning rate, from `rho` at its peak
      to `rho_min` at 0. 0 or more. None: the radius is constant.
    alpha: weight of GSAM's surrogate gap. 0 or more; 0: plain SAM.
  """

  rho: NonNegative = 0.0
  rho_min: NonNegative | None = None
  alpha: NonNegative = 0.0


@dataclasses.dataclass(frozen=True, kw_only=True)
class Schedule:
  """Learning rate over time, as a factor of `optim.learning_rate`.

  Attributes:
    decay: "constant", "cosine", "linear" or "rsqrt", after the warm-up.
    warmup: duration of the linear rise from 0. None: no warm-up.
    end_value: factor at the end of "cosine" and "linear". 0 to 1.
    timescale: of "rsqrt": duration after the warm-up until the factor is
      sqrt(1/2). None: 10,000 steps.
    cooldown: of "constant" and "rsqrt": duration of the linear fall to 0 at
      the end of the run. None: no fall.
  """

  decay: Literal["constant", "cosine", "linear", "rsqrt"] = "cosine"
  warmup: Duration | None = None
  end_value: Probability = 0.0
  timescale: Duration | None = None
  cooldown: Duration | None = None


# Devices on an axis of the mesh; -1 for all that the other axes leave.
_Axis = Annotated[int, Range(ge=-1)]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Mesh:
  """Devices on each axis of the mesh; their product is all devices.

  Each axis is 1 or more; one of them may be -1, which takes all devices that
  the others leave.

  Attributes:
    data: parts of the batch whose devices each hold all parameters.
    fsdp: parts of the batch whose devices also share the parameters.
    model: devices that work together on the same part of the batch.
  """

  data: _Axis = -1
  fsdp: _Axis = 1
  model: _Axis = 1


@dataclasses.dataclass(frozen=True, kw_only=True)
class Eval:
  """One evaluation, a section of `config.evals`.

  Attributes:
    type: "classification", "fewshot", "knn", "linear_probe", "retrieval",
      "zeroshot", or the dotted path of a module with a class `Evaluator`.
    data: the data set. None: that of training.
    split: the part of it to evaluate, in which each image occurs once.
    data_dir: folder in which TFDS looks for prepared data sets. None: that of
      training.
    batch_size: images per step, over all devices. At least 1; rounded up to a
      multiple of the number of devices. Changes no metric. None: that of
      training.
    pp: preprocessing ops; they must normalise images as in training.
    every: interval during training; the end is always evaluated. None: the
      end only.
    optional: skip the eval with a warning if its data are absent.
    options: all other keys of the section: arguments of the evaluator.
  """

  type: str = "classification"
  data: str | None = None
  split: str
  data_dir: str | None = None
  batch_size: Count | None = None
  pp: str
  every: Duration | None = None
  optional: bool = False
  options: Mapping[str, Any] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Checkpoint:
  """When to save, and what to keep besides the latest checkpoints.

  Attributes:
    every: interval between checkpoints; the end is always saved.
    keep_every: interval of checkpoints that are never deleted. None: none are
      kept for good.
    best_metric: EVAL/METRIC, such as "val/acc@1", or "val_ema/acc@1" for the
      averaged parameters: also keep the checkpoint with its best value, and
      save at each eval. None: keep no best checkpoint.
    best_mode: whether the best value is the largest ("max") or the smallest
      ("min"). None: as the metric's name tells: "min" for losses and errors,
      "max" for accuracies; required for other metrics.
    max_failures: failed saves in a row that end the run. At least 1.
  """

  every: Duration = Duration(1000, "steps")
  keep_every: Duration | None = None
  best_metric: str | None = None
  best_mode: Literal["max", "min"] | None = None
  max_failures: Count = 1


@dataclasses.dataclass(frozen=True, kw_only=True)
class Report:
  """Metrics and profiles of the training steps.

  Attributes:
    every: interval between two records of the training loss.
    profile_first_step: steps to take before a profile for TensorBoard starts;
      10 leaves compilation out. 0 or more. None: no profile.
    profile_num_steps: steps to profile. At least 1.
  """

  every: Duration = Duration(50, "steps")
  profile_first_step: Index | None = None
  profile_num_steps: Count = 5


@dataclasses.dataclass(frozen=True, kw_only=True)
class RunConfig:
  """Everything that decides what a run does.

  Attributes:
    seed: of every random draw: parameters, order of images, ops, dropout. 0 to
      2**32 - 1.
    total: length of the run.
    num_classes: width of the head; at least the number of classes of the data.
      None: that number.
    loss: "softmax_xent", "sigmoid_xent" or "sigmoid_xent_mean"; for a model
      with two towers "contrastive" or "siglip".
    target_threshold: mixed targets above it become 1, others 0. 0 or more and
      below 1; DeiT III uses 0. None: mixed targets stay as they are.
    accumulation_steps: parts into which a batch is split to save memory. At
      least 1; must divide `input.batch_size`. Changes no result but dropout.
    input: training data.
    pretrained_dir: folder, gs:// or https:// address to look in for published
      names of `init.weights`. None: where they are published.
    init: weights to start from.
    model: `name` and the options of the model.
    optim: `name` and the options of the optimizer.
    schedule: learning rate over time.
    mixing: mixing and erasing of images.
    ema: average of the parameters.
    sam: sharpness-aware minimisation.
    sharding: how parameters are split over the mesh: "replicated", "fsdp" or
      "tensor", or a list of rules (regex of parameters, mesh axis or None of
      each dimension).
    mesh: devices on each axis.
    evals: sections by name; None as a section removes the eval. A name has no
      slash.
    checkpoint: what to save.
    report: what to record.
    export_npz: write params.npz into the run folder at the end.
  """

  seed: Annotated[int, Range(ge=0, lt=2**32)] = 0
  total: Duration
  num_classes: Count | None = None
  loss: str = "softmax_xent"
  target_threshold: Rate | None = None
  accumulation_steps: Count = 1
  input: Input
  pretrained_dir: str | None = None
  init: Init = Init()
  model: Mapping[str, Any]
  optim: Mapping[str, Any]
  schedule: Schedule = Schedule()
  mixing: Mixing = Mixing()
  ema: Ema = Ema()
  sam: Sam = Sam()
  sharding: str | Sequence[tuple[str, Any]] = "replicated"
  mesh: Mesh = Mesh()
  evals: Mapping[str, Eval] = dataclasses.field(default_factory=dict)
  checkpoint: Checkpoint = Checkpoint()
  report: Report = Report()
  export_npz: bool = False


OPEN = ("model", "optim")  # sections read by their own package

# Names of metrics of which the smallest value is the best, or the largest.
_SMALLEST = re.compile(
  r"(.*_)?(loss|nll|perplexity|error|err|mae|mse|rmse|ece)(@\d+)?"
)
_LARGEST = re.compile(
  r"(.*_)?(acc|accuracy|precision|recall|f1|auroc|ap|R|iou)(@\d+)?"
  r"|\d+(shot|nn)"
)


def best_mode(metric: str) -> str | None:
  """Whether the best value of EVAL/METRIC is its "max" or "min", if known."""
  name = metric.partition("/")[2].partition("[")[0]  # recall[cat]: recall
  if _SMALLEST.fullmatch(name):
    return "min"
  return "max" if _LARGEST.fullmatch(name) else None


def resolve(
  config: Mapping[str, Any],
  more: Callable[[RunConfig], list[str]] = lambda run: [],
) -> RunConfig:
  """Checks a config and fills in the defaults.

  Args:
    config: nested dicts.
    more: what else is wrong with a config in which no required key is
      missing, such as `checks.problems`.

  Raises:
    ConfigError: with one line for each unknown key, missing key, wrong type,
      doubled duration or value that is not allowed.
  """
  if hasattr(config, "to_dict"):
    config = config.to_dict()
  errors: list[str] = []
  run = _section(RunConfig, config, "", errors)
  if not any(isinstance(e, _Gap) for e in errors):
    unnamed = [
      x for x in OPEN if not isinstance(getattr(run, x).get("name"), str)
    ]
    errors += [f"config.{section}.name is missing." for section in unnamed]
    if run.input.batch_size % run.accumulation_steps:
      errors.append(
        f"config.input.batch_size={run.input.batch_size} is not a multiple of "
        f"config.accumulation_steps={run.accumulation_steps}."
      )
    metric = run.checkpoint.best_metric
    if metric is not None and run.checkpoint.best_mode is None:
      mode = best_mode(metric)
      if mode is None:
        errors.append(
          "config.checkpoint.best_mode is missing: the name of "
          f"best_metric={metric!r} does not tell whether the largest or the "
          "smallest value is the best. Use 'max' or 'min'."
        )
      checkpoint = dataclasses.replace(run.checkpoint, best_mode=mode)
      run = dataclasses.replace(run, checkpoint=checkpoint)
    if not unnamed:
      errors += more(run)
  fail_on(errors)
  return run


def resolve_evals(evals: Mapping[str, Any], **defaults: Any) -> dict[str, Eval]:
  """Checks sections of `config.evals` on their own.

  Args:
    evals: the sections by name.
    **defaults: values of keys that a section leaves out.

  Raises:
    ConfigError: as `resolve`.
  """
  errors: list[str] = []
  sections = _evals(evals, errors, defaults)
  fail_on(errors)
  return sections


def fail_on(errors: Sequence[str]) -> None:
  """Raises one ConfigError with all `errors`, if there are any."""
  if errors:
    raise ConfigError("\n".join(errors))


def check_call(
  allowed: Callable | Mapping[str, Any],
  given: Mapping[str, Any],
  path: str,
  *,
  filled: Sequence[str] = (),
) -> list[str]:
  """What is wrong with calling `allowed(**given)`.

  Args:
    allowed: a function, or option name -> type.
    given: the section of the config.
    path: of the section, for the messages.
    filled: parameters that the caller passes itself.
  """
  required = []
  if not isinstance(allowed, Mapping):
    parameters = inspect.signature(allowed).parameters
    required = [
      k
      for k, p in parameters.items()
      if p.default is p.empty and k not in filled
    ]
    allowed = {
      k: Any if p.annotation is p.empty else p.annotation
      for k, p in parameters.items()
      if k not in filled
    }
  errors = []
  for key, value in given.items():
    where = f"config.{path}.{key}"
    if key not in allowed:
      errors.append(kinds.unknown(where, key, allowed))
    elif found := kinds.problem(where, value, allowed[key]):
      errors.append(found)
  missing = [k for k in required if k not in given]
  return errors + [f"config.{path}.{key} is missing." for key in missing]


def to_dict(run: RunConfig) -> dict[str, Any]:
  """The resolved config as plain data, in the form that `resolve` reads."""

  def plain(x):
    if dataclasses.is_dataclass(x):
      result: dict[str, Any] = {}
      for f in dataclasses.fields(x):
        value = getattr(x, f.name)
        if isinstance(value, Duration):
          result[f"{f.name}_{value.unit}"] = value.value
        elif value is not None or not _has_duration(f.type):
          result[f.name] = plain(value)
      if isinstance(x, Checkpoint) and x.best_metric is None:
        del result["best_mode"]  # has no meaning, and older files differ
      options = result.pop("options", {})
      return {**result, **options}
    if isinstance(x, Mapping):
      return {k: plain(v) for k, v in x.items()}
    if isinstance(x, tuple | list):
      return [plain(v) for v in x]
    return x

  return plain(run)


def to_json(run: RunConfig) -> str:
  """The resolved config as JSON text, the same for the same run."""
  return json.dumps(to_dict(run), indent=2, sort_keys=True)


# Keys that decide how much memory is used, and no result.
_MEMORY = frozenset({"input.cache", "input.prefetch"})


def differences(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
  """One line for each key in which two plain configs differ.

  What only decides how much memory is used is no difference.
  """
  old, new = flatten(old), flatten(new)
  missing = object()
  return [
    f"{key}: {old.get(key, '(absent)')} -> {new.get(key, '(absent)')}"
    for key in sorted({*old, *new} - _MEMORY)
    if old.get(key, missing) != new.get(key, missing)
  ]


class _Gap(str):
  """An error that leaves nothing to check further."""


def _section(cls, given: Mapping, path: str, errors: list[str]):
  """Builds the dataclass `cls`; appends to `errors` what does not fit."""
  fields = {f.name: f for f in dataclasses.fields(cls)}
  is_eval = cls is Eval
  keys = {}  # key in the file -> field
  for name, field in fields.items():
    if name == "options":
      continue
    if _has_duration(field.type):
      keys |= {f"{name}_{unit}": name for unit in UNITS}
    else:
      keys[name] = name
  values, options, wrong = {}, {}, {}
  for key, value in given.items():
    where = f"config.{path}{key}"
    if key not in keys:
      if is_eval and key == "options" and isinstance(value, Mapping):
        options |= value  # as older files have them
      elif is_eval:
        options[key] = value
      else:
        errors.append(kinds.unknown(where, key, keys))
      continue
    name = keys[key]
    kind = fields[name].type
    if _has_duration(kind):
      unit = key.removeprefix(f"{name}_")
      if value is None:
        continue
      if name in values:
        errors.append(f"config.{path}{name}_* is given in two units.")
      elif problem := _duration_problem(where, value, unit, kind):
        wrong[name] = problem
      else:
        values[name] = Duration(value, unit)
    elif name == "evals":
      values[name] = _evals(value, errors)
    elif dataclasses.is_dataclass(kind):
      if isinstance(value, Mapping):
        values[name] = _section(kind, value, f"{path}{key}.", errors)
      else:
        wrong[name] = f"{where}={value!r} must be a section."
    elif problem := kinds.problem(where, value, kind):
      wrong[name] = problem
    else:
      values[name] = value
  for name, field in fields.items():
    optional = (
      field.default is not dataclasses.MISSING
      or field.default_factory is not dataclasses.MISSING
    )
    if name in wrong:
      errors.append(wrong[name] if optional else _Gap(wrong[name]))
    if name not in values and not optional:
      key = name
      if _has_duration(field.type):
        key = f"{name}_{{{'|'.join(UNITS)}}}"
      if name not in wrong:
        errors.append(_Gap(f"config.{path}{key} is missing."))
      values[name] = None
  if options:
    values["options"] = options
  return cls(**values)


def _evals(
  given: Any, errors: list[str], defaults: Mapping[str, Any] | None = None
) -> dict[str, Eval]:
  """The sections of `config.evals`, without those that are None."""
  if not isinstance(given, Mapping):
    errors.append(
      f"config.evals={given!r} must be sections by name: {{NAME: {{'split': "
      "..., 'pp': ...}}."
    )
    return {}
  sections = {}
  for name, value in given.items():
    where = f"config.evals.{name}"
    if not isinstance(name, str) or not name or "/" in name:
      errors.append(
        f"{where}: the name {name!r} must be text without a slash; its metrics "
        "are called NAME/METRIC."
      )
    elif name == "train":
      errors.append(
        f"{where}: the metrics of training are called train/...; use another "
        "name, such as train_eval."
      )
    if isinstance(value, Mapping):
      value = {**(defaults or {}), **value}
      sections[str(name)] = _section(Eval, value, f"evals.{name}.", errors)
    elif value is not None:
      errors.append(
        f"{where}={value!r} must be a section, or None to remove the eval."
      )
  return sections


def _has_duration(kind) -> bool:
  return kind is Duration or Duration in typing.get_args(kind)


def _duration_problem(where: str, value, unit: str, kind) -> str | None:
  """Why a number of `unit`s is no duration."""
  # Steps are numbers of 32 bits.
  most = {"percent": 100, "examples": math.inf}.get(unit, 2**31 - 1)
  is_number = kinds.is_a(value, float)
  if is_number and 0 < value <= most and value < math.inf:
    return None
  must = "a number above 0"
  if unit == "percent" or (is_number and most < value < math.inf):
    must += f" and at most {most}"
  if kind is not Duration:
    must += ", or None"
  return f"{where}={value!r} must be {must}."


def with_defaults(given: Mapping[str, Any]) -> dict[str, Any]:
  """A plain config with the defaults of keys younger than it.

  As it is, if it cannot be resolved any more.
  """
  try:
    return to_dict(resolve(given))
  except ConfigError:
    return dict(given)


def flatten(tree: Mapping, prefix: str = "") -> dict[str, Any]:
  """Nested mappings as one: {"a": {"b": 1}} to {"a.b": 1}."""
  flat = {}
  for key, value in tree.items():
    if isinstance(value, Mapping):
      flat |= flatten(value, f"{prefix}{key}.")
    else:
      flat[f"{prefix}{key}"] = value
  return flat


def split_name(section: Any) -> tuple[str, dict[str, Any]]:
  """The `name` of an open section, and the rest of it."""
  rest = dict(section)
  return rest.pop("name"), rest
