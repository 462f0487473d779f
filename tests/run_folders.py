"""Runs and models that no training made, to look at."""

import json
import pathlib

import cv2
import jax
import numpy as np

from vitjax import models, program, weights
from vitjax.checkpoint.checkpointer import Checkpointer
from vitjax.config import resolving
from vitjax.data import sources, tokenizers
from vitjax.parallel import sharding
from vitjax.run_folder import files

# Names that a page must not take for markup, nor matplotlib for formulas.
CLASSES = ("$x_1$ & 'y'", "<img src=x onerror=alert(1)>", "plain")
VIT = {
  "name": "vit",
  "width": 16,
  "depth": 2,
  "num_heads": 2,
  "patch_size": 4,
  "pool_type": "tok",
}
STEP = 30


def make_images(folder: pathlib.Path, per_class: int = 7) -> pathlib.Path:
  """Class folders of coloured noise, 8x8 pixels."""
  rng = np.random.default_rng(0)
  for split, number in (("train", 2), ("val", per_class)):
    for name in CLASSES:
      (folder / split / name).mkdir(parents=True)
      for i in range(number):
        pixels = rng.integers(0, 256, (8, 8, 3), np.uint8)
        cv2.imwrite(str(folder / split / name / f"{i}.png"), pixels)
  return folder


def make(
  folder: pathlib.Path,
  images: pathlib.Path,
  *,
  model=VIT,
  batch_size: int = 8,
  losses=(2.0, 1.5, 1.0),
) -> pathlib.Path:
  """A finished run on `images` whose parameters are random."""
  run = resolving.resolve(
    {
      "total_steps": STEP,
      "input": {
        "data": f"folder:{images}",
        "split": "train",
        "batch_size": batch_size,
        "pp": "decode|resize(8)|value_range(-1, 1)",
      },
      "model": model,
      "optim": {"name": "adam", "learning_rate": 1e-3},
      "evals": {
        "val": {"split": "val", "pp": "decode|resize(8)|value_range(-1, 1)"}
      },
    }
  )
  source = sources.open_source(run.input.data, "train")
  parts = program.assemble(run, source, sharding.make_mesh())
  metadata = program.describe_model(parts)
  params = random_params(models.create(**metadata["model"]))
  files.write(folder, run, metadata, "")
  with Checkpointer(folder / "checkpoints") as checkpointer:
    info = {"fingerprint": source.fingerprint}
    checkpointer.save(STEP, {"params": params}, info=info, is_last=True)
  rows = [
    {"step": 10 * (i + 1), "train/loss": loss, "train/learning_rate": 1e-3}
    for i, loss in enumerate(losses)
  ]
  rows.append({"step": STEP, "val/acc@1": 0.25, "val/n_seen": 21})
  timing = [
    {"step": step, "examples_per_second": 100.0 + step, "goodput": 0.5}
    | {"seconds/compile": 1.0, "seconds/step": float(step)}
    for step in (10, 20, 30)
  ]
  for name, lines in (("metrics", rows), ("timing", timing)):
    text = "".join(json.dumps(line) + "\n" for line in lines)
    (folder / f"{name}.jsonl").write_text(text)
  return folder


def random_params(model):
  """Parameters for images of 8x8 pixels; made without compiling anything."""
  inputs = model.example_inputs(8)
  shapes = jax.eval_shape(model.init, jax.random.key(0), *inputs)["params"]
  rng = np.random.default_rng(1)
  return jax.tree.map(
    lambda x: rng.normal(size=x.shape).astype(np.float32), shapes
  )


def make_file(file: pathlib.Path) -> pathlib.Path:
  """An exported classifier with random parameters."""
  options = VIT | {"num_classes": len(CLASSES)}
  more = {"class_names": list(CLASSES), "loss": "softmax_xent"}
  return _save(file, options, more)


def make_two_towers(file: pathlib.Path, *, clip: bool = False) -> pathlib.Path:
  """An exported model that compares images with texts: a LiT or a CLIP."""
  image = {k: v for k, v in VIT.items() if k != "name"}
  text = {"width": 16, "depth": 1, "num_heads": 2, "mlp_dim": 16}
  if clip:
    vocab = file.with_name("merges.txt")
    vocab.write_text("#version: 0.2\nc a\nca t</w>\n")
    size = tokenizers.clip(vocab).vocab_size
    text |= {"pool_type": "eot", "causal": True, "gelu": "quick"}
  else:
    vocab = file.with_name("words.txt")
    words = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "a", "cat", "dog")
    vocab.write_text("\n".join(words) + "\n")
    size = len(words)
  max_len = 8 if clip else 4
  text |= {"vocab_size": size, "max_len": max_len}
  options = {"name": "two_tower"} | {
    "image": image | {"num_classes": 8},
    "text": text | {"num_classes": 8},
  }
  name = "clip" if clip else "bert"
  tokenizer = {"name": name, "vocab": str(vocab), "max_len": max_len}
  more = {"loss": "contrastive", "tokenizer": tokenizer, "class_names": None}
  return _save(file, options, more)


def _save(file, options, more):
  model = models.create(**options)
  params = random_params(model)
  if "t" in params:
    params["t"] = np.ones(1, np.float32)
  metadata = {
    "model": options,
    "image_size": [8, 8],
    "channels": 3,
    "preprocess": "decode|resize(8)|value_range(-1, 1)",
    **more,
  }
  weights.save(file, params, model, metadata=metadata)
  return file
