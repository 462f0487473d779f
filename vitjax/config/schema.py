"""The schema of a run: frozen dataclasses, and how a config file fills them.

A config file says what differs from the defaults below; `resolve` turns it
into a `RunConfig` or reports everything that is wrong with it at once. The
open sections (`model`, `optim`, each eval) belong to the packages that read
them: there the signature of what gets called is the schema.

Durations are written with their unit as the suffix, for example
`total_epochs=90` or `every_steps=1000`, and `to_steps` is the only converter.
"""

import dataclasses
import inspect
import json
import math
import types
import typing
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from vitjax.config import messages

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
      raise ConfigError(f"{duration} of the run cannot be its own length.")
    steps = duration.value / 100 * total_steps
  else:
    examples = {"steps": batch_size, "epochs": num_examples, "examples": 1}
    steps = duration.value * examples[duration.unit] / batch_size
  return max(1, int(steps))


@dataclasses.dataclass(frozen=True, kw_only=True)
class Input:
  """Training data. `batch_size` is global, over all devices and hosts.

  `repeats` is repeated augmentation: each image comes so many times in a
  batch, each time with other random ops. So many batches as `prefetch` says
  wait in the memory of each host, and as many on its devices. `cache` keeps
  decoded images in memory, also those of evals; see
  `vitjax.data.sources.records`.
  """

  data: str
  split: str = "train"
  data_dir: str | None = None
  batch_size: int
  repeats: int = 1
  prefetch: int = 2
  cache: bool = False
  pp: str


@dataclasses.dataclass(frozen=True, kw_only=True)
class Init:
  """Weights to begin with in place of random ones, see `vitjax.pretrained`.

  Position tables are resized to the resolution of the run. `reinit` and
  `ignore` name parameters that start anew and arrays that are left out. With
  {"img": ...} or {"txt": ...} `weights` are those of a tower alone.
  """

  weights: str | Mapping[str, str] | None = None
  reinit: Sequence[str] = ()
  ignore: Sequence[str] = ()


@dataclasses.dataclass(frozen=True, kw_only=True)
class Mixing:
  """Mixing of images and labels on the device, see `vitjax.mixing`."""

  mixup_alpha: float = 0.0
  cutmix_alpha: float = 0.0
  prob: float = 1.0  # of mixing a batch, or an example, at all
  switch_prob: float = 0.5  # of cutmix where both are on
  mode: str = "batch"
  partner: str = "roll"
  erase_prob: float = 0.0
  label_smoothing: float = 0.0


@dataclasses.dataclass(frozen=True, kw_only=True)
class Ema:
  """Exponential moving average of the parameters, see `step.update_ema`."""

  decay: float | None = None
  warmup: bool = False


@dataclasses.dataclass(frozen=True, kw_only=True)
class Sam:
  """Sharpness-aware minimisation, off at `rho=0`; see `vitjax.optim.sam`.

  With `rho_min` the radius follows the learning rate from `rho` down to it;
  `alpha` is GSAM's weight of the surrogate gap.
  """

  rho: float = 0.0
  rho_min: float | None = None
  alpha: float = 0.0


@dataclasses.dataclass(frozen=True, kw_only=True)
class Schedule:
  """Learning rate over time as a factor, see `vitjax.optim.schedules`."""

  decay: str = "cosine"
  warmup: Duration | None = None
  end_value: float = 0.0
  timescale: Duration | None = None
  cooldown: Duration | None = None


@dataclasses.dataclass(frozen=True, kw_only=True)
class Mesh:
  """Size of each mesh axis; -1 takes all devices that are left."""

  data: int = -1
  fsdp: int = 1
  model: int = 1


@dataclasses.dataclass(frozen=True, kw_only=True)
class Eval:
  """One evaluation. What is left out is taken from `input`."""

  type: str = "classification"
  data: str | None = None
  split: str
  data_dir: str | None = None
  batch_size: int | None = None
  pp: str
  every: Duration | None = None  # and always at the end
  optional: bool = False  # left out, with a warning, if its data is not there
  options: Mapping[str, Any] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Checkpoint:
  """When to save, and what is kept besides the latest checkpoint."""

  every: Duration = Duration(1000, "steps")
  keep_every: Duration | None = None
  best_metric: str | None = None
  best_mode: str = "max"
  max_failures: int = 1  # saves in a row that fail and end the run


