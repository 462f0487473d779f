"""Losses: (b, n) float32 in, float32 out.

The caller reduces them and leaves out padded examples. The functions in
`LOSSES` give one loss (b,) for each example, from logits and targets. Those in
`OUTPUT_LOSSES` give one (b, n) for each output, so that unknown targets can be
left out; the loss of an example is their sum. Those in `CONTRASTIVE` take the
embeddings of two towers and give the loss of the batch, see `pairs`.
Those in `MASKED` compare patches of images with predictions of their pixels,
and give one loss (b, l) for each patch. Those in `CAPTIONS` give one loss
(b, t) for each token of a text.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from vitjax.losses import pairs


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
  return jnp.sum(binary_xent(logits, labels), axis=-1)


def binary_xent(
  logits: Float[Array, "b n"], labels: Float[Array, "b n"]
) -> Float[Array, "b n"]:
  """Binary cross-entropy of each output."""
  positive = labels * jax.nn.log_sigmoid(logits)
  negative = (1.0 - labels) * jax.nn.log_sigmoid(-logits)
  return -(positive + negative)


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


def binary_focal(
  logits: Float[Array, "b n"], labels: Float[Array, "b n"]
) -> Float[Array, "b n"]:
  """Focal loss of each output, by a sigmoid.

  https://arxiv.org/abs/1708.02002, eq. 4, with the paper's gamma of 2. Its
  alpha is `class_weights`.
  """
  positive = jax.nn.sigmoid(-logits) ** 2 * jax.nn.log_sigmoid(logits)
  negative = jax.nn.sigmoid(logits) ** 2 * jax.nn.log_sigmoid(-logits)
  return -(labels * positive + (1.0 - labels) * negative)


def sigmoid_focal(
  logits: Float[Array, "b n"], labels: Float[Array, "b n"]
) -> Float[Array, "b"]:
  """`binary_focal` summed over the classes."""
  return jnp.sum(binary_focal(logits, labels), axis=-1)


def squared(
  outputs: Float[Array, "b n"], targets: Float[Array, "b n"]
) -> Float[Array, "b n"]:
  """Squared error of each output."""
  return (outputs - targets) ** 2


def huber(
  outputs: Float[Array, "b n"], targets: Float[Array, "b n"]
) -> Float[Array, "b n"]:
  """Huber's loss of each output: quadratic up to an error of 1, then linear.

  PyTorch's `HuberLoss` with delta 1: half of the squared error where that is
  quadratic. Robust estimation of a location parameter, Huber 1964.
  """
  error = jnp.abs(outputs - targets)
  return jnp.where(error <= 1.0, 0.5 * error**2, error - 0.5)


def _mean(loss: Callable[..., Any]) -> Callable[..., Any]:
  """A loss of each output as its share of the mean over the outputs."""

  def share(outputs, targets):
    return loss(outputs, targets) / outputs.shape[-1]

  return share


LOSSES = {
  "softmax_xent": softmax_xent,
  "focal": focal,
  "sigmoid_xent": sigmoid_xent,
  "sigmoid_xent_mean": sigmoid_xent_mean,
  "sigmoid_focal": sigmoid_focal,
}
OUTPUT_LOSSES = {
  "sigmoid_xent": binary_xent,
  "sigmoid_xent_mean": _mean(binary_xent),
  "sigmoid_focal": binary_focal,
  "mse": _mean(squared),
  "huber": _mean(huber),
}
_REGRESSION = ("mse", "huber")
# Kind of labels, see `data.sources.source.KINDS` -> its losses.
OF_KIND = {
  "single_label": tuple(LOSSES),
  "multi_label": tuple(x for x in OUTPUT_LOSSES if x not in _REGRESSION),
  "soft_label": tuple(LOSSES),
  "regression": _REGRESSION,
}


def is_regression(loss: str) -> bool:
  """Whether the outputs are numbers, and not logits of classes."""
  return loss in _REGRESSION


def is_sigmoid(loss: str) -> bool:
  """Whether a classifier's probabilities are sigmoids, or else a softmax."""
  return loss.startswith("sigmoid")


# Losses of images and texts: (image, text, temperature, bias) -> the loss.
CONTRASTIVE = {"contrastive": pairs.softmax, "siglip": pairs.sigmoid}


def pixel_mse(
  predictions: Float[Array, "b l n"], pixels: Float[Array, "b l n"]
) -> Float[Array, "b l"]:
  """Squared error of each patch, averaged over its pixels and channels."""
  return jnp.mean((predictions - pixels) ** 2, axis=-1)


def normalised_pixel_mse(
  predictions: Float[Array, "b l n"], pixels: Float[Array, "b l n"]
) -> Float[Array, "b l"]:
  """`pixel_mse` of patches of which each has mean 0 and variance 1.

  Masked Autoencoders, https://arxiv.org/abs/2111.06377, sec. 3. As in the
  published code, the variance is that of n - 1 degrees of freedom.
  """
  mean = pixels.mean(axis=-1, keepdims=True)
  variance = pixels.var(axis=-1, keepdims=True, ddof=1)
  return pixel_mse(predictions, (pixels - mean) / jnp.sqrt(variance + 1e-6))


MASKED = {"pixel_mse": pixel_mse, "normalised_pixel_mse": normalised_pixel_mse}


def token_xent(
  logits: Float[Array, "b t n"], tokens: Int[Array, "b t"]
) -> Float[Array, "b t"]:
  """Cross-entropy of each token; 0 for token 0, which is padding.

  Image Captioners Are Scalable Vision Learners Too,
  https://arxiv.org/abs/2306.07915. A tokenizer that pads with its end of
  sentence, as SigLIP's does, teaches its padding.
  """
  log_p = jax.nn.log_softmax(logits)
  xent = -jnp.take_along_axis(log_p, tokens[..., None], axis=-1)[..., 0]
  return jnp.where(tokens != 0, xent, 0.0)


CAPTIONS = {"caption_xent": token_xent}


def needs_labels(loss: str) -> bool:
  """Whether the images need labels: classes, or numbers."""
  return not any(loss in group for group in (CONTRASTIVE, MASKED, CAPTIONS))


def reads_texts(loss: str) -> bool:
  """Whether the images need texts."""
  return loss in CONTRASTIVE or loss in CAPTIONS
