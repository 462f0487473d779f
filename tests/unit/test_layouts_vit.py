"""Layouts of PyTorch's Vision Transformers, and files of tensors."""

import argparse
import functools
import importlib.util
import json
import pathlib

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest

from vitjax import models, trees, weights
from vitjax.weights import files, layouts, npz


def tiny(**options):
  defaults = {"width": 8, "depth": 2, "num_heads": 2, "num_classes": 3}
  return models.create("vit", **{**defaults, "gelu": "erf", **options})


@functools.cache
def random_params(model, size=32):
  """Parameters without zeros, which hide what is not converted."""
  image = jax.ShapeDtypeStruct((1, size, size, 3), jnp.float32)
  tree = jax.eval_shape(model.init, jax.random.key(0), image)["params"]
  rng = np.random.default_rng(0)
  return jax.tree.map(
    lambda x: rng.normal(size=x.shape).astype(np.float32), tree
  )


@functools.cache
def outputs(model):
  return jax.jit(lambda variables, image: model.apply(variables, image)[0])


def assert_equal(got, want):
  got, want = trees.flatten(got), trees.flatten(want)
  assert got.keys() == want.keys()
  for name in want:
    np.testing.assert_array_equal(got[name], want[name], err_msg=name)


TOKEN = {"pool_type": "tok", "posemb_prefix": True}
LS = {"layer_scale_init": 0.1}
TIMM = {
  "vit": TOKEN,
  "deit3": {"pool_type": "tok", **LS},
  "sbb": {"num_registers": 2, "fc_norm": True, "mlp_dim": 20, **LS},
  "pwee": {"num_registers": 1, "fc_norm": True, "parallel": True, **LS},
  "dwee": {"num_registers": 1, "fc_norm": True, "differential": True, **LS},
  "dpwee": {"parallel": True, "differential": True, "mlp_dim": 20},
  "so150m": {"num_registers": 4, "posemb_prefix": True, "qkv_bias": False},
  "map": {"num_registers": 1, "pool_type": "map", "posemb_prefix": True},
  "distilled": {**TOKEN, "num_registers": 1, "distilled": True},
  "scan": {**TOKEN, "scan_layers": True},
}


@pytest.mark.parametrize("kind", TIMM)
def test_timm_round_trip(kind, tmp_path):
  suffix = ".npz" if kind == "vit" else ".safetensors"
  if suffix == ".safetensors":
    pytest.importorskip("safetensors")
  model = tiny(**TIMM[kind])
  params = random_params(model)
  file = tmp_path / f"x{suffix}"
  weights.save(file, params, model, layout="timm_vit")
  assert layouts.recognise(files.read(file)).NAME == "timm_vit"
  assert_equal(weights.load(file, model), params)


@pytest.mark.parametrize("qkv_bias", [True, False])
def test_rotary_round_trip(qkv_bias):
  options = {"num_registers": 1, "fc_norm": True, "posemb": "rope", **LS}
  model = tiny(key_bias=False, qkv_bias=qkv_bias, **options)
  params = trees.flatten(random_params(model))
  layout = layouts.get("timm_eva")
  flat = layout.from_vitjax(params, model)
  assert layouts.recognise(flat).NAME == "timm_eva"
  assert ("blocks.1.attn.q_bias" in flat) == qkv_bias
  assert "blocks.1.attn.qkv.weight" in flat and "blocks.1.gamma_2" in flat
  assert not any("k_bias" in n or "qkv.bias" in n for n in flat)
  assert_equal(layout.to_vitjax(flat, model), params)
  with pytest.raises(
    ValueError, match=r"needs a position table.*rope.*timm_eva"
  ):
    layouts.get("timm_vit").from_vitjax(params, model)
  with pytest.raises(ValueError, match=r"key_bias=True. Use layout='timm_vit"):
    layout.from_vitjax({}, tiny())