@dataclasses.dataclass(frozen=True, kw_only=True)
class Report:
  """What the run says while it runs."""

  every: Duration = Duration(50, "steps")
  profile_first_step: int | None = None
  profile_num_steps: int = 5


@dataclasses.dataclass(frozen=True, kw_only=True)
class RunConfig:
  """Everything that decides what a run does."""

  seed: int = 0
  total: Duration
  num_classes: int | None = None  # None: as many as the data set has
  loss: str = "softmax_xent"
  target_threshold: float | None = None  # mixed targets above it become 1
  accumulation_steps: int = 1
  input: Input
  pretrained_dir: str | None = None  # where names of `init.weights` are
  init: Init = Init()
  model: Mapping[str, Any]
  optim: Mapping[str, Any]
  schedule: Schedule = Schedule()
  mixing: Mixing = Mixing()
  ema: Ema = Ema()
  sam: Sam = Sam()
  # A preset of vitjax.parallel.sharding, or (regex of parameters, spec) rules.
  sharding: str | Sequence[tuple[str, Any]] = "replicated"
  mesh: Mesh = Mesh()
  evals: Mapping[str, Eval] = dataclasses.field(default_factory=dict)
  checkpoint: Checkpoint = Checkpoint()
  report: Report = Report()
  export_npz: bool = False  # write params.npz into the workdir at the end


CHOICES = {
  "schedule.decay": ("constant", "cosine", "linear", "rsqrt"),
  "checkpoint.best_mode": ("max", "min"),
  "mixing.mode": ("batch", "elem"),
  "mixing.partner": ("roll", "flip"),
}
# Smallest and largest value, both allowed; None is always.
RANGES = {
  "input.batch_size": (1, math.inf),
  "input.repeats": (1, math.inf),
  "input.prefetch": (1, math.inf),
  "accumulation_steps": (1, math.inf),
  "checkpoint.max_failures": (1, math.inf),
  "num_classes": (1, math.inf),
  "mixing.mixup_alpha": (0, math.inf),
  "mixing.cutmix_alpha": (0, math.inf),
  "mixing.prob": (0, 1),
  "mixing.switch_prob": (0, 1),
  "mixing.erase_prob": (0, 1),
  "mixing.label_smoothing": (0, 1),
  "ema.decay": (0, 1),
  "sam.rho": (0, math.inf),
  "sam.rho_min": (0, math.inf),
  "sam.alpha": (0, math.inf),
}
OPEN = ("model", "optim")  # sections read by their own package


def resolve(
  config: Mapping[str, Any],
  more: Callable[[RunConfig], list[str]] = lambda run: [],
) -> RunConfig:
  """Checks a config and fills in the defaults.

  Args:
    config: nested dicts.
    more: what else is wrong with a config that has all that it needs, such as
      `checks.problems`.

  Raises:
    ConfigError: with one line for each unknown key, missing key, wrong type,
      doubled duration or value that is not allowed.
  """
  if hasattr(config, "to_dict"):
    config = config.to_dict()
  errors: list[str] = []
  run = _section(RunConfig, config, "", errors)
  if not any(isinstance(e, _Gap) for e in errors):
    flat = flatten(to_dict(run))
    for path, allowed in CHOICES.items():
      if flat[path] not in allowed:
        errors.append(
          f"config.{path}={flat[path]!r} is not one of {', '.join(allowed)}."
        )
    for path, (low, high) in RANGES.items():
      value = flat[path]
      if value is not None and not low <= value <= high:
        upto = f"at least {low}" if high == math.inf else f"in [{low}, {high}]"
        errors.append(f"config.{path}={value} has to be {upto}.")
    unnamed = [x for x in OPEN if not _is_a(getattr(run, x).get("name"), str)]
    errors += [f"config.{section}.name is missing." for section in unnamed]
    if run.input.batch_size % max(run.accumulation_steps, 1):
      errors.append(
        f"config.input.batch_size={run.input.batch_size} is not a multiple of "
        f"config.accumulation_steps={run.accumulation_steps}."
      )
    if "train" in run.evals:
      errors.append(
        "config.evals.train: its metrics would be called like those of "
        "training, train/loss. Call it train_eval, say."
      )
    if not unnamed:
      errors += more(run)
  fail_on(errors)
  return run


