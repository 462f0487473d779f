"""Training objectives: loss(variables, batch).

The train step knows nothing else about the task. `prepare` runs once on the
whole batch, before it is split for accumulation; `loss` may run on parts. A
loss that compares the examples of a batch does not split, but its first stage
may: `embed`.
"""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

import jax
import jax.numpy as jnp
import numpy as np

Variables = Mapping[str, Any]
Batch = Mapping[str, jax.Array]


@dataclasses.dataclass(frozen=True)
class Objective:
  """See the module.

  Attributes:
    inputs: names of the features that the model is called with, in order.
    prepare: (batch, key) -> batch with only the features that `loss` reads.
    loss: (variables, batch, key) -> (float32 (), statistics); the variables
      are those of the model, with the parameters of the loss beside its own;
      the statistics are all but the parameters, after this batch; and the key
      is for dropout.
    splits: whether the loss of a batch is the mean of the losses of its parts.
    teach: (weights of the teacher, prepared batch or part of it) -> features
      that join the batch, for `loss`; None without a teacher. It runs once in a
      step, and no gradient passes through it.
    embed: (variables, batch, key) -> (embeddings, statistics) of any part of a
      batch; the embeddings are a tree of arrays with a row for each example.
      None: the loss has no such stage.
    compare: (parameters, embeddings of a whole batch) -> loss, which with
      `embed` gives the same as `loss`.
  """

  inputs: tuple[str, ...]
  prepare: Callable[[Batch, jax.Array], Batch]
  loss: Callable[[Variables, Batch, jax.Array], tuple[jax.Array, Variables]]
  splits: bool
  embed: Callable[..., tuple[Any, Variables]] | None = None
  compare: Callable[[Variables, Any], jax.Array] | None = None
  teach: Callable[[Variables, Batch], Batch] | None = None


