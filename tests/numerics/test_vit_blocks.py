"""Blocks of the ViT that have no reference case, against a slow rewrite."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.special

from vitjax import trees
from vitjax.models import attention, vit
from vitjax.weights.layouts import timm_vit

# Two blocks in float32 against float64.
TOLERANCE = 1e-5
D, H, F, L, DEPTH = 8, 2, 12, 5, 2


def layer_norm(x, weight, bias):
  x = x - x.mean(-1, keepdims=True)
  return x / np.sqrt((x**2).mean(-1, keepdims=True) + 1e-6) * weight + bias


def softmax(x):
  x = np.exp(x - x.max(-1, keepdims=True))
  return x / x.sum(-1, keepdims=True)


def gelu(x):
  return 0.5 * x * (1 + scipy.special.erf(x / np.sqrt(2)))


def attend(q, k, v, prefix, flat, i, differential):
  """Rows of (L, D): heads are slices of the width."""
  out = np.zeros((L, D))
  for head in range(H):
    width = D // H
    cut = slice(head * width, (head + 1) * width)
    if not differential:
      scores = q[:, cut] @ k[:, cut].T / np.sqrt(width)
      out[:, cut] = softmax(scores) @ v[:, cut]
      continue
    maps = []
    for j in (0, 1):
      half = slice(
        head * width + j * width // 2, head * width + (j + 1) * width // 2
      )
      scores = q[:, half] @ k[:, half].T / np.sqrt(width // 2)
      maps.append(softmax(scores))
    start = 0.8 - 0.6 * np.exp(-0.3 * i)
    factor = start + sum(
      sign * np.exp(flat[f"{prefix}lambda_q{n}"] @ flat[f"{prefix}lambda_k{n}"])
      for n, sign in ((1, 1), (2, -1))
    )
    y = (maps[0] - factor * maps[1]) @ v[:, cut]
    y = y / np.sqrt((y**2).mean(-1, keepdims=True) + 1e-5)
    out[:, cut] = y * flat[f"{prefix}sub_norm.weight"] * (1 - start)
  return out


def reference(x, flat, parallel, differential):
  """timm's blocks by their names in its state dict."""

  def linear(x, name):
    return x @ flat[f"{name}.weight"].T + flat[f"{name}.bias"]

  def norm(x, name):
    return layer_norm(x, flat[f"{name}.weight"], flat[f"{name}.bias"])

  for i in range(DEPTH):
    b = f"blocks.{i}"
    if parallel:
      y = linear(norm(x, f"{b}.in_norm"), f"{b}.in_proj")
      mlp, q, k, v = np.split(y, [F, F + D, F + 2 * D], axis=-1)
      y = attend(q, k, v, f"{b}.", flat, i, differential)
      if differential:
        y = linear(np.concatenate([y, gelu(mlp)], -1), f"{b}.out_proj")
      else:
        y = linear(y, f"{b}.attn_out_proj")
        y = y + linear(gelu(mlp), f"{b}.mlp_out_proj")
      x = x + y * flat[f"{b}.ls.gamma"]
    else:
      q, k, v = np.split(linear(norm(x, f"{b}.norm1"), f"{b}.attn.qkv"), 3, -1)
      y = attend(q, k, v, f"{b}.attn.", flat, i, differential)
      x = x + linear(y, f"{b}.attn.proj") * flat[f"{b}.ls1.gamma"]
      y = linear(norm(x, f"{b}.norm2"), f"{b}.mlp.fc1")
      x = x + linear(gelu(y), f"{b}.mlp.fc2") * flat[f"{b}.ls2.gamma"]
  return x


