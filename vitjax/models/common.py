"""Layers that several model families share.

Compute happens in `dtype`; parameters, softmax, the statistics of norms and
everything that is returned as logits stay in float32. Heads are put ahead of
tokens for the attention products.

In float32, which is what a CPU gets, two things are done otherwise. Tokens are
flattened to (b l) before every dense layer: one big matrix product is what a
CPU does best. A TPU would copy every activation for it, as 196 tokens are no
whole number of its tiles. And the backward pass computes norms and GELUs again
in place of keeping what they need: a CPU gets its memory for each step anew
from the system, page by page, which costs more.
"""

import math
from collections.abc import Callable

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from vitjax.models import fused_attention

Dtype = jax.typing.DTypeLike
# What models are called with.
ArrayLike = Array | np.ndarray


def _gelu(x: Array, approximate: bool) -> Array:
  def gelu(x):
    return nn.gelu(x, approximate=approximate)

  return (jax.checkpoint(gelu) if x.dtype == jnp.float32 else gelu)(x)


# Google's ViT, Mixer, NFNet and BERT use the tanh form; PyTorch's models use
# the exact one. Logits differ by about 1e-3 of their range between the two.
GELU: dict[str, Callable[[Array], Array]] = {
  "tanh": lambda x: _gelu(x, approximate=True),
  "erf": lambda x: _gelu(x, approximate=False),
}


def layer_norm(epsilon: float, dtype: Dtype, name: str) -> nn.LayerNorm:
  """The norm ahead of a branch, computed again in float32; see the module."""
  recompute = jnp.dtype(dtype) == jnp.float32
  norm = nn.remat(nn.LayerNorm) if recompute else nn.LayerNorm
  return norm(epsilon, dtype=dtype, name=name)


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
  """2-D convolution in the type of `x`, for kernels that are computed."""
  return jax.lax.conv_general_dilated(
    x,
    kernel.astype(x.dtype),
    (strides, strides),
    padding,
    dimension_numbers=("NHWC", "HWIO", "NHWC"),
    feature_group_count=groups,
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
  x: Float[Array, "b l d"], dtype: Dtype
) -> Float[Array, "*rows d"]:
  """The rows of a dense layer that computes in `dtype`; see the module."""
  is_float32 = jnp.dtype(dtype) == jnp.float32
  return x.reshape(-1, x.shape[-1]) if is_float32 else x


@jax.custom_vjp
def half_attention(
  query: Float[Array, "b k q e"],
  key: Float[Array, "b k l e"],
  value: Float[Array, "b k l f"],
) -> Float[Array, "b k q f"]:
  """Attention in 16 bits that keeps no array of scores in float32.

  Scores, softmax and every sum are float32. The scores are computed twice,
  which is a few per cent of a block's operations: first for their largest
  values alone, then for their exponentials, so that they are never written.
  What is kept for the backward pass are the exponentials in 16 bits.

  Args:
    query: already scaled.
    key, value: as usual.
  """
  return _half_attention_fwd(query, key, value)[0]


def _scores(x, y):
  return jnp.einsum("bkqe,bkle->bkql", x, y, preferred_element_type=jnp.float32)


def _half_attention_fwd(query, key, value):
  # Turned around, or the compiler would merge it with the second product.
  largest = _scores(key, query).max(axis=-2)[..., None]
  powers = jnp.exp(_scores(query, key) - largest)
  total = powers.sum(axis=-1, keepdims=True)
  powers = powers.astype(value.dtype)
  weights = _weights(powers, total).astype(value.dtype)
  out = jnp.einsum("bkql,bklf->bkqf", weights, value)
  return out, (query, key, value, powers, total)


def _weights(powers, total):
  return powers.astype(jnp.float32) / total


def _half_attention_bwd(kept, grad):
  query, key, value, powers, total = kept
  weights = _weights(powers, total)
  value_grad = jnp.einsum("bkql,bkqf->bklf", weights.astype(grad.dtype), grad)
  weights_grad = jnp.einsum("bkqf,bklf->bkql", grad, value)
  weights_grad = weights_grad.astype(jnp.float32)
  mean = (weights * weights_grad).sum(axis=-1, keepdims=True)
  scores_grad = (weights * (weights_grad - mean)).astype(grad.dtype)
  query_grad = jnp.einsum("bkql,bkle->bkqe", scores_grad, key)
  key_grad = jnp.einsum("bkql,bkqe->bkle", scores_grad, query)
  return query_grad, key_grad, value_grad


half_attention.defvjp(_half_attention_fwd, _half_attention_bwd)


@jax.custom_jvp
def softmax(x: Float[Array, "*b l"]) -> Float[Array, "*b l"]:
  """Over the last axis, with a derivative that needs the result alone.

  That of `jax.nn.softmax` keeps exponentials and their sums, as large again.
  """
  return jax.nn.softmax(x, axis=-1)


