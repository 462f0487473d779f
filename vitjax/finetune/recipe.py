"""A shipped config with its options and overrides: what a command line says."""

import dataclasses
import pathlib
import shlex
from collections.abc import Mapping
from typing import Any

from vitjax import checks
from vitjax.config import resolving, shipped
from vitjax.config.schema import RunConfig


@dataclasses.dataclass(frozen=True)
class Recipe:
  """The config of a run.

  Attributes:
    file: name of a shipped config file.
    options: its options.
    overrides: values of other keys by their dotted paths.
  """

  file: str
  options: Mapping[str, Any]
  overrides: Mapping[str, Any] = dataclasses.field(default_factory=dict)

  def changed(self, overrides: Mapping[str, Any] = {}, **options) -> "Recipe":
    """The recipe with other options and overrides; those of None are unset."""
    return Recipe(
      self.file,
      _without_none({**self.options, **options}),
      _without_none({**self.overrides, **overrides}),
    )

  @property
  def config(self) -> str:
    """The value of --config."""
    options = ",".join(f"{k}={_text(v)}" for k, v in self.options.items())
    return f"{self.file}:{options}"

  def command(self, workdir: pathlib.Path) -> str:
    """The command that trains this recipe."""
    words = [
      "vitjax",
      "train",
      f"--config={self.config}",
      *(f"--config.{k}={_text(v)}" for k, v in self.overrides.items()),
      f"--workdir={workdir}",
    ]
    return " \\\n  ".join(
      [" ".join(words[:2]), *(shlex.quote(word) for word in words[2:])]
    )

  def resolve(self) -> RunConfig:
    """The config of the command, checked.

    Raises:
      ConfigError: if it cannot be run.
    """
    config = shipped.load(self.config).to_dict()
    for path, value in self.overrides.items():
      *sections, key = path.split(".")
      section = config
      for name in sections:
        section = section.setdefault(name, {})
      section[key] = value
    return resolving.resolve(config, checks.problems)


def _without_none(values: Mapping[str, Any]) -> dict[str, Any]:
  return {k: v for k, v in values.items() if v is not None}


def _text(value: Any) -> str:
  return f"{value:g}" if isinstance(value, float) else str(value)
