"""Attention: the numerics, and the modules with their projections.

Scores, softmax and every sum are float32. Heads are put ahead of tokens for
the products. The fused kernels are in `vitjax.models.fused_attention`.
"""

import math

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from vitjax.models import common, fused_attention


@jax.custom_vjp
def half_attention(
  query: Float[Array, "b k q e"],
  key: Float[Array, "b k l e"],
  value: Float[Array, "b k l f"],
) -> Float[Array, "b k q f"]:
  """Attention in 16 bits that keeps no array of scores in float32.

  Scores, softmax and every sum are float32. The scores are computed twice,
  first for their largest values, then for their exponentials, so that they are
  never written; this adds a few per cent to a block's operations. The backward
  pass keeps the exponentials in 16 bits.

  Args:
    query: scaled queries.
    key, value: keys and values.
  """
  return _half_attention_fwd(query, key, value)[0]


def _scores(x, y):
  return jnp.einsum("bkqe,bkle->bkql", x, y, preferred_element_type=jnp.float32)


def _half_attention_fwd(query, key, value):
  # Transpose it, or the compiler would merge it with the second product.
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
  """Softmax over the last axis, whose derivative needs only the result.

  The derivative of `jax.nn.softmax` also keeps the exponentials, which takes
  twice the memory.
  """
  return jax.nn.softmax(x, axis=-1)


@softmax.defjvp
def _softmax_jvp(primals, tangents):
  weights, (change,) = softmax(*primals), tangents
  mean = (weights * change).sum(axis=-1, keepdims=True)
  return weights, weights * (change - mean)


def _softmax_of_scores(query, key, mask):
  scores = jnp.einsum(
    "bkqe,bkle->bkql", query, key, preferred_element_type=jnp.float32
  )
  scores = scores.astype(jnp.float32)
  if mask is not None:
    scores = jnp.where(mask, scores, -1e10)
  return softmax(scores)


def _heads_first(query, *others):
  """The arguments as (b, k, l, e), with scaled queries."""
  query, *others = (x.swapaxes(1, 2) for x in (query, *others))
  return query * query.shape[-1] ** -0.5, *others


def attention_weights(
  query: Float[Array, "b q k e"], key: Float[Array, "b l k e"]
) -> Float[Array, "b k q l"]:
  """The weights of `dot_product_attention` alone, without a mask."""
  return _softmax_of_scores(*_heads_first(query, key), mask=None)


def dot_product_attention(
  query: Float[Array, "b q k e"],
  key: Float[Array, "b l k e"],
  value: Float[Array, "b l k f"],
  mask: Bool[Array, "b #k q l"] | None = None,
) -> tuple[Float[Array, "b q k f"], Float[Array, "b k q l"]]:
  """Scaled dot-product attention and its weights (softmax in float32).

  Attention Is All You Need, https://arxiv.org/abs/1706.03762, eq. 1. Where
  `mask` is False a score becomes -1e10; a query without any allowed key attends
  to all keys equally.
  """
  query, key, value = _heads_first(query, key, value)
  weights = _softmax_of_scores(query, key, mask)
  if mask is None and value.dtype.itemsize == 2:
    out = half_attention(query, key, value)
  else:
    out = jnp.einsum("bkql,bkle->bkqe", weights.astype(value.dtype), value)
  return out.swapaxes(1, 2), weights


def biased_attention(
  query: Float[Array, "b n k q e"],
  key: Float[Array, "b n k l e"],
  value: Float[Array, "b n k l f"],
  bias: Float[Array, "#n k q l"],
) -> Float[Array, "b n q k f"]:
  """Attention within each of n windows, with a bias of the scores.

  Args:
    query: scaled queries.
    key, value: keys and values.
    bias: added to the scores in float32.
  """
  scores = jnp.einsum(
    "bnkqe,bnkle->bnkql", query, key, preferred_element_type=jnp.float32
  )
  weights = softmax(scores.astype(jnp.float32) + bias[None])
  return jnp.einsum("bnkql,bnkle->bnqke", weights.astype(value.dtype), value)


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


def check_heads(width: int, num_heads: int) -> None:
  """Raises ValueError if heads cannot share the width equally."""
  if width % num_heads:
    raise ValueError(
      f"width={width} is not a multiple of num_heads={num_heads}."
    )


