"""Early stopping: ends a run whose best metric no longer improves."""

import math
from collections.abc import Mapping
from typing import Any

from vitjax.config.schema import Checkpoint


class Patience:
  """Counts the evals since `checkpoint.best_metric` was best.

  Its state is saved with the checkpoints, so a resumed run continues to count.
  """

  def __init__(self, config: Checkpoint, info: Mapping[str, Any] | None):
    """Starts to count, or continues from a checkpoint.

    Args:
      config: the section of the config.
      info: facts in the checkpoint that the run resumes from, see `info`; None
        at the start of a run.
    """
    self._metric, self._most = config.best_metric, config.patience
    self._sign = -1 if config.best_mode == "min" else 1
    # A NaN of JSON is no number for other readers, so a best value is finite.
    self._state: dict[str, Any] = {"best": None, "step": None, "evals": 0}
    self._state |= (info or {}).get("patience", {})

  @property
  def info(self) -> dict[str, Any]:
    """What a checkpoint keeps: {"patience": ...}, or {} without patience."""
    return {} if self._most is None else {"patience": dict(self._state)}

  @property
  def is_over(self) -> bool:
    """Whether the run ends."""
    return self._most is not None and self._state["evals"] >= self._most

  def after(self, step: int, results: Mapping[str, float]) -> bool:
    """Notes the metrics of an evaluation; returns `is_over`.

    A value must be better than all before it to count as an improvement; one
    that is not finite never is.
    """
    if self._metric not in results:
      return self.is_over
    value, best = float(results[self._metric]), self._state["best"]
    is_better = best is None or self._sign * (value - best) > 0
    if math.isfinite(value) and is_better:
      self._state = {"best": value, "step": step, "evals": 0}
    else:
      self._state["evals"] += 1
    return self.is_over

  def why(self, step: int, total_steps: int) -> str:
    """The reason for an early end, in a sentence."""
    best, best_step = self._state["best"], self._state["step"]
    found = "it was never finite"
    if best is not None:
      found = f"its best value is {best:.6g}, at step {best_step:,}"
    return (
      f"Ended early after step {step:,} of {total_steps:,}: {self._metric} has "
      f"not improved in {self._state['evals']} evals (config.checkpoint."
      f"patience); {found}."
    )
