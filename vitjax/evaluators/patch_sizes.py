"""An evaluation at several patch sizes: a curve, one number per size."""

from collections.abc import Iterator, Mapping
from typing import Any

# The metric that counts examples, which is the same at all sizes.
_COUNT = "n_seen"


class PatchSizes:
  """Evaluators of the same set, one for each patch size of the model."""

  def __init__(self, evaluators: Mapping[int, Any]):
    """Takes the evaluators by patch size."""
    self._evaluators = dict(evaluators)

  @property
  def metrics(self) -> list[str]:
    """Names such as patch8/acc@1; empty if the evaluators do not say."""
    return [
      f"patch{size}/{name}"
      for size, evaluator in self._evaluators.items()
      for name in getattr(evaluator, "metrics", ())
      if name != _COUNT
    ]

  def trace(self, params: Any) -> None:
    """Raises what `run` would raise; `params` may be abstract."""
    for evaluator in self._evaluators.values():
      if hasattr(evaluator, "trace"):
        evaluator.trace(params)

  def run(self, params: Any) -> Iterator[tuple[str, float]]:
    """The metrics of each size, then the number of examples."""
    count = None
    for size, evaluator in self._evaluators.items():
      for name, value in evaluator.run(params):
        if name == _COUNT:
          count = value
        else:
          yield f"patch{size}/{name}", value
    if count is not None:
      yield _COUNT, count