class Teaching(Protocol):
  """What a teacher adds to an objective, see `vitjax.distill`.

  Attributes:
    is_cached: whether batches bring the feature "teacher", which `teach` would
      compute.
  """

  @property
  def is_cached(self) -> bool: ...

  def teach(self, weights: Variables, batch: Batch) -> Batch:
    """See `Objective.teach`."""
    ...

  def loss(
    self,
    params: Variables,
    label_loss: Callable[[jax.Array, Batch], jax.Array],
    outputs: jax.Array,
    out: Mapping[str, jax.Array],
    batch: Batch,
  ) -> jax.Array:
    """The loss to train with.

    Args:
      params: parameters of the model and of the loss.
      label_loss: (outputs, batch) -> the loss on the labels.
      outputs: what the model returns for `batch`, (b, n) float32.
      out: its named arrays.
      batch: the prepared batch, with the features from `teach`.
    """
    ...


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
  augment_known: Callable[..., tuple[jax.Array, ...]] | None = None,
  teaching: Teaching | None = None,
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
    augment_known: see `mixing.augment_known`; replaces `augment` for data with
      unknown labels, which are -1 in `label` and have weight 0.
    teaching: of a teacher, which sees all examples, also unknown ones.
  """
  is_weighted = class_weights is not None or augment_known is not None

  def prepare(batch, key):
    image, labels = batch["image"], make_targets(batch, num_classes)
    known = None
    if augment_known is not None:
      known = (batch["label"] >= 0)[:, None]
      labels = jnp.where(known, labels, 0.0)
      image, labels, known = augment_known(
        image, labels, known.astype(jnp.float32), key
      )
    elif augment is not None:
      image, labels = augment(image, labels, key)
    prepared = {"image": image, "labels": labels}
    if is_weighted:
      prepared["weight"] = example_weights(labels, class_weights, known)
    return prepared

  def label_loss(logits, batch):
    losses = loss_fn(logits, batch["labels"])
    if is_weighted:
      losses = losses * batch["weight"]
    return losses.mean()

  return _of_images(model, prepare, label_loss, teaching)


def _of_images(
  model,
  prepare: Callable[[Batch, jax.Array], Batch],
  label_loss: Callable[[jax.Array, Batch], jax.Array],
  teaching: Teaching | None,
) -> Objective:
  """The objective of a model of images, from its loss on the labels."""

  def loss(variables, batch, key):
    (outputs, out), statistics = _apply(model, variables, key, batch["image"])
    outputs = outputs.astype(jnp.float32)
    if teaching is not None:
      params = variables["params"]
      value = teaching.loss(params, label_loss, outputs, out, batch)
      return value, statistics
    return label_loss(outputs, batch), statistics

  def prepare_cached(batch, key):
    return {**prepare(batch, key), "teacher": batch["teacher"]}

  if teaching is None:
    return Objective(("image",), prepare, loss, splits=True)
  if teaching.is_cached:
    return Objective(("image",), prepare_cached, loss, splits=True)
  return Objective(("image",), prepare, loss, splits=True, teach=teaching.teach)


def _apply(
  model,
  variables: Variables,
  key: jax.Array,
  *inputs: jax.Array,
  **options: jax.Array,
):
  """(what the model returns in training, its statistics after it)."""
  return model.apply(
    variables,
    *inputs,
    **options,
    train=True,
    rngs={"dropout": key},
    mutable=[name for name in variables if name != "params"],
  )


def per_output(
  model,
  *,
  loss_fn: Callable[[jax.Array, jax.Array], jax.Array],
  augment_known: Callable[..., tuple[jax.Array, ...]],
  scale: tuple[np.ndarray, np.ndarray] | None = None,
  class_weights: Sequence[float] | None = None,
  teaching: Teaching | None = None,
) -> Objective:
  """The mean loss of outputs with a target each: classes, or numbers.

  The mean is over all known targets of the global batch; unknown ones are NaN.

  Args:
    model: see `vitjax.models`.
    loss_fn: one of `losses.OUTPUT_LOSSES`.
    augment_known: (image, labels, weights, key) -> (image, labels, weights) on
      the whole batch, see `mixing.augment_known`.
    scale: mean and deviation of each target, which normalise it. None: targets
      stay as they are.
    class_weights: weight of the positive examples of each class, as PyTorch's
      `BCEWithLogitsLoss(pos_weight=)`. None: 1.
    teaching: of a teacher, which also teaches unknown targets.
  """

  def prepare(batch, key):
    labels = batch["labels"]
    if scale is not None:
      mean, deviation = scale
      labels = (labels - mean[None]) / deviation[None]
    known = ~jnp.isnan(labels)
    image, labels, weights = augment_known(
      batch["image"],
      jnp.where(known, labels, 0.0),
      known.astype(jnp.float32),
      key,
    )
    scaled = _to_mean_one(weights, weights.mean())
    if class_weights is not None:
      # The loss is linear in a target, so its positive part can be weighed.
      positive = labels * jnp.asarray(class_weights, jnp.float32)[None]
      factor = positive + (1.0 - labels)
      labels, scaled = positive / factor, scaled * factor
    return {"image": image, "labels": labels, "weight": scaled}

  def label_loss(outputs, batch):
    losses = loss_fn(outputs, batch["labels"])
    return (losses * batch["weight"]).sum(axis=-1).mean()

  return _of_images(model, prepare, label_loss, teaching)


def _to_mean_one(weights: jax.Array, mean: jax.Array) -> jax.Array:
  """Weights by their mean; 0 if all are."""
  return jnp.where(mean > 0, weights / mean, 0.0)


def example_weights(
  labels: jax.Array,
  class_weights: Sequence[float] | None,
  known: jax.Array | None = None,
) -> jax.Array:
  """(b,) float32: weights of the examples of a whole batch, of mean 1.

  The weight of an example is that of its class; of a soft target the mean over
  its classes, each with its share; 1 without any class. Dividing by the mean
  over the batch makes the mean of weight * loss equal to the sum of weight *
  loss over the sum of the weights, as PyTorch's `CrossEntropyLoss(weight=)`
  has it.

  Args:
    labels: (b, n) targets.
    class_weights: weight of each class; None: 1.
    known: (b, 1) share of an example whose label is known; None: 1. Without any
      known label all weights are 0.
  """
  if class_weights is None:
    assert known is not None  # else nothing is weighted
    return _to_mean_one(known[:, 0], known.mean())
  share = labels.sum(axis=-1)
  weights = (labels * jnp.asarray(class_weights, jnp.float32)[None]).sum(
    axis=-1
  )
  weights = jnp.where(share > 0, weights / share, 1.0)
  if known is not None:
    weights = weights * known[:, 0]
    return _to_mean_one(weights, weights.mean())
  return weights / weights.mean()


def contrastive(model, *, loss_fn: Callable[..., jax.Array]) -> Objective:
  """The mean loss of pairs: image i belongs to text i alone.

  The global batch is one array, however many devices hold it, so every image
  is compared with every text. Parts of a batch have fewer pairs, so this loss
  is one of embeddings.

  Args:
    model: a model with two towers, see `models.two_tower`.
    loss_fn: one of `losses.CONTRASTIVE`.
  """

  def prepare(batch, key):
    del key
    return {"image": batch["image"], "text": batch["text"]}

  def embed(variables, batch, key):
    (image, text, _), statistics = _apply(
      model, variables, key, batch["image"], batch["text"]
    )
    return (image, text), statistics

  def compare(params, embeddings):
    scale = model.apply({"params": params}, method="scale")
    bias = scale.get("b", jnp.zeros(1))
    return loss_fn(*embeddings, jnp.squeeze(scale["t"]), jnp.squeeze(bias))

  def loss(variables, batch, key):
    embeddings, statistics = embed(variables, batch, key)
    return compare(variables["params"], embeddings), statistics

  inputs = ("image", "text")
  return Objective(inputs, prepare, loss, False, embed, compare)


def masked(
  model, *, loss_fn: Callable[[jax.Array, jax.Array], jax.Array]
) -> Objective:
  """The mean loss of masked patches, which the model predicts from the others.

  Each image has as many masked patches as any other, so the loss splits. The
  masks of a step depend on its key alone.

  Args:
    model: see `models.mae`.
    loss_fn: one of `losses.MASKED`.
  """

  def prepare(batch, key):
    image = batch["image"]
    return {"image": image, "order": model.draw_order(key, image.shape)}

  def loss(variables, batch, key):
    (predictions, out), statistics = _apply(
      model, variables, key, batch["image"], order=batch["order"]
    )
    losses = loss_fn(predictions, model.patches(batch["image"]))
    is_masked = out["is_masked"].astype(jnp.float32)
    return (losses * is_masked).sum() / is_masked.sum(), statistics

  return Objective(("image",), prepare, loss, splits=True)


def captions(
  model, *, loss_fn: Callable[[jax.Array, jax.Array], jax.Array]
) -> Objective:
  """The mean loss over all tokens of the captions of a batch, but padding.

  Which captions are predicted in parallel depends on the key of the step alone.

  Args:
    model: see `models.captioner`.
    loss_fn: one of `losses.CAPTIONS`.
  """

  def prepare(batch, key):
    text = batch["text"]
    is_token = (text != 0).astype(jnp.float32)
    share = model.parallel_share
    return {
      "image": batch["image"],
      "text": text,
      "weight": _to_mean_one(is_token, is_token.mean()),
      "parallel": jax.random.uniform(key, (len(text),)) < share,
    }

  def loss(variables, batch, key):
    (logits, _), statistics = _apply(
      model,
      variables,
      key,
      batch["image"],
      batch["text"],
      parallel=batch["parallel"],
    )
    losses = loss_fn(logits, batch["text"])
    return (losses * batch["weight"]).mean(), statistics

  return Objective(("image", "text"), prepare, loss, splits=True)
