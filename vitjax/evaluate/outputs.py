"""Outputs for each example of an eval, where each output has its own target."""

import dataclasses
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import scipy.special

from vitjax.evaluate import intervals
from vitjax.evaluators import base, multi_label, regression
from vitjax.evaluators.per_output import Found

# Types of evals whose examples have such outputs -> whether they are logits.
TYPES = {"multi_label": True, "regression": False}


@dataclasses.dataclass(frozen=True)
class OutputAnswers:
  """Outputs for the examples of an eval set, in their order.

  Attributes:
    found: outputs and targets.
    measure: gives the metrics of outputs and targets.
    is_logit: whether an output is the logit of a class, or else a number.
    names: names of the outputs.
    data: the eval set.
  """

  found: Found
  measure: Callable[[Found], Mapping[str, float]]
  is_logit: bool
  names: Sequence[str]
  data: base.EvalData

  def rows(self) -> Iterator[dict[str, Any]]:
    """Plain data of each example: its file, labels and outputs by name.

    An unknown label is None. The output of a class is its probability.
    """
    outputs = self.found.outputs
    if self.is_logit:
      outputs = scipy.special.expit(outputs)
    for i, (labels, row) in enumerate(zip(self.found.targets, outputs)):
      known = [None if math.isnan(x) else x for x in labels.tolist()]
      yield {
        "file": self.data.source.describe(i),
        "labels": dict(zip(self.names, known)),
        "outputs": dict(zip(self.names, row.tolist())),
      }

  def scores(self) -> tuple[Sequence[str], np.ndarray, np.ndarray]:
    """Names of the classes, and probability and truth (n, classes) of each."""
    score = scipy.special.expit(self.found.outputs.astype(np.float64))
    return self.names, score, self.found.targets

  def intervals(self, resamples: int) -> dict[str, tuple[float, float]]:
    """95 % confidence interval of each metric; see `intervals.bootstrap`."""
    known = np.flatnonzero(~np.isnan(self.found.targets).all(axis=1))
    return intervals.bootstrap(
      lambda drawn: self.measure(self.found.of(known[drawn])),
      len(known),
      resamples,
    )

  def cells(self) -> Iterator[dict[str, Any]]:
    """`rows` as cells of a table, by column."""
    for row in self.rows():
      cells = {"file": row["file"]}
      for name in self.names:
        cells[f"label[{name}]"] = row["labels"][name]
        cells[f"output[{name}]"] = row["outputs"][name]
      yield cells


def answers(
  kind: str, evaluator: multi_label.Evaluator | regression.Evaluator, params
) -> OutputAnswers:
  """The outputs for every example of an eval of a type in `TYPES`."""
  outputs = evaluator.outputs
  return OutputAnswers(
    outputs(params),
    evaluator.measure,
    TYPES[kind],
    outputs.names,
    outputs.data,
  )
