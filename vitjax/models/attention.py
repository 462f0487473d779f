"""Attention: one function for all families, and the modules around it.

A model states what it needs: heads, a bias of the scores, a mask, rotary
angles. `attend` chooses how to compute that on this device; the fused kernels
are in `vitjax.models.fused_attention`. Scores, softmax and every sum are
float32. `within_windows` and `within_grid` split a map into groups of tokens
that attend to each other; biases of relative positions are the modules of
`vitjax.models.relative_position`.
"""

import math
from collections.abc import Callable
from typing import Literal

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from vitjax.models import common, fused_attention, half_precision

Implementation = fused_attention.Implementation


def attend(
  query: Float[Array, "*b q d"],
  key: Float[Array, "*b l d"],
  value: Float[Array, "*b l f"],
  num_heads: int,
  *,
  bias: Float[Array, "*#b #k #q #l"] | None = None,
  mask: Bool[common.ArrayLike, "*#b #k #q #l"] | None = None,
  angles: Float[Array, "l e"] | None = None,
  scale: float | None = None,
  implementation: Implementation = "xla",
) -> tuple[Float[Array, "*b q f"], Float[Array, "*b k q l"]]:
  """Dot-product attention and its weights; heads are slices of the width.

  Attention Is All You Need, https://arxiv.org/abs/1706.03762, eq. 1. Under
  `jit`, weights that nobody uses are not computed.

  Args:
    query, key, value: projections of the tokens.
    num_heads: number of heads.
    bias: added to the scores, in float32.
    mask: where False, a score becomes -1e10; a query without any allowed key
      attends to all keys equally.
    angles: rotary embedding of queries and keys, see `rotate`.
    scale: factor of the queries. None: head width ** -0.5.
    implementation: the option `attention` of the Vision Transformer.
  """
  heads = [x.reshape(*x.shape[:-1], num_heads, -1) for x in (query, key, value)]
  if angles is not None:
    heads[:2] = (rotate(x, angles) for x in heads[:2])
    query, key = (x.reshape(*x.shape[:-2], -1) for x in heads[:2])
  fuses = fused_attention.wanted(
    implementation, query, key, num_heads, bias, mask
  )
  out = None
  if fuses:
    out = fused_attention.attention(
      query, key, value, num_heads, bias, mask, scale
    )
  query, key, value = (x.swapaxes(-2, -3) for x in heads)
  query = query * (query.shape[-1] ** -0.5 if scale is None else scale)
  weights = softmax(_scores(query, key, bias, mask))
  if out is not None:
    return out, weights
  if bias is None and mask is None and value.dtype.itemsize == 2:
    out = half_attention(query, key, value)
  else:
    out = jnp.einsum("...ql,...lf->...qf", weights.astype(value.dtype), value)
  out = out.swapaxes(-2, -3)
  return out.reshape(*out.shape[:-2], -1), weights


def _scores(query, key, bias=None, mask=None):
  scores = jnp.einsum(
    "...qe,...le->...ql", query, key, preferred_element_type=jnp.float32
  )
  scores = scores.astype(jnp.float32)
  if bias is not None:
    scores += bias
  return scores if mask is None else jnp.where(mask, scores, -1e10)


@jax.custom_vjp
def half_attention(
  query: Float[Array, "*b k q e"],
  key: Float[Array, "*b k l e"],
  value: Float[Array, "*b k l f"],
) -> Float[Array, "*b k q f"]:
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


def _half_attention_fwd(query, key, value):
  # Transpose it, or the compiler would merge it with the second product.
  largest = _scores(key, query).max(axis=-2)[..., None]
  powers = jnp.exp(_scores(query, key) - largest)
  total = powers.sum(axis=-1, keepdims=True)
  powers = powers.astype(value.dtype)
  weights = _weights(powers, total).astype(value.dtype)
  out = half_precision.einsum("...ql,...lf->...qf", weights, value)
  return out, (query, key, value, powers, total)


