"""The train state and the pure functions that make and change it.

Nothing here does I/O. Keys are not state: the key of a step is
`fold_in(key(seed), step)`, with one more `fold_in` for each use, so a resumed
run draws what the uninterrupted one would have drawn.
"""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import optax

from vitjax import trees
from vitjax.optim import sam

Params = Mapping[str, Any]
Batch = Mapping[str, jax.Array]
# Uses of a step's key.
_AUGMENT, _DROPOUT = range(2)


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class TrainState:
  """All that training changes: arrays only."""

  step: jax.Array  # int32 (), number of updates so far
  params: Params
  opt_state: optax.OptState
  ema_params: Params | None = None


def make_init_fn(
  model, image_shape: tuple[int, ...]
) -> Callable[[jax.Array], Params]:
  """Returns `init(key) -> params`.

  Args:
    model: obeys the contract of `vitjax.models`.
    image_shape: (b, h, w, c); the batch size does not matter.
  """

  def init(key):
    image = jnp.zeros((1, *image_shape[1:]), jnp.float32)
    return model.init(key, image)["params"]

  return init


def make_state(
  params: Params, tx: optax.GradientTransformation, *, ema: bool = False
) -> TrainState:
  """The state before the first step; the average starts at `params`."""
  return TrainState(
    step=jnp.zeros((), jnp.int32),
    params=params,
    opt_state=tx.init(params),
    # A copy: the step may overwrite either of the two in place.
    ema_params=jax.tree.map(jnp.copy, params) if ema else None,
  )


def update_ema(
  average: Params, params: Params, step: jax.Array, decay: float, warmup: bool
) -> Params:
  """One step of an exponential moving average of the parameters.

  Args:
    average: the average so far.
    params: after this update.
    step: number of updates before this one.
    decay: weight of the average.
    warmup: while the run is short, average over a tenth of it: decay is
      min(decay, (1 + step) / (10 + step)), as TensorFlow 1 has it.
  """
  if warmup:
    decay = jnp.minimum(decay, (1 + step) / (10 + step))
  return jax.tree.map(lambda a, p: a + (1 - decay) * (p - a), average, params)


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
  learning_rate: float = 1.0,
  augment: Callable[..., tuple[jax.Array, jax.Array]] | None = None,
  accumulation_steps: int = 1,
  frozen: Sequence[str] = (),
  ema_decay: float | None = None,
  ema_warmup: bool = False,
  sam_rho: float = 0.0,
  sam_rho_min: float | None = None,
  sam_alpha: float = 0.0,
) -> Callable[[TrainState, Batch], tuple[TrainState, dict[str, jax.Array]]]:
  """Returns `train_step(state, batch) -> (state, metrics)`, ready for jit.

  Args:
    model: obeys the contract of `vitjax.models`.
    tx: the optimizer, see `vitjax.optim`.
    loss_fn: see `vitjax.losses`; the step takes its mean.
    normalise: turns the uint8 images of a batch into the model's input.
    num_classes: width of the targets.
    seed: of every random draw of the run.
    schedule: factor of the learning rate at a step.
    learning_rate: the peak, for the metrics; `tx` has its own.
    augment: (image, labels, key) -> (image, labels) on the whole batch, see
      `mixing.augment`.
    accumulation_steps: computes the gradient in so many parts, one after the
      other, to save memory. Mixing happens before and the update after, so
      the result is that of the whole batch. Dropout draws other masks.
    frozen: regexes of parameters that `tx` does not change: their gradients
      are neither computed nor counted.
    ema_decay, ema_warmup: see `update_ema`; None for no average.
    sam_rho, sam_rho_min, sam_alpha: see `optim.sam`; 0 for plain gradients.
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
    if augment is not None:
      augment_key = jax.random.fold_in(key, _AUGMENT)
      image, labels = augment(image, labels, augment_key)
    dropout_key = jax.random.fold_in(key, _DROPOUT)

    def loss_and_trained_grads(params):
      loss, grads = loss_and_grads(params, image, labels, dropout_key)
      if frozen:
        is_frozen = trees.mask(grads, frozen)
        grads = jax.tree.map(
          lambda g, off: jnp.zeros_like(g) if off else g, grads, is_frozen
        )
      return loss, grads

    factor = schedule(state.step)
    if sam_rho:
      loss, grads = sam.loss_and_grads(
        loss_and_trained_grads,
        state.params,
        rho=sam.rho_at(factor, sam_rho, sam_rho_min),
        alpha=sam_alpha,
      )
    else:
      loss, grads = loss_and_trained_grads(state.params)
    updates, opt_state = tx.update(grads, state.opt_state, state.params)
    params = optax.apply_updates(state.params, updates)
    average = state.ema_params
    if ema_decay is not None:
      average = update_ema(average, params, state.step, ema_decay, ema_warmup)
    metrics = {
      "train/loss": loss,
      "train/learning_rate": factor * learning_rate,
      "train/grad_norm": optax.tree.norm(grads),
      "train/param_norm": optax.tree.norm(params),
      "train/update_norm": optax.tree.norm(updates),
    }
    return TrainState(state.step + 1, params, opt_state, average), metrics

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
