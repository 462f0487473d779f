"""Evaluators and their options, for docs/reference/evaluators.md."""

import inspect

from scripts.update_docs import docstrings, options
from vitjax import evaluators


def parts() -> dict[str, str]:
  """Part of the page -> its text."""
  return {"evaluators": "\n\n".join(map(_evaluator, evaluators._EVALUATORS))}


def _evaluator(name: str) -> str:
  evaluator = evaluators.find(name)
  rows = options.rows(
    evaluator,
    docs=inspect.getdoc(evaluator.__init__),
    hidden=("predict_fn", "data", *evaluators.FILLED),
  )
  table = options.table(rows) if rows else "No options."
  docs = docstrings.summary(inspect.getdoc(evaluator))
  return f"## `{name}`\n\n{docs}\n\n{table}"
