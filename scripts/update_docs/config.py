"""Keys of a config, for docs/reference/config.md.

Closed sections are the dataclasses of `vitjax.config.schema`; the open ones,
`optim` and `model`, are the signatures of what they configure.
"""

import dataclasses
import importlib
import inspect
import typing
from dataclasses import fields

from scripts.update_docs import docstrings, options
from vitjax import models, optim
from vitjax.config import schema


def parts() -> dict[str, str]:
  """Part of the page -> its text."""
  return {
    "schema": "\n\n".join(_sections()),
    "optim": "\n\n".join(_optimizers()),
    "model": "\n\n".join(_models()),
  }


def _sections() -> list[str]:
  """The top level, then each section in its order."""
  text = [_section("The run", schema.RunConfig, "config.KEY")]
  for field in fields(schema.RunConfig):
    if _is_section(field.type):
      where = f"config.{field.name}.KEY"
      text.append(_section(f"`{field.name}`", field.type, where))
    elif field.name == "evals":
      text.append(_section("`evals`", schema.Eval, "config.evals.NAME.KEY"))
  return text


def _section(title: str, cls: type, where: str) -> str:
  docs = inspect.getdoc(cls) or ""
  meanings = docstrings.described(docs)
  rows = [
    _row(field, meanings.get(field.name, ""))
    for field in fields(cls)
    if field.name != "options"  # of an eval: docs/reference/evaluators.md
  ]
  summary = docstrings.summary(docs)
  return f"## {title}\n\n`{where}`: {summary}\n\n{options.table(rows)}"


def _row(field: dataclasses.Field, meaning: str) -> dict[str, str]:
  if _is_section(field.type) or options.kind(field.type) == "dict":
    key = f"[`{field.name}`](#{field.name})"
    return options.row(key, "section", None, meaning)
  default = "required"
  if field.default is not dataclasses.MISSING:
    default = options.value(field.default)
  if _is_duration(field.type):
    key = f"`{field.name}_...`"
    if isinstance(field.default, schema.Duration):
      default = str(field.default)
    return options.row(key, "duration", default, meaning)
  kind = options.kind(field.type)
  return options.row(f"`{field.name}`", kind, default, meaning)


def _is_section(kind) -> bool:
  return dataclasses.is_dataclass(kind) and not _is_duration(kind)


def _is_duration(kind) -> bool:
  return kind is schema.Duration or schema.Duration in typing.get_args(kind)


def _optimizers() -> list[str]:
  """Options of every optimizer, then those of each."""
  rows = options.rows(
    optim.make_optimizer, hidden=("name", "schedule", "model")
  )
  text = [options.table(rows)]
  for name, call in optim.OPTIMIZERS.items():
    docs = docstrings.summary(inspect.getdoc(call))
    table = options.table(options.rows(call))
    text.append(f"### `{name}`\n\n{docs}\n\n{table}")
  return text


def _models() -> list[str]:
  """Options of each family."""
  text = []
  for name, path in models.FAMILIES.items():
    model = importlib.import_module(path).Model
    docs = inspect.getdoc(model)
    # A model that is another one and more has a table of what is more.
    same = [x for x in model.__mro__[1:] if x.__name__ == "Model"]
    hidden = {"parent", "name", *(f.name for x in same for f in fields(x))}
    table = options.table(options.rows(model, docs=docs, hidden=hidden))
    text.append(f"### `{name}`\n\n{docstrings.summary(docs)}\n\n{table}")
  return text