def resolve_evals(evals: Mapping[str, Any], **defaults: Any) -> dict[str, Eval]:
  """Checks sections of `config.evals` on their own.

  Args:
    evals: the sections by name.
    **defaults: of keys that a section leaves out.

  Raises:
    ConfigError: as `resolve`.
  """
  errors: list[str] = []
  sections = {}
  for name, given in evals.items():
    if isinstance(given, Mapping):
      given = {**defaults, **given}
      sections[str(name)] = _section(Eval, given, f"evals.{name}.", errors)
    else:
      errors.append(f"config.evals.{name}={given!r} has to be a section.")
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
    if key not in allowed:
      errors.append(_unknown(f"{path}.{key}", key, allowed))
    elif not _is_a(value, allowed[key]):
      errors.append(_wrong_type(f"{path}.{key}", value, allowed[key]))
  missing = [k for k in required if k not in given]
  return errors + [f"config.{path}.{key} is missing." for key in missing]


def to_dict(run: RunConfig) -> dict[str, Any]:
  """The resolved config as plain data, in the form that `resolve` reads."""

  def plain(x):
    if dataclasses.is_dataclass(x):
      result = {}
      for f in dataclasses.fields(x):
        value = getattr(x, f.name)
        if isinstance(value, Duration):
          result[f"{f.name}_{value.unit}"] = value.value
        elif value is not None or not _has_duration(f.type):
          result[f.name] = plain(value)
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
    where = f"{path}{key}"
    if key not in keys:
      if is_eval and key == "options" and isinstance(value, Mapping):
        options |= value  # as older files have them
      elif is_eval:
        options[key] = value
      else:
        errors.append(_unknown(where, key, keys))
      continue
    name = keys[key]
    kind = fields[name].type
    if _has_duration(kind):
      if value is None:
        continue
      if name in values:
        errors.append(f"config.{path}{name}_* is given in two units.")
      elif not _is_a(value, float) or value <= 0:
        errors.append(f"config.{where}={value!r} has to be a number above 0.")
      else:
        values[name] = Duration(value, key.removeprefix(f"{name}_"))
    elif name == "evals":
      values[name] = {
        k: _section(Eval, v, f"evals.{k}.", errors)
        for k, v in value.items()
        if v is not None  # an override of None switches an eval off
      }
    elif dataclasses.is_dataclass(kind):
      if isinstance(value, Mapping):
        values[name] = _section(kind, value, f"{where}.", errors)
      else:
        wrong[name] = f"config.{where}={value!r} has to be a section."
    elif not _is_a(value, kind):
      wrong[name] = _wrong_type(where, value, kind)
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


def _has_duration(kind) -> bool:
  return kind is Duration or Duration in typing.get_args(kind)


def _is_a(value, kind) -> bool:
  """Whether `value` can be read as the annotation `kind`."""
  if kind is Any or kind is inspect.Parameter.empty:
    return True
  origin, args = typing.get_origin(kind), typing.get_args(kind)
  if origin in (typing.Union, types.UnionType):
    return any(_is_a(value, a) for a in args)
  if origin is typing.Literal:
    return value in args
  if kind is None or kind is type(None):
    return value is None
  if kind is bool or isinstance(value, bool):
    return kind is bool and isinstance(value, bool)
  if kind is float:
    return isinstance(value, int | float)
  if kind is int:
    return isinstance(value, int)
  origin = origin or kind
  if origin in (tuple, list, Sequence):
    return isinstance(value, tuple | list)
  if isinstance(origin, type):
    return isinstance(value, origin)
  return True


def _unknown(where: str, key: str, known: Mapping | Sequence) -> str:
  hint = messages.did_you_mean(key, known)
  return (
    f"config.{where} is not a key.{hint} Known: {', '.join(sorted(known))}."
  )


def _wrong_type(where: str, value, kind) -> str:
  kind = getattr(kind, "__name__", None) or str(kind)
  return f"config.{where}={value!r} ({type(value).__name__}) has to be: {kind}."


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
