"""The grid of a sweep: settings of config keys, and the config of each."""

import ast
import copy
import dataclasses
import itertools
import re
from collections.abc import Mapping, Sequence
from typing import Any

from vitjax.config import flag

_OPEN, _CLOSE = "([{", ")]}"


@dataclasses.dataclass(frozen=True)
class Axis:
  """A key of the config and its values, as text.

  Attributes:
    key: path of the key, such as optim.learning_rate.
    texts: the values as they were given.
  """

  key: str
  texts: tuple[str, ...]

  @property
  def numbers(self) -> tuple[float, ...] | None:
    """The values as numbers; None if any is not a number."""
    values = [value_of(text) for text in self.texts]
    if all(type(x) in (int, float) for x in values):
      return tuple(map(float, values))
    return None


@dataclasses.dataclass(frozen=True)
class Point:
  """One setting of all keys.

  Attributes:
    name: name of its run folder.
    texts: key -> value as text.
  """

  name: str
  texts: Mapping[str, str]

  @property
  def overrides(self) -> list[str]:
    """The flags of `vitjax train` that set it."""
    return [f"--config.{key}={text}" for key, text in self.texts.items()]


def parse(text: str) -> Axis:
  """Reads KEY=VALUE,VALUE,...; commas in brackets and quotes do not separate.

  Raises:
    ValueError: if there is no key, or not at least one value, or one twice.
  """
  key, _, values = text.partition("=")
  key = key.strip().removeprefix("config.")
  texts = [part.strip() for part in _split(values)]
  if not key or not all(texts):
    raise ValueError(
      f"--over={text} must be KEY=VALUE,VALUE,..., such as "
      "--over=optim.learning_rate=1e-3,3e-3,1e-2."
    )
  if twice := [x for x in texts if texts.count(x) > 1]:
    raise ValueError(f"--over={text} has {twice[0]} twice; give values once.")
  return Axis(key, tuple(texts))


def _split(text: str) -> list[str]:
  parts, depth, quote = [""], 0, ""
  for letter in text:
    if quote:
      quote = "" if letter == quote else quote
    elif letter in "\"'":
      quote = letter
    depth += (letter in _OPEN) - (letter in _CLOSE) if not quote else 0
    if letter == "," and not depth and not quote:
      parts.append("")
    else:
      parts[-1] += letter
  return parts


def value_of(text: str) -> Any:
  """The value of a text: a Python literal, or else the text."""
  try:
    return ast.literal_eval(text)
  except (ValueError, SyntaxError):
    return text


def points(axes: Sequence[Axis]) -> list[Point]:
  """All combinations; the last key changes fastest.

  Raises:
    ValueError: if a key is given twice.
  """
  keys = [axis.key for axis in axes]
  if twice := [key for key in keys if keys.count(key) > 1]:
    raise ValueError(
      f"--over={twice[0]}=... is given twice. Give all values of a key in one "
      "--over, with commas between them."
    )
  short = [key.rpartition(".")[2] for key in keys]
  titles = [s if short.count(s) == 1 else k for s, k in zip(short, keys)]
  found = []
  for texts in itertools.product(*(axis.texts for axis in axes)):
    name = "_".join(f"{title}={text}" for title, text in zip(titles, texts))
    name = re.sub(r"[^\w.=+-]+", "-", name)
    found.append(Point(name, dict(zip(keys, texts))))
  return found


def config_of(base: Mapping[str, Any], point: Point) -> dict[str, Any]:
  """The config of a point, as overrides on the command line would make it."""
  config = copy.deepcopy(dict(base))
  for path, text in point.texts.items():
    *sections, key = path.split(".")
    section = config
    for name in sections:
      section = section.setdefault(name, {})
      if not isinstance(section, dict):
        raise ValueError(f"--over={path}: config.{name} is not a section.")
    section[key] = value_of(text)
  flag.replace_units(config, dict(point.texts))
  return config
