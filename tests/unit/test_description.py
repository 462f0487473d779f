"""Weights of strangers: what their metadata may say, and damaged arrays."""

import json
import pathlib
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import vitjax
from vitjax import models, trees, weights
from vitjax.checkpoint import checkpointer
from vitjax.weights import description, files, npz

MODEL = {
  "name": "vit",
  "width": 8,
  "depth": 2,
  "num_heads": 2,
  "patch_size": 8,
  "num_classes": 3,
}
METADATA = {
  "model": MODEL,
  "image_size": [16, 16],
  "channels": 3,
  "preprocess": "decode|resize(16)",
  "class_names": ["a", "b", "c"],
  "loss": "softmax_xent",
}


@pytest.fixture(scope="module")
def params():
  model = models.create(**MODEL)
  image = jax.ShapeDtypeStruct((1, 16, 16, 3), np.float32)
  shapes = jax.eval_shape(model.init, jax.random.key(0), image)["params"]
  rng = np.random.default_rng(0)
  return jax.tree.map(
    lambda x: rng.normal(size=x.shape).astype(np.float32), shapes
  )


@pytest.fixture
def save(params, tmp_path):
  """Writes a file and changes the metadata beside it."""
  saved = {}

  def save(name="x.npz", **changes) -> pathlib.Path:
    file, beside = tmp_path / name, tmp_path / "x.json"
    if not file.exists():
      weights.save(file, params, models.create(**MODEL), metadata=METADATA)
      saved[name] = json.loads(beside.read_text())
    metadata = saved[name]
    beside.write_text(json.dumps({**metadata, **changes}))
    return file

  return save


@pytest.fixture
def module(tmp_path, monkeypatch):
  """A module that notes that it was imported, and is a model."""
  (tmp_path / "their").mkdir()
  (tmp_path / "their/code.py").write_text(
    "from vitjax.models.vit import Model, decode_variant\n"
  )
  monkeypatch.syspath_prepend(tmp_path)
  yield "their.code"
  sys.modules.pop("their.code", None)


def test_a_file_cannot_import_a_module(save, module):
  two_tower = {"name": "two_tower", "image_model": module, "image": {}}
  for model in ({**MODEL, "name": module}, two_tower):
    file = save(model=model)
    with pytest.raises(ValueError, match=r"--allow_module=their\.code"):
      vitjax.load(file)
    with pytest.raises(ValueError, match=r"module 'their\.code'"):
      vitjax.load(file, allow_module="their")
    assert module not in sys.modules


def test_a_module_that_the_user_allows(save, module):
  run = vitjax.load(save(model={**MODEL, "name": module}), allow_module=module)
  assert type(run.model).__module__ == "vitjax.models.vit"
  assert module in sys.modules


WRONG = [
  None,
  True,
  -1,
  0,
  0.5,
  10**6,
  10**30,
  "",
  "x",
  "../x",
  [],
  [[]],
  {},
  [1],
]


@pytest.mark.parametrize(
  "key", [*METADATA, "tokenizer", "grid", "gelu", "checksums", "data"]
)
def test_metadata_of_any_types_are_refused_in_one_line(save, key):
  for value in WRONG:
    file = save(**{key: value})
    try:
      vitjax.load(file)
    except ValueError as e:
      assert "x.json" in str(e) or "x.npz" in str(e), (value, e)
      assert "\n" not in str(e), value


@pytest.mark.parametrize("key", [*models.options("vit")])
def test_options_of_any_types_are_refused_in_one_line(save, key):
  for value in WRONG:
    file = save(model={**MODEL, key: value})
    try:
      vitjax.load(file)
    except ValueError as e:
      assert "x.npz" in str(e) or "model vit" in str(e), (key, value, e)
      assert "\n" not in str(e), (key, value)


