"""Predictions for files: batches, what cannot be read, the command."""

import dataclasses
import json
import subprocess
import sys

import cv2
import jax
import numpy as np
import pytest

import vitjax
from vitjax import models, weights
from vitjax.predict import prediction

MODEL = {
  "name": "vit",
  "width": 16,
  "depth": 1,
  "num_heads": 2,
  "patch_size": 8,
  "pool_type": "gap",
  "num_classes": 3,
}


@pytest.fixture(scope="module")
def file(tmp_path_factory):
  model = models.create(**MODEL)
  image = jax.ShapeDtypeStruct((1, 16, 16, 3), np.float32)
  shapes = jax.eval_shape(model.init, jax.random.key(0), image)["params"]
  rng = np.random.default_rng(0)
  params = jax.tree.map(
    lambda x: rng.normal(size=x.shape).astype(np.float32), shapes
  )
  metadata = {
    "model": MODEL,
    "image_size": [16, 16],
    "channels": 3,
    "preprocess": "decode|resize(16)|value_range(-1, 1)",
    "class_names": ["ant", "bee", "n02099601"],
    "loss": "softmax_xent",
  }
  path = tmp_path_factory.mktemp("model") / "x.npz"
  weights.save(path, params, model, metadata=metadata)
  return path


@pytest.fixture(scope="module")
def trained(file):
  return vitjax.load(file)


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
  """Seven images of many sizes and kinds, two that are none, and a text."""
  folder = tmp_path_factory.mktemp("photos")
  rng = np.random.default_rng(1)
  (folder / "deep" / "er").mkdir(parents=True)
  for i, name in enumerate(
    ("b.png", "a.JPG", "deep/c.webp", "deep/er/d.bmp", "e.tiff", "f.jpeg")
  ):
    pixels = rng.integers(0, 256, (*rng.integers(5, 40, 2), 3), np.uint8)
    assert cv2.imwrite(str(folder / name), pixels), i
  deep = rng.integers(0, 2**16, (20, 9, 4), np.uint16)
  assert cv2.imwrite(str(folder / "g 16 bit with alpha.png"), deep)
  (folder / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n and no more")
  (folder / "empty.jpg").touch()
  (folder / "notes.txt").write_text("no image")
  return folder


@pytest.fixture(scope="module")
def reference(trained):
  """(trained, one image) -> logits (n,), features (d,)."""
  apply = jax.jit(trained.model.apply)

  def run(trained, image):
    logits, out = apply({"params": trained.params}, image)
    return np.asarray(logits[0]), np.asarray(out["pre_logits"][0])

  return run


def names(folder):
  found, _ = prediction.find_images([str(folder)])
  return [x.removeprefix(f"{folder}/") for x in found]


def test_folders_are_walked_in_order(photos):
  assert names(photos) == [
    "a.JPG",
    "b.png",
    "broken.png",
    "deep/c.webp",
    "deep/er/d.bmp",
    "e.tiff",
    "empty.jpg",
    "f.jpeg",
    "g 16 bit with alpha.png",
  ]
  # What is named is taken as it is.
  text = str(photos / "notes.txt")
  files, unknown = prediction.find_images([text, str(photos / "deep")])
  assert files[0] == text and not unknown
  assert prediction.find_images([str(photos)])[1] == [text]
  with pytest.raises(ValueError, match="no images given"):
    prediction.find_images([])


@pytest.mark.parametrize("batch_size", [1, 3, 7, 32])
def test_equals_one_image_at_a_time(trained, photos, reference, batch_size):
  trained = dataclasses.replace(trained)  # that has compiled nothing
  files, _ = prediction.find_images([str(photos)])
  failures = []
  found = list(
    prediction.predict(
      trained, files, batch_size=batch_size, on_failure=failures.append
    )
  )
  assert len(failures) == 2
  assert failures[0].startswith(f"{photos}/broken.png: ")
  assert failures[1].startswith(f"{photos}/empty.jpg: ")
  bad = {line.split(": ")[0] for line in failures}
  assert [file for file, _ in found] == [x for x in files if x not in bad]
  for file, x in found:
    image = trained.prepare(file)[None]
    logits, features = reference(trained, image)
    want = np.exp(logits) / np.exp(logits).sum()
    np.testing.assert_allclose(x.probabilities, want, rtol=1e-3, atol=1e-6)
    np.testing.assert_allclose(x.features, features, rtol=1e-4, atol=1e-4)
  assert trained._apply._cache_size() == 1  # one program, also for the last


def test_failures_without_a_callback_and_texts_for_classes(trained, photos):
  files, _ = prediction.find_images([str(photos)])
  with pytest.raises(ValueError, match=r"broken\.png: "):
    list(prediction.predict(trained, files))
  with pytest.raises(ValueError, match="texts are for models that read texts"):
    list(prediction.predict(trained, files, texts=["a cat"]))


def test_numbers_that_are_not_finite(trained, photos):
  params = jax.tree.map(lambda x: np.full_like(x, np.nan), trained.params)
  broken = dataclasses.replace(trained, params=params)
  with pytest.raises(
    ValueError, match=r"b\.png: the output of the model is not"
  ):
    list(prediction.predict(broken, [str(photos / "b.png")]))


def test_output():
  p = prediction.Prediction(np.array([0.25, 0.5, 0.25]), np.zeros(2))
  assert prediction.to_json(p, ["ant", "bee", "cat"], 2) == {
    "top": [
      {"label": 1, "name": "bee", "probability": 0.5},
      {"label": 0, "name": "ant", "probability": 0.25},
    ],
  }
  assert prediction.to_table(p, None, 9) == [
    "   50.00 %  class 1",
    "   25.00 %  class 0",
    "   25.00 %  class 2",
  ]


def test_files_of_unknown_kinds_are_counted():
  files = ["a.xyz", "b/c.xyz", "README", "notes.txt"]
  line = prediction.describe_unknown(files)
  assert line.startswith("skipped 4 files") and "\n" not in line
  assert "2 x .xyz, 1 x no suffix, 1 x .txt" in line


def run(*arguments):
  return subprocess.run(
    [sys.executable, "-m", "vitjax.predict", *map(str, arguments)],
    capture_output=True,
    text=True,
  )


@pytest.mark.slow
def test_command(file, trained, photos, tmp_path):
  out = tmp_path / "out.npz"
  done = run(f"--model={file}", photos, "--json", f"--features={out}")
  assert done.returncode == 0, done.stderr
  rows = [json.loads(line) for line in done.stdout.splitlines()]
  assert len(rows) == 7
  assert {x["name"] for x in rows[0]["top"]} == {
    "ant",
    "bee",
    "golden retriever",
  }
  assert "2 of 9 images could not be read" in done.stderr
  with np.load(out) as saved:
    assert saved["files"].tolist() == [row["file"] for row in rows]
    for name, features, row in zip(saved["files"], saved["features"], rows):
      image = trained.prepare(str(name))[None]
      np.testing.assert_allclose(
        features, trained.features(image)[0], rtol=1e-4, atol=1e-4
      )
      best = row["top"][0]
      logits = trained.predict(image)[0]
      assert best["label"] == logits.argmax()


@pytest.mark.slow
def test_a_table_is_for_the_screen(file, photos, tmp_path):
  out = tmp_path / "out.npz"
  image = photos / "a.JPG"
  assert "%" in run(f"--model={file}", image).stdout
  written = run(f"--model={file}", image, f"--features={out}")
  assert written.stdout == "" and written.returncode == 0
  assert "wrote the features of 1 images" in written.stderr


@pytest.mark.slow
def test_unknown_files_are_named_and_strict(file, photos, tmp_path):
  (tmp_path / "a.JPG").write_bytes((photos / "a.JPG").read_bytes())
  assert run(f"--model={file}", tmp_path, "--strict").returncode == 0
  (tmp_path / "b.xyz").touch()
  for flags, code in (([], 0), (["--strict"], 1)):
    done = run(f"--model={file}", tmp_path, *flags)
    assert done.returncode == code
    assert "1 x .xyz" in done.stderr


@pytest.mark.slow
def test_exit_codes(file, photos, tmp_path):
  out = tmp_path / "out.npz"
  model = f"--model={file}"
  strict = run(model, photos, "--strict", f"--features={out}")
  assert strict.returncode == 1 and not list(tmp_path.iterdir())
  assert run(model, photos / "a.JPG", "--strict").returncode == 0
  for arguments, message in (
    ([model, photos / "empty.jpg"], "1 of 1 images could not be read"),
    ([model, tmp_path], "found no images in"),
    ([model, photos, "--features=x.txt"], "must end in .npz"),
    (["--model=gone", photos], "'gone' is not a run folder, a file or the"),
    ([photos], "flag --model=None"),
    ([model, photos, "--texts=a,b"], "texts are for models that read texts"),
  ):
    done = run(*arguments)
    assert done.returncode == 1, message
    assert message in done.stderr and "Traceback" not in done.stderr


def test_help_is_quick_and_useful():
  done = subprocess.run(
    [sys.executable, "-X", "importtime", "-m", "vitjax.predict", "--help"],
    capture_output=True,
    text=True,
  )
  assert done.returncode == 0
  for part in ("--features", "--texts", "--strict", "Exit codes"):
    assert part in done.stdout
  loaded = {line.split("|")[-1].strip() for line in done.stderr.splitlines()}
  assert "absl.flags" in loaded
  assert not loaded & {"jax", "tensorflow", "flax"}