def _weights(powers, total):
  return powers.astype(jnp.float32) / total


def _half_attention_bwd(kept, grad):
  query, key, value, powers, total = kept
  weights = _weights(powers, total)
  value_grad = half_precision.einsum(
    "...ql,...qf->...lf", weights.astype(grad.dtype), grad
  )
  weights_grad = half_precision.einsum("...qf,...lf->...ql", grad, value)
  weights_grad = weights_grad.astype(jnp.float32)
  mean = (weights * weights_grad).sum(axis=-1, keepdims=True)
  scores_grad = (weights * (weights_grad - mean)).astype(grad.dtype)
  query_grad = half_precision.einsum("...ql,...le->...qe", scores_grad, key)
  key_grad = half_precision.einsum("...ql,...qe->...le", scores_grad, query)
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


RopeGrid = Literal["index", "centered"]
_REFERENCE = 16  # patches in a row of the grid that "index" is relative to


def patch_coordinates(h: int, w: int, grid: RopeGrid) -> Float[Array, "l 2"]:
  """(row, column) of each patch of a grid, by which angles grow.

  Args:
    h, w: rows and columns of the grid.
    grid: "index" counts patches from 0, stretched so that a grid of any size
      spans what one of 16x16 does: https://arxiv.org/abs/2303.11331 (EVA-02).
      "centered" is the centre of the patch in an image from -1 to 1:
      https://arxiv.org/abs/2508.10104 (DINOv3).
  """
  y, x = (a.reshape(-1) for a in jnp.mgrid[:h, :w])
  if grid == "index":
    return jnp.stack([y * _REFERENCE / h, x * _REFERENCE / w], axis=1)
  return jnp.stack([(2 * y + 1) / h - 1, (2 * x + 1) / w - 1], axis=1)


def move_coordinates(
  coordinates: Float[Array, "l 2"],
  key: jax.Array,
  shift: float,
  jitter: float,
  rescale: float,
) -> Float[Array, "l 2"]:
  """Shifts and scales coordinates at random, all patches alike.

  DINOv3's augmentation, for images of other sizes.

  Args:
    coordinates: see `patch_coordinates`.
    key: PRNG key; the same key moves them alike.
    shift: largest number that is added to rows, and another to columns.
    jitter: then rows and columns get a factor each, log-uniform from
      1 / `jitter` to `jitter`.
    rescale: and both get one more, from 1 / `rescale` to `rescale`.
  """
  most = jnp.array([shift] * 2 + [math.log(jitter)] * 2 + [math.log(rescale)])
  drawn = jax.random.uniform(key, (5,), minval=-most, maxval=most)
  return (coordinates + drawn[None, :2]) * jnp.exp(drawn[2:4] + drawn[4:])[None]


def rope_angles(
  coordinates: Float[Array, "l 2"], head_width: int, base: float, grid: RopeGrid
) -> Float[Array, "l e"]:
  """Angles of rotary embeddings of a grid, in radians.

  RoFormer, https://arxiv.org/abs/2104.09864, sec. 3.2, for rows in the first
  half of the width and columns in the second. Pairs of neighbours have the same
  angle.

  Args:
    coordinates: see `patch_coordinates`.
    head_width: channels of a head.
    base: the last of e / 4 periods is nearly `base` times the first.
    grid: unit of the coordinates: in "index" the first period is 2 pi, in
      "centered" it is 1.

  Raises:
    ValueError: if the width of a head is not a multiple of 4.
  """
  if head_width % 4:
    raise ValueError(
      f"posemb='rope' needs heads of a width that is a multiple of 4, not "
      f"{head_width}."
    )
  n = head_width // 4
  frequency = base ** (-jnp.arange(n) / n)
  if grid == "centered":
    frequency = 2 * math.pi * frequency
  angles = jnp.einsum("la,n->lan", coordinates, frequency)
  return jnp.repeat(angles.reshape(-1, 2 * n), 2, axis=1)


