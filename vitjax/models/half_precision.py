"""Bfloat16 as XLA's CPU backend computes it fast.

Its product of bfloat16 matrices is twice as fast as that of float32 ones, but
only if the result is float32; otherwise both matrices become float32 first. And
a chain of functions rounds each result. Accelerators compute what they are
told.
"""

import contextlib
import contextvars
from collections.abc import Callable, Generator

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from vitjax.models import placement

_MORE = 16  # rows of zeros, a vector of float32


# Whether a CPU stands in for an accelerator in a program that is never run.
_stands_in = contextvars.ContextVar("_stands_in", default=False)


@contextlib.contextmanager
def as_on_accelerators() -> Generator[None]:
  """In the context, a CPU traces what an accelerator would compute."""
  token = _stands_in.set(True)
  try:
    yield
  finally:
    _stands_in.reset(token)


def on_cpu(x: Array) -> bool:
  """Whether a CPU computes `x`, in bfloat16."""
  if x.dtype != jnp.bfloat16 or _stands_in.get():
    return False
  return placement.device_of(x)[0] == "cpu"


def in_float32(function: Callable[[Array], Array]) -> Callable[[Array], Array]:
  """The function, computed in float32 where `on_cpu`, and recomputed."""

  @jax.checkpoint
  def computed(x):
    return function(x.astype(jnp.float32)).astype(x.dtype)

  return lambda x: computed(x) if on_cpu(x) else function(x)


def dense(
  x: Float[Array, "*b k"],
  kernel: Float[Array | np.ndarray, "k n"],
  *unused,
  **options,
) -> Float[Array, "*b n"]:
  """The `dot_general` of a dense layer: sums over the last axis of `x`."""
  if not on_cpu(x):
    return jax.lax.dot_general(x, kernel, *unused, **options)
  y = _matmul(x.reshape(-1, x.shape[-1]), kernel)
  return y.reshape(*x.shape[:-1], -1)


def einsum(spec: str, x: Array, y: Array) -> Array:
  """As `jnp.einsum`, of arrays of one type."""
  if not on_cpu(x):
    return jnp.einsum(spec, x, y)
  return jnp.einsum(spec, x, y, preferred_element_type=jnp.float32).astype(
    x.dtype
  )


def _product(x, y, of_y: int):
  dims = (((1,), (of_y,)), ((), ()))
  return jax.lax.dot_general(x, y, dims, preferred_element_type=jnp.float32)


@jax.custom_vjp
def _matmul(x: Float[Array, "m k"], y: Float[Array, "k n"]) -> Array:
  return _product(x, y, 0).astype(x.dtype)


def _forward(x, y):
  return _matmul(x, y), (x, y)


def _backward(saved, gradient):
  x, y = saved
  of_x = _product(gradient, y, 1).astype(x.dtype)
  # Without the rows of zeros the compiler would not write the transpose, and
  # take the slow product.
  rows = jnp.pad(x.T, ((0, _MORE), (0, 0)))
  return of_x, _product(rows, gradient, 0)[:-_MORE].astype(y.dtype)


_matmul.defvjp(_forward, _backward)
