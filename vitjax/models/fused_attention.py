"""Fused attention: scores never reach device memory.

FlashAttention, https://arxiv.org/abs/2205.14135: one kernel for the forward
pass, and one for the backward pass that recomputes the scores from queries,
keys and the logarithm of each softmax's denominator. A TPU runs the kernels of
this file, a GPU those of cuDNN. A CPU interprets the TPU's kernels, slowly, so
that tests can check their results.

Scores are transposed, (l, q): a sum over keys then adds vectors, and the
statistics of the queries are rows. A kernel holds all keys at once, so it never
combines a softmax from parts; queries are split into blocks if their scores
would not fit. Statistics, sums and gradients of scores are float32; the factors
of products have the type of the arguments, as in plain attention.

Windows of a map count as images. A bias of the scores is the same for all of
them, so the kernels add up its gradient over the images, which then are the
inner loop. A mask has a period: one for each window of an image.
"""

import dataclasses
import functools
import math
from typing import Literal

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu
from jax.sharding import PartitionSpec
from jaxtyping import Array, Bool, Float

from vitjax.models import placement
from vitjax.models.common import ArrayLike
from vitjax.parallel import sharding

Implementation = Literal["auto", "xla", "fused"]

_MIB = 2**20
_LANES = 128
# Largest array of scores of a block of queries and heads; the backward pass has
# a few such arrays.
_SCORES_BYTES = 2e6
_MAX_IMAGES = 16
# TPUs with little vector memory, of which XLA needs a part too.
_SMALL_VMEM = ("TPU v2", "TPU v3", "TPU v4", "TPU v4 lite")
# Share of the vector memory that a rough estimate may fill.
_FILLED = 0.75
# TPUs whose kernels multiply only float32, in one pass, rounded to bfloat16.
_WITHOUT_BFLOAT16 = ("TPU v2", "TPU v3")


@dataclasses.dataclass(frozen=True)
class _Plan:
  """How a kernel splits its work.

  Attributes:
    num_heads: heads on one device.
    images, queries, heads: size of one block.
    factors: type of the factors of matrix products.
    precision: precision of matrix products.
    scale: factor of the queries.
    biased: whether the scores have a bias.
    masks: period of the mask in images; 0 without one.
    vmem: bytes of vector memory that a kernel may use.
    interpret: whether the kernel is interpreted.
  """

  num_heads: int
  images: int
  queries: int
  heads: int
  factors: jnp.dtype
  precision: str
  scale: float
  biased: bool
  masks: int
  vmem: int
  interpret: bool


def wanted(
  implementation: Implementation,
  query: Float[Array, "*b q d"],
  key: Float[Array, "*b l d"],
  num_heads: int,
  bias: Float[Array, "*#b #k #q #l"] | None = None,
  mask: Bool[ArrayLike, "*#b #k #q #l"] | None = None,
) -> bool:
  """Whether to fuse attention.

  "auto" fuses on TPUs, in bfloat16, if the program names the mesh.

  Raises:
    ValueError: for "fused" if it is not possible.
  """
  if implementation == "xla":
    return False
  obstacle = _obstacle(query, key, num_heads, bias, mask)
  if implementation == "fused":
    if obstacle:
      raise ValueError(
        f"attention='fused' is not possible: {obstacle} Use 'auto' or 'xla'."
      )
    return True
  platform, _ = placement.device_of(query)
  on_mesh = not placement.mesh_of(query).empty
  is_half = query.dtype == jnp.bfloat16
  return platform == "tpu" and on_mesh and is_half and not obstacle


