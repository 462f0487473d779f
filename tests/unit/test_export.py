"""Exporting a file again: formats, layouts and what is written beside."""

import json
import subprocess
import sys

import jax
import numpy as np
import pytest

import vitjax
from tests import hub_models
from vitjax import export, models, trees, weights
from vitjax.weights import files, layouts

MODEL = {
  "name": "vit",
  "width": 8,
  "depth": 1,
  "num_heads": 2,
  "patch_size": 16,
  "pool_type": "tok",
  "num_classes": 3,
}
METADATA = {
  "model": MODEL,
  "image_size": [32, 48],
  "channels": 3,
  "preprocess": "value_range(-1, 1)",
  "class_names": ["a", "b", "c"],
  "loss": "softmax_xent",
}


@pytest.fixture(scope="module")
def source(tmp_path_factory):
  model = models.create(**MODEL)
  image = jax.ShapeDtypeStruct((1, 32, 48, 3), np.float32)
  shapes = jax.eval_shape(model.init, jax.random.key(0), image)["params"]
  rng = np.random.default_rng(0)
  params = jax.tree.map(
    lambda x: rng.normal(size=x.shape).astype(np.float32), shapes
  )
  file = tmp_path_factory.mktemp("source") / "x.npz"
  weights.save(file, params, model, metadata=METADATA)
  return file


@pytest.mark.parametrize(
  ("name", "layout", "recognised"),
  [
    ("y.npz", None, "big_vision"),
    ("y.safetensors", None, "timm_vit"),
    ("y.npz", "vision_transformer", "vision_transformer"),
    ("y.npz", "timm_npz", "vision_transformer"),
    ("y.safetensors", "hf_vit", "hf_vit"),
    ("y.safetensors", "big_vision", "big_vision"),
  ],
)
def test_formats_and_layouts(source, name, layout, recognised, tmp_path):
  out = tmp_path / name
  export.export(source, out, layout=layout)
  assert layouts.recognise(files.read(out)).NAME == recognised
  want, got = vitjax.load(source), vitjax.load(out)
  for key in ("image_size", "channels", "preprocess", "class_names", "model"):
    assert getattr(got, key) == getattr(want, key)
  flat = trees.flatten(got.params)
  for path, x in trees.flatten(want.params).items():
    np.testing.assert_array_equal(flat[path], x, err_msg=path)


@pytest.mark.parametrize(
  ("name", "options", "layout"),
  [
    ("vit", {}, "timm_vit"),
    ("vit", {"posemb": "rope"}, "timm_eva"),
    ("R26+ViT-S_32", {}, "timm_hybrid"),
    ("mixer", {}, "timm_mixer"),
    ("convnext", {}, "timm_convnext"),
    ("nfnet", {}, "timm_nfnet"),
    ("BiT-M-R50x1", {}, "timm_bit"),
  ],
)
def test_default_layouts(name, options, layout):
  model = models.create(name, **options)
  assert layouts.default(model, ".safetensors") == layout
  assert layouts.default(model, ".npz") == "big_vision"


def test_default_layout_of_two_towers():
  model = models.create("two_tower", variant="B/16")
  assert layouts.default(model, ".npz") == "siglip"
  assert layouts.default(model, ".safetensors") == "open_clip"
  with pytest.raises(ValueError, match="timm has no model of family 'bert'"):
    layouts.default(models.create("bert", variant="base"), ".safetensors")


def test_the_file_of_a_clip_says_its_configuration(tmp_path):
  model = hub_models.clip()
  shapes = jax.eval_shape(
    model.init, jax.random.key(0), *model.example_inputs(16)
  )
  params = jax.tree.map(lambda x: np.zeros(x.shape, x.dtype), shapes["params"])
  file = tmp_path / "clip.safetensors"
  metadata = {"model": {"name": "two_tower"}, "image_size": 16, "channels": 3}
  weights.save(file, params, model, metadata=metadata)
  found = json.loads(file.with_suffix(".json").read_text())["open_clip"]
  text, image = (found["model_cfg"][f"{x}_cfg"] for x in ("text", "vision"))
  assert (text["width"], text["layers"], text["mlp_ratio"]) == (24, 1, 4)
  assert int(image["width"] * image["mlp_ratio"]) == 86


def test_files_that_do_not_say_what_they_are(source, tmp_path):
  run = vitjax.load(source)
  weights.save(tmp_path / "y.npz", run.params, run.model)
  match = r"y\.json beside it that says model, image_size, channels, prep"
  with pytest.raises(ValueError, match=match):
    export.export(tmp_path / "y.npz", tmp_path / "z.npz")


def test_the_description_of_another_file_is_kept(source, tmp_path):
  export.export(source, tmp_path / "x.npz")
  about = (tmp_path / "x.json").read_text()
  with pytest.raises(ValueError, match=r"x\.json describes .*x_2"):
    export.export(source, tmp_path / "x.safetensors")
  assert (tmp_path / "x.json").read_text() == about
  export.export(source, tmp_path / "x.npz")  # replaces both


@pytest.mark.slow
def test_errors_are_one_line(source, tmp_path):
  def run(*flags):
    command = [sys.executable, "-m", "vitjax.export", f"--model={source}"]
    return subprocess.run(
      [*command, *flags], capture_output=True, text=True, check=False
    )

  out = f"--out={tmp_path / 'y.npz'}"
  done = run(out, "--layout=timm")
  assert done.returncode == 1
  assert "Traceback" not in done.stderr
  last = done.stderr.splitlines()[-1]
  assert last.startswith("vitjax.export: layout='timm' is not known.")
  assert run(out, "--format=safetensors").returncode == 1
  assert not list(tmp_path.iterdir())
  assert run(out, "--format=npz").returncode == 0
  assert (tmp_path / "y.json").exists()
