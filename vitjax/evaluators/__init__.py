"""The table of evaluators. Importing it loads none of them.

An evaluator is a class with

  Evaluator(predict_fn, eval_data, **options)
  metrics: the names that `run` yields, in order
  trace(params): raises what `run` would raise for these shapes
  run(params) -> iterator of (metric name, float)

where `eval_data` is an `evaluators.base.EvalData`. The options are the other
parameters of its signature; a config sets them in the section of the eval.
Options with a name in `FILLED` get their value from the run instead.

`metrics` and `trace` are used before step 1, when no parameters exist:
`metrics` to check that `checkpoint.best_metric` exists, `trace`, with abstract
parameters, to find images of a wrong size before the first eval. Your own
evaluator may leave them out; then neither is checked.

The class attribute `two_towers` says whether `predict_fn` must belong to a
model with two towers; without it, any model will do. `own_classes` says that
labels are only compared with each other, never with the model's classes.
"""

import importlib
import re

from vitjax.config import messages

_EVALUATORS = {
  "classification": "vitjax.evaluators.classification",
  "fewshot": "vitjax.evaluators.fewshot",
  "knn": "vitjax.evaluators.knn",
  "linear_probe": "vitjax.evaluators.linear_probe",
  "multi_label": "vitjax.evaluators.multi_label",
  "perplexity": "vitjax.evaluators.perplexity",
  "regression": "vitjax.evaluators.regression",
  "retrieval": "vitjax.evaluators.retrieval",
  "zeroshot": "vitjax.evaluators.zeroshot",
}

# The classes of the model, the name of the training loss, the tokenizer, and
# mean and deviation of the targets of a regression.
FILLED = ("classes", "loss", "tokenizer", "target_scale")


def find(name: str) -> type:
  """The evaluator class called `name` in the table, or in a dotted module.

  Raises:
    ValueError: if there is none.
  """
  is_dotted = re.fullmatch(r"[^\W\d]\w*(\.[^\W\d]\w*)+", name)
  module = _EVALUATORS.get(name, name if is_dotted else None)
  if module is None:
    hint = messages.did_you_mean(name, _EVALUATORS)
    raise ValueError(
      f"{name!r} is not an evaluator.{hint} Known: {', '.join(_EVALUATORS)}, "
      "and dotted paths of modules, such as my_package.my_evaluator."
    )
  try:
    found = importlib.import_module(module)
  except ImportError as e:
    raise ValueError(f"evaluator {name!r} cannot be imported: {e}") from e
  if not isinstance(getattr(found, "Evaluator", None), type):
    raise ValueError(f"module {name!r} has no class Evaluator.")
  return found.Evaluator
