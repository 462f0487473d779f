"""Gradients of a batch that is computed in parts, one after the other.

The memory of the activations is then that of one part.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from vitjax import trees

Params = Mapping[str, Any]
# (params, statistics, batch, key) -> ((loss, statistics), gradients)
LossAndGrads = Callable[..., tuple[tuple[jax.Array, Params], Params]]


def of_the_mean(grad: LossAndGrads, num_parts: int) -> LossAndGrads:
  """Gradients of a loss that is the mean of the losses of the parts.

  Args:
    grad: the same for a batch or a part of one.
    num_parts: number of parts.
  """

  def compute(params, statistics, batch, key):
    def add(carry, part):
      (total, statistics), (rows, i) = carry, part
      (loss, statistics), grads = grad(
        params, statistics, rows, jax.random.fold_in(key, i)
      )
      total = jax.tree.map(jnp.add, total, (loss, grads))
      return (total, statistics), None

    zeros = jax.tree.map(
      lambda x: jnp.zeros(x.shape, jnp.float32), (jnp.float32(0), params)
    )
    (total, statistics), _ = jax.lax.scan(
      add, (zeros, statistics), _split(batch, num_parts)
    )
    loss, grads = jax.tree.map(lambda x: x / num_parts, total)
    return (loss, statistics), grads

  return compute


def of_embeddings(
  embed: Callable[..., tuple[Any, Params]],
  compare: Callable[[Params, Any], jax.Array],
  num_parts: int,
  frozen: Sequence[str] = (),
) -> LossAndGrads:
  """Gradients of a loss that compares all examples of a batch.

  Gradient caching, https://arxiv.org/abs/2101.06983: the first pass embeds the
  parts without gradients, and the loss of all embeddings gives the gradients of
  the embeddings. The second pass embeds each part again, with the same dropout,
  and takes the gradients on to the parameters. The result is that of the whole
  batch, to rounding, for one more forward pass.

  Args:
    embed: see `objectives.Objective`.
    compare: likewise.
    num_parts: number of parts.
    frozen: regexes of parameters whose gradient is 0. The second pass leaves
      out a tower that is frozen.
  """

  def compute(params, statistics, batch, key):
    is_frozen = trees.mask(params, frozen)

    def embed_part(params, statistics, part):
      rows, i = part
      variables = {"params": params, **statistics}
      return embed(variables, rows, jax.random.fold_in(key, i))

    def first_pass(statistics, part):
      embeddings, statistics = embed_part(params, statistics, part)
      return statistics, embeddings

    parts = _split(batch, num_parts)
    after, embeddings = jax.lax.scan(first_pass, statistics, parts)
    loss, (grads, of_embeddings) = jax.value_and_grad(compare, argnums=(0, 1))(
      params, jax.tree.map(_merge, embeddings)
    )

    def embed_again(params, part):
      params = jax.tree.map(
        lambda x, off: jax.lax.stop_gradient(x) if off else x,
        params,
        is_frozen,
      )
      # Batch normalisation reads the statistics of the part, not these.
      return embed_part(params, statistics, part)[0]

    def second_pass(grads, inputs):
      part, of_part = inputs
      _, backward = jax.vjp(lambda x: embed_again(x, part), params)
      return jax.tree.map(jnp.add, grads, *backward(of_part)), None

    of_parts = jax.tree.map(lambda x: _parts(x, num_parts), of_embeddings)
    grads, _ = jax.lax.scan(second_pass, grads, (parts, of_parts))
    return (loss, after), grads

  return compute


def in_parts(
  function: Callable[[Params], Params], num_parts: int
) -> Callable[[Params], Params]:
  """A function of the rows of a batch, computed for one part after another."""
  if num_parts == 1:
    return function

  def compute(batch):
    parts, _ = _split(batch, num_parts)
    return jax.tree.map(_merge, jax.lax.map(function, parts))

  return compute


def _split(batch: Mapping[str, jax.Array], num_parts: int):
  """The parts of a batch and their numbers, to scan over."""
  parts = jax.tree.map(lambda x: _parts(x, num_parts), batch)
  return parts, jnp.arange(num_parts)


def _parts(x: jax.Array, num_parts: int) -> jax.Array:
  """(b, ...) -> (num_parts, b / num_parts, ...)

  Row i goes to part i mod num_parts, so each device's rows stay on that device.
  """
  return x.reshape(-1, num_parts, *x.shape[1:]).swapaxes(0, 1)


def _merge(parts: jax.Array) -> jax.Array:
  """Undoes `_parts`."""
  return parts.swapaxes(0, 1).reshape(-1, *parts.shape[2:])
