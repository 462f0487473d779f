"""Configs as plain data: written to config.json, compared, flattened."""

import dataclasses
import json
import re
from collections.abc import Mapping
from typing import Any

from vitjax.config.resolving import resolve
from vitjax.config.schema import (
  Checkpoint,
  ConfigError,
  Duration,
  RunConfig,
  is_duration,
)


def to_dict(run: RunConfig) -> dict[str, Any]:
  """The resolved config as plain data, in the form that `resolve` reads."""

  def plain(x):
    if dataclasses.is_dataclass(x):
      result: dict[str, Any] = {}
      for f in dataclasses.fields(x):
        value = getattr(x, f.name)
        if isinstance(value, Duration):
          result[f"{f.name}_{value.unit}"] = value.value
        elif value is not None or not is_duration(f.type):
          result[f.name] = plain(value)
      if isinstance(x, Checkpoint) and x.best_metric is None:
        del result["best_mode"]  # unused, and older files differ
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


# Keys and sections that change no result.
_NO_RESULT = re.compile(
  r"distill\.cache|input\.(cache|prefetch)|report\.trackers(\..*)?"
)


def differences(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
  """One line for each key in which two plain configs differ.

  Keys that change no result are left out.
  """
  old, new = flatten(old), flatten(new)
  missing = object()
  return [
    f"{key}: {old.get(key, '(absent)')} -> {new.get(key, '(absent)')}"
    for key in sorted({*old, *new})
    if not _NO_RESULT.fullmatch(key)
    and old.get(key, missing) != new.get(key, missing)
  ]


def with_defaults(given: Mapping[str, Any]) -> dict[str, Any]:
  """An older plain config with the defaults of keys added since.

  Unchanged if this version cannot resolve it.
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
