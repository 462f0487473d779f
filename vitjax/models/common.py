"""Layers that several model families share.

Layers compute in `dtype`. Parameters, the statistics of norms and logits stay
in float32.

Two things differ in float32, the type on CPUs. Tokens are flattened to (b l)
before every dense layer, because a CPU is fastest at one large matrix product;
a TPU would copy every activation for it, since 196 tokens are not a whole
number of its tiles. The backward pass recomputes norms and GELUs instead of
keeping their inputs: on a CPU, allocating their memory again in each step takes
longer.
"""

import functools
from collections.abc import Callable
from typing import Literal

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from absl import logging
from jaxtyping import Array, Float

from vitjax.models import half_precision

Dtype = Literal["bfloat16", "float16", "float32", "float64"] | type
Gelu = Literal["tanh", "erf", "quick"]
_DENSE_INIT = nn.initializers.lecun_normal()  # Linen's own
# Types of the inputs of models.
ArrayLike = Array | np.ndarray


def _gelu(gelu: Callable[[Array], Array]) -> Callable[[Array], Array]:
  def recomputed(x):
    if x.dtype == jnp.float32:
      return jax.checkpoint(gelu)(x)
    return half_precision.in_float32(gelu)(x)

  return recomputed


# Google's ViT, Mixer, NFNet and BERT use the tanh form, PyTorch's models the
# exact one, and OpenAI's CLIP the sigmoid form. Logits differ by about 1e-3 of
# their range between the first two, and by more for the third. Exported graphs
# recognise the first two by the name of the function that is recomputed.
GELU: dict[str, Callable[[Array], Array]] = {
  "tanh": _gelu(functools.partial(nn.gelu, approximate=True)),
  "erf": _gelu(functools.partial(nn.gelu, approximate=False)),
  "quick": _gelu(lambda x: x * nn.sigmoid(1.702 * x)),
}


def layer_norm(
  epsilon: float, dtype: Dtype, name: str, use_bias: bool = True
) -> nn.LayerNorm:
  """The norm before a branch, recomputed in float32; see the module."""
  recompute = jnp.dtype(dtype) == jnp.float32
  norm = nn.remat(nn.LayerNorm) if recompute else nn.LayerNorm
  return norm(epsilon, dtype=dtype, use_bias=use_bias, name=name)


def drop_path(
  x: Float[Array, "b *rest"],
  rate: float | Float[Array, ""],
  key: jax.Array,
  *,
  rescale: bool = True,
) -> Float[Array, "b *rest"]:
  """Drops whole examples of a residual branch.

  Deep Networks with Stochastic Depth, https://arxiv.org/abs/1603.09382,
  sec. 3.

  Args:
    x: output of the residual branch.
    rate: probability of dropping an example, in [0, 1).
    key: PRNG key; the same key drops the same examples.
    rescale: whether to keep the expectation, as timm does. Mixer and NFNet
      were published without, so their inference sees larger branches than
      their training did on average.

  Returns:
    `x / (1 - rate)`, or `x`, with the dropped examples set to zero.
  """
  shape = (x.shape[0],) + (1,) * (x.ndim - 1)
  keep = 1.0 - rate
  kept = jax.random.bernoulli(key, keep, shape)
  return x * (kept / keep if rescale else kept).astype(x.dtype)


def conv(
  x: Float[Array, "b h w c"],
  kernel: Float[Array, "kh kw i o"],
  strides: int = 1,
  padding: str | tuple[tuple[int, int], ...] = "SAME",
  groups: int = 1,
) -> Float[Array, "b _h _w o"]:
  """2-D convolution in the type of `x`, with a kernel given as an array."""
  return jax.lax.conv_general_dilated(
    x,
    kernel.astype(x.dtype),
    (strides, strides),
    padding,
    dimension_numbers=("NHWC", "HWIO", "NHWC"),
    feature_group_count=groups,
  )


def drop_path_rates(
  rate: float, depths: tuple[int, ...]
) -> list[tuple[float, ...]]:
  """Rate of each block of each stage: from 0 in the first block to `rate`."""
  last = max(sum(depths) - 1, 1)
  rates = tuple(rate * i / last for i in range(sum(depths)))
  return [
    rates[sum(depths[:s]) : sum(depths[: s + 1])] for s in range(len(depths))
  ]


@functools.cache
def warn_of_border(h: int, w: int, stride: int) -> None:
  """Warns once of rows and columns that a stem of this stride does not read.

  Args:
    h, w: height and width of the image in pixels.
    stride: pixels from one patch to the next.
  """
  if h % stride or w % stride:
    logging.warning(
      "The model drops %d rows and %d columns of each image of %dx%d: it reads "
      "whole patches of %d pixels, as published. For the whole image resize to "
      "multiples of %d, such as %dx%d.",
      h % stride,
      w % stride,
      h,
      w,
      stride,
      stride,
      max(round(h / stride), 1) * stride,
      max(round(w / stride), 1) * stride,
    )


