"""The rules of `vitjax finetune`, for docs/finetune.md."""

import inspect

from scripts.update_docs import docstrings
from vitjax.finetune import rules

_HEAD = "| choice | rule | why | source |\n| --- | --- | --- | --- |"


def parts() -> dict[str, str]:
  """Part of the page -> its text."""
  return {"rules": "\n".join([_HEAD, *map(_row, rules.RULES)])}


def _row(rule) -> str:
  docs = inspect.getdoc(rule) or ""
  text, _, source = docs.partition("\nSource: ")
  first, _, why = text.partition("\n\n")
  cells = (f"`{rule.__name__}`", first, why, source)
  return f"| {' | '.join(map(docstrings.cell, cells))} |"
