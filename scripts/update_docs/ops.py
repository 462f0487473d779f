"""Preprocessing ops and their arguments, for docs/reference/ops.md."""

import inspect

from scripts.update_docs import docstrings, options
from vitjax.data.pp import builder


def parts() -> dict[str, str]:
  """Part of the page -> its text."""
  return {"ops": "\n\n".join(_op(name) for name in sorted(builder.OPS))}


def _op(name: str) -> str:
  factory = builder.OPS[name]
  rows = options.rows(factory)
  table = options.table(rows) if rows else "No arguments."
  docs = docstrings.summary(inspect.getdoc(factory))
  return f"## `{name}`\n\n{docs}\n\n{table}"
