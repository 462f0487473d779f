"""Maps of attention, against slow NumPy on made-up and on real weights."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import vitjax
from vitjax import models
from vitjax.models import batch_norm
from vitjax.plots import attention_maps

H, W, PATCH = 3, 4, 2
IMAGE = (2, H * PATCH, W * PATCH, 3)
TINY = {
  "width": 16,
  "depth": 3,
  "num_heads": 2,
  "patch_size": PATCH,
  "num_classes": 5,
}
KINDS = {
  "gap": {"pool_type": "gap"},
  "class token": {"pool_type": "tok"},
  "registers": {"pool_type": "tok", "num_registers": 2},
  "gap with class token": {
    "pool_type": "gap",
    "class_token": True,
    "num_registers": 1,
  },
  "map": {"pool_type": "map", "num_registers": 1},
  "more than ten blocks": {"pool_type": "tok", "depth": 12},
  "every token": {"pool_type": "none"},
}


def apply(model, image_shape=IMAGE):
  """Parameters, and the intermediates of images."""

  @jax.jit
  def run(key):
    image = jax.random.normal(key, image_shape)
    (_, out), variables = model.init_with_output(key, image)
    return variables["params"], out

  return run(jax.random.key(0))


def made_up(model):
  """Intermediates with random weights of attention, far from even."""
  rng = np.random.default_rng(0)
  tokens = H * W + model.has_class_token + model.num_registers
  heads = model.num_heads

  def weights(queries, keys):
    shares = rng.dirichlet(np.full(keys, 0.2), (IMAGE[0], heads, queries))
    return jnp.asarray(shares, jnp.float32)

  out = {
    f"encoder/block{i:02d}/attention": weights(tokens, tokens)
    for i in reversed(range(model.depth))
  }
  if model.pool_type == "map":
    out["map_head/attention"] = weights(1, H * W)
  return out


def slow_rollout(model, out):
  """One image, one token, one patch at a time."""
  found = [
    np.asarray(out[f"encoder/block{i:02d}/attention"], np.float64)
    for i in range(model.depth)
  ]
  size, tokens = len(found[0]), found[0].shape[-1]
  prefix = tokens - H * W
  maps = np.zeros((size, H, W))
  for image in range(size):
    total = np.eye(tokens)
    for block in found:
      mixed = np.zeros((tokens, tokens))
      for q in range(tokens):
        for k in range(tokens):
          mixed[q, k] = np.mean([head[q, k] for head in block[image]])
          mixed[q, k] += q == k
        mixed[q] /= mixed[q].sum()
      total = mixed @ total
    if model.pool_type == "tok":
      shares = [(0, 1.0)]
    elif model.pool_type == "map":
      heads = np.asarray(out["map_head/attention"], np.float64)[image, :, 0]
      shares = [(prefix + i, x) for i, x in enumerate(heads.mean(0))]
    else:
      shares = [(prefix + i, 1 / (H * W)) for i in range(H * W)]
    for y in range(H):
      for x in range(W):
        column = prefix + y * W + x
        maps[image, y, x] = sum(s * total[row, column] for row, s in shares)
  return maps


@pytest.mark.parametrize("kind", KINDS)
def test_rollout_is_the_product_of_the_blocks(kind):
  model = models.create("vit", **TINY | KINDS[kind])
  out = made_up(model)
  got = attention_maps.rollout(model, out, IMAGE)
  np.testing.assert_allclose(got, slow_rollout(model, out), rtol=1e-5)
  assert np.ptp(np.asarray(got)) > 0.01  # an even map would hide mistakes
  total = np.asarray(got).sum((1, 2))
  if kind in ("gap", "every token"):  # no other tokens take a share
    np.testing.assert_allclose(total, 1, rtol=1e-5)
  else:
    assert (total < 0.999).all()


@pytest.mark.parametrize("kind", KINDS)
def test_head_maps_are_rows_of_the_weights(kind):
  model = models.create("vit", **TINY | KINDS[kind])
  out = made_up(model)
  got = np.asarray(attention_maps.head_maps(model, out, IMAGE))
  assert got.shape == (2, model.depth, model.num_heads, H, W)
  for block in range(model.depth):
    weights = np.asarray(out[f"encoder/block{block:02d}/attention"])
    prefix = weights.shape[-1] - H * W
    assert prefix == model.has_class_token + model.num_registers
    for head in range(model.num_heads):
      rows = weights[1, head]
      row = rows[0] if model.pool_type == "tok" else rows[prefix:].mean(0)
      for y in range(H):
        for x in range(W):
          assert got[1, block, head, y, x] == pytest.approx(
            row[prefix + y * W + x], rel=1e-5
          )


def test_real_models_have_what_the_maps_are_made_of():
  model = models.create(
    "vit", **TINY, pool_type="map", num_registers=1, scan_layers=True
  )
  _, out = apply(model)
  assert out["map_head/attention"].shape == (2, 2, 1, H * W)
  maps = attention_maps.head_maps(model, out, IMAGE)
  for block in range(model.depth):
    weights = np.asarray(out[f"encoder/block{block:02d}/attention"])
    rows = weights[:, :, 1:, 1:].mean(2).reshape(2, 2, H, W)
    np.testing.assert_allclose(maps[:, block], rows, rtol=1e-5)
  got = attention_maps.rollout(model, out, IMAGE)
  np.testing.assert_allclose(got, slow_rollout(model, out), rtol=1e-5)


@pytest.mark.slow
def test_two_towers_show_the_image_tower():
  tower = {**TINY, "pool_type": "tok"}
  model = models.create(
    "two_tower",
    image=tower,
    text={"width": 16, "depth": 1, "num_heads": 2, "mlp_dim": 16}
    | {"num_classes": 5, "vocab_size": 11, "max_len": 4},
  )
  alone = models.create("vit", **tower)

  @jax.jit
  def run(key):
    image = jax.random.normal(key, IMAGE)
    text = jnp.ones((1, 4), jnp.int32)
    (*_, out), variables = model.init_with_output(key, image, text)
    params = variables["params"]
    _, own = alone.apply({"params": params["img"]}, image)
    return params, out, own

  params, out, own = run(jax.random.key(0))
  for show in (attention_maps.rollout, attention_maps.head_maps):
    np.testing.assert_allclose(
      show(model, out, IMAGE), show(alone, own, IMAGE), rtol=1e-5
    )
  np.testing.assert_allclose(
    attention_maps.position_similarity(model, params, IMAGE),
    attention_maps.position_similarity(alone, params["img"], IMAGE),
    rtol=1e-6,
  )


def test_a_hybrid_has_the_grid_of_its_features():
  model = models.create(
    "vit", **TINY | {"depth": 1}, stem=(), pool_type="tok", posemb="learn"
  )
  shape = (1, 24, 40, 3)  # features of 6x10, patches of 2
  image = jax.ShapeDtypeStruct(shape, jnp.float32)
  (_, out), variables = jax.eval_shape(
    model.init_with_output, jax.random.key(0), image
  )
  out = {name: jnp.ones(x.shape) for name, x in out.items()}
  params = jax.tree.map(lambda x: jnp.ones(x.shape), variables["params"])
  assert attention_maps.rollout(model, out, shape).shape == (1, 3, 5)
  similarity = attention_maps.position_similarity(model, params, shape)
  assert similarity.shape == (3, 5, 3, 5)


@pytest.mark.parametrize(
  ("posemb", "posemb_prefix"),
  [("learn", False), ("learn", True), ("learn+rope", True)],
)
def test_position_similarity_is_the_cosine(posemb, posemb_prefix):
  model = models.create(
    "vit",
    **TINY | {"posemb": posemb},
    pool_type="tok",
    num_registers=1,
    posemb_prefix=posemb_prefix,
  )
  rng = np.random.default_rng(0)
  prefix = 2 if posemb_prefix else 0
  table = rng.normal(size=(prefix + H * W, 16))
  params = {"pos_embedding": table[None].astype(np.float32)}
  got = np.asarray(attention_maps.position_similarity(model, params, IMAGE))
  for a in range(H * W):
    for b in range(H * W):
      x, y = table[prefix + a], table[prefix + b]
      want = x @ y / np.sqrt(x @ x) / np.sqrt(y @ y)
      assert got[a // W, a % W, b // W, b % W] == pytest.approx(want, abs=1e-5)


def test_fixed_positions_are_compared_too():
  model = models.create("vit", **TINY, posemb="sincos2d")
  got = np.asarray(attention_maps.position_similarity(model, {}, IMAGE))
  np.testing.assert_allclose(got[1, 2, 1, 2], 1, rtol=1e-6)
  assert got[0, 0, 0, 1] > got[0, 0, 0, 3]


def test_models_without_attention_say_so():
  for name, options in (
    ("mixer", {"width": 8, "depth": 1, "patch_size": 2}),
    ("resnet", {"stages": (1, 1), "num_classes": 2}),
    ("regnet", {"depths": (1,), "widths": (8,), "group_width": 4}),
  ):
    model = models.create(name, **options)
    image = jnp.zeros((1, 32, 32, 3))
    weights = batch_norm.join(
      jax.eval_shape(model.init, jax.random.key(0), image)
    )
    with pytest.raises(ValueError, match=f"{name} has no attention"):
      jax.eval_shape(attention_maps.maps_fn(model), weights, image)
    out = jax.eval_shape(
      lambda image, model=model: model.init_with_output(
        jax.random.key(0), image
      ),
      image,
    )[0][1]
    for show in (attention_maps.rollout, attention_maps.head_maps):
      with pytest.raises(ValueError, match=f"{name} has no attention"):
        show(model, out, image.shape)
    with pytest.raises(ValueError, match="no position embedding"):
      attention_maps.position_similarity(model, {}, image.shape)


def test_what_cannot_be_shown_is_said():
  model = models.create("vit", **TINY, differential=True)
  out = {"encoder/block00/attention": jnp.ones((2, 4, H * W, H * W))}
  with pytest.raises(ValueError, match="may be negative"):
    attention_maps.rollout(model, out, IMAGE)
  maps = attention_maps.head_maps(model, out, IMAGE)
  assert maps.shape == (2, 1, 4, H, W)
  model = models.create("vit", **TINY, posemb="rope")
  with pytest.raises(ValueError, match="rotary"):
    attention_maps.position_similarity(model, {}, IMAGE)
  model = models.create("vit", **TINY)
  params = {"pos_embedding": np.zeros((1, 49, 16), np.float32)}
  with pytest.raises(ValueError, match="49 patches, and an image of 6x8 has 3"):
    attention_maps.position_similarity(model, params, IMAGE)


def test_public_name():
  assert vitjax.plots.attention_maps is attention_maps
