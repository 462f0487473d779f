"""Replaces the downloads of the notebooks by random weights, to test them.

With VITJAX_SMOKE=1 a notebook runs without a network, in a minute on a CPU. The
random weights have the names and layouts of the published ones, so everything
else is as a user has it. Results mean nothing, and the notebooks say so.
"""

import csv
import os
import pathlib

import cv2
import jax
import numpy as np
from sklearn import datasets

from vitjax import models, weights
from vitjax.weights import zoo

# Shown beside every result.
NOTE = "(smoke mode: random weights, the result means nothing)"

# A vocabulary of words that have letters only, for any text.
_VOCAB = pathlib.Path(__file__).parents[1] / "configs" / "lit_vocab.txt"


def write_weights(folder: str | os.PathLike, *names: str) -> str:
  """Writes random weights under published names, for `pretrained_dir`.

  Args:
    folder: is created.
    *names: names in `vitjax.weights.zoo`.

  Returns:
    `folder`.
  """
  folder = pathlib.Path(folder)
  folder.mkdir(parents=True, exist_ok=True)
  for name in names:
    entry = zoo.find(name)
    model = models.create(entry.model, **entry.options)
    file = folder / entry.files[0].name
    params = _random(model, entry.image_size)
    is_npz = file.suffix == ".npz"
    layout = "vision_transformer" if is_npz else None
    weights.save(file, params, model, layout=layout)
    file.with_suffix(".json").unlink()  # published files have none
  return os.fspath(folder)


def write_augreg(
  folder: str | os.PathLike, finetuned: str, recommended: str
) -> str:
  """Writes a small `index.csv` like AugReg's, and two of its files.

  The table has the columns that are read, with made-up accuracies. Models are
  given by their names in file names, such as "R_Ti_16".

  Args:
    folder: is created.
    finetuned: model of a file fine-tuned on ImageNet-1k at 224 pixels.
    recommended: model of the file that `augreg.recommended` chooses.

  Returns:
    `folder`.
  """
  rows = []
  for key in (finetuned, recommended):
    for i, aug in enumerate(("none", "light1", "medium1", "strong1")):
      for decay in (0.03, 0.1):
        name = f"{key}-i21k-300ep-lr_0.001-aug_{aug}-wd_{decay}-do_0.0-sd_0.0"
        for size in (224, 384):
          adapted = f"{name}--imagenet2012-steps_20k-lr_0.03-res_{size}"
          accuracy = round(0.4 - 0.01 * i - 0.1 * decay, 4)
          rows.append((key, "i21k", accuracy, name, adapted))
  best = {row[0]: row for row in reversed(rows) if "none-wd_0.03" in row[3]}
  write_weights(folder, best[finetuned][4], best[recommended][3])
  index = pathlib.Path(folder) / "index.csv"
  with open(index, "w", newline="", encoding="utf-8") as f:
    writer = csv.writer(f)
    writer.writerow(["name", "ds", "final_val", "filename", "adapt_filename"])
    writer.writerows(rows)
  return os.fspath(folder)


def write_two_towers(folder: str | os.PathLike) -> pathlib.Path:
  """Writes a tiny model with two towers in LiT's layout, and its vocabulary."""
  folder = pathlib.Path(folder)
  folder.mkdir(parents=True, exist_ok=True)
  options = {
    "image": {"variant": "mu/16", "pool_type": "tok", "num_classes": None},
    "text": {
      "width": 32,
      "depth": 2,
      "num_heads": 4,
      "vocab_size": 256,
      "max_len": 16,
      "num_classes": 32,
    },
  }
  model = models.create("two_tower", **options)
  file = folder / "two_towers.npz"
  metadata = {
    "model": {"name": "two_tower", **options},
    "image_size": [64, 64],
    "channels": 3,
    "preprocess": "decode|resize(64)|value_range(-1, 1)",
    "class_names": None,
    "loss": "contrastive",
    "tokenizer": {"name": "bert", "vocab": os.fspath(_VOCAB), "max_len": 16},
  }
  weights.save(file, _random(model, 64), model, layout="lit", metadata=metadata)
  return file


def write_photographs(folder: str | os.PathLike, count: int = 6) -> str:
  """Writes JPEG files of two classes, in the form of `folder:`.

  They are crops of scikit-learn's two photographs, a temple and a flower.
  """
  rng = np.random.default_rng(0)
  photographs = datasets.load_sample_images().images
  for split in ("train", "val"):
    for name, image in zip(("temple", "flower"), photographs):
      class_folder = pathlib.Path(folder, split, name)
      class_folder.mkdir(parents=True, exist_ok=True)
      for i in range(count):
        y, x = rng.integers(0, (127, 340))
        part = image[y : y + 300, x : x + 300, ::-1]  # OpenCV has BGR
        cv2.imwrite(os.fspath(class_folder / f"{i}.jpg"), part)
  return f"folder:{os.fspath(folder)}"


def _random(model, image_size: int):
  """Initial parameters; arrays of zeros, such as heads, become random."""
  params = weights.initial(model, image_size=image_size)
  rng = np.random.default_rng(0)
  return jax.tree.map(
    lambda x: x if x.any() else rng.normal(0, 0.05, x.shape).astype(x.dtype),
    params,
  )