def test_timm_names_and_order():
  """The rows of fused layers, spelled out."""
  model = tiny(parallel=True, mlp_dim=20)
  params = random_params(model)
  flat = layouts.get("timm_vit").from_vitjax(trees.flatten(params), model)
  block = params["Transformer"]["encoderblock_1"]
  attention = block["MultiHeadDotProductAttention_0"]
  fused = flat["blocks.1.in_proj.weight"]
  assert fused.shape == (20 + 3 * 8, 8)
  np.testing.assert_array_equal(
    fused[:20], block["MlpBlock_0"]["Dense_0"]["kernel"].T
  )
  for i, name in enumerate(("query", "key", "value")):
    for head in range(2):
      start = 20 + 8 * i + 4 * head
      np.testing.assert_array_equal(
        fused[start : start + 4], attention[name]["kernel"][:, head].T
      )
  out = flat["blocks.1.attn_out_proj.weight"]
  np.testing.assert_array_equal(out[:, 4:], attention["out"]["kernel"][1].T)
  np.testing.assert_array_equal(
    flat["patch_embed.proj.weight"][5, 2],
    params["embedding"]["kernel"][:, :, 2, 5],
  )


def test_position_rows_of_timm():
  """A table with rows for other tokens, into a model without, and back."""
  old = tiny(num_registers=2, pool_type="tok", posemb_prefix=True)
  new = tiny(num_registers=2, pool_type="tok")
  params = random_params(old, 48)
  layout = layouts.get("timm_vit")
  flat = layout.from_vitjax(trees.flatten(params), old)
  got = layout.to_vitjax(flat, new)
  table = params["pos_embedding"]
  np.testing.assert_array_equal(got["pos_embedding"], table[:, 3:])
  np.testing.assert_array_equal(got["cls"], params["cls"] + table[:, :1])
  np.testing.assert_array_equal(
    got["registers"], params["registers"] + table[:, 1:3]
  )
  back = layout.to_vitjax(layout.from_vitjax(got, new), old)
  assert not back["pos_embedding"][:, :3].any()
  image = jnp.ones((1, 48, 48, 3))
  want = jax.jit(old.apply)({"params": params}, image)[0]
  for model, tree in ((new, got), (old, back)):
    tree = {"params": trees.unflatten(tree)}
    np.testing.assert_allclose(
      jax.jit(model.apply)(tree, image)[0], want, rtol=1e-5, atol=1e-5
    )


def test_original_deit():
  model = tiny(**TIMM["deit3"])
  params = trees.flatten(random_params(model))
  layout = layouts.get("deit")
  flat = layout.from_vitjax(params, model)
  assert "blocks.1.gamma_2" in flat
  assert not any(".ls" in name for name in flat)
  assert layouts.recognise(flat).NAME == "deit"
  assert_equal(layout.to_vitjax(flat, model), params)


@pytest.mark.parametrize(
  "options",
  [TOKEN, {"pool_type": "tok"}, {**TOKEN, "scan_layers": True}],
  ids=["row", "no row", "scan"],
)
def test_hf_round_trip(options, tmp_path):
  pytest.importorskip("safetensors")
  model = tiny(**options)
  params = random_params(model)
  file = tmp_path / "x.safetensors"
  weights.save(file, params, model, layout="hf_vit")
  flat = files.read(file)
  assert layouts.recognise(flat).NAME == "hf_vit"
  assert flat["vit.embeddings.position_embeddings"].shape == (1, 5, 8)
  assert_equal(weights.load(file, model), params)
  bare = {n.removeprefix("vit."): x for n, x in flat.items() if "vit." in n}
  assert layouts.recognise(bare).NAME == "hf_vit"
  headless = tiny(num_classes=None, **options)
  got = layouts.get("hf_vit").to_vitjax(bare, headless)
  want = trees.flatten(params)
  assert_equal(got, {n: x for n, x in want.items() if "head" not in n})


def test_hf_pooler_is_pre_logits():
  model = tiny(num_classes=None, rep_size=8, **TOKEN)
  params = trees.flatten(random_params(model))
  flat = layouts.get("hf_vit").from_vitjax(params, model)
  np.testing.assert_array_equal(
    flat["vit.pooler.dense.weight"], params["pre_logits/kernel"].T
  )
  assert_equal(layouts.get("hf_vit").to_vitjax(flat, model), params)


