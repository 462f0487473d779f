"""Perplexity of captions: how well a captioner predicts each next token."""

from collections.abc import Callable, Iterator

import jax.numpy as jnp
import numpy as np

from vitjax import losses
from vitjax.evaluators import base


class Evaluator:
  """Perplexity of the captions of images, one token after the other.

  Metrics: `loss`, the mean cross-entropy of a token in nats; `perplexity`, its
  exponential; `n_tokens`, the number of tokens but padding, and `n_seen`, that
  of images.
  """

  metrics = ("loss", "perplexity", "n_tokens", "n_seen")

  def __init__(self, predict_fn: Callable, data: base.EvalData):
    """See `evaluators`.

    Args:
      predict_fn: of a captioner, see `step.make_predict_fn`.
      data: examples with `text` (t,), or (k, t) and `text_mask` (k,).
    """

    def sums(params, batch):
      if "text" not in batch:
        raise ValueError(
          "perplexity needs texts: end the eval's pp with an op such as "
          "tokenize(...)."
        )
      text, mask, image = batch["text"], batch["mask"][:, None], batch["image"]
      if text.ndim == 3:
        mask = mask & batch["text_mask"]
        image = jnp.repeat(image, text.shape[1], axis=0)
      text = text.reshape(-1, text.shape[-1])
      logits, *_ = predict_fn(params, {"image": image, "text": text})
      if logits.ndim != 3:
        raise ValueError(
          "perplexity needs a model that writes captions: "
          "config.model.name='captioner'."
        )
      mask = mask.reshape(-1, 1)
      return {
        "loss": jnp.where(mask, losses.token_xent(logits, text), 0.0).sum(),
        "n_tokens": (mask & (text != 0)).sum(),
      }

    self._sums = base.MaskedSums(sums, data)

  def trace(self, params) -> None:
    """See `evaluators`."""
    self._sums.trace(params)

  def run(self, params) -> Iterator[tuple[str, float]]:
    """Yields each metric with its name.

    Raises:
      RuntimeError: if no caption has a token.
    """
    sums = self._sums(params)
    if not sums["n_tokens"]:
      raise RuntimeError("perplexity: no image has a text.")
    loss = sums["loss"] / sums["n_tokens"]
    yield "loss", float(loss)
    yield "perplexity", float(np.exp(loss))
    yield "n_tokens", int(sums["n_tokens"])
    yield "n_seen", int(sums["n_seen"])