def attention(
  query: Float[Array, "*b q d"],
  key: Float[Array, "*b l d"],
  value: Float[Array, "*b l d"],
  num_heads: int,
  bias: Float[Array, "*#b #k #q #l"] | None = None,
  mask: Bool[ArrayLike, "*#b #k #q #l"] | None = None,
  scale: float | None = None,
) -> Float[Array, "*b q d"]:
  """Dot-product attention; heads are slices of the width.

  Arguments are those of `vitjax.models.attention.attend`, as far as `wanted`
  agrees to them.
  """
  if placement.device_of(query)[0] == "gpu":
    query, key, value = (
      x.reshape(*x.shape[:2], num_heads, -1) for x in (query, key, value)
    )
    out = jax.nn.dot_product_attention(
      query, key, value, scale=scale, implementation="cudnn"
    )
    return out.reshape(*out.shape[:2], -1)
  plan = _plan(query, key, num_heads, bias, mask, scale)
  if bias is not None:
    bias = bias.reshape(bias.shape[-3:]).swapaxes(1, 2)
    groups = num_heads // plan.heads
    bias = bias.reshape(groups, plan.heads, *bias.shape[1:])
  if mask is not None:
    mask = jnp.where(mask, 0.0, -1e10).astype(jnp.float32)
    mask = mask.reshape(-1, *mask.shape[-2:]).swapaxes(1, 2)
  shape = query.shape
  if len(shape) > 3:
    query, key, value = (
      x.reshape(-1, *x.shape[-2:]) for x in (query, key, value)
    )
  return _attention(query, key, value, bias, mask, plan).reshape(shape)


def _parts(x: Array) -> tuple[int, int]:
  """Number of parts of the batch and of the heads of `x` on the mesh."""
  mesh = placement.mesh_of(x)
  if mesh.empty:
    return 1, 1
  return sharding.batch_parts(mesh), mesh.shape["model"]


def _obstacle(
  query: Array,
  key: Array,
  num_heads: int,
  bias: Array | None,
  mask: ArrayLike | None,
) -> str | None:
  """Why fused kernels do not support these arguments, as a sentence."""
  platform, kind = placement.device_of(query)
  if bias is not None and math.prod(bias.shape[:-3]) > 1:
    return "the kernels take one bias for all images."
  if mask is not None and (mask.shape[0] > 1 or mask.shape[-3] > 1):
    return "the kernels take one mask for all images and heads."
  width = query.shape[-1] // num_heads
  if platform == "gpu":
    if bias is not None or mask is not None:
      return "on GPUs there is neither a bias nor a mask."
    if query.dtype.itemsize != 2:
      return f"cuDNN needs a 16-bit type, not {query.dtype}."
    if width % 8 or width > 128:
      return f"cuDNN needs a head width of 8, 16, ... 128, not {width}."
    return None
  axes = placement.mesh_of(query).axis_names
  if axes and set(axes) != set(sharding.AXES):
    return f"the mesh has the axes {axes}, not {sharding.AXES}."
  batch, model = _parts(query)
  if query.shape[0] % batch or num_heads % model:
    return (
      f"{query.shape[0]} images with {num_heads} heads do not divide over a "
      f"mesh of {batch} x {model}."
    )
  if query.dtype not in (jnp.bfloat16, jnp.float32):
    return f"the kernels take bfloat16 or float32, not {query.dtype}."
  plan = _plan(query, key, num_heads, bias, mask)
  needed = _vmem(plan, key.shape[-2], width, query.dtype.itemsize)
  if needed > _FILLED * plan.vmem:
    return (
      f"{key.shape[-2]} tokens and {plan.heads} heads at a time need "
      f"{needed / _MIB:.0f} of {_FILLED * plan.vmem / _MIB:.0f} MiB on a chip "
      f"of {kind}."
    )
  return None