CONSTANTS = {
  "fixed table": {"posemb": "sincos2d"},
  "fixed table with rows": {
    "posemb": "sincos2d",
    "posemb_prefix": True,
    "num_registers": 1,
  },
  "no key bias": {"key_bias": False},
  "no biases": {"qkv_bias": False, "posemb": "sincos2d", "scan_layers": True},
}


@pytest.mark.parametrize("options", CONSTANTS.values(), ids=CONSTANTS)
@pytest.mark.parametrize(
  "layout", ["timm_vit", "timm_npz", "hf_vit", "vision_transformer"]
)
def test_constants_are_written_as_arrays(layout, options, tmp_path):
  """What other programs have as parameters; it is dropped when read again."""
  if layout != "timm_vit" and "num_registers" in options:
    options = {**options, "num_registers": 0}
  if layout == "hf_vit":
    options = {**options, "pool_type": "tok"}
  if "scan_layers" not in options:
    options = {**options, "depth": 1}
  model = tiny(**options)
  params = random_params(model)
  file = tmp_path / "x.npz"
  weights.save(
    file, params, model, layout=layout, metadata={"image_size": (32, 32)}
  )
  assert_equal(weights.load(file, model), params)
  # A model that has them all has the same outputs.
  full = {"posemb": "learn", "key_bias": True}
  if layout not in ("timm_vit", "hf_vit"):
    full["qkv_bias"] = True
  twin = tiny(**{**options, **full})
  if twin.qkv_bias:
    image = np.random.default_rng(1).normal(size=(1, 32, 32, 3))
    want = outputs(model)({"params": params}, image)
    got = outputs(twin)({"params": weights.load(file, twin)}, image)
    np.testing.assert_allclose(got, want, rtol=1e-6, atol=1e-6)


def test_other_values_than_the_constants_are_reported(tmp_path):
  model = tiny(posemb="sincos2d", key_bias=False)
  params = random_params(tiny())
  weights.save(tmp_path / "x.npz", params, tiny(), layout="timm_vit")
  with pytest.raises(ValueError, match=r"Extra: .*key/bias.*pos_embedding"):
    weights.load(tmp_path / "x.npz", model, image_size=32)


@pytest.mark.parametrize(
  ("layout", "options", "message"),
  [
    ("hf_vit", {}, "needs a model with pool_type='tok'; .* 'gap'"),
    ("hf_vit", {**TOKEN, "rep_size": 8}, "rep_size=False"),
    ("hf_vit", {**TOKEN, **LS}, "no place for Transformer/.*LayerScale_0"),
    ("hf_vit", {**TOKEN, "num_registers": 1}, "no place for registers"),
    ("timm_vit", {"rep_size": 8}, "Train with rep_size=False, or use"),
    ("timm_vit", {"posemb": "sincos2d"}, "if metadata say image_size"),
    ("timm_npz", {"rep_size": 8}, "timm drops the layer before the head"),
    ("timm_npz", LS, "timm does not read LayerScale"),
    ("timm_npz", {"num_registers": 1}, "timm does not read registers"),
    ("timm_npz", {"fc_norm": True}, "looks for the norm before"),
  ],
)
def test_what_a_layout_cannot_hold(layout, options, message, tmp_path):
  model = tiny(**options)
  with pytest.raises(ValueError, match=f"layout '{layout}'.*{message}"):
    weights.save(tmp_path / "x.npz", random_params(model), model, layout=layout)
  assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
  ("options", "table", "norm"),
  [
    (
      {"pool_type": "tok"},
      "Transformer/posembed_input/pos_embedding",
      "LayerNorm_2",
    ),
    ({}, "Transformer/posembed_input/pos_embedding", "LayerNorm_2"),
    ({"pool_type": "map"}, "params/pos_embedding", "LayerNorm_1"),
  ],
)
def test_timm_npz(options, table, norm, tmp_path):
  model = tiny(**options)
  params = random_params(model)
  weights.save(tmp_path / "x.npz", params, model, layout="timm_npz")
  names = npz.read(tmp_path / "x.npz")
  assert table in names
  assert any(f"encoderblock_0/{norm}/scale" in name for name in names)
  assert_equal(weights.load(tmp_path / "x.npz", model), params)


