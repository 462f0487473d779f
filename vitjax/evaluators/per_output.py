"""Outputs and targets of every example, where each output has its own target.

They are kept on the host, so that metrics of the whole set are exact for any
number of devices and processes: 8 bytes x images x outputs.
"""

import dataclasses
from collections.abc import Callable

import jax.numpy as jnp
import numpy as np

from vitjax import losses
from vitjax.data.sources.source import KINDS
from vitjax.evaluators import base
from vitjax.evaluators.classes import Classes

# Kind of labels -> the evaluator for them.
_TYPES = {
  "single_label": "classification",
  "multi_label": "multi_label",
  "soft_label": "classification",
  "regression": "regression",
}


@dataclasses.dataclass(frozen=True)
class Found:
  """What `PerOutput` found.

  Attributes:
    outputs: (m, n) float32, logits or numbers in their own units.
    targets: (m, n) float32, NaN where unknown.
    losses: (m,) float32, the sum over the known targets of each example.
  """

  outputs: np.ndarray
  targets: np.ndarray
  losses: np.ndarray

  @property
  def loss(self) -> float:
    """Mean over the known targets, times the outputs that it sums over."""
    known = int((~np.isnan(self.targets)).sum())
    total = self.losses.sum(dtype=np.float64)
    return float(total / known * self.targets.shape[1])

  def of(self, rows: np.ndarray) -> "Found":
    """The same of some examples."""
    return Found(self.outputs[rows], self.targets[rows], self.losses[rows])


class PerOutput:
  """Runs a model over an eval set with `labels` of one kind.

  Attributes:
    data: the eval set.
    names: names of its outputs.
  """

  def __init__(
    self,
    predict_fn: Callable,
    data: base.EvalData,
    *,
    kind: str,
    loss: str,
    classes: Classes | None,
    same_classes: bool,
    scale: tuple[np.ndarray, np.ndarray] | None = None,
  ):
    """Takes the options of the evaluators.

    Raises:
      ValueError: if the labels of the data, or the loss of the model, are of
        another kind, or classes cannot be matched.
    """
    source = data.source
    if source.kind != kind:
      raise ValueError(
        f"type={kind!r} is for images with {KINDS[kind]}, but each image of "
        f"{source.data!r} has {KINDS[source.kind]}: use "
        f"type={_TYPES[source.kind]!r}, or columns of its table "
        f"(:{kind}=...)."
      )
    if loss not in losses.OF_KIND[kind]:
      raise ValueError(
        f"type={kind!r} is for models trained with one of "
        f"{', '.join(losses.OF_KIND[kind])}, and this one was trained with "
        f"{loss!r}."
      )
    own = classes or Classes(
      source.data, base.count_of(source), source.class_names
    )
    ids = own.ids_of(source, same=same_classes)
    self.data = data
    self.names = source.class_names or tuple(map(str, range(len(ids))))
    mean, deviation = np.zeros(1, np.float32), np.ones(1, np.float32)
    if scale is not None:
      mean, deviation = (np.asarray(x, np.float32)[ids] for x in scale)
    loss_fn = losses.OUTPUT_LOSSES[loss]

    def rows(params, batch):
      outputs = predict_fn(params, batch)[0][:, ids]
      targets = batch["labels"]
      known = ~jnp.isnan(targets)
      normal = (targets - mean[None]) / deviation[None]
      each = loss_fn(outputs, jnp.where(known, normal, 0.0))
      return {
        "outputs": outputs * deviation[None] + mean[None],
        "targets": targets,
        "loss": jnp.where(known, each, 0.0).sum(axis=1),
      }

    self._rows = base.Collected(rows, data)

  def trace(self, params) -> None:
    """See `evaluators`."""
    self._rows.trace(params)

  def __call__(self, params) -> Found:
    """The outputs for every example.

    Raises:
      RuntimeError: if no target is known.
    """
    rows = self._rows(params)
    if np.isnan(rows["targets"]).all():
      source = self.data.source
      raise RuntimeError(
        f"all labels of {source.data} {source.split} are unknown: no metric is "
        "reported."
      )
    return Found(rows["outputs"], rows["targets"], rows["loss"])