def posemb_sincos_2d(
  h: int, w: int, width: int, temperature: float = 10_000.0
) -> Float[Array, "1 l d"]:
  """Fixed 2-D sine-cosine position embedding, as in MoCo v3.

  https://arxiv.org/abs/2104.02057; the frequencies include both end points
  and the column (x) comes first: [sin x, cos x, sin y, cos y].

  Raises:
    ValueError: if `width` is not a multiple of 4.
  """
  if width % 4:
    raise ValueError(
      f"posemb='sincos2d' needs a width that is a multiple of 4, not {width}."
    )
  y, x = jnp.mgrid[:h, :w]
  omega = jnp.arange(width // 4) / max(width // 4 - 1, 1)
  omega = 1.0 / temperature**omega
  y = jnp.einsum("l,d->ld", y.reshape(-1), omega)
  x = jnp.einsum("l,d->ld", x.reshape(-1), omega)
  table = [jnp.sin(x), jnp.cos(x), jnp.sin(y), jnp.cos(y)]
  return jnp.concatenate(table, axis=1)[None].astype(jnp.float32)


def flatten_tokens(
  x: Float[Array, "*b d"], dtype: Dtype
) -> Float[Array, "*rows d"]:
  """The rows of a dense layer that computes in `dtype`; see the module."""
  is_float32 = jnp.dtype(dtype) == jnp.float32
  return x.reshape(-1, x.shape[-1]) if is_float32 else x


class MlpBlock(nn.Module):
  """Dense, GELU, dropout, dense on the last axis of (b, l, d).

  `swiglu` multiplies the first dense layer by the SiLU of another one, in place
  of the GELU: https://arxiv.org/abs/2002.05202, eq. 6, with biases. `norm_eps`
  puts a norm before the last dense layer: https://arxiv.org/abs/2303.11331,
  sec. 2.1.
  """

  mlp_dim: int
  dropout_rate: float = 0.0
  gelu: Gelu = "tanh"
  swiglu: bool = False
  norm_eps: float | None = None
  use_bias: bool = True
  kernel_init: nn.initializers.Initializer = nn.initializers.xavier_uniform()
  bias_init: nn.initializers.Initializer = nn.initializers.normal(1e-6)
  dtype: Dtype = jnp.float32

  @nn.compact
  def __call__(
    self, x: Float[Array, "b l d"], train: bool = False
  ) -> Float[Array, "b l d"]:
    shape = x.shape
    init = {
      "use_bias": self.use_bias,
      "kernel_init": self.kernel_init,
      "bias_init": self.bias_init,
      "dtype": self.dtype,
      "dot_general": half_precision.dense,
    }
    x = flatten_tokens(x, self.dtype)
    y = nn.Dense(self.mlp_dim, name="Dense_0", **init)(x)
    if self.swiglu:
      x = nn.silu(nn.Dense(self.mlp_dim, name="gate", **init)(x)) * y
    else:
      x = GELU[self.gelu](y)
    x = nn.Dropout(self.dropout_rate)(x, deterministic=not train)
    if self.norm_eps is not None:
      x = layer_norm(self.norm_eps, self.dtype, "LayerNorm_0")(x)
    x = nn.Dense(shape[-1], name="Dense_1", **init)(x)
    return x.reshape(shape)


class LayerScale(nn.Module):
  """Multiplies each channel by a learned `gamma`, small at the start.

  Going Deeper with Image Transformers, https://arxiv.org/abs/2103.17239,
  eq. 4.
  """

  gamma_init: float

  @nn.compact
  def __call__(self, x: Float[Array, "*b d"]) -> Float[Array, "*b d"]:
    gamma = self.param(
      "gamma", nn.initializers.constant(self.gamma_init), (x.shape[-1],)
    )
    gamma = gamma.reshape((1,) * (x.ndim - 1) + gamma.shape)
    return x * gamma.astype(x.dtype)


def head(
  num_classes: int,
  zero_init: bool = False,
  bias_init: float = 0.0,
  kernel_init: nn.initializers.Initializer = _DENSE_INIT,
) -> nn.Dense:
  """The float32 classifier, named "head", of the module that calls this."""
  return nn.Dense(
    num_classes,
    kernel_init=nn.initializers.zeros if zero_init else kernel_init,
    bias_init=nn.initializers.constant(bias_init),
    name="head",
  )