def rotate(
  x: Float[Array, "b l k e"], angles: Float[Array, "l e"]
) -> Float[Array, "b l k e"]:
  """Turns each pair of neighbours by its angle, in float32."""
  angles = angles[None, :, None]
  y = x.astype(jnp.float32)
  turned = jnp.stack([-y[..., 1::2], y[..., ::2]], axis=-1).reshape(y.shape)
  return (y * jnp.cos(angles) + turned * jnp.sin(angles)).astype(x.dtype)


def within_windows(
  attend: Callable[..., tuple[Array, Array]],
  x: Float[Array, "b h w d"],
  window: tuple[int, int],
  shifted: bool,
) -> Float[Array, "b h w d"]:
  """Attention within windows of a map: Swin Transformer.

  A window is never larger than the map. A map that is no multiple of the window
  is padded with zeros, which attention sees, as in the published code.

  Args:
    attend: called with tokens (b, n, l, d) of n windows, their `size` in (rows,
      columns), and a `mask` if they are shifted.
    x: the map.
    window: (rows, columns) of a window.
    shifted: shift windows by half, but on a side that is one window.
  """
  sides = h, w = x.shape[1:3]
  window = (min(window[0], h), min(window[1], w))
  shift = [
    n // 2 if shifted and n < side else 0 for n, side in zip(window, sides)
  ]
  x = jnp.roll(x, [-n for n in shift], (1, 2))
  pads = [(0, -side % n) for n, side in zip(window, sides)]
  x = jnp.pad(x, ((0, 0), *pads, (0, 0)))
  mask = None
  if any(shift):
    regions = _split(_regions(x.shape[1:3], window, shift), window)
    mask = (regions == regions.swapaxes(2, 3))[:, :, None]
  y, _ = attend(_split(x, window), size=window, mask=mask)
  return jnp.roll(_join(y, x.shape, window)[:, :h, :w], shift, (1, 2))


def within_grid(
  attend: Callable[..., tuple[Array, Array]],
  x: Float[Array, "b h w d"],
  grid: tuple[int, int],
  train: bool,
) -> Float[Array, "b h w _d"]:
  """Attention among tokens that are spread evenly over a map: MaxViT.

  https://arxiv.org/abs/2204.01697. `attend` is called with tokens (b, n, l, d)
  of n grids, their `size` in (rows, columns) and `train`.
  """
  y, _ = attend(_split(x, grid, spread=True), size=grid, train=train)
  return _join(y, x.shape, grid, spread=True)


def _split(x, size, spread=False):
  """(b, h, w, d) to (b, n, l, d): n windows, or n grids of spread tokens."""
  b, h, w, d = x.shape
  rows, columns = h // size[0], w // size[1]
  if spread:
    x = x.reshape(b, size[0], rows, size[1], columns, d)
    x = x.transpose(0, 2, 4, 1, 3, 5)
  else:
    x = x.reshape(b, rows, size[0], columns, size[1], d).swapaxes(2, 3)
  return x.reshape(b, rows * columns, -1, d)


