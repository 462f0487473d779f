"""Training objectives: loss(variables, batch).

The train step knows nothing else about the task. `prepare` runs once on the
whole batch, before it is split for accumulation; `loss` may run on parts.
"""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp

Variables = Mapping[str, Any]
Batch = Mapping[str, jax.Array]


@dataclasses.dataclass(frozen=True)
class Objective:
  """See the module.

  Attributes:
    inputs: names of the features that the model is called with, in order.
    prepare: (batch, key) -> batch with only the features that `loss` reads.
    loss: (variables, batch, key) -> (float32 (), statistics); the variables
      are those of the model, the statistics all of them but the parameters,
      after this batch, and the key is for dropout.
    splits: whether the loss of a batch is the mean of the losses of its parts.
  """

  inputs: tuple[str, ...]
  prepare: Callable[[Batch, jax.Array], Batch]
  loss: Callable[[Variables, Batch, jax.Array], tuple[jax.Array, Variables]]
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
  class_weights: Sequence[float] | None = None,
) -> Objective:
  """The mean loss of a classifier, weighted by class if asked for.

  Args:
    model: see `vitjax.models`.
    loss_fn: one of `losses.LOSSES`.
    num_classes: width of the targets.
    augment: (image, labels, key) -> (image, labels) on the whole batch, see
      `mixing.augment`.
    class_weights: weight of each class, see `example_weights`. None: all
      examples weigh the same.
  """

  def prepare(batch, key):
    image, labels = batch["image"], make_targets(batch, num_classes)
    if augment is not None:
      image, labels = augment(image, labels, key)
    prepared = {"image": image, "labels": labels}
    if class_weights is not None:
      prepared["weight"] = example_weights(labels, class_weights)
    return prepared

  def loss(variables, batch, key):
    (logits, _), statistics = _apply(model, variables, key, batch["image"])
    losses = loss_fn(logits.astype(jnp.float32), batch["labels"])
    if class_weights is not None:
      losses = losses * batch["weight"]
    return losses.mean(), statistics

  return Objective(("image",), prepare, loss, splits=True)


def _apply(model, variables: Variables, key: jax.Array, *inputs: jax.Array):
  """(what the model returns in training, its statistics after it)."""
  return model.apply(
    variables,
    *inputs,
    train=True,
    rngs={"dropout": key},
    mutable=[name for name in variables if name != "params"],
  )


def example_weights(
  labels: jax.Array, class_weights: Sequence[float]
) -> jax.Array:
  """(b,) float32: weights of the examples of a whole batch, of mean 1.

  The weight of an example is that of its class; of a soft target the mean over
  its classes, each with its share; 1 without any class. Dividing by the mean
  over the batch makes the mean of weight * loss equal to the sum of weight *
  loss over the sum of the weights, as PyTorch's `CrossEntropyLoss(weight=)`
  has it.
  """
  share = labels.sum(axis=-1)
  weights = (labels * jnp.asarray(class_weights, jnp.float32)[None]).sum(
    axis=-1
  )
  weights = jnp.where(share > 0, weights / share, 1.0)
  return weights / weights.mean()


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

  def loss(variables, batch, key):
    (image, text, out), statistics = _apply(
      model, variables, key, batch["image"], batch["text"]
    )
    return loss_fn(pair_logits(image, text, out)).mean(), statistics

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
