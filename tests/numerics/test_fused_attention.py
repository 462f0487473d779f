"""Fused attention, against slow NumPy and against plain attention.

The kernels of TPUs are interpreted here: how they are compiled is not tested.
"""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding, PartitionSpec

from vitjax import models, trees
from vitjax.doctor import self_test
from vitjax.models import attention, fused_attention
from vitjax.parallel import sharding
from vitjax.plan import hlo

# Relative to the largest value: sums of float32, and eight bits of mantissa.
TOLERANCES = {"float32": 3e-6, "bfloat16": 2e-2}
TINY = {"width": 16, "depth": 2, "num_heads": 2, "patch_size": 4}


def expected(query, key, value, grad, num_heads):
  """Output and gradients in float64, a head of an image at a time."""
  results = [np.zeros(x.shape) for x in (query, query, key, value)]
  width = query.shape[-1] // num_heads
  scale = width**-0.5
  for i in range(len(query)):
    for h in range(num_heads):
      at = (i, slice(None), slice(h * width, (h + 1) * width))
      q, k, v, g = (np.float64(x[at]) for x in (query, key, value, grad))
      scores = scale * q @ k.T
      weights = np.exp(scores - scores.max(-1, keepdims=True))
      weights /= weights.sum(-1, keepdims=True)
      inner = g @ v.T
      inner = weights * (inner - (weights * inner).sum(-1, keepdims=True))
      out = (weights @ v, scale * inner @ k, scale * inner.T @ q, weights.T @ g)
      for result, x in zip(results, out):
        result[at] = x
  return results


def arrays(b, queries, tokens, d, dtype="float32"):
  """Query, key, value and gradient; scores reach far from 0."""
  rng = np.random.default_rng(0)
  lengths = (queries, tokens, tokens, queries)
  return [
    jnp.asarray(rng.normal(scale=2, size=(b, n, d)), dtype) for n in lengths
  ]


def with_gradients(fn, query, key, value, grad):
  out, vjp = jax.vjp(fn, query, key, value)
  return [out, *vjp(grad)]


def check(got, want, dtype):
  for x, y in zip(got, want, strict=True):
    assert x.dtype == dtype
    error = np.abs(np.float64(x) - y).max() / np.abs(y).max()
    assert error < TOLERANCES[dtype]


def run(b, queries, tokens, num_heads, width, dtype):
  inputs = arrays(b, queries, tokens, num_heads * width, dtype)

  @jax.jit
  def fused(*inputs):
    return with_gradients(
      lambda *x: fused_attention.attention(*x, num_heads), *inputs
    )

  check(fused(*inputs), expected(*inputs, num_heads), dtype)


def test_queries_in_blocks_of_which_the_last_is_not_full(monkeypatch):
  monkeypatch.setattr(fused_attention, "_SCORES_BYTES", 1)
  run(1, 130, 3, 1, 4, "float32")


@pytest.mark.slow
@pytest.mark.parametrize("dtype", TOLERANCES)
@pytest.mark.parametrize(
  ("b", "queries", "tokens", "num_heads", "width"),
  [
    (2, 5, 7, 2, 4),
    (2, 1100, 500, 2, 16),
    (2, 197, 197, 6, 64),
    (1, 577, 577, 2, 64),
    (1, 1025, 1025, 2, 64),
    (3, 1, 50, 3, 32),
    (2, 20, 33, 2, 72),
    (16, 4, 4, 1, 128),
  ],
)
def test_shapes(b, queries, tokens, num_heads, width, dtype):
  run(b, queries, tokens, num_heads, width, dtype)


def windows(b, n, tokens, d, num_heads, dtype="float32"):
  """Query, key, value, bias, gradient and mask of n windows of images."""
  rng = np.random.default_rng(1)
  query, key, value, grad = (
    jnp.asarray(rng.normal(scale=2, size=(b, n, tokens, d)), dtype)
    for _ in range(4)
  )
  bias = rng.normal(scale=2, size=(1, 1, num_heads, tokens, tokens))
  mask = rng.random((1, n, 1, tokens, tokens)) < 0.6
  mask |= np.eye(tokens, dtype=bool)
  return query, key, value, jnp.asarray(bias, jnp.float32), grad, mask


