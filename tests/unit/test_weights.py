"""Strictness of `weights.load`, and round trips of the npz layouts."""

import functools
import json
import re

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest

from vitjax import models, trees, weights
from vitjax.weights import layouts, npz


def tiny(**options):
  defaults = {"width": 8, "depth": 2, "num_heads": 2, "num_classes": 3}
  return models.create("vit", **{**defaults, **options})


@functools.cache
def random_params(model, image_size=(32, 32)):
  """Parameters without zeros, which hide what is not converted."""
  image = jax.ShapeDtypeStruct((1, *image_size, 3), jnp.float32)
  tree = jax.eval_shape(model.init, jax.random.key(0), image)["params"]
  rng = np.random.default_rng(0)
  return jax.tree.map(
    lambda x: rng.normal(size=x.shape).astype(np.float32), tree
  )


def assert_equal(got, want):
  got, want = trees.flatten(got), trees.flatten(want)
  assert got.keys() == want.keys()
  for name in want:
    np.testing.assert_array_equal(got[name], want[name], err_msg=name)


def logits(model, params, image_size=32):
  image = np.random.default_rng(1).normal(size=(1, image_size, image_size, 3))
  apply = jax.jit(model.apply)
  return apply({"params": params}, image.astype(np.float32))[0]


MODELS = {
  "gap": {},
  "tok": {"pool_type": "tok"},
  "tok with row": {"pool_type": "tok", "posemb_prefix": True},
  "rep": {"rep_size": 5},
  "map": {"pool_type": "map"},
  "scan": {"scan_layers": True},
  "sincos": {"posemb": "sincos2d"},
  "registers": {"num_registers": 2, "layer_scale_init": 0.1},
}


@pytest.mark.parametrize("options", MODELS.values(), ids=MODELS)
def test_big_vision_round_trip(options, tmp_path):
  model = tiny(**options)
  params = random_params(model)
  weights.save(tmp_path / "x.npz", params, model)
  got = weights.load(tmp_path / "x.npz", model)
  if options.get("posemb_prefix"):  # the row has been added to the token
    np.testing.assert_allclose(
      logits(model, got), logits(model, params), rtol=1e-5, atol=1e-5
    )
  else:
    assert_equal(got, params)
  names = npz.read(tmp_path / "x.npz")
  assert all(name.startswith("params/") for name in names)
  assert "params/pos_embedding" in names or options.get("posemb")


@pytest.mark.parametrize("kind", ["gap", "tok", "tok with row", "rep", "scan"])
def test_vision_transformer_round_trip(kind, tmp_path):
  model = tiny(**MODELS[kind])
  params = random_params(model)
  layout = {"layout": "vision_transformer"}
  weights.save(tmp_path / "x.npz", params, model, **layout)
  got = weights.load(tmp_path / "x.npz", model)
  assert_equal(got, params)
  names = npz.read(tmp_path / "x.npz")
  block = "Transformer/encoderblock_1"
  assert f"{block}/MlpBlock_3/Dense_1/bias" in names
  assert f"{block}/LayerNorm_2/scale" in names
  assert f"{block}/LayerNorm_1/scale" not in names
  assert "Transformer/posembed_input/pos_embedding" in names
  weights.save(tmp_path / "y.npz", got, model, **layout)
  again = npz.read(tmp_path / "y.npz")
  assert_equal(again, names)


def test_linen_numbers_in_the_old_place(tmp_path):
  """vision_transformer's own trees have these; its files the older ones."""
  model = tiny()
  params = random_params(model)
  flat = trees.flatten(params)
  flat["Transformer/posembed_input/pos_embedding"] = flat.pop("pos_embedding")
  npz.write(tmp_path / "x.npz", flat)
  assert_equal(weights.load(tmp_path / "x.npz", model), params)


@pytest.mark.parametrize("prefix", ["params/", "opt/target/", ""])
@pytest.mark.parametrize("kind", ["map", "scan", "gap"])
def test_prefixes_of_big_vision(prefix, kind, tmp_path):
  model = tiny(**MODELS[kind])
  params = random_params(model)
  flat = {f"{prefix}{n}": x for n, x in trees.flatten(params).items()}
  if prefix == "opt/target/":
    flat["opt/state/step"] = np.ones(())
  np.savez(tmp_path / "x.npz", **flat)
  assert_equal(weights.load(tmp_path / "x.npz", model), params)


