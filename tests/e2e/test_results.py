"""What a run leaves behind can be used without the run."""

import json
import pathlib

import jax
import numpy as np
import pytest

import vitjax
from tests.e2e import launch
from vitjax import export, step
from vitjax.data import pipeline, sources
from vitjax.data.pp import builder
from vitjax.run_folder.reader import read_metrics
from vitjax.trained import Trained

FASHION_MNIST = pathlib.Path("/usr/share/datasets/fashion-mnist")


def accuracy(trained: Trained, data: str, split: str) -> float:
  """Of a loaded model, by its own preprocessing, outside of any run."""
  source = sources.open_source(data, split, class_names=trained.class_names)
  preprocess = builder.build(trained.preprocess)
  predict = jax.jit(step.make_predict_fn(trained.model, preprocess.on_device))
  right = 0
  for batch in pipeline.eval_batches(source, preprocess, batch_size=64):
    logits, _ = predict(trained.params, batch)
    right += np.sum((logits.argmax(-1) == batch["label"]) & batch["mask"])
  return right / source.num_examples


def test_export_and_load_give_the_model_of_the_run(tmp_path, straight):
  file = tmp_path / "digits.npz"
  export.export(straight, file)
  about = json.loads(file.with_suffix(".json").read_text())
  assert about["preprocess"] == "value_range(-1, 1)"
  assert about["class_names"] == [str(n) for n in range(10)]
  with np.load(file) as arrays:
    assert {arrays[name].dtype for name in arrays} == {np.dtype("float32")}
    name = "Transformer/encoderblock_0/MlpBlock_0/Dense_0/kernel"
    assert f"params/{name}" in arrays  # as big_vision writes them

  image = np.random.default_rng(0).normal(size=(3, 8, 8, 1)).astype(np.float32)
  logits = []
  for path in (straight, file, straight / "params.npz"):
    loaded = vitjax.load(path)
    assert loaded.image_size == (8, 8) and loaded.channels == 1
    assert loaded.class_names == tuple(about["class_names"])
    logits.append(loaded.predict(image))
  np.testing.assert_array_equal(logits[0], logits[1])
  np.testing.assert_array_equal(logits[0], logits[2])
  # And it is the model that the run has evaluated.
  last = read_metrics(straight)[-1]
  assert last["step"] == 300
  assert accuracy(loaded, "digits", "test") == pytest.approx(
    last["test/acc@1"], abs=1e-6
  )


def test_the_run_folder_says_what_was_run(straight):
  config = json.loads((straight / "config.json").read_text())
  assert config["optim"]["learning_rate"] == 1e-3
  assert config["schedule"]["warmup_percent"] == 10
  environment = json.loads((straight / "environment.json").read_text())
  assert environment["versions"]["jax"] == jax.__version__
  assert environment["command"][1] == "--config=tests/e2e/tiny.py"
  assert len(environment["git_revision"].rstrip("+")) == 40
  assert "encoderblock_0" in (straight / "parameters.txt").read_text()
  rows = read_metrics(straight)
  evals = [row for row in rows if "test/loss" in row]
  assert [row["step"] for row in evals] == [90, 180, 270, 300]
  assert {row["test/n_seen"] for row in evals} == {360}
  assert evals[-1]["test/acc@1"] > 0.3  # it learns; chance is 0.1


@pytest.mark.slow
def test_a_folder_of_images(on_pictures):
  workdir, text = on_pictures
  assert "120 examples, 3 classes. 20 steps of 8 examples" in text
  about = json.loads((workdir / "model.json").read_text())
  assert about["class_names"] == ["ant", "bee 9", "bee 10"]
  assert about["image_size"] == [16, 16] and about["channels"] == 3
  rows = read_metrics(workdir)
  assert [r["step"] for r in rows if "train/loss" in r] == list(range(1, 21))
  assert [r["test/n_seen"] for r in rows if "test/loss" in r] == [21, 21]
  loaded = vitjax.load(workdir)
  assert loaded.class_names == ("ant", "bee 9", "bee 10")
  data = json.loads((workdir / "config.json").read_text())["input"]["data"]
  assert accuracy(loaded, data, "val") == pytest.approx(
    rows[-1]["test/acc@1"], abs=1e-6
  )


@pytest.mark.slow
def test_a_folder_without_splits(tmp_path, cache, pictures):
  # A tenth of each of the three classes is held back.
  arguments = launch.on_folder(tmp_path, pictures / "train")
  launch.run(*arguments, cache=cache).assert_done()
  rows = read_metrics(tmp_path)
  data = f"folder:{pictures / 'train'}"
  counts = [
    sources.open_source(data, split).num_examples for split in ("train", "val")
  ]
  assert counts == [108, 12] and rows[-1]["test/n_seen"] == 12


@pytest.mark.slow
@pytest.mark.skipif(
  not FASHION_MNIST.is_dir(), reason="needs Debian's dataset-fashion-mnist"
)
def test_fashion_mnist_without_a_network(tmp_path, cache):
  workdir = tmp_path / "run"
  arguments = [
    "vitjax.main",
    "--config=configs/fashion_mnist.py",
    f"--workdir={workdir}",
    "--config.input.split=train[:512]",
    f"--config.input.data_dir={tmp_path / 'tfds'}",
    "--config.evals.test.split=test[:10%]",
    "--config.model.width=32",
    "--config.model.depth=1",
    "--config.total_epochs=2",
  ]
  end = launch.run(*arguments, cache=cache).assert_done()
  assert "512 examples, 10 classes. 8 steps of 128 examples" in end.text
  rows = read_metrics(workdir)
  assert [r["test/n_seen"] for r in rows if "test/loss" in r] == [1000] * 2
  about = json.loads((workdir / "model.json").read_text())
  assert about["class_names"][9] == "Ankle boot"
