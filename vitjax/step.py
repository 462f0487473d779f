"""The train state, and the pure functions that make and change it.

Nothing here does I/O. Keys are not part of the state: the key of a step is
`fold_in(key(seed), step)`, with one more `fold_in` for each use. A resumed run
therefore draws the same numbers as an uninterrupted one.
"""

import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import optax

from vitjax import trees
from vitjax.models import batch_norm, flexible
from vitjax.objectives import Objective
from vitjax.optim import accumulation, sam, schedule_free

Weights = Mapping[str, Any]
Batch = Mapping[str, jax.Array]
# Uses of a step's key.
_AUGMENT, _DROPOUT = range(2)


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class TrainState:
  """All that a step takes and returns: arrays, or a shape or sharding of each.

  Attributes:
    step: number of updates so far, int32 ().
    params: the parameters.
    opt_state: the optimizer's state.
    ema_params: average of `weights`; None without one.
    statistics: the model's variables that are not parameters: the running
      statistics of batch normalisation. {} of a model without, and then no
      array.
    teacher: weights of the teacher, which no step changes and no checkpoint
      holds, see `vitjax.distill`; None without one.
    loss_params: parameters of the loss, which train with `params` and are no
      part of the model. {} if it has none.
  """

  step: trees.PyTree
  params: trees.PyTree
  opt_state: trees.PyTree
  ema_params: trees.PyTree = None
  statistics: trees.PyTree = dataclasses.field(default_factory=dict)
  teacher: trees.PyTree = None
  loss_params: trees.PyTree = dataclasses.field(default_factory=dict)

  @property
  def trained(self) -> Weights:
    """All that the optimizer changes, as one tree of names."""
    return {**self.params, **self.loss_params}

  @property
  def weights(self) -> Weights:
    """Parameters and statistics as one tree of names."""
    return batch_norm.join({"params": self.params, **self.statistics})

  @property
  def without_teacher(self) -> "TrainState":
    """The state before a run adds its teacher."""
    return dataclasses.replace(self, teacher=None)

  @property
  def checkpoint_items(self) -> dict[str, Any]:
    """The items of a checkpoint: fields with arrays, without the teacher."""
    fields = vars(self.without_teacher)
    return {name: x for name, x in fields.items() if jax.tree.leaves(x)}


def make_init_fn(
  model, *inputs: jax.ShapeDtypeStruct
) -> Callable[[jax.Array], Weights]:
  """Returns `init(key) -> weights`: the tree of parameters and statistics.

  Args:
    model: see `vitjax.models`.
    *inputs: shapes of the inputs of the model, of any batch size.
  """

  def init(key):
    zeros = [jnp.zeros((1, *x.shape[1:]), x.dtype) for x in inputs]
    return batch_norm.join(model.init(key, *zeros))

  return init


def make_state(
  weights: Weights,
  tx: optax.GradientTransformation,
  *,
  ema: bool = False,
  loss_params: Mapping[str, Any] = {},
) -> TrainState:
  """The state before the first step; the average starts at `weights`."""
  statistics = batch_norm.split(weights)
  params = statistics.pop("params")
  return TrainState(
    step=jnp.zeros((), jnp.int32),
    params=params,
    opt_state=tx.init({**params, **loss_params}),
    # A copy: the step may overwrite either of the two in place.
    ema_params=jax.tree.map(jnp.copy, weights) if ema else None,
    statistics=statistics,
    loss_params=loss_params,
  )


def update_ema(
  average: trees.PyTree,
  new: trees.PyTree,
  step: jax.Array,
  decay: float | jax.Array,
  warmup: bool,
) -> trees.PyTree:
  """One step of an exponential moving average.

  Args:
    average: the average so far.
    new: the values after this update.
    step: number of updates before this one.
    decay: weight of the average.
    warmup: use min(decay, (1 + step) / (10 + step)), as TensorFlow 1 does, so
      that a short run averages over its last tenth.
  """
  if warmup:
    decay = jnp.minimum(decay, (1 + step) / (10 + step))
  return jax.tree.map(lambda a, x: a + (1 - decay) * (x - a), average, new)


def update_uniform(
  average: trees.PyTree, new: trees.PyTree, step: jax.Array, start: int
) -> trees.PyTree:
  """One step of the uniform average of all values after step `start`.

  Averaging Weights Leads to Wider Optima, https://arxiv.org/abs/1803.05407.

  Args:
    average: the average so far; before any, the latest values.
    new: the values after this update.
    step: number of updates before this one.
    start: number of updates whose values are not averaged.
  """
  count = jnp.maximum(step - start, 0)  # of values in the average
  return jax.tree.map(
    lambda a, x: jnp.where(count == 0, x, a + (x - a) / (count + 1)),
    average,
    new,
  )


