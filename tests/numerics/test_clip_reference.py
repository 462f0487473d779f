"""CLIP and SigLIP against what OpenCLIP and transformers gave."""

import functools
import pathlib
import runpy

import jax
import numpy as np
import pytest

from vitjax import models, trees
from vitjax.models import attention
from vitjax.weights import fitting, layouts
from vitjax.weights.layouts import torch_towers

FOLDER = pathlib.Path(__file__).parents[1] / "golden" / "reference"
ref = runpy.run_path(str(FOLDER / "refweights.py"))

# Our float32 against the published code in float64.
TOLERANCE = 2e-5

BOTH = {"num_classes": 16, "head_bias": False, "layer_norm_eps": 1e-5}
IMAGE = {"patch_size": 8, "width": 32, "depth": 3, "num_heads": 4}
CLIP_IMAGE = {
  **IMAGE,
  **BOTH,
  "pool_type": "tok",
  "posemb_prefix": True,
  "pre_norm": True,
}
TEXT = {"depth": 2, "vocab_size": 60, "max_len": 11}
CLIP_TEXT = {**TEXT, **BOTH, "num_heads": 2, "pool_type": "eot", "causal": True}
MINI = {
  "mini_clip_openclip": {
    "image": {**CLIP_IMAGE, "gelu": "quick"},
    "text": {**CLIP_TEXT, "width": 24, "gelu": "quick"},
  },
  "mini_clip_hf": {
    "image": {**CLIP_IMAGE, "mlp_dim": 88, "gelu": "erf"},
    "text": {**CLIP_TEXT, "width": 32, "mlp_dim": 88, "gelu": "erf"},
  },
  "mini_siglip_hf": {
    "image": {**IMAGE, "mlp_dim": 88, "pool_type": "map"},
    "text": {
      **TEXT,
      "width": 32,
      "mlp_dim": 88,
      "num_heads": 4,
      "num_classes": 32,
    },
    "bias_init": -10.0,
  },
}
FULL = {
  "clip_vit_b_32_quickgelu": "ViT-B-32-quickgelu",
  "clip_vit_b_16": "ViT-B-16",
  "siglip_b_16_224": "SigLIP B/16 224",
}
# Case -> published model, and the blocks that its towers have here.
CUT = {
  "clip_vit_l_14_cut": ("ViT-L-14", 4, 3),
  "siglip_so400m_14_cut": ("SigLIP So400m/14 224", 3, 2),
}
LARGE = (*FULL, *CUT)
CASES = {**MINI, **FULL, **CUT}


def build(name):
  if name in FULL:
    return models.create(FULL[name])
  if name in CUT:
    published, *depths = CUT[name]
    model = models.create(published)
    for tower, depth in zip(("image", "text"), depths):
      model = changed(model, tower, depth=depth)
    return model
  return models.create("two_tower", **MINI[name])


@functools.cache
def case(name):
  """The case, our model, and the parameters by the published names."""
  found = ref["load_case"](name, FOLDER)
  return found, build(name), ref["weights"](found)


def converted(name):
  found, model, flat = case(name)
  size = found["image_shape"][1]
  return fitting.fit(flat, model, source=name, metadata={}, image_size=size)


def outputs(name):
  found, model, _ = case(name)
  params = converted(name)
  i, t, out = jax.jit(model.apply)(
    {"params": params}, ref["images"](found), ref["tokens"](found)
  )
  got = {"image_embedding": i, "text_embedding": t, "t": out["t"]}
  if "b" in out:
    got["b"] = out["b"]
  got = {key: np.asarray(x) for key, x in got.items()}
  similarity = got["image_embedding"] @ got["text_embedding"].T
  logits = got["t"] * similarity + got.get("b", np.float32(0))
  return {**got, "logits": logits}


def gaps(name, got):
  """Largest |difference| relative to the largest |number|, by output."""
  found = {}
  for key, want in case(name)[0]["outputs"].items():
    want = np.asarray(want)
    found[key] = float(np.abs(got[key] - want).max() / np.abs(want).max())
  return found


@pytest.mark.parametrize(
  "name", [*MINI, *(pytest.param(x, marks=pytest.mark.slow) for x in LARGE)]
)
def test_embeddings_and_logits(name):
  found = gaps(name, outputs(name))
  print(name, {key: f"{value:.1e}" for key, value in found.items()})
  assert found.keys() == case(name)[0]["outputs"].keys()
  assert max(found.values()) < TOLERANCE