@softmax.defjvp
def _softmax_jvp(primals, tangents):
  weights, (change,) = softmax(*primals), tangents
  mean = (weights * change).sum(axis=-1, keepdims=True)
  return weights, weights * (change - mean)


def dot_product_attention(
  query: Float[Array, "b q k e"],
  key: Float[Array, "b l k e"],
  value: Float[Array, "b l k f"],
  mask: Bool[Array, "b #k q l"] | None = None,
) -> tuple[Float[Array, "b q k f"], Float[Array, "b k q l"]]:
  """Scaled dot-product attention and its weights (softmax in float32).

  Attention Is All You Need, https://arxiv.org/abs/1706.03762, eq. 1. Where
  `mask` is False a score becomes -1e10; a query that may attend nothing
  attends everything equally.
  """
  query, key, value = (x.swapaxes(1, 2) for x in (query, key, value))
  query = query * query.shape[-1] ** -0.5
  scores = jnp.einsum(
    "bkqe,bkle->bkql", query, key, preferred_element_type=jnp.float32
  )
  scores = scores.astype(jnp.float32)
  if mask is not None:
    scores = jnp.where(mask, scores, -1e10)
  weights = softmax(scores)
  if mask is None and value.dtype.itemsize == 2:
    out = half_attention(query, key, value)
  else:
    out = jnp.einsum("bkql,bkle->bkqe", weights.astype(value.dtype), value)
  return out.swapaxes(1, 2), weights


def rope_angles_2d(
  h: int, w: int, head_width: int, reference: int
) -> Float[Array, "l e"]:
  """Angles of rotary embeddings of a grid, in radians.

  RoFormer, https://arxiv.org/abs/2104.09864, sec. 3.2, for rows in the first
  half of the width and columns in the second: https://arxiv.org/abs/2303.11331
  (EVA-02). Pairs of neighbours have the same angle. A grid of any size spans
  what one of `reference` x `reference` does.

  Raises:
    ValueError: if the width of a head is not a multiple of 4.
  """
  if head_width % 4:
    raise ValueError(
      f"posemb='rope' needs heads of a width that is a multiple of 4, not "
      f"{head_width}."
    )
  n = head_width // 4
  y, x = jnp.mgrid[:h, :w]
  frequency = 10_000.0 ** (-jnp.arange(n) / n)
  rows = jnp.einsum("l,n->ln", y.reshape(-1) * reference / h, frequency)
  columns = jnp.einsum("l,n->ln", x.reshape(-1) * reference / w, frequency)
  return jnp.repeat(jnp.concatenate([rows, columns], axis=1), 2, axis=1)


def rotate(
  x: Float[Array, "b l k e"], angles: Float[Array, "l e"]
) -> Float[Array, "b l k e"]:
  """Turns each pair of neighbours by its angle, in float32."""
  angles = angles[None, :, None]
  y = x.astype(jnp.float32)
  turned = jnp.stack([-y[..., 1::2], y[..., ::2]], axis=-1).reshape(y.shape)
  return (y * jnp.cos(angles) + turned * jnp.sin(angles)).astype(x.dtype)


class Projection(nn.Module):
  """A dense layer between the width and heads, or back, on the last axis.

  The kernel has the published shape (*inputs, *outputs), but the product is
  one of matrices: a TPU then need not copy what the kernels of fused attention
  read and write. Equal to `nn.DenseGeneral` otherwise.
  """

  inputs: tuple[int, ...]
  outputs: tuple[int, ...]
  use_bias: bool = True
  dtype: Dtype = jnp.float32

  @nn.compact
  def __call__(self, x: Float[Array, "*b n"]) -> Float[Array, "*b m"]:
    flat = (math.prod(self.inputs), math.prod(self.outputs))

    def init(key, shape, dtype):
      return nn.initializers.xavier_uniform()(key, flat, dtype).reshape(shape)

    shape = (*self.inputs, *self.outputs)
    kernel = self.param("kernel", init, shape, jnp.float32)
    x = x.astype(self.dtype) @ kernel.astype(self.dtype).reshape(flat)
    if self.use_bias:
      bias = self.param(
        "bias", nn.initializers.zeros, self.outputs, jnp.float32
      )
      x += bias.astype(self.dtype).reshape((1,) * (x.ndim - 1) + (-1,))
    return x


