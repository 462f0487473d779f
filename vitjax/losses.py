"""Losses of one example each: (b, n) float32 in, (b,) float32 out.

The caller reduces, so a padded or masked example is its business.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float


def softmax_xent(
  logits: Float[Array, "b n"], labels: Float[Array, "b n"]
) -> Float[Array, "b"]:
  """Cross-entropy of a softmax against soft targets that sum to one."""
  return -jnp.sum(labels * jax.nn.log_softmax(logits), axis=-1)


def sigmoid_xent(
  logits: Float[Array, "b n"], labels: Float[Array, "b n"]
) -> Float[Array, "b"]:
  """Binary cross-entropy summed over the classes.

  Are we done with ImageNet?, https://arxiv.org/abs/2006.07159. Learning rates
  are those of big_vision's recipes; `sigmoid_xent_mean` is `n` times less.
  """
  positive = labels * jax.nn.log_sigmoid(logits)
  negative = (1.0 - labels) * jax.nn.log_sigmoid(-logits)
  return -jnp.sum(positive + negative, axis=-1)


def sigmoid_xent_mean(
  logits: Float[Array, "b n"], labels: Float[Array, "b n"]
) -> Float[Array, "b"]:
  """Binary cross-entropy averaged over the classes.

  PyTorch's `BCEWithLogitsLoss`, as DeiT III (https://arxiv.org/abs/2204.07118)
  and timm use it. Gradients are `n` times less than those of `sigmoid_xent`,
  which SGD, clipping and Adam's epsilon feel.
  """
  return sigmoid_xent(logits, labels) / logits.shape[-1]


LOSSES = {
  "softmax_xent": softmax_xent,
  "sigmoid_xent": sigmoid_xent,
  "sigmoid_xent_mean": sigmoid_xent_mean,
}