def without_pre_norm(params):
  """The image tower's parameters for a model that has no norm there."""
  zeros = np.zeros(IMAGE["width"], np.float32)
  image = dict(params["img"])
  del image["pre_norm"]
  image["embedding"] = {**image["embedding"], "bias": zeros}
  return {**params, "img": image}


def changed(model, tower, **fields):
  return model.clone(**{tower: {**getattr(model, tower), **fields}})


@pytest.mark.parametrize(
  "name, tower, fields",
  [
    ("mini_clip_openclip", "text", {"pool_type": "last"}),
    ("mini_clip_openclip", "text", {"causal": False}),
    ("mini_clip_openclip", "image", {"pre_norm": False}),
    *(
      pytest.param(*row, marks=pytest.mark.slow)
      for row in (
        ("mini_clip_openclip", "text", {"gelu": "erf"}),
        ("mini_clip_openclip", "image", {"gelu": "tanh"}),
        ("mini_clip_openclip", "image", {"layer_norm_eps": 1e-3}),
        ("mini_clip_hf", "image", {"gelu": "quick"}),
        ("mini_siglip_hf", "image", {"gelu": "erf"}),
        ("mini_siglip_hf", "text", {"pool_type": "eot"}),
        ("mini_siglip_hf", "text", {"causal": True}),
      )
    ),
  ],
  ids=lambda x: "-".join(map(str, *x.items())) if isinstance(x, dict) else x,
)
def test_an_option_shows(name, tower, fields):
  params = converted(name)
  if fields == {"pre_norm": False}:
    params = without_pre_norm(params)
  model = changed(case(name)[1], tower, **fields)
  side = {"image": "img", "text": "txt"}[tower]
  assert tower_gap(name, side, params[side], model) > 3 * TOLERANCE


def tower_gap(name, side, params, model):
  """The gap of one embedding; the other tower is not computed."""
  found, _, _ = case(name)
  inputs = ref["images" if side == "img" else "tokens"](found)
  apply = jax.jit(model.towers()[side].apply)
  got = np.asarray(apply({"params": params}, inputs)[0])
  key = {"img": "image_embedding", "txt": "text_embedding"}[side]
  want = np.asarray(found["outputs"][key])
  got = got / np.linalg.norm(got, axis=-1, keepdims=True)
  return np.abs(got - want).max() / np.abs(want).max()


@pytest.mark.slow
@pytest.mark.parametrize("what", ["order", "norm", "residual"])
def test_a_mistake_in_attention_pooling_shows(what, monkeypatch):
  params = converted("mini_siglip_hf")["img"]
  head = dict(params["MAPHead_0"])
  if what == "order":  # of query, key and value in their one array
    projections = dict(head["MultiHeadDotProductAttention_0"])
    projections["query"], projections["key"] = (
      projections["key"],
      projections["query"],
    )
    head["MultiHeadDotProductAttention_0"] = projections
  elif what == "norm":  # transformers has two norms nearby
    head["LayerNorm_0"] = params["Transformer"]["encoder_norm"]
  else:
    block = attention.common.MlpBlock.__call__
    monkeypatch.setattr(
      attention.common.MlpBlock,
      "__call__",
      lambda self, x, *args: (
        block(self, x, *args) - (x if self.name == "MlpBlock_0" else 0)
      ),
    )
  params = {**params, "MAPHead_0": head}
  model = case("mini_siglip_hf")[1]
  assert tower_gap("mini_siglip_hf", "img", params, model) > 3 * TOLERANCE


@pytest.mark.parametrize("key", ["t", "b"])
def test_scale_and_bias_of_the_logits_show(key):
  found, _, _ = case("mini_siglip_hf")
  outputs_ = {k: np.asarray(x) for k, x in found["outputs"].items()}
  similarity = outputs_["image_embedding"] @ outputs_["text_embedding"].T
  params = converted("mini_siglip_hf")
  t, b = np.exp(params["t"]), params["b"]
  np.testing.assert_allclose(t * similarity + b, outputs_["logits"], rtol=1e-5)
  wrong = params["t"] * similarity + b if key == "t" else t * similarity
  assert np.abs(wrong - outputs_["logits"]).max() > 1e-3