@pytest.mark.parametrize(
  ("name", "layout", "has_size"),
  [
    ("vit", "timm_vit", True),
    ("R26+ViT-S_32", "timm_hybrid", True),
    ("vit_medium_patch16_rope_reg1_gap_256", "timm_eva", True),
    ("mixer", "timm_mixer", True),
    ("convnext_atto", "timm_convnext", False),
    ("dm_nfnet_f0", "timm_nfnet", False),
    ("resnetv2_50x1_bit", "timm_bit", False),
  ],
)
def test_timm_is_told_the_size_and_the_channels(name, layout, has_size):
  """timm refuses `img_size` for networks that take any size."""
  metadata = {"image_size": [144, 144], "channels": 1}
  facts = layouts.get(layout).facts(models.create(name), metadata)["timm"]
  assert facts["in_chans"] == 1
  assert facts.get("img_size") == ([144, 144] if has_size else None)


def test_metadata_says_how_to_create_the_other_model(tmp_path):
  model = tiny(gelu="tanh", pool_type="tok", mlp_dim=23)
  params = random_params(model)
  metadata = {"image_size": 32, "channels": 3, "transformers": {"stale": 1}}
  weights.save(
    tmp_path / "x.npz", params, model, layout="timm_npz", metadata=metadata
  )
  facts = json.loads((tmp_path / "x.json").read_text())
  assert facts["gelu"] == "tanh"
  assert facts["timm"]["act_layer"] == "gelu_tanh"
  assert facts["timm"]["no_embed_class"] is False
  assert facts["timm"]["img_size"] == facts["image_size"] == [32, 32]
  assert facts["timm"]["in_chans"] == 3
  assert "transformers" not in facts
  assert int(8 * facts["timm"]["mlp_ratio"]) == 23
  weights.save(tmp_path / "y.npz", params, model, layout="hf_vit")
  facts = json.loads((tmp_path / "y.json").read_text())
  assert facts["transformers"]["hidden_act"] == "gelu_pytorch_tanh"
  assert facts["transformers"]["layer_norm_eps"] == 1e-6