def attend_windows(implementation, num_heads, mask, scale=None):
  """A function of (query, key, value, bias) and the gradient of the output."""

  def attend(query, key, value, bias):
    return attention.attend(
      query,
      key,
      value,
      num_heads,
      bias=bias,
      mask=mask,
      scale=scale,
      implementation=implementation,
    )[0]

  def run(*inputs):
    out, vjp = jax.vjp(attend, *inputs[:4])
    return [out, *vjp(inputs[4])]

  return jax.jit(run)


def close(got, want, tolerance):
  for x, y in zip(got, want, strict=True):
    assert x.dtype == y.dtype and x.shape == y.shape
    error = np.abs(np.float64(x) - np.float64(y)).max()
    assert error < tolerance * np.abs(np.float64(y)).max()


@pytest.mark.parametrize("masked", [False, True])
def test_windows_with_a_bias(masked):
  """Two blocks of images, each with all masks of an image."""
  *inputs, mask = windows(8, 4, 9, 24, 3)
  mask = mask if masked else None
  got = attend_windows("fused", 3, mask)(*inputs)
  close(got, attend_windows("xla", 3, mask)(*inputs), 3e-6)


@pytest.mark.slow
@pytest.mark.parametrize(
  ("b", "n", "tokens", "num_heads", "width", "dtype"),
  [
    (1, 64, 49, 3, 32, "float32"),  # more masks than images of a block
    (2, 9, 16, 8, 32, "float32"),  # 9 masks, an image at a time; two groups
    (2, 4, 144, 4, 32, "bfloat16"),
  ],
)
def test_shapes_of_windows(b, n, tokens, num_heads, width, dtype):
  *inputs, mask = windows(b, n, tokens, num_heads * width, num_heads, dtype)
  got = attend_windows("fused", num_heads, mask, 0.125)(*inputs)
  wide = [x.astype("float32") for x in inputs]
  want = attend_windows("xla", num_heads, mask, 0.125)(*wide)
  want = [x.astype(y.dtype) for x, y in zip(want, got)]
  close(got, want, 4e-6 if dtype == "float32" else 3e-2)


@pytest.mark.slow
def test_the_gradient_of_a_bias_is_summed_over_devices():
  *inputs, mask = windows(4, 2, 6, 16, 4)
  mesh = sharding.make_mesh(data=2, fsdp=2, model=2)
  rows = PartitionSpec(sharding.BATCH_AXES, None, None, "model")
  heads = PartitionSpec(None, None, "model")
  split = [NamedSharding(mesh, x) for x in (rows, rows, rows, heads, rows)]

  def fused(*inputs):
    with jax.sharding.use_abstract_mesh(mesh.abstract_mesh):
      return attend_windows("fused", 4, mask)(*inputs)

  got = jax.jit(fused, in_shardings=split)(*inputs)
  close(got, attend_windows("xla", 4, mask)(*inputs), 3e-6)


@pytest.mark.slow
@pytest.mark.parametrize(
  ("name", "options"),
  [
    ("swin", {"version": 1}),
    ("swin", {"version": 2}),
    ("coatnet", {"position": "table"}),
    ("maxxvit", {"position": "mlp"}),
  ],
)
def test_families_with_windows_and_grids(name, options):
  sizes = {"widths": (32, 32, 32, 32), "stem_widths": (8, 8)}
  if name == "swin":
    sizes = {"width": 32, "num_heads": (1, 2), "window": 4, "num_classes": 3}
  depths = (2, 2) if name == "swin" else (1, 1, 1, 1)
  image = jax.random.normal(jax.random.key(0), (2, 64, 64, 3))

  def run(implementation):
    model = models.create(
      name, attention=implementation, depths=depths, **sizes, **options
    )
    variables = model.init(jax.random.key(1), image)
    value = jax.value_and_grad(lambda v: (model.apply(v, image)[0] ** 2).sum())
    return trees.flatten(jax.jit(value)(variables)[1])

  got, want = run("fused"), run("xla")
  for key, x in want.items():
    np.testing.assert_allclose(
      got[key], x, atol=1e-5 * max(1, np.abs(x).max()), err_msg=key
    )