class Projection(nn.Module):
  """A dense layer between the width and heads, or back, on the last axis.

  The kernel has the published shape (*inputs, *outputs), but the product is
  one of matrices: a TPU then need not copy what the kernels of fused attention
  read and write. Equal to `nn.DenseGeneral` otherwise.
  """

  inputs: tuple[int, ...]
  outputs: tuple[int, ...]
  use_bias: bool = True
  kernel_init: nn.initializers.Initializer = nn.initializers.xavier_uniform()
  dtype: common.Dtype = jnp.float32

  @nn.compact
  def __call__(self, x: Float[Array, "*b n"]) -> Float[Array, "*b m"]:
    flat = (math.prod(self.inputs), math.prod(self.outputs))

    def init(key, shape, dtype):
      return self.kernel_init(key, flat, dtype).reshape(shape)

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
  (k, e, d) for `out`. Queries and keys are rotated if there are angles. If
  `causal`, a token attends to itself and to those before it.
  Returns the output and the attention weights (b, k, q, l). Under `jit`,
  weights that nobody uses are not computed. `attention` is an option of the
  Vision Transformer.
  """

  num_heads: int
  qkv_bias: bool = True
  key_bias: bool = True
  out_bias: bool = True
  causal: bool = False
  kernel_init: nn.initializers.Initializer = nn.initializers.xavier_uniform()
  attention: fused_attention.Implementation = "xla"
  dtype: common.Dtype = jnp.float32

  @nn.compact
  def __call__(
    self,
    inputs_q: Float[Array, "b q d"],
    inputs_kv: Float[Array, "b l d"],
    angles: Float[Array, "l e"] | None = None,
  ) -> tuple[Float[Array, "b q d"], Float[Array, "b k q l"]]:
    b, _, d = inputs_q.shape
    check_heads(d, self.num_heads)
    heads = (self.num_heads, d // self.num_heads)

    def project(x, name):
      y = Projection(
        (d,),
        heads,
        self.qkv_bias and (self.key_bias or name != "key"),
        kernel_init=self.kernel_init,
        dtype=self.dtype,
        name=name,
      )(common.flatten_tokens(x, self.dtype))
      return y.reshape(b, -1, d)

    def split(x):
      return x.reshape(b, -1, *heads)

    query, key = project(inputs_q, "query"), project(inputs_kv, "key")
    if angles is not None:
      query, key = (
        rotate(split(x), angles).reshape(b, -1, d) for x in (query, key)
      )
    value = project(inputs_kv, "value")
    if self.causal:  # no fused kernel has a mask
      mask = jnp.tri(query.shape[1], dtype=bool)
      mask = jnp.broadcast_to(mask, (b, 1, *mask.shape))
      x, weights = dot_product_attention(
        *map(split, (query, key, value)), mask=mask
      )
      x = x.reshape(b, -1, d)
    elif fused_attention.wanted(self.attention, query, key, self.num_heads):
      x = fused_attention.attention(query, key, value, self.num_heads)
      weights = attention_weights(split(query), split(key))
    else:
      x, weights = dot_product_attention(*map(split, (query, key, value)))
      x = x.reshape(b, -1, d)
    x = Projection(
      heads,
      (d,),
      self.out_bias,
      kernel_init=self.kernel_init,
      dtype=self.dtype,
      name="out",
    )(common.flatten_tokens(x, self.dtype))
    return x.reshape(b, -1, d), weights


class DifferentialAttention(nn.Module):
  """Attention whose weights are the difference of two softmaxes.

  Differential Transformer, https://arxiv.org/abs/2410.05258, eq. 1-3. Each
  head has two queries and keys of half its width, next to each other, and one
  value. Returns the output and the weights of both (b, 2k, q, l).
  """

  num_heads: int
  qkv_bias: bool = True
  out_bias: bool = True
  dtype: common.Dtype = jnp.float32

  @nn.compact
  def __call__(
    self, x: Float[Array, "b l d"], index: float | Float[Array, ""]
  ) -> tuple[Float[Array, "b l d"], Float[Array, "b m l l"]]:
    b, _, d = x.shape
    e = d // self.num_heads // 2

    def project(name, heads, width):
      return nn.DenseGeneral(
        (heads, width),
        use_bias=self.qkv_bias,
        kernel_init=nn.initializers.xavier_uniform(),
        dtype=self.dtype,
        name=name,
      )(common.flatten_tokens(x, self.dtype)).reshape(b, -1, heads, width)

    def dot(i):
      init = nn.initializers.normal(0.1)
      query = self.param(f"lambda_q{i}", init, (e,), jnp.float32)
      return query @ self.param(f"lambda_k{i}", init, (e,), jnp.float32)

    value = project("value", self.num_heads, 2 * e)
    y, weights = dot_product_attention(
      project("query", 2 * self.num_heads, e),
      project("key", 2 * self.num_heads, e),
      jnp.repeat(value, 2, axis=2),
    )
    y = y.reshape(b, -1, self.num_heads, 2, 2 * e)
    lambda_init = 0.8 - 0.6 * jnp.exp(-0.3 * index)
    factor = jnp.exp(dot(1)) - jnp.exp(dot(2)) + lambda_init
    y = y[..., 0, :] - factor.astype(y.dtype) * y[..., 1, :]
    y = nn.RMSNorm(1e-5, dtype=self.dtype, name="sub_norm")(y)
    y = y * (1 - lambda_init).astype(y.dtype)
    y = nn.DenseGeneral(
      d,
      axis=(-2, -1),
      use_bias=self.out_bias,
      kernel_init=nn.initializers.xavier_uniform(),
      dtype=self.dtype,
      name="out",
    )(y.reshape(-1, *y.shape[2:]))
    return y.reshape(b, -1, d), weights


class MAPHead(nn.Module):
  """Multi-head attention pooling with one learned query, (b, l, d) to (b, d).

  Returns the weights of the attention, (b, k, 1, l), as well.

  Scaling Vision Transformers, https://arxiv.org/abs/2106.04560, sec. 3.2.
  The attention has no residual and no norm before it. Computed in float32.
  """

  mlp_dim: int
  num_heads: int
  gelu: common.Gelu = "tanh"
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
    x = x + common.MlpBlock(self.mlp_dim, gelu=self.gelu, name="MlpBlock_0")(y)
    return x[:, 0], weights
