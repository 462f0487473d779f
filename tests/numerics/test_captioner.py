"""Captioners against a decoder in NumPy, and their objective."""

import functools
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vitjax import losses, models, objectives, trees, weights
from vitjax.evaluators import perplexity
from vitjax.parallel import sharding

WIDTH, HEADS, TOKENS, VOCAB = 8, 2, 5, 11
TINY = {
  "patch_size": 8,
  "width": WIDTH,
  "depth": 1,
  "num_heads": HEADS,
  "pool_type": "gap",
  "vocab_size": VOCAB,
  "max_len": TOKENS,
  "decoder_depth": 2,
  "parallel_share": 0.75,
}
TEXT = np.array([[3, 5, 10, 1, 0], [7, 1, 0, 0, 0], [2, 9, 4, 6, 1]])
PARALLEL = np.array([False, True, True])


@functools.cache
def case():
  """A tiny model, its parameters, and three images."""
  model = models.create("captioner", **TINY)
  rng = np.random.default_rng(0)
  params = jax.tree.map(
    lambda x: rng.normal(0.1, 0.5, x.shape).astype(np.float32),
    jax.eval_shape(model.init, jax.random.key(0), *model.example_inputs(16, 1)),
  )["params"]
  return model, params, rng.normal(size=(3, 16, 16, 1)).astype(np.float32)


@functools.cache
def predictions():
  """(logits one after the other, logits with `PARALLEL`, encoded tokens)."""
  model, params, image = case()

  @jax.jit
  def apply(params, image, text, parallel):
    alone, out = model.apply({"params": params}, image, text)
    mixed, _ = model.apply({"params": params}, image, text, parallel=parallel)
    return alone, mixed, out["encoded"]

  return jax.device_get(apply(params, image, TEXT, PARALLEL))


def softmax(x):
  powers = np.exp(x - x.max())
  return powers / powers.sum()


def norm(x, params):
  normal = (x - x.mean()) / np.sqrt(x.var() + 1e-6)
  return normal * params["scale"] + params.get("bias", 0)


def attended(query, keys, params):
  """One query (d,) over keys (l, e), head by head."""
  found = 0
  for head in range(HEADS):
    q, k, v = (params[n]["kernel"][:, head] for n in ("query", "key", "value"))
    scores = (keys @ k) @ (query @ q) / np.sqrt(q.shape[1])
    found += (softmax(scores) @ (keys @ v)) @ params["out"]["kernel"][head]
  return found


def gelu(x):
  return x / 2 * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3)))


def by_hand(encoded, text, is_parallel, params):
  """Logits (t, n) of one caption, in float64."""
  before = [VOCAB] * TOKENS if is_parallel else [0, *text[:-1]]
  x = params["Embed_0"]["embedding"][before] + params["pos_embedding"][0]
  for i in range(TINY["decoder_depth"]):
    block = params[f"block_{i}"]
    y = np.array([norm(row, block["LayerNorm_0"]) for row in x])
    seen = [TOKENS if is_parallel else t + 1 for t in range(TOKENS)]
    x = x + np.array(
      [attended(y[t], y[: seen[t]], block["SelfAttention_0"]) for t in range(5)]
    )
    for t in range(TOKENS):
      y = norm(x[t], block["LayerNorm_1"])
      x[t] += attended(y, encoded, block["CrossAttention_0"])
      mlp = block["MlpBlock_0"]
      y = norm(x[t], block["LayerNorm_2"]) @ mlp["Dense_0"]["kernel"]
      x[t] += gelu(y) @ mlp["Dense_1"]["kernel"]
  x = np.array([norm(row, params["norm"]) for row in x])
  return x @ params["logits"]["kernel"] + params["logits"]["bias"]


@pytest.mark.parametrize("is_mixed", [False, True], ids=["Cap", "CapPa"])
def test_logits_are_those_of_a_decoder_in_numpy(is_mixed):
  _, params, _ = case()
  decoder = jax.tree.map(np.float64, params["decoder"])
  found, encoded = predictions()[is_mixed], predictions()[2]
  for i in range(3):
    is_parallel = is_mixed and PARALLEL[i]
    want = by_hand(np.float64(encoded[i]), TEXT[i], is_parallel, decoder)
    np.testing.assert_allclose(found[i], want, rtol=1e-4, atol=1e-4)
  assert np.std(found) > 0.1