def test_causal_attention():
  """What "auto" does with a text tower of CLIP on a TPU."""
  text = jax.random.normal(jax.random.key(0), (3, 11, 16))

  def run(implementation):
    module = attention.MultiHeadDotProductAttention(
      2, causal=True, attention=implementation
    )
    variables = module.init(jax.random.key(1), text)

    def loss(variables, text):
      return (module.apply(variables, text)[0] ** 2).sum()

    return jax.tree.leaves(jax.jit(jax.grad(loss, (0, 1)))(variables, text))

  # The gradient of the key's bias is zero but for rounding.
  for got, want in zip(run("fused"), run("xla"), strict=True):
    np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-4)


def test_a_bias_or_a_mask_of_each_image_is_not_fused():
  *inputs, _ = windows(2, 1, 4, 8, 2)
  query, key, value, bias, _ = inputs
  for more in (
    {"bias": jnp.broadcast_to(bias, (2, 1, 2, 4, 4))},
    {"mask": jnp.ones((2, 1, 1, 4, 4), bool)},
    {"mask": jnp.ones((1, 1, 2, 4, 4), bool)},
  ):
    with pytest.raises(ValueError, match="for all images"):
      attention.attend(query, key, value, 2, implementation="fused", **more)


@pytest.mark.slow
def test_a_chip_that_multiplies_float32_only():
  inputs = arrays(2, 20, 20, 32, "bfloat16")
  plan = fused_attention._plan(*inputs[:2], 2)
  plan = dataclasses.replace(plan, factors=jnp.dtype("float32"))
  got = with_gradients(
    lambda *x: fused_attention._attention(*x, None, None, plan), *inputs
  )
  check(got, expected(*inputs, 2), "bfloat16")


@pytest.mark.slow
def test_each_device_attends_its_images_and_heads():
  inputs = arrays(4, 6, 6, 16)
  mesh = sharding.make_mesh(data=2, fsdp=2, model=2)
  split = NamedSharding(mesh, PartitionSpec(sharding.BATCH_AXES, None, "model"))

  def fused(*inputs):
    with jax.sharding.use_abstract_mesh(mesh.abstract_mesh):
      return with_gradients(
        lambda *x: fused_attention.attention(*x, 4), *inputs
      )

  fused = jax.jit(fused, in_shardings=split, out_shardings=split)
  check(fused(*inputs), expected(*inputs, 4), "float32")
  compiled = fused.lower(*inputs).compile()
  assert hlo.collectives(compiled.as_text()) == {}


@pytest.mark.slow
@pytest.mark.parametrize(
  "options",
  [
    {"pool_type": "tok", "num_registers": 1},
    {"pool_type": "map", "posemb": "rope", "key_bias": False},
    {"scan_layers": True, "remat": "full"},
    {"dtype": "bfloat16"},
  ],
)
def test_a_model_has_the_same_outputs_and_gradients(options):
  plain, fused = (
    models.create(
      "vit",
      num_classes=3,
      attention=name,
      head_zero_init=False,
      **TINY,
      **options,
    )
    for name in ("xla", "fused")
  )
  image = jax.random.normal(jax.random.key(0), (2, 12, 12, 3))
  params = jax.jit(plain.init)(jax.random.key(1), image)["params"]

  def both(model):
    @jax.jit
    def value_and_grad(params):
      def loss(params):
        logits, out = model.apply({"params": params}, image)
        return (logits**2).sum(), (logits, out["encoder/block01/attention"])

      return jax.value_and_grad(loss, has_aux=True)(params)

    (_, aux), grads = value_and_grad(params)
    return trees.flatten({"grads": grads, "aux": dict(enumerate(aux))})

  want = both(plain)
  tolerance, least = (3e-2, 0.1) if "dtype" in options else (1e-5, 1e-2)
  for name, x in both(fused).items():
    error = np.abs(np.float32(x) - np.float32(want[name])).max()
    # Gradients of the keys' biases are 0 but for rounding.
    y = np.float32(want[name.replace("key/bias", "query/bias")])
    assert error <= tolerance * max(np.abs(y).max(), least), name


