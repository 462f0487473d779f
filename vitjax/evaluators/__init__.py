"""The table of evaluators. Importing it loads none of them.

An evaluator is a class with

  Evaluator(predict_fn, eval_data, **options)
  run(params) -> iterator of (metric name, float)

where `eval_data` is an `evaluators.base.EvalData` and the options are those
that its signature names; they are written into the eval's own section of the
config. Options called as in `FILLED` get their value from the run instead.

A class attribute `two_towers` says whether `predict_fn` has to be of a model
with two towers, or must not be; without it, either will do. `own_classes` says
that labels are only compared with each other, never with the model's classes.
"""

import importlib

from vitjax.config import messages

_EVALUATORS = {
  "classification": "vitjax.evaluators.classification",
  "fewshot": "vitjax.evaluators.fewshot",
  "knn": "vitjax.evaluators.knn",
  "linear_probe": "vitjax.evaluators.linear_probe",
  "retrieval": "vitjax.evaluators.retrieval",
  "zeroshot": "vitjax.evaluators.zeroshot",
}

# The classes of the model, the loss of training by name, and the tokenizer of
# its texts.
FILLED = ("classes", "loss", "tokenizer")


def find(name: str) -> type:
  """The evaluator class called `name` in the table, or in a dotted module.

  Raises:
    ValueError: if there is none.
  """
  module = _EVALUATORS.get(name, name if "." in name else None)
  if module is None:
    hint = messages.did_you_mean(name, _EVALUATORS)
    raise ValueError(
      f"{name!r} is not an evaluator.{hint} Known: {', '.join(_EVALUATORS)}."
    )
  try:
    return importlib.import_module(module).Evaluator
  except ImportError as e:
    raise ValueError(f"evaluator {name!r} cannot be imported: {e}") from e
