"""Checks a config and fills in the defaults: a ConfigDict to a `RunConfig`.

A config file gives the keys that differ from the defaults of `schema`;
`resolve` turns it into a `RunConfig`, or reports everything that is wrong with
it at once.
"""

import dataclasses
import inspect
import math
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from vitjax.config import kinds
from vitjax.config.schema import (
  OPEN,
  UNITS,
  ConfigError,
  Duration,
  Eval,
  RunConfig,
  is_duration,
)

# Names of metrics whose smallest (or largest) value is the best.
_SMALLEST = re.compile(
  r"(.*_)?(loss|nll|perplexity|error|err|mae|mse|rmse|ece)(@\d+)?"
)
_LARGEST = re.compile(
  r"(.*_)?(acc|accuracy|precision|recall|f1|auroc|ap|mAP|exact_match|r2|R|iou)(@\d+)?"
  r"|\d+(shot|nn)"
)


def best_mode(metric: str) -> str | None:
  """Whether the best value of EVAL/METRIC is its "max" or "min", if known."""
  name = metric.partition("/")[2].partition("[")[0]  # recall[cat]: recall
  name = name.rpartition("/")[2]  # patch8/recall: recall
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
    more: further checks of a config without missing keys, such as
      `checks.problems`; returns sentences.

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
  """Problems of calling `allowed(**given)`, one sentence each.

  Args:
    allowed: a function, or option name -> type.
    given: the section of the config.
    path: path of the section, for the messages.
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


class _Gap(str):
  """An error that leaves nothing to check further."""


def _section(cls, given: Mapping, path: str, errors: list[str]):
  """Builds the dataclass `cls`; appends the problems to `errors`."""
  fields = {f.name: f for f in dataclasses.fields(cls)}
  is_eval = cls is Eval
  keys = {}  # key in the file -> field
  for name, field in fields.items():
    if name == "options":
      continue
    if is_duration(field.type):
      keys |= {f"{name}_{unit}": name for unit in UNITS}
    else:
      keys[name] = name
  values, options, wrong = {}, {}, {}
  for key, value in given.items():
    where = f"config.{path}{key}"
    if key not in keys:
      if is_eval and key == "options" and isinstance(value, Mapping):
        options |= value  # as in older files
      elif is_eval:
        options[key] = value
      else:
        errors.append(kinds.unknown(where, key, keys))
      continue
    name = keys[key]
    kind = fields[name].type
    if is_duration(kind):
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
      values[name] = tuple(value) if isinstance(value, list) else value
  for name, field in fields.items():
    optional = (
      field.default is not dataclasses.MISSING
      or field.default_factory is not dataclasses.MISSING
    )
    if name in wrong:
      errors.append(wrong[name] if optional else _Gap(wrong[name]))
    if name not in values and not optional:
      key = name
      if is_duration(field.type):
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


def _duration_problem(where: str, value, unit: str, kind) -> str | None:
  """Why a number of `unit`s is no duration."""
  # Steps are 32-bit numbers.
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