@pytest.mark.slow
def test_padding_is_read_by_siglip_and_not_by_clip():
  """CLIP's padding stands behind the end, which does not see it."""
  for name, reads in (("mini_siglip_hf", True), ("mini_clip_openclip", False)):
    _, model, _ = case(name)
    params = {"params": converted(name)["txt"]}
    one = np.array([[1, 7, 8, 59, *[0] * 7]], np.int32)
    other = np.where(one == 0, 1, one)
    apply = jax.jit(model.text_tower().apply)
    a, b = (apply(params, text)[0] for text in (one, other))
    if reads:
      assert np.abs(a - b).max() > 1e-3
    else:
      np.testing.assert_allclose(a, b, rtol=1e-6, atol=1e-7)


@pytest.mark.slow
def test_the_first_of_equal_ends_is_the_end():
  """transformers pads with the id of the end."""
  _, model, _ = case("mini_clip_openclip")
  params = {"params": converted("mini_clip_openclip")["txt"]}
  one = np.array([[1, 7, 8, 59, *[0] * 7]], np.int32)
  other = np.where(one == 0, 59, one)
  apply = jax.jit(model.text_tower().apply)
  a, b = (apply(params, text)[0] for text in (one, other))
  np.testing.assert_allclose(a, b, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("layout", ["open_clip", "hf_towers"])
@pytest.mark.parametrize("name", MINI)
@pytest.mark.parametrize("scan_layers", [False, True])
def test_a_layout_round_trips(layout, name, scan_layers):
  _, model, _ = case(name)
  for tower in ("image", "text"):
    model = changed(model, tower, scan_layers=scan_layers)
  inputs = model.example_inputs(32)
  shapes = jax.eval_shape(model.init, jax.random.key(0), *inputs)["params"]
  rng = np.random.default_rng(0)
  want = {
    path: rng.standard_normal(x.shape).astype(np.float32)
    for path, x in trees.flatten(shapes).items()
  }
  converter = layouts.get(layout)
  flat = converter.from_vitjax(want, model)
  assert layouts.recognise(flat).NAME == layout
  got = converter.to_vitjax(flat, model)
  assert got.keys() == want.keys()
  for path, x in got.items():
    np.testing.assert_array_equal(x, want[path], err_msg=path)
  # One tower of the file, for a model of one tower.
  for side, tower in model.towers().items():
    part = torch_towers.tower_of(flat, side)
    assert layouts.recognise(part).NAME == layout
    got = converter.to_vitjax(part, tower)
    own = {f"{side}/{path}": x for path, x in got.items()}
    assert own.keys() == {n for n in want if n.startswith(f"{side}/")}
    for path, x in own.items():
      np.testing.assert_array_equal(x, want[path], err_msg=path)
    with pytest.raises(ValueError, match="':img' or ':txt' behind the file"):
      converter.to_vitjax(flat, tower)


def test_written_names_are_the_published_ones():
  """The cases have the names and shapes of the published code."""
  for name, layout in (
    ("mini_clip_openclip", "open_clip"),
    ("mini_clip_hf", "hf_towers"),
    ("mini_siglip_hf", "hf_towers"),
  ):
    _, model, flat = case(name)
    again = layouts.get(layout).from_vitjax(
      trees.flatten(converted(name)), model
    )
    assert again.keys() == flat.keys()
    for key, x in again.items():
      np.testing.assert_array_equal(x, flat[key], err_msg=key)


def test_what_else_the_files_have_is_dropped():
  for name, more in (
    ("mini_clip_openclip", ("input_resolution", "context_length")),
    (
      "mini_clip_hf",
      ("text_model.embeddings.position_ids",),
    ),
  ):
    _, model, flat = case(name)
    flat = {**flat, **dict.fromkeys(more, np.arange(3))}
    got = fitting.fit(flat, model, source=name, metadata={}, image_size=32)
    assert got.keys() == converted(name).keys()


def test_the_patches_of_naflex_are_a_dense_layer():
  """`Siglip2Model` flattens height, width and channels, in this order."""
  _, model, flat = case("mini_siglip_hf")
  name = "vision_model.embeddings.patch_embedding.weight"
  kernel = flat[name]
  dense = kernel.transpose(0, 2, 3, 1).reshape(len(kernel), -1)
  got = layouts.get("hf_towers").to_vitjax({**flat, name: dense}, model)
  np.testing.assert_array_equal(
    got["img/embedding/kernel"], kernel.transpose(2, 3, 1, 0)
  )
