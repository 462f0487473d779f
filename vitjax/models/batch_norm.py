"""Batch normalisation, as PyTorch has it.

https://arxiv.org/abs/1502.03167. The running statistics are the collection
`STATISTICS` of a model, with the names of its parameters: a norm has `scale`
and `bias` in "params", `mean` and `var` in `STATISTICS`.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from vitjax.config.ranges import Positive
from vitjax.models import common

STATISTICS = "batch_stats"  # Linen's name


class BatchNorm(nn.Module):
  """Normalises each channel over the batch and the positions.

  In training the statistics are those of the global batch, on any number of
  devices, and the running ones move towards them, if `STATISTICS` is mutable.
  Otherwise the running statistics normalise. They are float32.

  Attributes:
    eps: added to the variance; 1e-3 in TensorFlow's networks.
    momentum: weight of the old running statistics: 1 - PyTorch's `momentum`.
    scale_init: of the scale; zeros in the last norm of a residual branch
      start the block as an identity.
    dtype: of the result.
  """

  eps: Positive = 1e-5
  momentum: float = 0.9
  scale_init: nn.initializers.Initializer = nn.initializers.ones
  dtype: common.Dtype = jnp.float32

  @nn.compact
  def __call__(
    self, x: Float[Array, "*b c"], *, train: bool
  ) -> Float[Array, "*b c"]:
    width = x.shape[-1:]
    scale = self.param("scale", self.scale_init, width)
    bias = self.param("bias", nn.initializers.zeros, width)
    running_mean = self.variable(STATISTICS, "mean", jnp.zeros, width)
    running_var = self.variable(STATISTICS, "var", jnp.ones, width)
    mean, var = running_mean.value, running_var.value
    if train:
      axes = tuple(range(x.ndim - 1))
      exact = x.astype(jnp.float32)
      mean, var = exact.mean(axes), exact.var(axes)
      if self.is_mutable_collection(STATISTICS) and not self.is_initializing():
        # The running variance is the unbiased one, as in PyTorch; Linen's own
        # BatchNorm keeps the biased one.
        n = x.size // x.shape[-1]
        unbiased = var * (n / max(n - 1, 1))
        new = 1 - self.momentum
        running_mean.value += new * (mean - running_mean.value)
        running_var.value += new * (unbiased - running_var.value)
    factor = scale * jax.lax.rsqrt(var + self.eps)
    return (x * factor + (bias - mean * factor)).astype(self.dtype)
