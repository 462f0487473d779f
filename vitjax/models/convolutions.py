"""Parts of convolutional networks with batch normalisation."""

import math
from collections.abc import Callable
from typing import Literal

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from vitjax.models import common, cpu_convolution

Padding = Literal["symmetric", "same"]
HEAD_INIT = nn.initializers.normal(0.01)


def he_init(groups: int = 1) -> nn.initializers.Initializer:
  """Normal with variance 2 / fan-out, https://arxiv.org/abs/1502.01852.

  `groups` divides the fan-out: 1 for that of all outputs.
  """
  return nn.initializers.variance_scaling(2.0 * groups, "fan_out", "normal")


class Conv(nn.Module):
  """Convolution that pads both sides alike ("symmetric") or as TensorFlow.

  PyTorch pads both sides alike, also with a stride. TensorFlow's "same" then
  pads more at the bottom and at the right.
  """

  features: int
  kernel_size: int = 1
  strides: int = 1
  groups: int = 1
  padding: Padding = "symmetric"
  use_bias: bool = False
  kernel_init: nn.initializers.Initializer = he_init()
  dtype: common.Dtype = jnp.float32

  @nn.compact
  def __call__(self, x: Float[Array, "b h w c"]) -> Float[Array, "b _h _w o"]:
    k = self.kernel_size
    shape = (k, k, x.shape[-1] // self.groups, self.features)
    kernel = self.param("kernel", self.kernel_init, shape, jnp.float32)
    both = ((k // 2, k // 2),) * 2
    padding = both if self.padding == "symmetric" else "SAME"
    x = cpu_convolution.conv(
      x.astype(self.dtype), kernel, self.strides, padding, self.groups
    )
    if self.use_bias:
      bias = self.param("bias", nn.initializers.zeros, (self.features,))
      x += bias.astype(self.dtype)[None, None, None]
    return x


class Stage(nn.Module):
  """Blocks in a row, the first one with a stride.

  `block(strides=, drop_path_rate=, name=)` makes one.
  """

  block: Callable[..., nn.Module]
  drop_path_rates: tuple[float, ...]
  strides: int = 2

  @nn.compact
  def __call__(
    self, x: Float[Array, "b h w c"], train: bool = False
  ) -> Float[Array, "b _h _w o"]:
    for i, rate in enumerate(self.drop_path_rates):
      strides = self.strides if i == 0 else 1
      name = f"block{i:02d}"
      block = self.block(strides=strides, drop_path_rate=rate, name=name)
      x = block(x, train)
    return x


class SqueezeExcite(nn.Module):
  """Scales each channel by a gate computed from the means of all channels.

  https://arxiv.org/abs/1709.01507. `width` is that of the layer between.
  """

  width: int
  activation: Literal["relu", "relu6", "silu"] = "relu"
  dtype: common.Dtype = jnp.float32

  @nn.compact
  def __call__(self, x: Float[Array, "b h w c"]) -> Float[Array, "b h w c"]:
    def dense(features, name):
      init = nn.initializers.normal(math.sqrt(2 / features))
      return nn.Dense(features, dtype=self.dtype, kernel_init=init, name=name)

    y = x.mean(axis=(1, 2), dtype=jnp.float32)
    y = getattr(nn, self.activation)(dense(self.width, "reduce")(y))
    y = nn.sigmoid(dense(x.shape[-1], "expand")(y))
    return x * y[:, None, None].astype(x.dtype)


def mean_pool(x: Float[Array, "b h w c"]) -> Float[Array, "b _h _w c"]:
  """Means of 2x2 pixels; at an odd border of those that exist."""
  padding = ((0, x.shape[1] % 2), (0, x.shape[2] % 2))
  return nn.avg_pool(x, (2, 2), (2, 2), padding, count_include_pad=False)