@pytest.mark.parametrize(
  ("changes", "message"),
  [
    (
      {"model": {**MODEL, "depth": 10**6}},
      r"model\.depth=1000000 is more than",
    ),
    ({"model": {**MODEL, "width": 10**9}}, r"model\.width=1000000000 is more"),
    ({"model": {**MODEL, "widht": 8}}, "Did you mean 'width'"),
    ({"model": {**MODEL, "name": "vitt"}}, "Did you mean 'vit'"),
    ({"image_size": [16, "16"]}, r"x\.json': image_size=\[16, .16.\] must be"),
    ({"image_size": [10**5] * 2}, r"image_size=.* up to 65536"),
    ({"image_size": [64, 64]}, r"Shape: pos_embedding \(1, 4, 8\) vs"),
    ({"class_names": ["a"]}, "1 class_names for 3 classes"),
    (
      {"tokenizer": {"name": "bert", "vocab": "../../etc/x", "max_len": 4}},
      "a file in the same folder",
    ),
  ],
)
def test_what_metadata_may_not_say(save, changes, message):
  with pytest.raises(ValueError, match=message):
    vitjax.load(save(**changes))


@pytest.mark.parametrize("name", ["x.npz", "x.safetensors"])
def test_changed_arrays_are_noticed(save, name):
  file = save(name)
  vitjax.load(file)
  flat = {n: np.array(x) for n, x in files.read(file).items()}
  changed = next(n for n in flat if "head" in n)
  flat[changed].flat[0] += 1e-6
  files.write(file, flat)
  match = rf"x\.\w+': {changed} differ from what was exported, .* x\.json"
  with pytest.raises(ValueError, match=match):
    vitjax.load(file)
  with pytest.raises(ValueError, match=match):
    weights.load(file, models.create(**MODEL))


@pytest.mark.parametrize("suffix", [".npz", ".safetensors"])
@pytest.mark.parametrize("names", ["{}/{}", "params/{}/{}", "{}.{}"])
def test_checksums_of_a_sub_tree(tmp_path, names, suffix):
  a, b = names.format("img", "a"), names.format("txt", "b")
  flat = {a: np.ones(2), b: np.ones(3)}
  known = {"checksums": description.checksums(flat)}
  file = tmp_path / f"x{suffix}"

  def verify(subtree):
    source = f"{file}:{subtree}"
    description.verify(files.read(source), known, source)

  files.write(file, flat)
  verify("img")
  files.write(file, {**flat, a: np.zeros(2)})
  verify("txt")
  with pytest.raises(ValueError, match=rf"x\{suffix}': a differ"):
    verify("img")


def test_numbers_that_no_training_ends_with(params, tmp_path, caplog):
  model = models.create(**MODEL)
  file = tmp_path / "x.npz"
  flat = trees.flatten(params)
  npz.write(file, flat)
  weights.load(file, model, image_size=16)
  assert "may be damaged" not in caplog.text
  npz.write(file, {**flat, "head/bias": np.array([0, 1e30, 0])})
  weights.load(file, model, image_size=16)
  assert "above 1e+06 in head/bias: the file may be damaged" in caplog.text
  npz.write(file, {**flat, "head/bias": np.array([0, np.nan, 0])})
  with pytest.raises(
    ValueError, match=r"'x\.npz' hold NaN or infinity in head/b"
  ):
    weights.load(file, model, image_size=16)


def save_run(folder, params, **changes):
  with checkpointer.Checkpointer(folder / "checkpoints") as saver:
    saver.save(1, {"params": jax.tree.map(jnp.asarray, params)})
  (folder / "model.json").write_text(json.dumps({**METADATA, **changes}))


def test_a_run_folder_is_read_with_the_same_care(params, tmp_path, module):
  save_run(tmp_path / "run", params, model={**MODEL, "name": module})
  with pytest.raises(ValueError, match=r"--allow_module=their\.code"):
    vitjax.load(tmp_path / "run")
  assert module not in sys.modules
  run = vitjax.load(tmp_path / "run", allow_module=module)
  assert run.metadata["step"] == 1
  (tmp_path / "run/model.json").write_text("[]")
  with pytest.raises(ValueError, match=r"model\.json' is not a JSON object"):
    vitjax.load(tmp_path / "run")


def test_a_run_that_has_diverged(params, tmp_path):
  broken = {**params, "head": {**params["head"], "bias": np.full(3, np.nan)}}
  save_run(tmp_path / "run", broken)
  with pytest.raises(
    ValueError, match=r"NaN or infinity in head/bias: .*earlier"
  ):
    vitjax.load(tmp_path / "run")