def test_the_loss_is_the_mean_over_all_tokens_and_splits():
  model, params, image = case()
  objective = objectives.captions(model, loss_fn=losses.token_xent)
  key = jax.random.key(3)
  batch = objective.prepare({"image": image, "text": jnp.array(TEXT)}, key)
  batch["parallel"] = jnp.array(PARALLEL)
  logits = np.float64(predictions()[1])
  nll = [
    -np.log(softmax(logits[i, t])[TEXT[i, t]])
    for i, t in zip(*np.nonzero(TEXT))
  ]
  loss = jax.jit(
    lambda batch: objective.loss({"params": params}, batch, key)[0]
  )
  np.testing.assert_allclose(loss(batch), np.mean(nll), rtol=1e-4)
  parts = [loss({k: x[i : i + 1] for k, x in batch.items()}) for i in range(3)]
  np.testing.assert_allclose(np.mean(parts), np.mean(nll), rtol=1e-4)


def test_perplexity_counts_each_token_once_and_no_padding():
  """Two images with two texts, of which one is padding, and a padded row."""
  rng = np.random.default_rng(0)
  logits = rng.normal(size=(6, TOKENS, VOCAB)).astype(np.float32)
  text = np.concatenate([TEXT, TEXT[:1], TEXT]).reshape(-1, TOKENS)[:6]
  batch = {
    "image": jnp.arange(3.0),
    "text": jnp.array(text.reshape(3, 2, TOKENS)),
    "text_mask": jnp.array([[True, True], [True, False], [True, True]]),
    "mask": jnp.array([True, True, False]),
  }

  def predict(params, batch):
    np.testing.assert_array_equal(batch["image"].shape, (6,))
    return params[batch["image"].astype(int) * 2 + jnp.arange(6) % 2], {}

  data = types.SimpleNamespace(
    mesh=sharding.make_mesh(),
    source=types.SimpleNamespace(num_examples=2, data="", split=""),
    batches=lambda: [batch],
  )
  found = dict(perplexity.Evaluator(predict, data).run(jnp.array(logits)))
  nll = [
    -np.log(softmax(np.float64(logits[i, t]))[text[i, t]])
    for i in range(3)
    for t in np.flatnonzero(text[i])
  ]
  assert (found["n_seen"], found["n_tokens"]) == (2, len(nll))
  np.testing.assert_allclose(found["loss"], np.mean(nll), rtol=1e-5)
  np.testing.assert_allclose(found["perplexity"], np.exp(np.mean(nll)), 1e-5)


def test_a_share_of_the_captions_is_predicted_in_parallel():
  model, _, _ = case()
  text = jnp.ones((4096, TOKENS), int)
  batch = {"image": jnp.zeros(()), "text": text}
  for share in (0.0, 0.75, 1.0):
    model = model.clone(parallel_share=share)
    prepare = objectives.captions(model, loss_fn=losses.token_xent).prepare
    drawn = [prepare(batch, jax.random.key(i))["parallel"] for i in range(2)]
    assert abs(drawn[0].mean() - share) < 0.03
    assert (drawn[0] != drawn[1]).any() == (0 < share < 1)


def test_the_encoder_is_a_vit():
  """So its weights start a classifier, without the decoder."""
  model, params, image = case()
  fields = {k: v for k, v in TINY.items() if k in models.options("vit")}
  vit = models.create("vit", **fields, num_classes=3)
  metadata = {"model": {"name": "captioner"}}
  fitted = weights.fit(
    trees.flatten(params),
    vit,
    source="a run",
    metadata=metadata,
    image_size=(16, 16),
    channels=1,
    key=jax.random.key(0),
  )
  assert "decoder" not in fitted and fitted["head"]["kernel"].shape == (
    WIDTH,
    3,
  )
  _, out = vit.apply({"params": fitted}, image)
  features, _ = model.apply({"params": params}, image)
  np.testing.assert_allclose(out["pre_logits"], features, rtol=1e-6)