def test_scan_and_loop_are_converted(tmp_path):
  loop, scan = tiny(), tiny(scan_layers=True)
  params = random_params(loop)
  weights.save(tmp_path / "loop.npz", params, loop)
  stacked = weights.load(tmp_path / "loop.npz", scan)
  kernel = stacked["Transformer"]["encoderblock"]["LayerNorm_1"]["scale"]
  want = params["Transformer"]["encoderblock_1"]["LayerNorm_1"]["scale"]
  np.testing.assert_array_equal(kernel[1], want)
  weights.save(tmp_path / "scan.npz", stacked, scan)
  assert_equal(weights.load(tmp_path / "scan.npz", loop), params)


@pytest.mark.parametrize("prefix", ["", "opt/target/"])
def test_oldest_files_of_big_vision(prefix, tmp_path):
  """Inlined attention pooling, pre-linen numbers, a row for the token."""
  model = tiny(pool_type="map")
  params = random_params(model)
  old = {
    "MAPHead_0/LayerNorm_0": "LayerNorm_1",
    "MAPHead_0/MlpBlock_0": "MlpBlock_2",
    "MAPHead_0/": "",
    "MlpBlock_0/": "MlpBlock_3/",
    "MultiHeadDotProductAttention_0/": "MultiHeadDotProductAttention_1/",
    "LayerNorm_1/": "LayerNorm_2/",
    "pos_embedding": "Transformer/pos_embedding",
  }
  flat = {}
  for name, x in trees.flatten(params).items():
    for ours, theirs in old.items():
      if ours in name and (name.startswith("T") or not ours.endswith("_0/")):
        name = name.replace(ours, theirs)
        break
    if "encoderblock" in name:
      for ours, theirs in list(old.items())[3:6]:
        name = name.replace(ours, theirs)
    flat[f"{prefix}{name}"] = x
  assert f"{prefix}LayerNorm_1/scale" in flat
  assert f"{prefix}Transformer/encoderblock_0/MlpBlock_3/Dense_0/bias" in flat
  npz.write(tmp_path / "x.npz", flat)
  assert_equal(weights.load(tmp_path / "x.npz", model), params)


def test_class_row_is_added_to_the_token(tmp_path):
  new = tiny(pool_type="tok")
  old = tiny(pool_type="tok", posemb_prefix=True)
  params = random_params(old)
  layout = {"layout": "vision_transformer"}
  weights.save(tmp_path / "x.npz", params, old, **layout)
  got = weights.load(tmp_path / "x.npz", new)
  assert got["pos_embedding"].shape == (1, 4, 8)
  want = params["cls"] + params["pos_embedding"][:, :1]
  np.testing.assert_array_equal(got["cls"], want)
  np.testing.assert_allclose(
    logits(new, got), logits(old, params), rtol=1e-5, atol=1e-5
  )
  weights.save(tmp_path / "y.npz", got, new, **layout)
  table = npz.read(tmp_path / "y.npz")[
    "Transformer/posembed_input/pos_embedding"
  ]
  assert table.shape == (1, 5, 8) and not table[0, 0].any()
  assert_equal(weights.load(tmp_path / "y.npz", new), got)


def test_a_rectangular_table_is_not_taken_for_one_with_a_class_row(tmp_path):
  """2 x 5 = 3 * 3 + 1: looks like a square and a row, but is neither."""
  model = tiny(pool_type="tok")
  params = random_params(model, (32, 80))
  weights.save(
    tmp_path / "x.npz", params, model, metadata={"image_size": [32, 80]}
  )
  assert_equal(weights.load(tmp_path / "x.npz", model), params)


def test_group_norms_of_old_hybrids_are_squeezed():
  layout = layouts.get("vision_transformer")
  flat = {
    "gn_root/scale": np.ones((1, 1, 1, 4)),
    "block1/unit1/gn_proj/bias": np.ones((1, 1, 1, 4)),
    "block1/unit1/gn3/bias": np.ones((1, 1, 1, 4)),
    "conv_root/kernel": np.ones((1, 1, 1, 4)),
  }
  got = layout.to_vitjax(flat, tiny())
  assert {n: x.shape for n, x in got.items() if x.ndim > 1} == {
    "conv_root/kernel": (1, 1, 1, 4)
  }


