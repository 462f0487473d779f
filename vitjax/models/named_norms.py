"""Norms as calls with a name, which a converter finds in what JAX traced."""

import functools
from collections.abc import Callable

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float


@jax.jit
def layer_norm(
  x: Float[Array, "*b d"],
  scale: Float[Array, " d"],
  bias: Float[Array, " d"],
  epsilon: Float[Array, ""],
) -> Float[Array, "*b d"]:
  """Layer norm over the last axis, in float32."""
  mean = x.mean(axis=-1, keepdims=True)
  variance = jnp.square(x - mean).mean(axis=-1, keepdims=True)
  rows = (1,) * (x.ndim - 1) + (-1,)
  y = (x - mean) * jax.lax.rsqrt(variance + epsilon)
  return y * scale.reshape(rows) + bias.reshape(rows)


def with_named_norms(function: Callable) -> Callable:
  """`function`, whose modules `nn.LayerNorm` call `layer_norm`."""

  def intercept(call, arguments, keywords, context):
    norm = context.module
    if not isinstance(norm, nn.LayerNorm) or context.method_name != "__call__":
      return call(*arguments, **keywords)
    (x,) = arguments
    width = x.shape[-1:]
    values = (norm.get_variable("params", key) for key in ("scale", "bias"))
    scale, bias = (
      jnp.full(width, default) if value is None else value
      for value, default in zip(values, (1.0, 0.0))
    )
    y = layer_norm(x.astype(jnp.float32), scale, bias, norm.epsilon)
    return y.astype(norm.dtype or x.dtype)

  @functools.wraps(function)
  def run(*arguments):
    with nn.intercept_methods(intercept):
      return function(*arguments)

  return run
