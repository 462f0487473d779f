"""Pushing models to the hub, and loading what was pushed."""

import json
import os
import subprocess
import sys

import jax
import numpy as np
import pytest

import vitjax
from tests import fake_hub, hub_models, run_folders
from vitjax import export, models, trees, weights
from vitjax.weights.download import DownloadError
from vitjax.weights.hub import images, timm

NAME = "hf:me/model"
# Of huggingface_hub's own use of its HTTP library.
pytestmark = pytest.mark.filterwarnings(
  "ignore:Use 'content=<...>' to upload:DeprecationWarning"
)


@pytest.fixture
def hub(monkeypatch, tmp_path):
  with fake_hub.serve() as server:
    fake_hub.connect(server, tmp_path, monkeypatch)
    monkeypatch.setenv("HF_TOKEN", fake_hub.TOKEN)
    yield server


@pytest.fixture
def save(tmp_path):
  """Writes a model with random weights; returns the file."""

  def save(model, name="x.npz", **changes):
    module = models.create(**model)
    size = changes.get("image_size", [32, 32])
    shapes = weights.fitting.shapes(
      module, weights.fitting.example_inputs(module, size)
    )
    rng = np.random.default_rng(0)
    params = trees.unflatten(
      {
        n: rng.uniform(0.1, 0.5, x.shape).astype(np.float32)
        for n, x in shapes.items()
      }
    )
    metadata = {
      "model": model,
      "image_size": size,
      "channels": 3,
      "preprocess": (
        'decode|resize_small(36, "bicubic", antialias=True)'
        "|central_crop(32)|normalize"
      ),
      "class_names": ["ant", "bee", "cat"],
      "loss": "softmax_xent",
      **changes,
    }
    weights.save(tmp_path / name, params, module, metadata=metadata)
    return tmp_path / name

  return save


VIT = {
  "name": "vit",
  "width": 16,
  "depth": 1,
  "num_heads": 2,
  "mlp_dim": 48,
  "patch_size": 16,
  "pool_type": "tok",
  "num_registers": 2,
  "layer_scale_init": 0.1,
  "num_classes": 3,
}


def logits(run):
  rng = np.random.default_rng(1)
  return run.predict(
    rng.normal(size=(2, *run.image_size, 3)).astype(np.float32)
  )


def check_equal(got, want):
  assert jax.tree.structure(got.params) == jax.tree.structure(want.params)
  np.testing.assert_array_equal(logits(got), logits(want))
  for name in ("preprocess", "class_names", "image_size", "channels"):
    assert getattr(got, name) == getattr(want, name)


def test_what_was_pushed_is_loaded(hub, save):
  file = save(VIT)
  name = export.push(file, NAME, license="mit", message="first")
  assert name == f"{NAME}@{hub.repositories['me/model'].refs['main']}"
  got = vitjax.load(NAME)
  check_equal(got, vitjax.load(file))
  assert got.model == vitjax.load(file).model
  repo = hub.repositories["me/model"]
  assert repo.private
  assert repo.messages == ["first"]
  config = json.loads(repo.files()["config.json"])
  assert config["architecture"] == "vit_base_patch16_224"
  assert config["label_names"] == ["ant", "bee", "cat"]
  assert config["num_classes"] == 3
  assert config["model_args"]["reg_tokens"] == 2
  assert config["pretrained_cfg"]["crop_pct"] == 32 / 36
  assert config["pretrained_cfg"]["mean"] == [0.485, 0.456, 0.406]


@pytest.mark.slow
def test_the_command_line_pushes(hub, save, tmp_path):
  file = save(VIT)
  flags = [f"--model={file}", f"--push={NAME}", "--license=mit"]
  settings = {
    "HF_ENDPOINT": hub.address,
    "HF_HUB_CACHE": os.fspath(tmp_path / "hub"),
    "HF_HUB_DISABLE_XET": "1",
  }
  done = subprocess.run(
    [sys.executable, "-m", "vitjax.export", *flags],
    env=os.environ | settings,
    capture_output=True,
    text=True,
  )
  assert done.returncode == 0, done.stderr
  commit = hub.repositories["me/model"].refs["main"]
  assert f"Pushed {NAME}@{commit}." in done.stderr
  check_equal(vitjax.load(NAME), vitjax.load(file))


def test_its_config_alone_describes_the_model(hub, save):
  """As another program would have written it, without our own description."""
  file = save(VIT)
  export.push(file, NAME, license="mit")
  files = dict(hub.repositories["me/model"].files())
  config = json.loads(files["config.json"])
  del config["vitjax"], files["model.json"]
  files["config.json"] = hub_models.encode(config)
  hub.add("me/other", files)
  want = vitjax.load(file)
  check_equal(vitjax.load("hf:me/other"), want)


