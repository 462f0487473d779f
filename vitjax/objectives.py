"""Training objectives: loss(params, batch).

The train step knows nothing else about the task. `prepare` runs once on the
whole batch, before it is split for accumulation; `loss` may run on parts.
"""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp

Params = Mapping[str, Any]
Batch = Mapping[str, jax.Array]


@dataclasses.dataclass(frozen=True)
class Objective:
  """See the module.

  Attributes:
    inputs: names of the features that the model is called with, in order.
    prepare: (batch, key) -> batch with only the features that `loss` reads.
    loss: (params, batch, key) -> float32 (); the key is for dropout.
    splits: whether the loss of a batch is the mean of the losses of its parts.
  """

  inputs: tuple[str, ...]
  prepare: Callable[[Batch, jax.Array], Batch]
  loss: Callable[[Params, Batch, jax.Array], jax.Array]
  splits: bool


def make_targets(batch: Batch, num_classes: int) -> jax.Array:
  """(b, n) float32: the batch's own `labels`, or its one-hot `label`."""
  if "labels" in batch:
    return batch["labels"].astype(jnp.float32)
  return jax.nn.one_hot(batch["label"], num_classes)


def classification(
  model,
  *,
  loss_fn: Callable[[jax.Array, jax.Array], jax.Array],
  num_classes: int,
  augment: Callable[..., tuple[jax.Array, jax.Array]] | None = None,
) -> Objective:
  """The mean loss of a classifier.

  Args:
    model: see `vitjax.models`.
    loss_fn: one of `losses.LOSSES`.
    num_classes: width of the targets.
    augment: (image, labels, key) -> (image, labels) on the whole batch, see
      `mixing.augment`.
  """

  def prepare(batch, key):
    image, labels = batch["image"], make_targets(batch, num_classes)
    if augment is not None:
      image, labels = augment(image, labels, key)
    return {"image": image, "labels": labels}

  def loss(params, batch, key):
    logits, _ = model.apply(
      {"params": params}, batch["image"], train=True, rngs={"dropout": key}
    )
    return loss_fn(logits.astype(jnp.float32), batch["labels"]).mean()

  return Objective(("image",), prepare, loss, splits=True)


def contrastive(
  model, *, loss_fn: Callable[[jax.Array], jax.Array]
) -> Objective:
  """The mean loss of pairs: image i belongs to text i alone.

  The global batch is one array, however many devices hold it, so every image
  is compared with every text. Parts of a batch have fewer pairs, so this loss
  does not split.

  Args:
    model: a model with two towers, see `models.two_tower`.
    loss_fn: one of `losses.CONTRASTIVE`.
  """

  def prepare(batch, key):
    del key
    return {"image": batch["image"], "text": batch["text"]}

  def loss(params, batch, key):
    image, text, out = model.apply(
      {"params": params},
      batch["image"],
      batch["text"],
      train=True,
      rngs={"dropout": key},
    )
    return loss_fn(pair_logits(image, text, out)).mean()

  return Objective(("image", "text"), prepare, loss, splits=False)


def pair_logits(
  image: jax.Array, text: jax.Array, out: Mapping[str, jax.Array]
) -> jax.Array:
  """Logits (b, n) of each image with each text, from the towers' outputs."""
  # Float32 also where the hardware's default is less precise: the loss and the
  # ranking depend on small differences of these.
  similarity = jnp.matmul(image, text.T, precision=jax.lax.Precision.HIGHEST)
  bias = jnp.squeeze(out["b"]) if "b" in out else 0.0
  return similarity * jnp.squeeze(out["t"]) + bias
