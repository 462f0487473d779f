"""Convolutions in float32 as XLA's CPU backend runs them fast.

A convolution of single pixels is a product of matrices. One with groups is a
convolution for each group, and one of each channel alone has a form of its own,
`vitjax.models.depthwise`. XLA's own are slower, and the gradients of grouped
ones up to 100 times. Accelerators, which know them all, and other types have
XLA's own.
"""

import functools

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from vitjax.models import common, depthwise


def conv(
  x: Float[Array, "b h w c"],
  kernel: Float[Array, "k k i o"],
  strides: int = 1,
  padding: str | tuple[tuple[int, int], ...] = "SAME",
  groups: int = 1,
) -> Float[Array, "b _h _w o"]:
  """As `common.conv`, which it is on accelerators, with a square kernel."""
  if x.dtype != jnp.float32:
    return common.conv(x, kernel, strides, padding, groups)
  return _by_platform(x, kernel, strides, padding, groups)


@functools.partial(jax.custom_vjp, nondiff_argnums=(2, 3, 4))
def _by_platform(x, kernel, *how):
  return jax.lax.platform_dependent(
    x,
    kernel,
    cpu=lambda x, kernel: _on_cpu(x, kernel, *how),
    default=lambda x, kernel: common.conv(x, kernel, *how),
  )


def _forward(x, kernel, *how):
  return _by_platform(x, kernel, *how), (x, kernel)


def _backward(*args):
  *how, (x, kernel), gradient = args

  def gradients_of(conv):
    def gradients(x, kernel, gradient):
      _, pull = jax.vjp(lambda x, kernel: conv(x, kernel, *how), x, kernel)
      return pull(gradient)

    return gradients

  # The choice is made here again: inside of it, derivatives would keep what
  # either platform needs.
  return jax.lax.platform_dependent(
    x,
    kernel,
    gradient,
    cpu=gradients_of(_on_cpu),
    default=gradients_of(common.conv),
  )


_by_platform.defvjp(_forward, _backward)


def _on_cpu(x, kernel, strides, padding, groups):
  if 1 < groups == x.shape[-1]:
    return depthwise.depthwise_conv(x, kernel, strides, padding)
  if groups > 1:
    parts = zip(
      jnp.split(x, groups, axis=-1), jnp.split(kernel, groups, axis=-1)
    )
    convs = [common.conv(*part, strides, padding) for part in parts]
    return jnp.concatenate(convs, axis=-1)
  if kernel.shape[0] == 1 and padding in ("SAME", ((0, 0), (0, 0))):
    x = x[:, ::strides, ::strides]
    y = x.reshape(-1, x.shape[-1]) @ kernel[0, 0]
    return y.reshape(*x.shape[:-1], -1)
  return common.conv(x, kernel, strides, padding)