class MultiHeadDotProductAttention(nn.Module):
  """Multi-head attention of `inputs_q` (b, q, d) over `inputs_kv` (b, l, d).

  Kernels have the published shapes: (d, k, e) for query, key and value,
  (k, e, d) for `out`. Queries and keys are rotated if there are angles.
  Returns the output and the attention weights (b, k, q, l); unused weights
  cost nothing under `jit`. `attention` is one of
  `fused_attention.IMPLEMENTATIONS`.
  """

  num_heads: int
  qkv_bias: bool = True
  key_bias: bool = True
  attention: str = "xla"
  dtype: Dtype = jnp.float32

  @nn.compact
  def __call__(
    self,
    inputs_q: Float[Array, "b q d"],
    inputs_kv: Float[Array, "b l d"],
    angles: Float[Array, "l e"] | None = None,
  ) -> tuple[Float[Array, "b q d"], Float[Array, "b k q l"]]:
    b, _, d = inputs_q.shape
    if d % self.num_heads:
      raise ValueError(
        f"width={d} is not a multiple of num_heads={self.num_heads}."
      )
    heads = (self.num_heads, d // self.num_heads)

    def project(x, name):
      y = Projection(
        (d,),
        heads,
        self.qkv_bias and (self.key_bias or name != "key"),
        dtype=self.dtype,
        name=name,
      )(flatten_tokens(x, self.dtype))
      return y.reshape(b, -1, d)

    def split(x):
      return x.reshape(b, -1, *heads)

    query, key = project(inputs_q, "query"), project(inputs_kv, "key")
    if angles is not None:
      query, key = (
        rotate(split(x), angles).reshape(b, -1, d) for x in (query, key)
      )
    value = project(inputs_kv, "value")
    x, weights = dot_product_attention(split(query), split(key), split(value))
    x = x.reshape(b, -1, d)
    if fused_attention.wanted(self.attention, query, key, self.num_heads):
      x = fused_attention.attention(query, key, value, self.num_heads)
    x = Projection(heads, (d,), dtype=self.dtype, name="out")(
      flatten_tokens(x, self.dtype)
    )
    return x.reshape(b, -1, d), weights


class MlpBlock(nn.Module):
  """Dense, GELU, dropout, dense on the last axis of (b, l, d)."""

  mlp_dim: int
  dropout_rate: float = 0.0
  gelu: str = "tanh"
  kernel_init: nn.initializers.Initializer = nn.initializers.xavier_uniform()
  bias_init: nn.initializers.Initializer = nn.initializers.normal(1e-6)
  dtype: Dtype = jnp.float32

  @nn.compact
  def __call__(
    self, x: Float[Array, "b l d"], train: bool = False
  ) -> Float[Array, "b l d"]:
    shape = x.shape
    init = {
      "kernel_init": self.kernel_init,
      "bias_init": self.bias_init,
      "dtype": self.dtype,
    }
    x = flatten_tokens(x, self.dtype)
    x = nn.Dense(self.mlp_dim, name="Dense_0", **init)(x)
    x = GELU[self.gelu](x)
    x = nn.Dropout(self.dropout_rate)(x, deterministic=not train)
    x = nn.Dense(shape[-1], name="Dense_1", **init)(x)
    return x.reshape(shape)


class LayerScale(nn.Module):
  """Multiplies each channel by a learned `gamma`, small at the start.

  Going Deeper with Image Transformers, https://arxiv.org/abs/2103.17239,
  eq. 4.
  """

  init: float

  @nn.compact
  def __call__(self, x: Float[Array, "*b d"]) -> Float[Array, "*b d"]:
    gamma = self.param(
      "gamma", nn.initializers.constant(self.init), (x.shape[-1],)
    )
    gamma = gamma.reshape((1,) * (x.ndim - 1) + gamma.shape)
    return x * gamma.astype(x.dtype)


def head(
  num_classes: int, zero_init: bool = True, bias_init: float = 0.0
) -> nn.Dense:
  """The float32 classifier, named "head", of the module that calls this."""
  return nn.Dense(
    num_classes,
    kernel_init=(
      nn.initializers.zeros if zero_init else nn.initializers.lecun_normal()
    ),
    bias_init=nn.initializers.constant(bias_init),
    name="head",
  )


class MAPHead(nn.Module):
  """Multi-head attention pooling with one learned query, (b, l, d) to (b, d).

  Returns the weights of the attention, (b, k, 1, l), as well.

  Scaling Vision Transformers, https://arxiv.org/abs/2106.04560, sec. 3.2.
  The attention has no residual and no norm before it. Computed in float32.
  """

  mlp_dim: int
  num_heads: int
  gelu: str = "tanh"
  layer_norm_eps: float = 1e-6

  @nn.compact
  def __call__(
    self, x: Float[Array, "b l d"]
  ) -> tuple[Float[Array, "b d"], Float[Array, "b k 1 l"]]:
    b, _, d = x.shape
    probe = self.param(
      "probe", nn.initializers.xavier_uniform(), (1, 1, d), jnp.float32
    )
    x, weights = MultiHeadDotProductAttention(
      self.num_heads, name="MultiHeadDotProductAttention_0"
    )(jnp.broadcast_to(probe, (b, 1, d)), x)
    y = nn.LayerNorm(self.layer_norm_eps, name="LayerNorm_0")(x)
    x = x + MlpBlock(self.mlp_dim, gelu=self.gelu, name="MlpBlock_0")(y)
    return x[:, 0], weights
