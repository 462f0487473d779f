"""A run on images of mixed shapes: trained, evaluated, and used on files."""

import numpy as np
import pytest
from PIL import Image

import vitjax
from vitjax import checks, train
from vitjax.config import resolving
from vitjax.evaluate import evaluation
from vitjax.predict import prediction
from vitjax.run_folder.reader import read_metrics

PP = "decode|naflex(12, 4)|value_range(-1, 1)"
CLASSES = ("tall", "wide")


def config(data: str, **changes) -> dict:
  return {
    "total_steps": 150,
    "input": {"data": data, "batch_size": 16, "pp": PP},
    "model": {"name": "vit", "width": 16, "depth": 1, "num_heads": 2}
    | {"patch_size": 4, "pool_type": "map", "naflex": True}
    | {"posemb_grid": 4, "posemb_resize": "linear"},
    "optim": {"name": "adam", "learning_rate": 1e-2},
    "evals": {"test": {"split": "test", "pp": PP, "batch_size": 12}},
    "checkpoint": {"every_steps": 150},
    **changes,
  }


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
  """Grey images, tall or wide, of many shapes; only the shape is the class."""
  root, rng = tmp_path_factory.mktemp("data"), np.random.default_rng(0)
  for split, count in (("train", 24), ("test", 9)):
    for name in CLASSES:
      place = root / split / name
      place.mkdir(parents=True)
      for i in range(count):
        short, long = rng.integers(8, 20), rng.integers(30, 60)
        sides = (long, short) if name == "tall" else (short, long)
        pixels = np.full((*sides, 3), rng.integers(100, 150), np.uint8)
        Image.fromarray(pixels).save(place / f"{i}.png")
  return root


@pytest.mark.slow
def test_a_run_learns_the_shape_of_images(folder, tmp_path):
  """Resized to squares, all would look alike."""
  run = resolving.resolve(config(f"folder:{folder}"), checks.problems)
  train.train_and_evaluate(run, tmp_path)
  last = read_metrics(tmp_path)[-1]
  assert last["test/n_seen"] == 18 and last["test/acc@1"] == 1
  (result,) = evaluation.evaluate(tmp_path)
  assert result.metrics["acc@1"] == 1
  assert result.metrics["loss"] == pytest.approx(last["test/loss"], 1e-5)
  trained = vitjax.load(tmp_path)
  assert trained.image_size == (13 * 4, 4)
  files = [f"{folder}/test/{n}/{i}.png" for n in CLASSES for i in range(3)]
  names = [
    trained.labels[found.probabilities.argmax()]
    for _, found in prediction.predict(trained, files, batch_size=4)
  ]
  assert names == ["tall"] * 3 + ["wide"] * 3


@pytest.mark.parametrize(
  ("changes", "message"),
  [
    ({"mixing": {"mixup_alpha": 0.2}}, "config.mixing.mixup_alpha=0.2 takes"),
    ({"distill": {"teacher": "runs/a"}}, "config.distill.teacher='runs/a' ta"),
    ({"flexible": {"patch_sizes": (4, 8)}}, "config.flexible.patch_sizes="),
    (
      {"input": {"data": "digits", "batch_size": 8, "pp": "value_range(-1,1)"}},
      r"reads strips of patches, which config.input.pp='value_range\(-1,1\)'",
    ),
    (
      {"model": {"name": "vit", "variant": "mu/4"}},
      r"config.evals.test.pp='decode\|naflex.* which the model does not read",
    ),
    (
      {"input": {"data": "digits", "batch_size": 8, "pp": "naflex(9, 8)"}},
      r"input.pp='naflex\(9, 8\)' makes patches of 8 pixels, and .* is 4",
    ),
  ],
)
def test_what_strips_do_not_have_is_refused(changes, message):
  with pytest.raises(ValueError, match=message):
    resolving.resolve(config("digits", **changes), checks.problems)
