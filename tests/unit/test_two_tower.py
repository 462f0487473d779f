"""Sizes, shapes, errors and layouts of the models with two towers."""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vitjax import models, trees, weights
from vitjax.models import two_tower
from vitjax.weights import layouts, npz

COUNTED = [n for n, facts in two_tower.PUBLISHED.items() if "params" in facts]

TINY = {
  "image": {"variant": "mu/16", "pool_type": "tok"},
  "text": {"variant": "mu", "vocab_size": 7, "max_len": 4},
}


def shapes(model, inputs):
  params = jax.eval_shape(model.init, jax.random.key(0), *inputs)["params"]
  return {name: x.shape for name, x in trees.flatten(params).items()}


@pytest.mark.parametrize("name", COUNTED)
def test_number_of_parameters(name):
  model = models.create("two_tower", variant=name)
  # Stacked blocks have as many numbers and are quicker to trace.
  image, text = ({**t, "scan_layers": True} for t in (model.image, model.text))
  if model.text_model == "bert":
    text = model.text
  model = model.copy(image=image, text=text)
  size = two_tower.PUBLISHED[name]["image_size"]
  found = shapes(model, model.example_inputs(size))
  assert (
    sum(map(math.prod, found.values())) == two_tower.PUBLISHED[name]["params"]
  )


@pytest.mark.parametrize(
  "name",
  [
    "SigLIP2 B/32 256",
    "SigLIP2 B/16 512",
    "SigLIP2 L/16 384",
    "SigLIP2 So400m/14 224",
    "SigLIP2 So400m/16 512",
    "SigLIP2 g-opt/16 256",
  ],
)
def test_siglip2_is_stacked_and_meets_in_one_width(name):
  entry = two_tower.PUBLISHED[name]
  model = models.create("two_tower", variant=name)
  found = shapes(model, model.example_inputs(entry["image_size"]))
  depth, width = found["img/Transformer/encoderblock/LayerNorm_0/bias"]
  assert found["txt/Embed_0/embedding"][0] == 256_000
  assert found["txt/Encoder_0/encoderblock/LayerNorm_0/bias"][0] > 0
  assert found["txt/head/kernel"][1] == width
  assert found["txt/pos_embedding"][1] == entry["max_len"] == 64
  assert model.image_tower().depth == depth


def test_trees_have_the_published_names():
  fields = two_tower.decode_variant("LiT-B16B")
  fields = {**fields, "text": {**fields["text"], "depth": 1}}
  model = models.create("two_tower", **fields)
  found = shapes(model, model.example_inputs(224))
  layer = "txt/BertEncoder_0/encoder_block/layer_sequence/layers_0"
  embedder = "txt/BertEncoder_0/embedder"
  expected = {
    "t": (1,),
    "img/head/kernel": (768, 768),
    "txt/head/kernel": (768, 768),
    f"{embedder}/embedders_token_ids/embedding": (30_522, 768),
    f"{embedder}/embedders_position_ids/embedding": (512, 768),
    f"{embedder}/embedders_segment_ids/embedding": (2, 768),
    "txt/BertEncoder_0/layer_norm/scale": (768,),
    f"{layer}/attention_block/attention_layer/query/kernel": (768, 768),
    f"{layer}/attention_block/dense_layer/kernel": (768, 768),
    f"{layer}/attention_block/layer_norm/bias": (768,),
    f"{layer}/mlp_block/mlp/dense_layer/kernel": (768, 3072),
    f"{layer}/mlp_block/dense_layer/kernel": (3072, 768),
    f"{layer}/mlp_block/layer_norm/bias": (768,),
  }
  assert {name: found.get(name) for name in expected} == expected
  assert "b" not in found


def random_params(model, inputs=None):
  """Numbers that are neither zero nor equal, unlike those of `init`."""
  inputs = inputs or model.example_inputs(32)
  rng = np.random.default_rng(0)
  return trees.unflatten(
    {
      name: rng.standard_normal(shape, dtype=np.float32)
      for name, shape in shapes(model, inputs).items()
    }
  )


@functools.partial(jax.jit, static_argnums=0)
def apply(model, params, *inputs):
  """Compiled once for equal models and shapes."""
  return model.apply({"params": params}, *inputs)


def batch():
  rng = np.random.default_rng(1)
  image = rng.uniform(-1, 1, (2, 32, 32, 3))
  text = rng.integers(0, 7, (3, 4))
  return jnp.asarray(image, jnp.float32), jnp.asarray(text, jnp.int32)