def test_mixed_bfloat16(tmp_path):
  model = tiny(pool_type="tok")
  flat = trees.flatten(random_params(model))
  for name in ("pos_embedding", "cls"):
    flat[name] = flat[name].astype(ml_dtypes.bfloat16)
  np.savez(tmp_path / "x.npz", **{f"params/{n}": x for n, x in flat.items()})
  got = trees.flatten(weights.load(tmp_path / "x.npz", model))
  assert all(x.dtype == np.float32 for x in got.values())
  np.testing.assert_array_equal(got["cls"], flat["cls"].astype(np.float32))


@pytest.mark.parametrize(
  ("options", "what"),
  [
    ({"pool_type": "map"}, "MAPHead_0/"),
    ({"num_registers": 1}, "cannot hold registers"),
    ({"layer_scale_init": 0.1}, "LayerScale_0/gamma"),
    ({"posemb": "sincos2d"}, "needs pos_embedding"),
  ],
)
def test_what_vision_transformer_cannot_hold(options, what, tmp_path):
  model = tiny(**options)
  with pytest.raises(ValueError, match=f"{what}.*Use layout='big_vision'"):
    weights.save(
      tmp_path / "x.npz",
      random_params(model),
      model,
      layout="vision_transformer",
    )
  assert not list(tmp_path.iterdir())


@pytest.fixture
def file(tmp_path):
  model = tiny(rep_size=8)
  weights.save(tmp_path / "x.npz", random_params(model), model)
  return tmp_path / "x.npz"


def test_strict(file):
  expected = (
    r"weights 'x\.npz' in layout 'big_vision' do not fit model vit at 64x64\. "
    r"Missing: cls\. Extra: pre_logits/bias, pre_logits/kernel\. "
    r"Shape: head/bias \(3,\) vs \(10,\), head/kernel \(8, 3\) vs \(8, 10\), "
    r"pos_embedding \(1, 4, 8\) vs \(1, 16, 8\)\. .*resize_posemb=True"
    r".*reinit=\['cls', 'head', .*ignore=\['pre_logits'\]"
  )
  model = tiny(num_classes=10, pool_type="tok")
  with pytest.raises(ValueError, match=expected):
    weights.load(file, model, image_size=64, resize_posemb=False)


def test_reinit_and_ignore(file, caplog):
  params = trees.flatten(weights.load(file, tiny(rep_size=8)))
  model = tiny(num_classes=10)
  with caplog.at_level("INFO", logger="absl"):
    got = weights.load(
      file,
      model,
      image_size=64,
      reinit=["head/.*"],
      ignore=["pre_logits", "absent"],
      key=jax.random.key(1),
    )
  got = trees.flatten(got)
  assert got["head/kernel"].shape == (8, 10)
  assert got["pos_embedding"].shape == (1, 16, 8)
  for name in got.keys() - {"head/kernel", "head/bias", "pos_embedding"}:
    np.testing.assert_array_equal(got[name], params[name])
  for line in (
    "resized            1 arrays  pos_embedding (1, 4, 8) -> (1, 16, 8)",
    "re-initialised     2 arrays  head/bias (10,), head/kernel (8, 10)",
    "unused             2 arrays  pre_logits/bias (8,), pre_logits/kernel",
  ):
    assert line in caplog.text


@pytest.mark.slow
def test_fresh_parameters_are_those_of_init(file):
  model = tiny(num_classes=10, rep_size=8, head_zero_init=False)
  key = jax.random.key(3)
  got = weights.load(file, model, image_size=32, reinit=["head"], key=key)
  image = jnp.zeros((1, 32, 32, 3))
  want = jax.jit(lambda key: model.init(key, image)["params"]["head"])(key)
  np.testing.assert_allclose(got["head"]["kernel"], want["kernel"], rtol=1e-6)


def test_options_that_do_not_exist_are_errors(file):
  with pytest.raises(TypeError, match="image_sise"):
    weights.load(file, tiny(rep_size=8), image_sise=32)


def test_reinit_must_match_something(file):
  with pytest.raises(ValueError, match="reinit='haed' matches no parameter"):
    weights.load(file, tiny(rep_size=8), reinit=["haed"])


@pytest.mark.parametrize(
  "options", [{"patch_size": 8}, {"num_classes": 4}, {"mlp_dim": 4}]
)
def test_other_shapes_are_errors(file, options):
  with pytest.raises(ValueError, match="Shape: "):
    weights.load(file, tiny(rep_size=8, **options))


