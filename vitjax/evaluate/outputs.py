"""Outputs for each example of an eval, where each output has its own target."""

import dataclasses
import math
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import scipy.special

from vitjax.evaluators import base
from vitjax.evaluators.per_output import Found, PerOutput

# Types of evals whose examples have such outputs -> whether they are logits.
TYPES = {"multi_label": True, "regression": False}


@dataclasses.dataclass(frozen=True)
class OutputAnswers:
  """Outputs for the examples of an eval set, in their order.

  Attributes:
    found: outputs and targets.
    is_logit: whether an output is the logit of a class, or else a number.
    names: names of the outputs.
    data: the eval set.
  """

  found: Found
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

  def cells(self) -> Iterator[dict[str, Any]]:
    """`rows` as cells of a table, by column."""
    for row in self.rows():
      cells = {"file": row["file"]}
      for name in self.names:
        cells[f"label[{name}]"] = row["labels"][name]
        cells[f"output[{name}]"] = row["outputs"][name]
      yield cells


def answers(kind: str, outputs: PerOutput, params) -> OutputAnswers:
  """The outputs for every example of an eval of a type in `TYPES`."""
  return OutputAnswers(
    outputs(params), TYPES[kind], outputs.names, outputs.data
  )