def test_embeddings_have_norm_1_and_out_says_how_to_compare_them():
  model = models.create("two_tower", **TINY, bias_init=-10.0)
  params = random_params(model)
  image, text = batch()
  image_embedding, text_embedding, out = apply(model, params, image, text)
  for z in (image_embedding, text_embedding):
    np.testing.assert_allclose(np.linalg.norm(z, axis=-1), 1, rtol=1e-6)
  np.testing.assert_allclose(out["t"], np.exp(params["t"]), rtol=1e-6)
  np.testing.assert_array_equal(out["b"], params["b"])
  z = out["txt/pre_logits"]
  np.testing.assert_allclose(
    z / np.linalg.norm(z, axis=-1, keepdims=True), text_embedding, rtol=1e-5
  )
  only, none, _ = apply(model, params, image)
  assert none is None
  np.testing.assert_array_equal(only, image_embedding)


def test_t_starts_at_the_logarithm_and_b_as_given():
  text = {**TINY["text"], "depth": 0}
  model = models.create(
    "two_tower", text=text, temperature_init=10.0, bias_init=-10.0
  )
  init = jax.jit(lambda key, text: model.init(key, None, text)["params"])
  params = init(jax.random.key(0), batch()[1])
  np.testing.assert_allclose(params["t"], [np.log(10)], rtol=1e-6)
  np.testing.assert_array_equal(params["b"], [-10])


@pytest.fixture
def bert():
  """A tiny BERT and parameters for it."""
  fields = {"depth": 1, "width": 8, "num_heads": 2, "mlp_dim": 8}
  model = models.create("bert", **fields, vocab_size=7, max_len=8)
  ids = jax.ShapeDtypeStruct((1, 8), jnp.int32)
  return model, random_params(model, [ids])


def test_dropout_of_bert_is_for_training(bert):
  model, params = bert
  ids = jnp.array([[3, 5, 6, 0, 0, 0]])

  @jax.jit
  def step(key):
    rngs = {"dropout": key}
    return model.apply({"params": params}, ids, train=True, rngs=rngs)[0]

  one, other = (step(jax.random.key(seed)) for seed in (0, 1))
  assert np.abs(one - other).max() > 0.01
  apply(model, params, ids)  # needs no key


def test_bert_norms_its_smallest_embeddings(bert):
  """Epsilon 1e-12: with 1e-6 the first norm would shrink these."""
  model, params = bert
  ids = jnp.array([[3, 5, 6, 0, 0, 0]])
  encoder = params["BertEncoder_0"]
  small = jax.tree.map(lambda x: 1e-3 * x, encoder["embedder"])
  changed = {"BertEncoder_0": {**encoder, "embedder": small}}
  _, want = apply(model, params, ids)
  _, got = apply(model, changed, ids)
  np.testing.assert_allclose(
    got["embedded"], want["embedded"], rtol=1e-4, atol=1e-4
  )
  _, got = apply(model.copy(layer_norm_eps=1e-6), changed, ids)
  assert np.abs(got["embedded"] - want["embedded"]).max() > 0.05


def test_bert_does_not_read_padding(bert):
  model, params = bert
  ids = jnp.array([[3, 5, 6, 0, 0, 0]])
  want, out = apply(model, params, ids)
  got, _ = apply(model, params, ids[:, :3])
  np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-5)
  # Rows of padding attend everything equally, as published.
  attention = out["encoder/block00/attention"]
  np.testing.assert_allclose(attention[0, :, -1], 1 / 6, rtol=1e-6)
  np.testing.assert_array_equal(attention[0, :, 0, 3:], 0)


@pytest.mark.slow
def test_bfloat16_is_for_towers_and_not_for_embeddings():
  model = models.create("two_tower", **TINY, dtype="bfloat16")
  params = random_params(model)
  _, text = batch()
  _, z, _ = apply(model, params, None, text)
  assert z.dtype == jnp.float32
  exact = models.create("two_tower", **TINY)
  want = apply(exact, params, None, text)[1]
  np.testing.assert_allclose(z, want, atol=0.05)
  assert np.abs(z - want).max() > 1e-4


@pytest.mark.parametrize("scan_layers", [False, True])
@pytest.mark.parametrize("layout", ["lit", "siglip"])
def test_a_layout_round_trips(layout, scan_layers, tmp_path):
  tiny = {
    tower: {**fields, "depth": 2, "scan_layers": scan_layers}
    for tower, fields in TINY.items()
  }
  model = models.create("two_tower", **tiny)
  params = random_params(model)
  file = tmp_path / "towers.npz"
  weights.save(file, params, model, layout=layout)
  assert layouts.recognise(npz.read(file)).NAME == layout
  again = weights.load(file, model, image_size=32)
  want = trees.flatten(params)
  got = trees.flatten(again)
  assert got.keys() == want.keys()
  for name, x in got.items():
    np.testing.assert_array_equal(x, want[name], err_msg=name)