def _join(x, shape, size, spread=False):
  """Inverse of `_split`, to a map of this shape but with the width of `x`."""
  b, h, w, _ = shape
  x = x.reshape(b, h // size[0], w // size[1], *size, x.shape[-1])
  x = x.transpose(0, 3, 1, 4, 2, 5) if spread else x.swapaxes(2, 3)
  return x.reshape(b, h, w, -1)


def _regions(sides, window, shift):
  """The region of each token (1, h, w, 1) of a rolled map.

  A window at the border that the map was rolled over has several, which were
  not neighbours and do not see each other.
  """
  rows, columns = (
    np.searchsorted([side - n, side - s], np.arange(side), "right") * (s > 0)
    for side, n, s in zip(sides, window, shift)
  )
  return (3 * rows[:, None] + columns[None])[None, :, :, None]


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
    x, kernel = x.astype(self.dtype), kernel.astype(self.dtype)
    dims = (((x.ndim - 1,), (0,)), ((), ()))
    x = half_precision.dense(x, kernel.reshape(flat), dims)
    if self.use_bias:
      bias = self.param(
        "bias", nn.initializers.zeros, self.outputs, jnp.float32
      )
      x += bias.astype(self.dtype).reshape((1,) * (x.ndim - 1) + (-1,))
    return x


class MultiHeadDotProductAttention(nn.Module):
  """Attention of the tokens `inputs_q` over `inputs_kv`, with projections.

  Kernels have the published shapes: (d, k, e) for query, key and value,
  (k, e, d) for `out`. Returns the output and the attention weights
  (..., k, q, l).

  Attributes:
    num_heads: number of heads.
    width: channels of the output. None: those of the input.
    qkv_bias, key_bias, out_bias: which projections have biases; that of the key
      needs `qkv_bias` too.
    causal: let a token attend to itself and to those before it.
    cosine: compare queries and keys by their cosine, times a learned scale:
      Swin Transformer V2, https://arxiv.org/abs/2111.09883, eq. 2.
    position: makes the module of the bias for relative positions, which is
      called with the (rows, columns) of the tokens and `train`.
    kernel_init: initialiser of the kernels.
    attention: option of the Vision Transformer.
    dtype: type of activations.
  """

  num_heads: int
  width: int | None = None
  qkv_bias: bool = True
  key_bias: bool = True
  out_bias: bool = True
  causal: bool = False
  cosine: bool = False
  position: Callable[..., nn.Module] | None = None
  kernel_init: nn.initializers.Initializer = nn.initializers.xavier_uniform()
  attention: Implementation = "xla"
  dtype: common.Dtype = jnp.float32

  @nn.compact
  def __call__(
    self,
    inputs_q: Float[Array, "*b q d"],
    inputs_kv: Float[Array, "*b l d"] | None = None,
    *,
    angles: Float[Array, "l e"] | None = None,
    mask: Bool[common.ArrayLike, "*#b #k #q #l"] | None = None,
    size: tuple[int, int] | None = None,
    train: bool = False,
  ) -> tuple[Float[Array, "*b q _d"], Float[Array, "*b k q l"]]:
    *batch, d = inputs_q.shape[:-2] + inputs_q.shape[-1:]
    check_heads(d, self.num_heads)
    heads = (self.num_heads, d // self.num_heads)
    inputs_kv = inputs_q if inputs_kv is None else inputs_kv

    def project(x, name):
      y = Projection(
        (d,),
        heads,
        self.qkv_bias and (self.key_bias or name != "key"),
        kernel_init=self.kernel_init,
        dtype=self.dtype,
        name=name,
      )(common.flatten_tokens(x, self.dtype))
      return y.reshape(*batch, -1, d)

    query, key = project(inputs_q, "query"), project(inputs_kv, "key")
    if self.cosine:
      init = nn.initializers.constant(np.log(10))
      scale = self.param("logit_scale", init, heads[:1])
      # The largest cosine is 1, so a score is 100 at most.
      query = _unit(query, jnp.exp(jnp.minimum(scale, np.log(100))))
      key = _unit(key, jnp.ones_like(scale))
    bias = None
    if self.position is not None:
      assert size is not None, "relative positions need the size"
      position = self.position(self.num_heads, name="position_bias")
      bias = position(*size, train).reshape(
        *(1 for _ in batch), self.num_heads, query.shape[-2], key.shape[-2]
      )
    if self.causal:
      before = jnp.tri(query.shape[-2], dtype=bool)[None, None]
      mask = before if mask is None else mask & before
    x, weights = attend(
      query,
      key,
      project(inputs_kv, "value"),
      self.num_heads,
      bias=bias,
      mask=mask,
      angles=angles,
      scale=1.0 if self.cosine else None,
      implementation=self.attention,
    )
    x = Projection(
      heads,
      (self.width or d,),
      self.out_bias,
      kernel_init=self.kernel_init,
      dtype=self.dtype,
      name="out",
    )(common.flatten_tokens(x, self.dtype))
    return x.reshape(*batch, -1, self.width or d), weights


def _unit(x: Float[Array, "*b d"], length: Float[Array, " k"]) -> Array:
  """Scales the part of each head to its length, in float32."""
  y = x.reshape(*x.shape[:-1], *length.shape, -1).astype(jnp.float32)
  square = jnp.square(y).sum(axis=-1, keepdims=True)
  length = length.reshape(*(1 for _ in x.shape[:-1]), -1, 1)
  y *= length * jax.lax.rsqrt(jnp.maximum(square, 1e-24))
  return y.reshape(x.shape).astype(x.dtype)


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
    k, e = self.num_heads, d // self.num_heads // 2

    def project(name, heads, width):
      y = Projection(
        (d,), (heads, width), self.qkv_bias, dtype=self.dtype, name=name
      )(common.flatten_tokens(x, self.dtype))
      return y.reshape(b, -1, heads, width)

    def dot(i):
      init = nn.initializers.normal(0.1)
      query = self.param(f"lambda_q{i}", init, (e,), jnp.float32)
      return query @ self.param(f"lambda_k{i}", init, (e,), jnp.float32)

    value = jnp.repeat(project("value", k, 2 * e), 2, axis=2)
    query, key = project("query", 2 * k, e), project("key", 2 * k, e)
    query, key, value = (
      x.reshape(b, -1, x.shape[2] * x.shape[3]) for x in (query, key, value)
    )
    y, weights = attend(query, key, value, 2 * k)
    y = y.reshape(b, -1, k, 2, 2 * e)
    lambda_init = 0.8 - 0.6 * jnp.exp(-0.3 * index)
    factor = jnp.exp(dot(1)) - jnp.exp(dot(2)) + lambda_init
    y = y[..., 0, :] - factor.astype(y.dtype) * y[..., 1, :]
    y = nn.RMSNorm(1e-5, dtype=self.dtype, name="sub_norm")(y)
    y = y * (1 - lambda_init).astype(y.dtype)
    y = Projection(
      (k, 2 * e), (d,), self.out_bias, dtype=self.dtype, name="out"
    )(common.flatten_tokens(y.reshape(b, -1, d), self.dtype))
    return y.reshape(b, -1, d), weights


class MAPHead(nn.Module):
  """Multi-head attention pooling with one learned query, (b, l, d) to (b, d).

  Returns the weights of the attention, (b, k, 1, l), as well. With a mask, only
  tokens where it is True are pooled.

  Scaling Vision Transformers, https://arxiv.org/abs/2106.04560, sec. 3.2.
  The attention has no residual and no norm before it. Computed in float32.
  """

  mlp_dim: int
  num_heads: int
  gelu: common.Gelu = "tanh"
  layer_norm_eps: float = 1e-6

  @nn.compact
  def __call__(
    self, x: Float[Array, "b l d"], mask: Bool[Array, "b l"] | None = None
  ) -> tuple[Float[Array, "b d"], Float[Array, "b k 1 l"]]:
    b, _, d = x.shape
    probe = self.param(
      "probe", nn.initializers.xavier_uniform(), (1, 1, d), jnp.float32
    )
    x, weights = MultiHeadDotProductAttention(
      self.num_heads, name="MultiHeadDotProductAttention_0"
    )(
      jnp.broadcast_to(probe, (b, 1, d)),
      x,
      mask=None if mask is None else mask[:, None, None],
    )
    y = nn.LayerNorm(self.layer_norm_eps, name="LayerNorm_0")(x)
    x = x + common.MlpBlock(self.mlp_dim, gelu=self.gelu, name="MlpBlock_0")(y)
    return x[:, 0], weights
