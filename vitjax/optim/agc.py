"""Adaptive gradient clipping (AGC): clips each unit relative to its weights.

High-Performance Large-Scale Image Recognition Without Normalization,
https://arxiv.org/abs/2102.06171, eq. 3.
"""

import re
from collections.abc import Collection

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float

from vitjax import trees

_KERNEL = re.compile(r"(.*/)?kernel")
_OUT_KERNEL = re.compile(r"(.*/)?out/kernel")


def unit_axes(name: str, shape: tuple[int, ...]) -> tuple[int, ...]:
  """The axes of a parameter that make up one unit.

  A unit is all weights of one output of a kernel: axis 0 of a dense kernel
  (i, o) and of the query, key and value of attention (d, k, e), axes 0 and 1
  of its `out` (k, e, d), axes 0 to 2 of a convolution (h, w, i, o). A parameter
  with at most one axis longer than 1 is one unit, as published. So is any
  parameter that is not a kernel: in the paper's models those are vectors; here
  also position tables (as in timm) and the biases (k, e) of attention.

  Args:
    name: name of the parameter.
    shape: its shape; that of one block if blocks are stacked.
  """
  is_vector = sum(size > 1 for size in shape) <= 1
  if is_vector or not _KERNEL.fullmatch(name):
    return tuple(range(len(shape)))
  if len(shape) == 3:
    return (0, 1) if _OUT_KERNEL.fullmatch(name) else (0,)
  return tuple(range(len(shape) - 1))


def adaptive_grad_clip(
  clip: float, names: Collection[str], eps: float = 1e-3
) -> optax.GradientTransformation:
  """Clips the gradient of each unit to `clip` times the norm of its weights.

  Stacked blocks are clipped one by one. Equals `optax.adaptive_grad_clip` for
  dense and convolution kernels; other units differ, see `unit_axes`.

  Args:
    clip: largest ratio of the two norms.
    names: names of the parameters to clip.
    eps: lower bound of the norm of the weights, so that weights that start at
      zero can change.
  """

  def clip_leaf(name, grad, param):
    if name not in names:
      return grad

    def clip_units(
      g: Float[Array, "*shape"], w: Float[Array, "*shape"]
    ) -> Float[Array, "*shape"]:
      axes = unit_axes(name, g.shape)
      g_norm, w_norm = (
        jnp.sqrt(jnp.sum(jnp.square(x), axes, keepdims=True)) for x in (g, w)
      )
      limit = clip * jnp.maximum(w_norm, eps)
      clipped = g * (limit / jnp.maximum(g_norm, 1e-6))
      return jnp.where(g_norm > limit, clipped, g)

    if trees.is_stacked(name):
      clip_units = jax.vmap(clip_units)
    return clip_units(grad, param)

  return optax.stateless(
    lambda grads, params: trees.map_with_names(clip_leaf, grads, params)
  )