def test_written_names_are_the_published_ones():
  model = models.create("two_tower", **TINY, bias_init=-10.0)
  flat = trees.flatten(random_params(model))
  siglip = layouts.get("siglip").from_vitjax(flat, model)
  assert siglip.keys() == {f"params/{name}" for name in flat}
  del flat["b"]
  lit = layouts.get("lit").from_vitjax(flat, model)
  block = "Encoder_0/encoderblock_0"
  assert {
    "t",
    "img/cls",
    "img/Transformer/posembed_input/pos_embedding",
    "img/Transformer/encoderblock_0/MlpBlock_3/Dense_0/kernel",
    "txt/Embed_0/embedding",
    "txt/pos_embedding",
    f"txt/{block}/LayerNorm_2/scale",
    f"txt/{block}/MultiHeadDotProductAttention_1/query/kernel",
  } <= lit.keys()


@pytest.mark.slow
def test_stacked_files_fit_models_with_single_blocks(tmp_path):
  """SigLIP 2 stacks its blocks; a model need not."""
  image = {**TINY["image"], "depth": 2, "pool_type": "map"}
  text = {**TINY["text"], "depth": 2}
  stacked = models.create(
    "two_tower",
    image={**image, "scan_layers": True},
    text={**text, "scan_layers": True},
    bias_init=-10.0,
  )
  single = models.create(
    "two_tower",
    image=image,
    text=text,
    bias_init=-10.0,
  )
  params = random_params(stacked)
  file = tmp_path / "siglip2.npz"
  weights.save(file, params, stacked)
  again = weights.load(file, single, image_size=32)
  image, text = batch()
  for got, want in zip(
    apply(single, again, image, text)[:2],
    apply(stacked, params, image, text)[:2],
  ):
    np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-6)


def test_one_tower_of_a_file(tmp_path):
  model = models.create("two_tower", **TINY)
  params = random_params(model)
  for layout in ("lit", "siglip"):
    file = tmp_path / f"{layout}.npz"
    weights.save(file, params, model, layout=layout)
    tower = model.image_tower()
    got = weights.load(f"{file}:img", tower, image_size=32)
    image, _ = batch()
    want = apply(model, params, image)[2]["img/pre_logits"]
    np.testing.assert_allclose(
      apply(tower, got, image)[0], want, rtol=1e-4, atol=1e-5
    )
    with pytest.raises(ValueError, match="':img' or ':txt' behind the file"):
      weights.load(file, tower, image_size=32)
    tower = model.text_tower()
    text = weights.load(f"{file}:txt", tower)
    weights.save(tmp_path / "text.npz", text, tower)
    for got in (text, weights.load(tmp_path / "text.npz", tower)):
      jax.tree.map(np.testing.assert_array_equal, got, params["txt"])


def test_the_second_position_table_of_old_files_is_added():
  model = models.create("two_tower", **TINY)
  flat = trees.flatten(random_params(model))
  old = dict(flat)
  old["txt/Encoder_0/pos_embedding"] = np.ones((1, 4, 32), np.float32)
  got = layouts.get("siglip").to_vitjax(old, model)
  np.testing.assert_array_equal(
    got["txt/pos_embedding"], flat["txt/pos_embedding"] + 1
  )
  assert got.keys() == flat.keys()


def test_lit_cannot_hold_a_bias():
  model = models.create("two_tower", **TINY, bias_init=-10.0)
  flat = trees.flatten(random_params(model))
  with pytest.raises(ValueError, match="cannot hold b"):
    layouts.get("lit").from_vitjax(flat, model)


def test_variants():
  assert models.create("two_tower", variant="B/16").text["num_classes"] == 768
  with pytest.raises(ValueError, match=r"'B' is not a two-tower model"):
    models.create("two_tower", variant="B")
  with pytest.raises(ValueError, match="'LiT-B17' is not a two-tower model"):
    models.create("two_tower", variant="LiT-B17")
  with pytest.raises(ValueError, match="Use one of base, large"):
    models.create("bert", variant="huge")
  with pytest.raises(ValueError, match="has a patch size"):
    models.create("text", variant="B/16")


def test_errors_of_a_call():
  model = models.create("two_tower", **TINY)
  params = {"params": random_params(model)}
  image, text = batch()
  with pytest.raises(ValueError, match="image and text are both None"):
    model.apply(params)
  with pytest.raises(ValueError, match=r"text has 3 tokens, .* max_len=4"):
    model.apply(params, None, text[:, :3])
  wide = model.copy(text={**TINY["text"], "num_classes": 5})
  with pytest.raises(ValueError, match="has 32 numbers, the text embedding 5"):
    jax.eval_shape(wide.init, jax.random.key(0), image, text)
  with pytest.raises(ValueError, match="text_model='gpt' is not one of"):
    models.create("two_tower", text_model="gpt")
  bert = models.create("bert", max_len=2)
  with pytest.raises(ValueError, match=r"text has 4 tokens, .* max_len=2"):
    bert.init(jax.random.key(0), text)