@pytest.mark.parametrize(
  ("model", "architecture"),
  [
    ({"name": "convnext_atto", "num_classes": 3}, "convnext_atto"),
    ({"name": "convnext", "variant": "atto"}, "convnext_atto"),
    ({"name": "convnext", "variant": "iso-S"}, None),
    ({"name": "resnet_bn", "variant": "resnet50"}, "resnet50"),
    ({"name": "swin", "variant": "v2-T"}, "swinv2_tiny_window8_256"),
    ({"name": "ViT-B_16"}, "vit_base_patch16_224"),
    ({"name": "R26+ViT-S_32"}, None),  # with the GELU of vision_transformer
    ({"name": "vit_small_r26_s32_224"}, "vit_small_r26_s32_224"),
    ({"name": "ViT-B_16", "rep_size": True}, None),
  ],
)
def test_the_architectures_of_timm(model, architecture):
  metadata = {
    "model": model,
    "image_size": [224, 224],
    "channels": 3,
    "preprocess": "decode|resize(224, antialias=True)|value_range(-1, 1)",
  }
  config, remark = timm.config_of(models.create(**model), metadata)
  assert (config and config["architecture"]) == architecture
  assert bool(remark) == (architecture is None)


def test_a_model_that_timm_does_not_have(hub, save):
  file = save({**VIT, "rep_size": 8})
  export.push(file, NAME, license="mit")
  check_equal(vitjax.load(NAME), vitjax.load(file))
  card = hub.repositories["me/model"].files()["README.md"].decode()
  assert "timm has no architecture for this model" in card
  assert "create_model" not in card
  assert "library_name: vitjax" in card


def test_the_card_of_a_run(hub, tmp_path):
  data = run_folders.make_images(tmp_path / "data")
  run = run_folders.make(tmp_path / "run", data)
  export.push(run, NAME, license="cc-by-4.0", private=False)
  repo = hub.repositories["me/model"]
  card = repo.files()["README.md"].decode()
  assert not repo.private
  assert card.startswith("---\nlicense: cc-by-4.0\nlibrary_name: timm\n")
  assert f"| val/acc@1 | 0.25 | 21 | folder:{data} val |" in card
  assert "train/loss" not in card
  assert 'vitjax.load("hf:me/model")' in card
  assert 'timm.create_model("hf-hub:me/model", pretrained=True)' in card
  assert "decode|resize(8)|value_range(-1, 1)" in card
  assert "timm averages over pixels" in card
  assert "Step of training: 30" in card


@pytest.mark.parametrize(
  ("licence", "message"),
  [
    (None, "no licence is given: say under which one"),
    ("apache2", "'apache2' is none: .* Did you mean 'apache-2.0'?"),
  ],
)
def test_a_licence_is_asked_for(hub, save, licence, message):
  with pytest.raises(ValueError, match=message):
    export.push(save(VIT), NAME, license=licence)
  assert not hub.requests


def test_another_architecture_is_not_overwritten(hub, save):
  file = save(VIT)
  export.push(file, NAME, license="mit")
  first = hub.repositories["me/model"].refs["main"]
  export.push(file, NAME, license="apache-2.0")  # the same: a new commit
  second = hub.repositories["me/model"].refs["main"]
  assert first != second
  wider = save({**VIT, "width": 32}, "wide.npz")
  with pytest.raises(ValueError, match="is not overwritten: push to another"):
    export.push(wider, NAME, license="mit")
  for kept, other in (
    ({"config.json": b'{"model_type": "bert"}'}, "a model of type 'bert'"),
    ({"model.safetensors": b"x"}, "weights of an unknown model"),
    ({"open_clip_config.json": b"{}"}, "two towers of OpenCLIP"),
  ):
    hub.add("me/model", kept)
    with pytest.raises(ValueError, match=other):
      export.push(file, NAME, license="mit")
  hub.add("me/model", {"README.md": b"soon"})
  export.push(file, NAME, license="mit")


def test_a_push_without_the_right(hub, save, monkeypatch):
  monkeypatch.delenv("HF_TOKEN")
  with pytest.raises(DownloadError, match="run `hf auth login`, or set HF_TO"):
    export.push(save(VIT), NAME, license="mit")
  assert not hub.repositories


@pytest.mark.parametrize("name", ["me/model", "hf:me/model@v1", "runs/x"])
def test_names_that_cannot_be_pushed_to(hub, save, name):
  with pytest.raises(ValueError, match="hf:OWNER/REPO"):
    export.push(save(VIT), name, license="mit")


@pytest.mark.parametrize(
  ("preprocess", "fields", "remark"),
  [
    (
      "decode|resize(224, antialias=True)|value_range(-1, 1)",
      {"crop_pct": 1.0, "crop_mode": "squash", "mean": [0.5] * 3},
      "",
    ),
    (
      'decode|resize_small(256, method="bicubic")|central_crop(224)|normalize',
      {"crop_pct": 0.875, "crop_mode": "center", "interpolation": "bicubic"},
      "averages over pixels",
    ),
    ("value_range(0, 1)", {"mean": [0.0] * 3, "std": [1.0] * 3}, "without"),
    (
      "decode|resize((224, 224), antialias=True)|vgg_value_range",
      {"crop_pct": 1.0},
      "without the op 'vgg_value_range'",
    ),
  ],
)
def test_preprocessing_as_timm_has_it(preprocess, fields, remark):
  found, said = images.to_timm(preprocess, 224)
  assert {name: found[name] for name in fields} == fields
  assert remark in said and bool(remark) == bool(said)
