"""A whole run with two towers: frozen, stopped, exported, loaded."""

import json

import jax
import numpy as np
import pytest

import vitjax
from tests.e2e import launch, tiny_clip
from vitjax import export, models, trees, weights
from vitjax.data import tokenizers

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def tower(tmp_path_factory):
  """Weights of the image tower of the smoke test."""
  model = models.create("vit", variant="mu/16", num_classes=5)
  image = jax.ShapeDtypeStruct((1, 32, 32, 3), np.float32)
  shapes = jax.eval_shape(model.init, jax.random.key(0), image)["params"]
  rng = np.random.default_rng(0)
  params = jax.tree.map(
    lambda x: rng.normal(size=x.shape).astype(np.float32), shapes
  )
  file = tmp_path_factory.mktemp("tower") / "tower.npz"
  weights.save(file, params, model)
  return file


def command(workdir, tower, *overrides):
  return [
    "vitjax.main",
    f"--config=configs/lit.py:smoke,weights={tower}",
    f"--workdir={workdir}",
    "--config.init.ignore=('img/head',)",
    "--config.export_npz=True",
    *(f"--config.{x}" for x in overrides),
  ]


@pytest.fixture(scope="module")
def finished(tmp_path_factory, tower, cache):
  workdir = tmp_path_factory.mktemp("lit") / "run"
  launch.run(*command(workdir, tower), cache=cache).assert_done()
  return workdir


def test_the_locked_tower_is_the_loaded_one_to_the_bit(finished, tower):
  params = trees.flatten(vitjax.load(finished).params)
  want = weights.files.read(tower)
  names = [name for name in params if name.startswith("img/")]
  assert len(names) > 10
  for name in names:
    loaded = want[f"params/{name.removeprefix('img/')}"]
    np.testing.assert_array_equal(params[name], loaded, err_msg=name)
  assert params["t"] != np.float32(np.log(10))
  assert params["b"] != np.float32(-2.71)


def test_both_evaluations_are_recorded(finished):
  lines = (finished / "metrics.jsonl").read_text().splitlines()
  last = {k: v for line in lines for k, v in json.loads(line).items()}
  assert last["zeroshot/n_seen"] == last["retrieval/n_seen"] == 4
  assert 0 <= last["zeroshot/acc@1"] <= 1
  assert last["retrieval/n_texts"] == 4


def test_a_run_that_goes_on_is_the_run(finished, tower, tmp_path, cache):
  workdir = tmp_path / "run"
  launch.assert_resumes(command(workdir, tower), workdir, finished, cache=cache)


def test_what_was_trained_reads_texts_wherever_it_goes(finished, tmp_path):
  run = vitjax.load(finished)
  export.export(finished, tmp_path / "towers.npz")
  moved = vitjax.load(tmp_path / "towers.npz")
  beside = vitjax.load(finished / "params.npz")
  assert {x.name for x in tmp_path.iterdir()} == {
    "towers.npz",
    "towers.json",
    "towers.txt",
  }
  text = run.tokenizer(["a photo of a bag"])
  image = np.random.default_rng(0).normal(size=(1, 32, 32, 3))
  image = image.astype(np.float32)
  want = run.model.apply({"params": run.params}, image, text)
  for other in (moved, beside):
    assert other.metadata["tokenizer"]["max_len"] == text.shape[1] == 8
    np.testing.assert_array_equal(other.tokenizer(["a photo of a bag"]), text)
    got = other.model.apply({"params": other.params}, image, text)
    np.testing.assert_array_equal(got[0], want[0])
    np.testing.assert_array_equal(got[1], want[1])


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
  """The file of a small CLIP in OpenCLIP's layout, and its vocabulary."""
  pytest.importorskip("ftfy")
  folder = tmp_path_factory.mktemp("clip")
  vocab = folder / "merges.txt"
  vocab.write_text("#version: 0.2\np h\no f</w>\na t</w>\n")
  size = tokenizers.clip(vocab).vocab_size
  text = {**tiny_clip.TEXT, "vocab_size": size}
  model = models.create("two_tower", image=tiny_clip.IMAGE, text=text)
  inputs = model.example_inputs(32)
  shapes = jax.eval_shape(model.init, jax.random.key(0), *inputs)["params"]
  rng = np.random.default_rng(0)
  params = jax.tree.map(
    lambda x: rng.normal(scale=0.1, size=x.shape).astype(np.float32), shapes
  )
  file = folder / "clip.safetensors"
  weights.save(file, params, model)
  return file, f"weights={file},vocab={vocab},vocab_size={size}"


@pytest.mark.parametrize("what", ["both", "image"])
def test_a_run_from_the_file_of_a_clip_goes_on_as_it_was(
  clip, what, tmp_path, cache
):
  """Both towers learn from captions, or the image tower from classes."""
  file, options = clip
  switch = "both," if what == "both" else ""

  def command(workdir, *overrides):
    return [
      "vitjax.main",
      f"--config=tests/e2e/tiny_clip.py:{switch}{options}",
      f"--workdir={workdir}",
      *overrides,
    ]

  whole, stopped = tmp_path / "whole", tmp_path / "stopped"
  launch.run(*command(whole), cache=cache).assert_done()
  launch.assert_resumes(command(stopped), stopped, whole, cache=cache)
  # It began with the file, and everything of it has moved.
  run = vitjax.load(whole)
  params = trees.flatten(run.params)
  source = file if what == "both" else f"{file}:img"
  before = trees.flatten(
    weights.load(source, run.model, image_size=32, reinit=["head"])
    if what == "image"
    else weights.load(source, run.model, image_size=32)
  )
  for name, x in params.items():
    moved = np.abs(x - before[name]).max()
    if name.endswith("key/bias") or name.startswith("head/"):
      continue  # without a gradient, and initialised anew
    assert 0 < moved < 0.1, (name, moved)