def state_dict(parallel, differential):
  """Names and shapes of timm's blocks."""
  for i in range(DEPTH):
    b = f"blocks.{i}"
    if parallel:
      norms, scales, attention = ["in_norm"], ["ls"], b
      layers = {"in_proj": (F + 3 * D, D)}
      if differential:
        layers["out_proj"] = (D, D + F)
      else:
        layers |= {"attn_out_proj": (D, D), "mlp_out_proj": (D, F)}
    else:
      norms, scales, attention = ["norm1", "norm2"], ["ls1", "ls2"], f"{b}.attn"
      layers = {
        "attn.qkv": (3 * D, D),
        "attn.proj": (D, D),
        "mlp.fc1": (F, D),
        "mlp.fc2": (D, F),
      }
    for name, shape in layers.items():
      yield f"{b}.{name}.weight", shape
      yield f"{b}.{name}.bias", shape[:1]
    for name in norms:
      yield f"{b}.{name}.weight", (D,)
      yield f"{b}.{name}.bias", (D,)
    for name in scales:
      yield f"{b}.{name}.gamma", (D,)
    if differential:
      for name in ("lambda_q1", "lambda_k1", "lambda_q2", "lambda_k2"):
        yield f"{attention}.{name}", (D // H // 2,)
      yield f"{attention}.sub_norm.weight", (D // H,)


@pytest.mark.parametrize("scan", [False, True], ids=["loop", "scan"])
@pytest.mark.parametrize("parallel", [False, True], ids=["serial", "parallel"])
@pytest.mark.parametrize("differential", [False, True], ids=["dot", "diff"])
def test_blocks(parallel, differential, scan):
  model = vit.Model(
    width=D,
    depth=DEPTH,
    mlp_dim=F,
    num_heads=H,
    parallel=parallel,
    differential=differential,
    layer_scale_init=1.0,
    gelu="erf",
    fc_norm=True,
    scan_layers=scan,
    remat="full",
  )
  rng = np.random.default_rng(0)
  flat = {
    name: 0.5 * rng.normal(size=shape).astype(np.float32)
    for name, shape in state_dict(parallel, differential)
  }
  encoder = vit.Encoder(
    depth=DEPTH,
    block={
      "mlp_dim": F,
      "num_heads": H,
      "parallel": parallel,
      "differential": differential,
      "layer_scale_init": 1.0,
      "gelu": "erf",
    },
    scan_layers=scan,
    remat="full",
    final_norm=False,
  )
  params = trees.unflatten(timm_vit.to_vitjax(flat, model))["Transformer"]
  x = rng.normal(size=(1, L, D)).astype(np.float32)
  got, _ = jax.jit(encoder.apply)({"params": params}, jnp.asarray(x))
  want = reference(x[0].astype(float), flat, parallel, differential)
  gap = np.abs(got[0] - want).max() / np.abs(want).max()
  assert gap < TOLERANCE


def test_rotary_angles():
  """The pairs of each position, one by one."""
  h, w, e, reference = 3, 2, 8, 16
  rng = np.random.default_rng(0)
  x = rng.normal(size=(1, h * w, 2, e)).astype(np.float32)
  want = np.zeros_like(x)
  for row in range(h):
    for column in range(w):
      for pair in range(e // 2):
        at = row * reference / h if pair < e // 4 else column * reference / w
        angle = at * 10_000.0 ** (-(pair % (e // 4)) / (e // 4))
        for head in range(2):
          i = row * w + column
          a, b = x[0, i, head, 2 * pair : 2 * pair + 2]
          want[0, i, head, 2 * pair : 2 * pair + 2] = (
            a * np.cos(angle) - b * np.sin(angle),
            b * np.cos(angle) + a * np.sin(angle),
          )
  at = attention.patch_coordinates(h, w, "index")
  angles = attention.rope_angles(at, e, 10_000.0, "index")
  got = attention.rotate(jnp.asarray(x), angles)
  np.testing.assert_allclose(got, want, atol=TOLERANCE)


@pytest.mark.parametrize("scan", [False, True], ids=["loop", "scan"])
def test_rotated_attention(scan):
  """Patches are rotated and registers are not."""
  model = vit.Model(
    width=D,
    depth=1,
    mlp_dim=F,
    num_heads=H,
    patch_size=4,
    posemb="rope",
    key_bias=False,
    num_registers=1,
    pool_type="none",
    scan_layers=scan,
  )
  image = jax.ShapeDtypeStruct((1, 8, 8, 3), jnp.float32)
  rng = np.random.default_rng(0)
  params = jax.tree.map(
    lambda p: rng.normal(size=p.shape).astype(np.float32),
    jax.eval_shape(model.init, jax.random.key(0), image)["params"],
  )
  image = rng.normal(size=image.shape).astype(np.float32)
  _, out = jax.jit(model.apply)({"params": params}, image)
  flat = trees.flatten(params["Transformer"])
  block = "encoderblock" if scan else "encoderblock_0"
  module = f"{block}/MultiHeadDotProductAttention_0"
  flat = {n: p[0] if scan and block in n else p for n, p in flat.items()}
  assert f"{module}/query/bias" in flat
  assert f"{module}/key/bias" not in flat
  y = layer_norm(
    np.asarray(out["with_posemb"][0], float),
    flat[f"{block}/LayerNorm_0/scale"],
    flat[f"{block}/LayerNorm_0/bias"],
  )
  query = np.einsum("ld,dke->lke", y, flat[f"{module}/query/kernel"])
  query = query + flat[f"{module}/query/bias"]
  key = np.einsum("ld,dke->lke", y, flat[f"{module}/key/kernel"])
  at = attention.patch_coordinates(2, 2, "index")
  angles = attention.rope_angles(at, D // H, 10_000.0, "index")
  angles = np.concatenate([np.zeros((1, D // H)), angles])

  def turn(x):
    pair = x[..., ::2] + 1j * x[..., 1::2]
    pair = pair * np.exp(1j * angles[:, None, ::2])
    return np.stack([pair.real, pair.imag], -1).reshape(x.shape)

  scores = np.einsum("qke,lke->kql", turn(query), turn(key))
  want = softmax(scores / np.sqrt(D // H))
  got = out["encoder/block00/attention"][0]
  np.testing.assert_allclose(got, want, atol=1e-4)
  plain = softmax(np.einsum("qke,lke->kql", query, key) / np.sqrt(D // H))
  assert np.abs(want - plain).max() > 0.01


def test_attention_of_half_precision_has_the_gradients_of_the_plain_one():
  def plain(query, key, value):
    scores = jnp.einsum("bkqe,bkle->bkql", query, key)
    return jnp.einsum("bkql,bklf->bkqf", jax.nn.softmax(scores), value)

  keys = jax.random.split(jax.random.key(0), 4)
  shapes = [(2, 3, 5, 8), (2, 3, 7, 8), (2, 3, 7, 4), (2, 3, 5, 4)]
  *qkv, grad = (jax.random.normal(k, s) for k, s in zip(keys, shapes))

  def both(fn, dtype):
    out, vjp = jax.vjp(fn, *(x.astype(dtype) for x in qkv))
    return [out, *vjp(grad.astype(dtype))]

  expected = both(plain, jnp.float32)
  for got, want in zip(both(attention.half_attention, jnp.float32), expected):
    np.testing.assert_allclose(got, want, rtol=1e-5, atol=2e-6)
  for got, want in zip(both(attention.half_attention, jnp.bfloat16), expected):
    assert got.dtype == jnp.bfloat16
    error = np.abs(np.float32(got) - want).max() / np.abs(want).max()
    assert error < 2e-2  # eight bits of mantissa, a few of them lost


def test_attention_of_half_precision_takes_scores_of_any_size():
  query = jnp.full((1, 1, 4), 60.0, jnp.bfloat16)
  value = jnp.arange(3, dtype=jnp.bfloat16)[None, :, None]
  key = jnp.broadcast_to(value, (1, 3, 4))
  out, weights = attention.attend(query, key, value, 1)
  assert out.dtype == jnp.bfloat16 and weights.dtype == jnp.float32
  np.testing.assert_allclose(np.float32(out), 2.0, rtol=1e-2)
