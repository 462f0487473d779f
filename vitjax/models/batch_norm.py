"""Batch normalisation, as PyTorch has it.

https://arxiv.org/abs/1502.03167. The running statistics are the collection
`STATISTICS` of a model, with the names of its parameters: a norm has `scale`
and `bias` in "params", `mean` and `var` in `STATISTICS`.

Outside of training and of the model itself, both are one tree of names, the
model's weights, as in a file: `join` and `split`.
"""

import re
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from vitjax import trees
from vitjax.config.ranges import Positive
from vitjax.models import common

STATISTICS = "batch_stats"  # Linen's name
_LEAVES = ("mean", "var")


class BatchNorm(nn.Module):
  """Normalises each channel over the batch and the positions.

  In training the statistics are those of the global batch, on any number of
  devices, and the running ones move towards them, if `STATISTICS` is mutable.
  Otherwise the running statistics normalise. They are float32.

  Mean and variance come from one pass over the input and one sum over the
  devices: from the means of the distances to the running mean and of their
  squares. The nearer the running mean, the fewer digits cancel.

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
      origin = jax.lax.stop_gradient(running_mean.value)
      distance = x.astype(jnp.float32) - jnp.expand_dims(origin, axes)
      offset, square = distance.mean(axes), (distance**2).mean(axes)
      mean, var = origin + offset, jnp.maximum(square - offset**2, 0)
      if self.is_mutable_collection(STATISTICS) and not self.is_initializing():
        # The running variance is the unbiased one, as in PyTorch; Linen's own
        # BatchNorm keeps the biased one.
        n = x.size // x.shape[-1]
        unbiased = var * (n / max(n - 1, 1))
        new = 1 - self.momentum
        running_mean.value += new * (mean - running_mean.value)
        running_var.value += new * (unbiased - running_var.value)
    factor = scale * jax.lax.rsqrt(var + self.eps)
    shift = bias - mean * factor
    factor, shift = (
      v.reshape((1,) * (x.ndim - 1) + width) for v in (factor, shift)
    )
    return (x * factor + shift).astype(self.dtype)


def join(variables: Mapping[str, Any]) -> dict[str, Any]:
  """Parameters and running statistics of a model as one tree of names.

  Args:
    variables: {"params": ...}, of a model with statistics also {`STATISTICS`:
      ...}, as `model.init` returns them.

  Raises:
    ValueError: if the names of the leaves do not tell one from the other.
  """
  params = trees.flatten(variables.get("params", {}))
  statistics = trees.flatten(variables.get(STATISTICS, {}))
  wrong = [n for n in params if _is_statistic(n)]
  wrong += [n for n in statistics if not _is_statistic(n)]
  if wrong:
    raise ValueError(
      f"model variables {', '.join(wrong)}: those called 'mean' or 'var' "
      f"belong in the collection {STATISTICS!r}, all others in 'params'. "
      "Rename them in the model."
    )
  return trees.unflatten({**params, **statistics})


def split(weights: Mapping[str, Any]) -> dict[str, Any]:
  """Inverse of `join`: the variables that `model.apply` takes."""
  flat = trees.flatten(weights)
  params, statistics = (
    trees.unflatten({n: x for n, x in flat.items() if _is_statistic(n) == of})
    for of in (False, True)
  )
  return {"params": params} | ({STATISTICS: statistics} if statistics else {})


def _is_statistic(name: str) -> bool:
  return name.rpartition("/")[2] in _LEAVES


def frozen(regexes: Sequence[str]) -> AbstractContextManager:
  """Norms whose scale matches use and keep their running statistics.

  Args:
    regexes: of whole names of parameters that are not trained.
  """

  def call(next_fun, args, kwargs, context):
    if isinstance(context.module, BatchNorm):
      scale = "/".join((*context.module.path, "scale"))
      if any(re.fullmatch(regex, scale) for regex in regexes):
        kwargs = {**kwargs, "train": False}
    return next_fun(*args, **kwargs)

  return nn.intercept_methods(call)