def test_mlp_ratio_survives_truncation():
  timm = layouts.get("timm_vit")
  for width in range(32, 2000, 32):
    for mlp_dim in (width * 3 - 1, width * 18 // 7, width * 34 // 13):
      model = models.create("vit", width=width, mlp_dim=mlp_dim, num_heads=1)
      ratio = timm.timm_arguments(model, {})["mlp_ratio"]
      assert int(width * ratio) == mlp_dim


def test_another_family_is_refused():
  mixer = models.create("mixer", variant="S/32")
  with pytest.raises(ValueError, match=r"holds models of 'vitjax.models.vit'"):
    layouts.get("timm_vit").to_vitjax({}, mixer)


def test_safetensors_types_and_sub_trees(tmp_path):
  numpy_format = pytest.importorskip("safetensors.numpy")
  file = tmp_path / "x.safetensors"
  arrays = {
    "img.a": np.asarray([1, 0.3], ml_dtypes.bfloat16),
    "img.b": np.asarray([[1], [2]], np.float16),
    "n": np.asarray(3, np.int64),
  }
  numpy_format.save_file(arrays, file)
  got = files.read(file)
  for name, x in arrays.items():
    assert got[name].dtype == x.dtype
    np.testing.assert_array_equal(got[name], x)
  assert files.read(f"{file}:img").keys() == {"a", "b"}
  with pytest.raises(ValueError, match="no sub-tree 'txt'"):
    files.read(f"{file}:txt")
  file.write_bytes(file.read_bytes()[:-3])
  with pytest.raises(ValueError, match="cannot be read"):
    files.read(file)


def test_suffixes(tmp_path):
  with pytest.raises(ValueError, match=r"unknown suffix. Known: \.npz"):
    (tmp_path / "x.h5").touch()
    files.read(tmp_path / "x.h5")
  with pytest.raises(ValueError, match=r"cannot be written: use .*\.npz"):
    files.write(tmp_path / "x.pth", {})
  for name in ("x.safetensors", "ViT-B_16"):
    with pytest.raises(FileNotFoundError, match=r"pass the path.*fetch\("):
      files.read(tmp_path / name)


@pytest.mark.skipif(
  importlib.util.find_spec("torch") is not None, reason="torch is installed"
)
def test_without_torch(tmp_path):
  (tmp_path / "x.pth").write_bytes(b"")
  with pytest.raises(ImportError, match="need the package 'torch'"):
    files.read(tmp_path / "x.pth")


def test_states_of_a_training_program(caplog):
  """All that there are are listed; the user chooses, else the first known."""
  path = pathlib.Path("last.pth.tar")
  content = {"epoch": 3, "state_dict_ema": {"a": 2}, "state_dict": {"a": 1}}
  with caplog.at_level("INFO", logger="absl"):
    assert files.choose_state(content, path, "") == ({"a": 1}, "")
  assert "hold state_dict, state_dict_ema; reading state_dict." in caplog.text
  assert "with last.pth.tar:NAME" in caplog.text
  choose = files.choose_state
  assert choose(content, path, "state_dict_ema") == ({"a": 2}, "")
  assert choose(content, path, "state_dict_ema/img") == ({"a": 2}, "img")
  assert choose(content, path, "img") == ({"a": 1}, "img")
  assert choose({"model": {"module": {"a": 1}}}, path, "") == ({"a": 1}, "")
  assert choose({"model_ema": {"a": 2}}, path, "") == ({"a": 2}, "")
  assert choose([], path, "") == ({}, "")


def test_prefixes_of_wrappers():
  want = {"cls_token": 1, "module.weight": 2}
  for prefix in ("", "module.", "_orig_mod.", "model.", "module._orig_mod."):
    assert files.unwrap({prefix + name: x for name, x in want.items()}) == want
  assert files.unwrap({}) == {}


def test_wrappers_are_removed_from_files(tmp_path):
  numpy_format = pytest.importorskip("safetensors.numpy")
  file = tmp_path / "x.safetensors"
  arrays = {"_orig_mod.img.a": np.ones(2), "_orig_mod.txt.b": np.ones(3)}
  numpy_format.save_file(arrays, file)
  assert files.read(file).keys() == {"img.a", "txt.b"}
  assert files.read(f"{file}:img").keys() == {"a"}
  assert files.read(f"{file}:_orig_mod.txt").keys() == {"b"}


@pytest.mark.parametrize("name", ["x.pth.tar", "x.ckpt"])
def test_checkpoints_of_torch_programs(tmp_path, name):
  torch = pytest.importorskip("torch")
  content = {
    "args": argparse.Namespace(lr=0.1),
    "state_dict": {"module.a": torch.ones(2)},
    "state_dict_ema": {"module.a": torch.zeros(2)},
  }
  torch.save(content, tmp_path / name)
  np.testing.assert_array_equal(files.read(tmp_path / name)["a"], [1, 1])
  average = files.read(f"{tmp_path / name}:state_dict_ema")
  np.testing.assert_array_equal(average["a"], [0, 0])


def test_torch_pickles(tmp_path):
  torch = pytest.importorskip("torch")
  state = {"a": torch.ones(2, dtype=torch.bfloat16), "n": torch.ones(())}
  torch.save({"model": state, "epoch": 3}, tmp_path / "x.pth")
  got = files.read(tmp_path / "x.pth")
  assert got.keys() == {"a", "n"} and got["a"].dtype == np.float32
  torch.save({"model": functools.partial(print)}, tmp_path / "y.pth")
  with pytest.raises(ValueError, match="tensors only"):
    files.read(tmp_path / "y.pth")
