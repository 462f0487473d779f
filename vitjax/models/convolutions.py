"""Parts of convolutional networks with batch normalisation."""

import math
from typing import Literal

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from vitjax.models import common

# He et al., https://arxiv.org/abs/1502.01852, by the number of outputs.
KERNEL_INIT = nn.initializers.variance_scaling(2.0, "fan_out", "normal")
HEAD_INIT = nn.initializers.normal(0.01)


class Conv(nn.Module):
  """Convolution without a bias, with the same padding on both sides.

  PyTorch pads so, also with a stride; "SAME" is TensorFlow's padding.
  """

  features: int
  kernel_size: int = 1
  strides: int = 1
  groups: int = 1
  kernel_init: nn.initializers.Initializer = KERNEL_INIT
  dtype: common.Dtype = jnp.float32

  @nn.compact
  def __call__(self, x: Float[Array, "b h w c"]) -> Float[Array, "b _h _w o"]:
    k = self.kernel_size
    shape = (k, k, x.shape[-1] // self.groups, self.features)
    kernel = self.param("kernel", self.kernel_init, shape, jnp.float32)
    padding = ((k // 2, k // 2),) * 2
    x = x.astype(self.dtype)
    return common.conv(x, kernel, self.strides, padding, self.groups)


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


def drop_path_rates(rate: float, depths: tuple[int, ...]) -> list[list[float]]:
  """Rate of each block of each stage: from 0 in the first block to `rate`."""
  last = max(sum(depths) - 1, 1)
  rates = [rate * i / last for i in range(sum(depths))]
  return [
    rates[sum(depths[:s]) : sum(depths[: s + 1])] for s in range(len(depths))
  ]
