"""Initialising runs from weights, by all of their names."""

import json

import jax
import numpy as np
import pytest

from vitjax import models, pretrained, trees, weights
from vitjax.checkpoint import checkpointer
from vitjax.config import resolving, schema
from vitjax.weights import published

MODEL = {
  "name": "vit",
  "width": 8,
  "depth": 1,
  "num_heads": 2,
  "patch_size": 4,
  "pool_type": "tok",
}


def make_run(**changes):
  return resolving.resolve(
    {
      "total_steps": 1,
      "input": {"data": "digits", "batch_size": 8, "pp": ""},
      "model": MODEL,
      "optim": {"name": "sgd", "learning_rate": 1.0},
      **changes,
    }
  )


def create(num_classes):
  return models.create(**MODEL, num_classes=num_classes)


@pytest.fixture(scope="module")
def file(tmp_path_factory):
  """Weights for 8x8 images of 3 classes, called as AugReg's are."""
  model = create(3)
  image = jax.ShapeDtypeStruct((1, 8, 8, 3), np.float32)
  shapes = jax.eval_shape(model.init, jax.random.key(0), image)["params"]
  rng = np.random.default_rng(0)
  params = jax.tree.map(
    lambda x: rng.normal(size=x.shape).astype(np.float32), shapes
  )
  name = "R_Ti_16-i21k-300ep-lr_0.001-aug_none-wd_0.03-do_0.0-sd_0.0.npz"
  path = tmp_path_factory.mktemp("weights") / name
  weights.save(path, params, model)
  path.with_suffix(".json").unlink()  # published files have none
  (path.parent / "index.csv").write_text(
    "name,ds,final_val,filename\n"
    "R_Ti_16,i21k,0.4,worse\n"
    f"R_Ti_16,i21k,0.5,{name}\n"
    "R_Ti_16,i1k,0.9,other_data\n"
  )
  return path


def test_new_head_and_larger_images(file):
  run = make_run(init={"weights": str(file), "reinit": ("head",)})
  got = trees.flatten(pretrained.load(run, create(5), (2, 12, 12, 3)))
  want = weights.files.read(file)
  assert got["head/kernel"].shape == (8, 5)
  assert not got["head/kernel"].any()  # as a run from scratch starts
  assert got["pos_embedding"].shape == (1, 9, 8)
  corners = got["pos_embedding"].reshape(3, 3, 8)[::2, ::2]
  np.testing.assert_array_equal(
    corners, want["params/pos_embedding"].reshape(2, 2, 8)
  )
  for name, x in got.items():
    if not name.startswith(("head/", "pos_embedding")):
      np.testing.assert_array_equal(x, want[f"params/{name}"], err_msg=name)


@pytest.mark.parametrize("name", ["augreg:R_Ti_16", "augreg:R+ViT-Ti_16"])
def test_recommended_checkpoint_of_a_folder(file, name):
  assert published.find(name, str(file.parent)) == str(file)


@pytest.mark.parametrize("name", ["augreg:B_16", "augreg:ViT-B_16"])
def test_recommended_checkpoint_without_its_index(name):
  # Which lies in a bucket that is closed.
  assert published.resolve(name) == (
    "B_16-i21k-300ep-lr_0.001-aug_medium1-wd_0.1-do_0.0-sd_0.0"
  )


def test_published_name_in_a_folder(file):
  assert published.find(file.stem, str(file.parent)) == str(file)


def test_sub_tree(file):
  assert published.find(f"{file}:img") == f"{file}:img"


TOWERS = {
  "name": "two_tower",
  "image": {k: v for k, v in MODEL.items() if k != "name"},
  "text": {"variant": "mu", "vocab_size": 9, "max_len": 4, "num_classes": 8},
}


def test_the_weights_of_a_tower_leave_the_rest_as_it_starts(file):
  """Patterns are whole names: "img/head", not "head"."""
  model = models.create(**TOWERS)
  start = weights.initial(model, image_size=(12, 12), key=jax.random.key(0))
  run = make_run(
    model=TOWERS,
    init={"weights": {"img": str(file)}, "ignore": ("head", "img/head")},
  )
  got = trees.flatten(pretrained.load(run, model, (2, 12, 12, 3)))
  assert got.keys() == trees.flatten(start).keys()
  want = weights.files.read(file)
  for name, x in trees.flatten(start).items():
    if name == "img/pos_embedding":
      assert got[name].shape == (1, 9, 8)
      continue
    if name.startswith("img/"):
      x = want[f"params/{name.removeprefix('img/')}"]
    np.testing.assert_array_equal(got[name], x, err_msg=name)


@pytest.mark.parametrize(
  ("model", "init", "message"),
  [
    (TOWERS, {}, r"Extra: head/bias, head/kernel"),
    (
      TOWERS,
      {"weights": {"img": "runs/none"}},
      r"init\.weights\.img='runs/none'.*with --config\.init\.weights\.img=",
    ),
    (TOWERS, {"weights": {"image": "x"}}, r"\['image'\]; .*\['img', 'txt'\]"),
    (MODEL, {"weights": {"img": "x"}}, "for models with two towers"),
  ],
)
def test_towers_that_do_not_fit_are_refused(file, model, init, message):
  run = make_run(model=model, init={"weights": {"img": str(file)}, **init})
  with pytest.raises(schema.ConfigError, match=message):
    pretrained.load(run, models.create(**model), (2, 8, 8, 3))


@pytest.mark.parametrize(
  ("init", "message"),
  [
    ({}, r"Shape: head/bias \(3,\) vs \(5,\).*reinit=\['head'\]"),
    ({"reinit": ("haed",)}, "reinit='haed' matches no parameter"),
    ({"weights": "ViT-B_61"}, "not a file here, and not a published name"),
  ],
)
def test_what_does_not_fit_is_refused(file, init, message):
  run = make_run(init={"weights": str(file), **init})
  with pytest.raises(schema.ConfigError, match=message) as e:
    pretrained.load(run, create(5), (2, 8, 8, 3))
  assert str(e.value).startswith("config.init.weights=")


def test_a_run_folder_is_read_without_importing_its_model(tmp_path, file):
  """Its config is the user's own; the module that it names need not be."""
  model = create(3)
  flat = weights.files.read(file)
  params = trees.unflatten(
    {n.removeprefix("params/"): x for n, x in flat.items()}
  )
  with checkpointer.Checkpointer(tmp_path / "checkpoints") as saver:
    saver.save(1, {"params": jax.tree.map(jax.numpy.asarray, params)})
  about = {
    "model": {"name": "no.such.module"},
    "image_size": [8, 8],
    "channels": 3,
    "preprocess": "",
    "loss": "softmax_xent",
  }
  (tmp_path / "model.json").write_text(json.dumps(about))
  run = make_run(init={"weights": str(tmp_path)})
  got = trees.flatten(pretrained.load(run, model, (2, 8, 8, 3)))
  for name, x in trees.flatten(params).items():
    np.testing.assert_array_equal(got[name], x, err_msg=name)
