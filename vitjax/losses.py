"""Losses per example: (b, n) float32 in, (b,) float32 out.

The caller reduces them and leaves out padded examples. The functions in
`LOSSES` compare logits with targets. Those in `CONTRASTIVE` take the logits of
every image with every text, with the matching pairs on the diagonal.
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

  Are we done with ImageNet?, https://arxiv.org/abs/2006.07159. The sum fits
  the learning rates of big_vision's recipes; `sigmoid_xent_mean` is `n` times
  smaller.
  """
  positive = labels * jax.nn.log_sigmoid(logits)
  negative = (1.0 - labels) * jax.nn.log_sigmoid(-logits)
  return -jnp.sum(positive + negative, axis=-1)


def sigmoid_xent_mean(
  logits: Float[Array, "b n"], labels: Float[Array, "b n"]
) -> Float[Array, "b"]:
  """Binary cross-entropy averaged over the classes.

  PyTorch's `BCEWithLogitsLoss`, as DeiT III (https://arxiv.org/abs/2204.07118)
  and timm use it. Gradients are `n` times smaller than those of
  `sigmoid_xent`, which matters to SGD, clipping and Adam's epsilon.
  """
  return sigmoid_xent(logits, labels) / logits.shape[-1]


def focal(
  logits: Float[Array, "b n"], labels: Float[Array, "b n"]
) -> Float[Array, "b"]:
  """Cross-entropy in which a class of probability p has weight (1 - p)^2.

  Focal loss, https://arxiv.org/abs/1708.02002, eq. 4, with the paper's gamma of
  2, and a softmax in place of its sigmoid. Its alpha is `class_weights`.
  """
  log_p = jax.nn.log_softmax(logits)
  return -jnp.sum(labels * (1.0 - jnp.exp(log_p)) ** 2 * log_p, axis=-1)


LOSSES = {
  "softmax_xent": softmax_xent,
  "focal": focal,
  "sigmoid_xent": sigmoid_xent,
  "sigmoid_xent_mean": sigmoid_xent_mean,
}


def is_sigmoid(loss: str) -> bool:
  """Whether a classifier's probabilities are sigmoids, or else a softmax."""
  return loss.startswith("sigmoid")


def contrastive(logits: Float[Array, "b b"]) -> Float[Array, "b"]:
  """Mean of the cross-entropies of a softmax over texts and one over images.

  LiT, https://arxiv.org/abs/2111.07991, sec. 3, with the global batch, as
  CLIP, https://arxiv.org/abs/2103.00020, figure 3.
  """
  own = jnp.diagonal(logits)
  of_image = jax.nn.logsumexp(logits, axis=1) - own
  of_text = jax.nn.logsumexp(logits, axis=0) - own
  return (of_image + of_text) / 2


def siglip(logits: Float[Array, "b b"]) -> Float[Array, "b"]:
  """Binary cross-entropy of each pair, summed over the texts.

  SigLIP, https://arxiv.org/abs/2303.15343. The mean over the images is
  equation 1.
  """
  signs = 2 * jnp.eye(len(logits)) - 1
  return -jnp.sum(jax.nn.log_sigmoid(signs * logits), axis=1)


CONTRASTIVE = {"contrastive": contrastive, "siglip": siglip}