def _plan(
  query: Array,
  key: Array,
  num_heads: int,
  bias: Array | None = None,
  mask: ArrayLike | None = None,
  scale: float | None = None,
) -> _Plan:
  platform, kind = placement.device_of(query)
  batch, model = _parts(query)
  num_heads //= model
  width = query.shape[-1] // model // num_heads
  # A block is whole vectors of lanes, or the whole axis.
  heads = next(
    (
      n
      for n in range(1, num_heads)
      if num_heads % n == 0 and n * width % _LANES == 0
    ),
    num_heads,
  )
  queries, tokens = query.shape[-2], key.shape[-2]
  row = 4 * tokens * heads
  block = queries
  if (
    bias is None and mask is None and row * _up(queries, _LANES) > _SCORES_BYTES
  ):
    most = max(1, int(_SCORES_BYTES / row) // _LANES) * _LANES
    block = _up(pl.cdiv(queries, pl.cdiv(queries, most)), _LANES)
  plan = _Plan(
    num_heads=num_heads,
    images=_MAX_IMAGES,
    queries=block,
    heads=heads,
    factors=jnp.dtype(
      jnp.float32 if kind in _WITHOUT_BFLOAT16 else query.dtype
    ),
    precision="highest" if query.dtype == jnp.float32 else "default",
    scale=width**-0.5 if scale is None else scale,
    biased=bias is not None,
    masks=0 if mask is None else math.prod(mask.shape[:-3]),
    vmem=(14 if kind in _SMALL_VMEM else 56) * _MIB,
    interpret=platform == "cpu",
  )
  rows = math.prod(query.shape[:-2]) // batch

  def fits(plan):
    needed = _vmem(plan, tokens, width, query.dtype.itemsize)
    periodic = plan.images % (plan.masks or 1) and plan.masks % plan.images
    return needed <= _FILLED * plan.vmem and not periodic

  while plan.images > 1 and (rows % plan.images or not fits(plan)):
    plan = dataclasses.replace(plan, images=plan.images // 2)
  return plan


def _up(n: int, multiple: int) -> int:
  return -(-n // multiple) * multiple


def _vmem(plan: _Plan, tokens: int, width: int, itemsize: int) -> int:
  """Memory of the backward pass: blocks (twice each), sums and scores."""
  lanes = _up(plan.heads * width, _LANES)
  tokens, queries = _up(tokens, 16), _up(plan.queries, 16)
  blocks = 2 * itemsize * lanes * (3 * queries + 4 * tokens)
  sums = 2 * 4 * lanes * tokens
  # The compiler keeps about three arrays of scores for each head, and six for
  # float32, whose products it computes in parts.
  scores = (3 * plan.heads + 1) * 2 * itemsize * tokens
  scores *= _up(queries, _LANES)
  # A bias, its gradient (blocks, twice each) and the sum of that; masks twice.
  added = 5 * plan.heads * plan.biased + 2 * min(plan.masks, plan.images)
  added *= 4 * tokens * _up(queries, _LANES)
  return plan.images * (blocks + sums) + scores + added


@functools.partial(jax.custom_vjp, nondiff_argnums=(5,))
def _attention(query, key, value, bias, mask, plan):
  return _attention_fwd(query, key, value, bias, mask, plan)[0]


def _attention_fwd(query, key, value, bias, mask, plan):
  inputs = (query, key, value, *_present(bias, mask))
  kinds = "qkk" + _kinds(plan)
  out, log_sums = _call(_forward_kernel, 2, plan, kinds, inputs, "qs")
  return out, (query, key, value, bias, mask, log_sums)


def _attention_bwd(plan, kept, grad):
  query, key, value, bias, mask, log_sums = kept
  inputs = (query, key, value, log_sums, grad, *_present(bias, mask))
  kinds = "qkksq" + _kinds(plan)
  out_kinds = "qkkb" if plan.biased else "qkk"
  grads = _call(_backward_kernel, 5, plan, kinds, inputs, out_kinds)
  return (*grads, *(None for _ in range(5 - len(grads))))


def _present(*arrays):
  return [x for x in arrays if x is not None]


def _kinds(plan):
  """Kinds of the bias and the mask, if there are any."""
  return "b" * plan.biased + "m" * bool(plan.masks)


_attention.defvjp(_attention_fwd, _attention_bwd)


def _call(kernel, products, plan, in_kinds, inputs, out_kinds):
  """Runs a kernel over blocks of images, heads and queries.

  Args:
    kernel: gets references to a block of each input and output, and to sums of
      float32 for each output of kind "k" or "b".
    products: number of products of each query and key in the kernel.
    plan: how the kernel splits its work.
    in_kinds: a letter for each input: "q" for rows of queries (b, q, d), "k"
      for rows of keys (b, l, d), "s" for statistics of queries (b, groups,
      heads, q), "b" for a bias (groups, heads, l, q), "m" for masks (n, l, q)
      that are added.
    inputs: input arrays; the first two are queries and keys.
    out_kinds: a letter for each output, likewise.
  """

  def call(*inputs):
    query, key = inputs[:2]
    b, queries, d = query.shape
    tokens = key.shape[1]
    groups = plan.num_heads // plan.heads
    lanes = d // groups
    like = {
      "q": query,
      "k": key,
      "s": jax.ShapeDtypeStruct((b, groups, plan.heads, queries), jnp.float32),
      "b": jax.ShapeDtypeStruct(
        (groups, plan.heads, tokens, queries), jnp.float32
      ),
      "m": jax.ShapeDtypeStruct((plan.masks, tokens, queries), jnp.float32),
    }
    masks = min(plan.masks, plan.images)
    block = {
      "q": pl.BlockSpec(
        (plan.images, plan.queries, lanes), lambda i, j, n: (i, n, j)
      ),
      "k": pl.BlockSpec(
        (plan.images, tokens, lanes), lambda i, j, n: (i, 0, j)
      ),
      "s": pl.BlockSpec(
        (plan.images, 1, plan.heads, plan.queries),
        lambda i, j, n: (i, j, 0, n),
      ),
      "b": pl.BlockSpec(
        (1, plan.heads, tokens, queries), lambda i, j, n: (j, 0, 0, 0)
      ),
      "m": pl.BlockSpec(
        (masks, tokens, queries),
        lambda i, j, n: (i % (plan.masks // masks), 0, 0),
      ),
    }
    sums = {
      "k": pltpu.VMEM((plan.images, tokens, lanes), jnp.float32),
      "b": pltpu.VMEM((plan.heads, tokens, queries), jnp.float32),
    }
    grid = (b // plan.images, groups, pl.cdiv(queries, plan.queries))
    semantics = ("parallel", "parallel", "arbitrary")
    if plan.biased:  # groups, then images
      grid = (grid[1], grid[0], grid[2])
      semantics = ("parallel", "arbitrary", "arbitrary")
      block = {kind: _turned(spec) for kind, spec in block.items()}
    scores = b * plan.num_heads * queries * tokens
    return pl.pallas_call(
      functools.partial(kernel, plan=plan, queries=queries),
      grid=grid,
      in_specs=tuple(block[kind] for kind in in_kinds),
      out_specs=tuple(block[kind] for kind in out_kinds),
      out_shape=tuple(like[kind] for kind in out_kinds),
      scratch_shapes=[sums[kind] for kind in out_kinds if kind in sums],
      compiler_params=pltpu.CompilerParams(
        dimension_semantics=semantics,
        vmem_limit_bytes=plan.vmem,
      ),
      cost_estimate=pl.CostEstimate(
        flops=2 * products * scores * d // plan.num_heads,
        transcendentals=scores,
        bytes_accessed=sum(
          like[kind].dtype.itemsize * like[kind].size
          for kind in in_kinds + out_kinds
        ),
      ),
      interpret=plan.interpret,
      name=kernel.__name__.strip("_"),
    )(*inputs)

  mesh = placement.mesh_of(inputs[0])
  if mesh.empty:
    return call(*inputs)
  rows = PartitionSpec(sharding.BATCH_AXES, None, "model")
  statistics = PartitionSpec(sharding.BATCH_AXES, "model")
  groups = PartitionSpec("model")
  split = {
    "q": rows,
    "k": rows,
    "s": statistics,
    "b": groups,
    "m": PartitionSpec(),
  }

  def on_device(*inputs):
    return tuple(
      jax.lax.psum(x, sharding.BATCH_AXES) if kind == "b" else x
      for kind, x in zip(out_kinds, call(*inputs))
    )

  return jax.shard_map(
    on_device,
    mesh=mesh,
    in_specs=tuple(split[kind] for kind in in_kinds),
    out_specs=tuple(split[kind] for kind in out_kinds),
    check_vma=False,
  )(*inputs)


def _turned(spec: pl.BlockSpec) -> pl.BlockSpec:
  """A block of a grid whose first two axes are exchanged."""
  at = spec.index_map
  assert at is not None
  return pl.BlockSpec(spec.block_shape, lambda j, i, n: at(i, j, n))


def _forward_kernel(query, key, value, *refs, plan, queries):
  *added, out, log_sums = refs
  inside = _num_inside(plan, queries)

  def head(i, at, h):
    q = _queries(query[i, :, at], inside, plan)
    k, v = (x[i, :, at].astype(plan.factors) for x in (key, value))
    scores = _scores(q, k, added, i, h, plan)
    largest = scores.max(axis=0, keepdims=True)
    powers = jnp.exp(scores - largest)
    total = powers.sum(axis=0, keepdims=True)
    sums = _dot(v, powers.astype(plan.factors), 0, 0, plan)
    out[i, :, at] = (sums / total).T.astype(out.dtype)
    log_sums[i, 0, h : h + 1] = largest + jnp.log(total)

  _for_each_head(head, query, plan)


def _backward_kernel(query, key, value, log_sums, grad, *refs, plan, queries):
  added, refs = refs[: len(_kinds(plan))], refs[len(_kinds(plan)) :]
  if plan.biased:
    *refs, bias_sum = refs
    query_grad, key_grad, value_grad, bias_grad, key_sum, value_sum = refs
  else:
    query_grad, key_grad, value_grad, key_sum, value_sum = refs
  inside = _num_inside(plan, queries)

  @pl.when(pl.program_id(2) == 0)
  def _():
    key_sum[...] = jnp.zeros_like(key_sum)
    value_sum[...] = jnp.zeros_like(value_sum)

  if plan.biased:

    @pl.when(pl.program_id(1) == 0)
    def _():
      bias_sum[...] = jnp.zeros_like(bias_sum)

  def head(i, at, h):
    q = _queries(query[i, :, at], inside, plan)
    k, v = (x[i, :, at].astype(plan.factors) for x in (key, value))
    g = _zeros_behind(grad[i, :, at], 0, inside).astype(plan.factors)
    scores = _scores(q, k, added, i, h, plan)
    weights = jnp.exp(scores - log_sums[i, 0, h : h + 1])
    weights = _zeros_behind(weights, 1, inside)
    value_sum[i, :, at] += _dot(weights.astype(plan.factors), g, 1, 0, plan)
    weights_grad = _dot(v, g, 1, 1, plan)
    mean = (weights * weights_grad).sum(axis=0, keepdims=True)
    scores_grad = weights * (weights_grad - mean)
    if plan.biased:
      bias_sum[h] += scores_grad
    scores_grad = scores_grad.astype(plan.factors)
    key_sum[i, :, at] += _dot(scores_grad, q, 1, 0, plan)
    q_grad = _dot(k, scores_grad, 0, 0, plan) * plan.scale
    query_grad[i, :, at] = q_grad.T.astype(query_grad.dtype)

  _for_each_head(head, query, plan)

  @pl.when(pl.program_id(2) == pl.num_programs(2) - 1)
  def _():
    key_grad[...] = key_sum[...].astype(key_grad.dtype)
    value_grad[...] = value_sum[...].astype(value_grad.dtype)

  if plan.biased:

    @pl.when(pl.program_id(1) == pl.num_programs(1) - 1)
    def _():
      bias_grad[0] = bias_sum[...]


def _scores(query, key, added, i, h, plan):
  """Scores (l, q) of head `h` of image `i` of a block, with bias and mask."""
  scores = _dot(key, query, 1, 1, plan)
  for kind, x in zip(_kinds(plan), added):
    scores += x[0, h] if kind == "b" else x[i % x.shape[0]]
  return scores


def _for_each_head(head, query, plan):
  """Calls head(image, slice of the width, index) for each of a block."""
  width = query.shape[-1] // plan.heads

  @pl.loop(0, plan.images)
  def _(i):
    for h in range(plan.heads):
      head(i, slice(h * width, (h + 1) * width), h)


def _num_inside(plan, queries):
  """Number of queries of the block that exist; None if all always do."""
  if queries % plan.queries == 0:
    return None
  return queries - pl.program_id(2) * plan.queries


def _zeros_behind(x, axis, inside):
  """Zeroes the rows after the last query, which may hold anything."""
  if inside is None:
    return x
  place = jax.lax.broadcasted_iota(jnp.int32, x.shape, axis)
  return jnp.where(place < inside, x, jnp.zeros_like(x))


def _queries(query, inside, plan):
  """Scaled queries of a head, in the type of the factors."""
  query = _zeros_behind(query, 0, inside).astype(jnp.float32)
  return (query * plan.scale).astype(plan.factors)


def _dot(x, y, x_axis, y_axis, plan):
  """Product of two matrices over these axes, summed in float32."""
  return jax.lax.dot_general(
    x,
    y,
    (((x_axis,), (y_axis,)), ((), ())),
    precision=plan.precision,
    preferred_element_type=jnp.float32,
  )