def decide(implementation, shape=(8, 196, 384), dtype="bfloat16", heads=6):
  """Whether attention of such arrays, over 8 devices, is fused."""
  mesh = sharding.make_mesh().abstract_mesh
  x = jax.ShapeDtypeStruct(shape, dtype)
  decisions = []

  def fn(x):
    decisions.append(fused_attention.wanted(implementation, x, x, heads))

  with jax.sharding.use_abstract_mesh(mesh):
    jax.eval_shape(fn, x)
  return decisions[0]


@pytest.fixture
def device(monkeypatch):
  def pretend(*platform_and_kind):
    monkeypatch.setattr(
      fused_attention.placement, "device_of", lambda x: platform_and_kind
    )

  return pretend


def test_auto_fuses_where_it_can(device):
  assert not decide("auto")
  device("tpu", "TPU v3")
  assert decide("auto") and not decide("xla")
  assert not decide("auto", dtype="float32")
  assert not decide("auto", shape=(7, 196, 384))
  assert decide("auto", shape=(8, 1025, 768), heads=12)
  assert not decide("auto", shape=(8, 4096, 384))
  x = jnp.zeros((8, 4, 16), jnp.bfloat16)  # on no mesh
  assert not fused_attention.wanted("auto", x, x, 2)
  device("tpu", "TPU v5 lite")
  assert decide("auto", shape=(8, 4096, 384))
  device("gpu", "NVIDIA H100")
  assert not decide("auto")


def test_errors(device):
  message = "attention='fuse' is not one of auto, xla, fused."
  for name in ("vit", "text"):
    with pytest.raises(ValueError, match=message):
      models.create(name, attention="fuse")
  with pytest.raises(
    ValueError, match="no fused kernels: use attention='auto'"
  ):
    models.create("vit", differential=True, attention="fused")
  device("tpu", "TPU v3")
  with pytest.raises(ValueError, match=r"4096 tokens .* of TPU v3\. Use"):
    decide("fused", shape=(8, 4096, 384))
  with pytest.raises(ValueError, match="7 images with 6 heads do not divide"):
    decide("fused", shape=(7, 196, 384))
  with pytest.raises(ValueError, match="take bfloat16 or float32, not float16"):
    decide("fused", dtype="float16")
  device("gpu", "NVIDIA H100")
  with pytest.raises(
    ValueError, match="cuDNN needs a 16-bit type, not float32"
  ):
    decide("fused", dtype="float32")
  with pytest.raises(
    ValueError, match=r"head width of 8, 16, \.\.\. 128, not 6"
  ):
    decide("fused", shape=(8, 4, 12), heads=2)


@pytest.mark.slow
def test_a_gpu_gets_its_heads_apart(device, monkeypatch):
  plain = jax.nn.dot_product_attention

  def attend(*inputs, scale, implementation):
    assert implementation == "cudnn"
    return plain(*inputs, scale=scale, implementation="xla")

  device("gpu", "NVIDIA H100")
  monkeypatch.setattr(jax.nn, "dot_product_attention", attend)
  run(2, 5, 7, 2, 8, "float32")


@pytest.mark.slow
def test_the_self_test_compares_it(monkeypatch):
  assert self_test.attention_problems() == []
  attend = fused_attention.attention
  monkeypatch.setattr(
    fused_attention,
    "attention",
    lambda q, k, v, **more: attend(q, q, v, **more),
  )
  (problem,) = self_test.attention_problems()
  assert "set config.model.attention='xla'" in problem
