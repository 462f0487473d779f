"""The train state and the pure functions that make and change it.

Nothing here does I/O. Keys are not state: the key of a step is
`fold_in(key(seed), step)`, with one more `fold_in` for each use, so a resumed
run draws what the uninterrupted one would have drawn.
"""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import optax

from vitjax import mixing

Params = Mapping[str, Any]
Batch = Mapping[str, jax.Array]
# Uses of a step's key.
_MIXUP, _DROPOUT = range(2)


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class TrainState:
  """All that training changes: arrays only."""

  step: jax.Array  # int32 (), number of updates so far
  params: Params
  opt_state: optax.OptState


def make_init_fn(
  model, tx: optax.GradientTransformation, image_shape: tuple[int, ...]
) -> Callable[[jax.Array], TrainState]:
  """Returns `init(key) -> TrainState`.

  Args:
    model: obeys the contract of `vitjax.models`.
    tx: the optimizer.
    image_shape: (b, h, w, c); the batch size does not matter.
  """

  def init(key):
    image = jnp.zeros((1, *image_shape[1:]), jnp.float32)
    params = model.init(key, image)["params"]
    return TrainState(jnp.zeros((), jnp.int32), params, tx.init(params))

  return init


def make_targets(batch: Batch, num_classes: int) -> jax.Array:
  """(b, n) float32: the batch's own `labels`, or its one-hot `label`."""
  if "labels" in batch:
    return batch["labels"].astype(jnp.float32)
  return jax.nn.one_hot(batch["label"], num_classes)


def make_train_step(
  model,
  tx: optax.GradientTransformation,
  *,
  loss_fn: Callable[[jax.Array, jax.Array], jax.Array],
  normalise: Callable[[Batch], Batch],
  num_classes: int,
  seed: int,
  schedule: Callable[[jax.Array], jax.Array],
  mixup_alpha: float = 0.0,
  label_smoothing: float = 0.0,
  accumulation_steps: int = 1,
) -> Callable[[TrainState, Batch], tuple[TrainState, dict[str, jax.Array]]]:
  """Returns `train_step(state, batch) -> (state, metrics)`, ready for jit.

  Args:
    model: obeys the contract of `vitjax.models`.
    tx: the optimizer, see `vitjax.optim`.
    loss_fn: see `vitjax.losses`; the step takes its mean.
    normalise: turns the uint8 images of a batch into the model's input.
    num_classes: width of the targets.
    seed: of every random draw of the run.
    schedule: learning rate at a step, for the metrics.
    mixup_alpha: see `mixing.mixup`; 0 switches it off.
    label_smoothing: see `mixing.smooth_labels`.
    accumulation_steps: computes the gradient in so many parts, one after the
      other, to save memory. Mixing happens before and the update after, so
      the result is that of the whole batch. Dropout draws other masks.
  """

  def loss_of(params, image, labels, key):
    logits, _ = model.apply(
      {"params": params}, image, train=True, rngs={"dropout": key}
    )
    return loss_fn(logits.astype(jnp.float32), labels).mean()

  def loss_and_grads(params, image, labels, key):
    if accumulation_steps == 1:
      return jax.value_and_grad(loss_of)(params, image, labels, key)

    # Row i goes to part i mod k, so each device's rows stay on that device.
    def split(x):
      parts = x.reshape(-1, accumulation_steps, *x.shape[1:])
      return parts.swapaxes(0, 1)

    def add(total, part):
      *arrays, i = part
      more = jax.value_and_grad(loss_of)(
        params, *arrays, jax.random.fold_in(key, i)
      )
      return jax.tree.map(jnp.add, total, more), None

    zeros = jax.tree.map(
      lambda x: jnp.zeros(x.shape, jnp.float32), (jnp.float32(0), params)
    )
    parts = (split(image), split(labels), jnp.arange(accumulation_steps))
    total, _ = jax.lax.scan(add, zeros, parts)
    return jax.tree.map(lambda x: x / accumulation_steps, total)

  def train_step(state, batch):
    key = jax.random.fold_in(jax.random.key(seed), state.step)
    batch = normalise(batch)
    image, labels = batch["image"], make_targets(batch, num_classes)
    if label_smoothing:
      labels = mixing.smooth_labels(labels, label_smoothing)
    if mixup_alpha:
      mixup_key = jax.random.fold_in(key, _MIXUP)
      image, labels = mixing.mixup(image, labels, mixup_alpha, mixup_key)
    loss, grads = loss_and_grads(
      state.params, image, labels, jax.random.fold_in(key, _DROPOUT)
    )
    updates, opt_state = tx.update(grads, state.opt_state, state.params)
    params = optax.apply_updates(state.params, updates)
    metrics = {
      "train/loss": loss,
      "train/learning_rate": schedule(state.step),
      "train/grad_norm": optax.tree.norm(grads),
      "train/param_norm": optax.tree.norm(params),
      "train/update_norm": optax.tree.norm(updates),
    }
    return TrainState(state.step + 1, params, opt_state), metrics

  return train_step


def make_predict_fn(
  model, normalise: Callable[[Batch], Batch]
) -> Callable[[Params, Batch], tuple[jax.Array, dict[str, jax.Array]]]:
  """Returns `predict(params, batch) -> (logits, out)`, ready for jit."""

  def predict(params, batch):
    image = normalise(batch)["image"]
    logits, out = model.apply({"params": params}, image, train=False)
    return logits.astype(jnp.float32), out

  return predict
