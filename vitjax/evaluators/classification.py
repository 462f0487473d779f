"""Loss and top-k accuracy of a classifier over a labelled set."""

from collections.abc import Callable, Iterator

import jax
import jax.numpy as jnp

from vitjax import losses
from vitjax.evaluators import base


def correct_at_k(logits: jax.Array, label: jax.Array, k: int) -> jax.Array:
  """(b,) bool: is the label among the k largest logits?

  Classes that tie with the label's logit count as larger, and so does NaN: a
  model that gives every class the same logit, or none, scores nothing.
  """
  own = jnp.take_along_axis(logits, label[:, None], axis=1)
  return (~(logits < own)).sum(axis=1) <= k


class Evaluator:
  """`loss`, `acc@1`, `acc@5` and `n_seen` of a labelled set."""

  two_towers = False

  def __init__(
    self,
    predict_fn: Callable,
    data: base.EvalData,
    *,
    loss: str = "softmax_xent",
  ):
    """See `evaluators`.

    Args:
      predict_fn: from `step.make_predict_fn`.
      data: examples with an int `label`.
      loss: which of `vitjax.losses` to report, without label smoothing.
    """
    loss_fn = losses.LOSSES[loss]

    def sums(params, batch):
      logits, _ = predict_fn(params, batch)
      label, mask = batch["label"], batch["mask"]
      targets = jax.nn.one_hot(label, logits.shape[-1])
      result = {"loss": jnp.where(mask, loss_fn(logits, targets), 0.0)}
      result["acc@1"] = mask & correct_at_k(logits, label, 1)
      if logits.shape[-1] > 5:
        result["acc@5"] = mask & correct_at_k(logits, label, 5)
      return {name: x.sum() for name, x in result.items()}

    self._sums = base.MaskedSums(sums, data)

  def run(self, params) -> Iterator[tuple[str, float]]:
    """Yields each metric with its name."""
    sums = self._sums(params)
    n_seen = sums.pop("n_seen")
    for name, value in sums.items():
      yield name, float(value / n_seen)
    yield "n_seen", int(n_seen)