def make_train_step(
  objective: Objective,
  tx: optax.GradientTransformation,
  *,
  normalise: Callable[[Batch], Batch],
  seed: int,
  schedule: Callable[[jax.Array], Any],
  learning_rate: float = 1.0,
  accumulation_steps: int = 1,
  frozen: Sequence[str] = (),
  freeze_statistics: bool = True,
  ema_decay: float | None = None,
  ema_warmup: bool = False,
  ema_uniform_from: int | None = None,
  ema_statistics: bool = True,
  sam_rho: float = 0.0,
  sam_rho_min: float | None = None,
  sam_alpha: float = 0.0,
) -> Callable[[TrainState, Batch], tuple[TrainState, dict[str, jax.Array]]]:
  """Returns `train_step(state, batch) -> (state, metrics)`, ready for jit.

  Args:
    objective: the loss, see `vitjax.objectives`.
    tx: the optimizer, see `vitjax.optim`.
    normalise: turns the uint8 images of a batch into the model's input.
    seed: seed of every random draw of the run.
    schedule: step -> factor of the learning rate.
    learning_rate: the peak, for the metrics; `tx` has its own.
    accumulation_steps: number of parts of the batch whose gradients are
      computed one after the other, to save memory. Mixing happens before and
      the update after, so the result is that of the whole batch, except that
      dropout draws other masks and batch normalisation has the statistics of
      each part, one part after the other. How this is done is in
      `optim.accumulation`.
    frozen: regexes of parameters that `tx` does not change: their gradients
      are neither computed nor part of the gradient's norm.
    freeze_statistics: see `batch_norm.frozen`, for the norms in `frozen`.
    ema_decay, ema_warmup: see `update_ema`; None for no such average.
    ema_uniform_from: `start` of `update_uniform`; None for no such average.
    ema_statistics: average the statistics too. False: take the latest ones.
    sam_rho, sam_rho_min, sam_alpha: see `optim.sam`; 0 for plain gradients.
  """

  frozen_norms = frozen if freeze_statistics else ()

  def loss(params, statistics, batch, key):
    with batch_norm.frozen(frozen_norms):
      return objective.loss({"params": params, **statistics}, batch, key)

  def embed(variables, batch, key):
    assert objective.embed is not None
    with batch_norm.frozen(frozen_norms):
      return objective.embed(variables, batch, key)

  loss_and_grads = jax.value_and_grad(loss, has_aux=True)
  if accumulation_steps > 1 and objective.splits:
    loss_and_grads = accumulation.of_the_mean(
      loss_and_grads, accumulation_steps
    )
  elif accumulation_steps > 1 and objective.compare is not None:
    loss_and_grads = accumulation.of_embeddings(
      embed, objective.compare, accumulation_steps, frozen
    )
  elif accumulation_steps > 1:
    raise ValueError(
      f"accumulation_steps={accumulation_steps}, but the loss of a batch is "
      "not the mean over its parts, and the objective has no `compare`. Use 1."
    )

  def train_step(state, batch):
    key = jax.random.fold_in(jax.random.key(seed), state.step)
    batch = objective.prepare(
      normalise(batch), jax.random.fold_in(key, _AUGMENT)
    )
    if objective.teach is not None:
      teach = accumulation.in_parts(
        functools.partial(objective.teach, state.teacher), accumulation_steps
      )
      batch = {**batch, **teach(batch)}
    dropout_key = jax.random.fold_in(key, _DROPOUT)

    def loss_and_trained_grads(params):
      value, grads = loss_and_grads(
        params, state.statistics, batch, dropout_key
      )
      if frozen:
        is_frozen = trees.mask(grads, frozen)
        grads = jax.tree.map(
          lambda g, off: jnp.zeros_like(g) if off else g, grads, is_frozen
        )
      return value, grads

    factor = schedule(state.step)
    point = schedule_free.gradient_point(state.trained, state.opt_state)
    if sam_rho:
      (loss, statistics), grads = sam.loss_and_grads(
        loss_and_trained_grads,
        point,
        rho=sam.rho_at(factor, sam_rho, sam_rho_min),
        alpha=sam_alpha,
      )
    else:
      (loss, statistics), grads = loss_and_trained_grads(point)
    updates, opt_state = tx.update(grads, state.opt_state, state.trained)
    trained: Any = optax.apply_updates(state.trained, updates)
    params, loss_params = (
      {name: trained[name] for name in part}
      for part in (state.params, state.loss_params)
    )
    average = state.ema_params
    if average is not None:
      weights = batch_norm.join({"params": params, **statistics})
      if ema_decay is not None:
        average = update_ema(
          average, weights, state.step, ema_decay, ema_warmup
        )
      elif ema_uniform_from is not None:
        average = update_uniform(average, weights, state.step, ema_uniform_from)
      if not ema_statistics:
        average = batch_norm.join({**batch_norm.split(average), **statistics})
    metrics = {
      "train/loss": loss,
      "train/learning_rate": factor * learning_rate,
      "train/grad_norm": optax.tree.norm(grads),
      "train/param_norm": optax.tree.norm(trained),
      "train/update_norm": optax.tree.norm(updates),
    }
    new = dataclasses.replace(
      state,
      step=state.step + 1,
      params=params,
      opt_state=opt_state,
      ema_params=average,
      statistics=statistics,
      loss_params=loss_params,
    )
    return new, metrics

  return train_step


def make_predict_fn(
  model,
  normalise: Callable[[Batch], Batch],
  inputs: Sequence[str] = ("image",),
) -> Callable[..., tuple]:
  """Returns `predict(weights, batch)`, ready for jit.

  Args:
    model: see `vitjax.models`.
    normalise: turns the uint8 images of a batch into the model's input.
    inputs: features that the model is called with; a batch for two towers may
      lack one, which is then None.

  Returns:
    A function that returns what the model does: (logits, out), or for two
    towers (image_embedding, text_embedding, out). All but `out` is float32.
    With `patch_size` the model has patches of that size.
  """

  def predict(weights, batch, patch_size=None):
    called = model
    if "image" in batch:
      batch = normalise(batch)
      if patch_size is not None:
        _, h, w, _ = batch["image"].shape
        called = flexible.at_size(model, (h, w), patch_size=patch_size)
    *results, out = called.apply(
      batch_norm.split(weights), *map(batch.get, inputs), train=False
    )
    return *jax.tree.map(lambda x: x.astype(jnp.float32), results), out

  return predict