def test_other_channels_are_explicit(file):
  model = tiny(rep_size=8)
  with pytest.raises(ValueError, match=r"Shape: embedding/kernel \(16, 16, 3"):
    weights.load(file, model, channels=4)
  got = weights.load(
    file, model, image_size=32, channels=4, reinit=["embedding"]
  )
  assert got["embedding"]["kernel"].shape == (16, 16, 4, 8)


def test_grids_of_other_shapes(tmp_path):
  model = tiny(num_registers=1, posemb_prefix=True, pool_type="tok")
  params = random_params(model, (32, 128))
  weights.save(
    tmp_path / "x.npz", params, model, metadata={"image_size": (32, 128)}
  )
  metadata = json.loads((tmp_path / "x.json").read_text())
  assert metadata["grid"] == [2, 8]
  got = weights.load(tmp_path / "x.npz", model, image_size=(48, 80))
  assert got["pos_embedding"].shape == (1, 2 + 15, 8)
  (tmp_path / "x.json").unlink()
  # 16 rows are taken for 4 x 4 unless told otherwise.
  square = weights.load(tmp_path / "x.npz", model, image_size=(48, 80))
  assert np.abs(square["pos_embedding"] - got["pos_embedding"]).max() > 0.1
  told = weights.load(
    tmp_path / "x.npz", model, image_size=(48, 80), old_grid=(2, 8)
  )
  assert_equal(told, got)


def test_a_grid_that_is_not_known_is_asked_for(tmp_path):
  """What the message says to write is enough."""
  model, file = tiny(pool_type="gap"), tmp_path / "x.npz"
  params = random_params(model, (32, 112))
  weights.save(file, params, model, metadata={"image_size": (32, 112)})
  want = weights.load(file, model, image_size=(48, 80))
  (tmp_path / "x.json").unlink()
  with pytest.raises(ValueError, match="14 patches is not a grid") as error:
    weights.load(file, model, image_size=(48, 80))
  (key,) = re.findall(r'"(\w+)": \[rows, columns\]', str(error.value))
  (tmp_path / "x.json").write_text(json.dumps({key: [2, 7]}))
  assert_equal(weights.load(file, model, image_size=(48, 80)), want)


def test_metadata(tmp_path, caplog):
  model = tiny(gelu="erf")
  metadata = {"model": {"name": "vit"}, "class_names": ["a", "b", "c"]}
  weights.save(
    tmp_path / "x.npz", random_params(model), model, metadata=metadata
  )
  written = weights.read_metadata(tmp_path / "x.npz")
  assert len(written.pop("checksums")) == len(
    trees.flatten(random_params(model))
  )
  assert written == {
    **metadata,
    "layout": "big_vision",
    "gelu": "erf",
    "layer_norm_eps": 1e-6,
  }
  weights.load(tmp_path / "x.npz", tiny(gelu="tanh"), image_size=32)
  assert "trained with gelu='erf', the model has 'tanh'" in caplog.text
  (tmp_path / "x.json").write_text("{")
  with pytest.raises(ValueError, match=r"x\.json' is not JSON"):
    weights.read_metadata(tmp_path / "x.npz")
  assert weights.read_metadata(tmp_path / "y.npz") == {}


def test_unknown_layouts(tmp_path):
  npz.write(tmp_path / "x.npz", {"conv1/weights": np.ones(1)})
  with pytest.raises(ValueError, match=r"called conv1/weights.*big_vision"):
    weights.load(tmp_path / "x.npz", tiny())
  with pytest.raises(ValueError, match="layout='timm' is not known"):
    weights.save(tmp_path / "x.npz", {}, tiny(), layout="timm")


def test_integers_are_no_weights(tmp_path):
  model = tiny()
  flat = {
    f"params/{n}": x for n, x in trees.flatten(random_params(model)).items()
  }
  flat["params/head/bias"] = np.ones(3, np.int64)
  np.savez(tmp_path / "x.npz", **flat)
  with pytest.raises(ValueError, match=r"Not floating point: head/bias int64"):
    weights.load(tmp_path / "x.npz", model)


def test_fetch_is_part_of_weights(tmp_path):
  (tmp_path / "x.npz").touch()
  assert weights.fetch(tmp_path / "x.npz") == tmp_path / "x.npz"
  with pytest.raises(AttributeError, match="no attribute 'fech'"):
    _ = weights.fech
