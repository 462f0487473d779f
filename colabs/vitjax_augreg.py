# ---
# jupyter:
#   jupytext:
#     formats: ipynb,py:percent
#     text_representation:
#       extension: .py
#       format_name: percent
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # AugReg: choose among fifty thousand Vision Transformers
#
# The authors of [How to train your ViT?](https://arxiv.org/abs/2106.10270)
# trained ViTs of ten sizes with many amounts of data, augmentation and
# regularisation, and published all of them with a table. Read the table, choose
# a checkpoint, classify photographs with it, compare it with timm, and
# fine-tune one on a TFDS data set or on your own images.

# %% [markdown]
# ## Install
#
# The notebook uses the checkout that it lies in, or else the vitjax that is
# installed. If there is neither, set `SOURCE` below to what pip should install:
# a wheel file, or the address of the repository. Installed packages that are
# new enough, such as JAX, stay as they are. If an import fails after the
# installation, restart the kernel and run all cells again.
#
# In a checkout, first run `pip install -e ".[text,plots]"`.

# %%
import importlib.util
import os
import pathlib
import subprocess
import sys

SOURCE = None  # such as "vitjax[text,plots] @ git+https://HOST/OWNER/vitjax"

here = pathlib.Path.cwd()
for folder in (here, *here.parents):
  if (folder / "vitjax" / "train.py").is_file():  # a checkout
    os.chdir(folder)
    sys.path.insert(0, os.fspath(folder))
    break
if importlib.util.find_spec("vitjax") is None:
  if SOURCE is None:
    raise ModuleNotFoundError(
      "vitjax is neither here nor installed: set SOURCE in this cell to a "
      "wheel file or to the address of the repository, and run it again."
    )
  pip = [sys.executable, "-m", "pip", "install", "--quiet"]
  subprocess.run([*pip, SOURCE], check=True)
  importlib.invalidate_caches()

# %%
import glob
import shutil

import jax

import vitjax

device = jax.devices()[0]
print(f"vitjax {vitjax.__version__}, JAX {jax.__version__}")
print(f"{jax.device_count()} x {device.device_kind} ({device.platform})")
if device.platform == "cpu":
  if shutil.which("nvidia-smi"):
    print("The GPU is unused: pip install 'jax[cuda13]', then restart.")
  if glob.glob("/dev/accel*") or glob.glob("/dev/vfio/*"):
    print("The TPU is unused: pip install 'jax[tpu]', then restart.")

# %% [markdown]
# ## Settings
#
# `PRETRAINED_DIR` is a folder, URL or bucket that has `index.csv` and the
# files. With None they are fetched from where they were published, a bucket
# that has refused anonymous readers since February 2026. `DATA` is a TFDS data
# set, `folder:/path` with images in folders named after their classes, or
# `labels:/path/labels.csv`.
#
# With `VITJAX_SMOKE=1` in the environment the notebook only tests that its
# cells run: random weights and a made-up table replace the downloads, and
# results mean nothing.

# %%
import tempfile

SIZE = "Ti_16"  # the model that classifies photographs
FINETUNE = "R_Ti_16"  # the model to fine-tune
PRETRAINED_DIR = None
DATA = "oxford_iiit_pet"
OPTIONS = "steps=500,res=224,accumulate=4"
WORKDIR = pathlib.Path("runs/colab_augreg")

NOTE = ""
if os.environ.get("VITJAX_SMOKE") == "1":
  from colabs import smoke

  NOTE = smoke.NOTE
  print(NOTE)
  WORKDIR = pathlib.Path(tempfile.mkdtemp())
  PRETRAINED_DIR = smoke.write_augreg(WORKDIR / "weights", SIZE, FINETUNE)
  DATA = smoke.write_photographs(WORKDIR / "photographs")
  OPTIONS = "steps=4,res=64"
  WORKDIR = WORKDIR / "run"

# %% [markdown]
# ## The table
#
# Each row is a pre-trained model that was fine-tuned in one way. `filename` is
# the file before fine-tuning, `adapt_filename` the file after it. `final_val`
# is the accuracy on the pre-training data, `ds`. The table has more columns;
# this notebook reads the settings from the file names.

# %%
import csv

from vitjax import weights
from vitjax.weights import augreg

folder = PRETRAINED_DIR or augreg.FOLDER_URL
index = weights.fetch(f"{folder}/index.csv")
with open(index, newline="", encoding="utf-8") as f:
  rows = [row for row in csv.DictReader(f) if row["final_val"]]
print(f"{len(rows):,} rows. Columns: {', '.join(rows[0])}")

# %%
facts = {row["filename"]: augreg.parse(row["filename"]) for row in rows}
print(augreg.parse(rows[0]["adapt_filename"]))

# %% [markdown]
# ## Effect of augmentation
#
# Each point is a model of the size `FINETUNE`, pre-trained on ImageNet-21k.

# %%
import matplotlib.pyplot as plt

kinds = ("none", "light1", "light2", "medium1", "medium2", "strong1", "strong2")
points = {
  row["filename"]: (
    kinds.index(facts[row["filename"]].augmentation),
    float(row["final_val"]),
  )
  for row in rows
  if row["name"] == FINETUNE and row["ds"] == "i21k"
}
_, ax = plt.subplots(figsize=(7, 3))
ax.scatter(*zip(*points.values()))
ax.set_xticks(range(len(kinds)), kinds)
ax.set_ylabel("final_val")
ax.set_title(f"{FINETUNE}, ImageNet-21k {NOTE}")
plt.show()

# %% [markdown]
# ## Choose
#
# To fine-tune, take the checkpoint with the best `final_val` on ImageNet-21k,
# as the authors recommend.

# %%
recommended = {
  name: augreg.recommended(name, index)
  for name in augreg.MODELS
  if any(row["name"] == name and row["ds"] == "i21k" for row in rows)
}
for name, file in recommended.items():
  print(f"{name:10} {file}")

# %% [markdown]
# To classify without fine-tuning, take a checkpoint that was fine-tuned on
# ImageNet-1k: here the one from the recommended checkpoint, for the smallest
# images.

# %%
finetuned = sorted(
  {
    row["adapt_filename"]
    for row in rows
    if row["filename"].removesuffix(".npz") == recommended[SIZE]
    and "--imagenet2012-" in row["adapt_filename"]
  },
  key=lambda file: augreg.parse(file).image_size,
)
name = finetuned[0].removesuffix(".npz")
print(*finetuned, "", f"Chosen: {name}", sep="\n")

# %% [markdown]
# ## Inference

# %%
import numpy as np
from sklearn import datasets

model = vitjax.load(name, pretrained_dir=PRETRAINED_DIR)
print(model.preprocess)
photographs = datasets.load_sample_images().images
batch = np.stack([model.prepare(x) for x in photographs])
logits = model.predict(batch)
figure, axes = plt.subplots(1, 2, figsize=(10, 4))
figure.suptitle(NOTE)
for ax, photograph, p in zip(axes, photographs, model.probabilities(logits)):
  best = np.argsort(-p)[:5]
  ax.imshow(photograph)
  ax.axis("off")
  ax.set_title(
    "\n".join(f"{p[i]:6.1%}  {model.labels[i][:40]}" for i in best),
    fontsize=9,
    loc="left",
  )
plt.show()

# %% [markdown]
# ## The same weights in timm
#
# The JSON file beside an exported file has the arguments for timm. One of them
# is the GELU: Google's weights have the tanh form, timm's own models of this
# name the exact one. Needs `pip install timm`.

# %%
import importlib.util
import json

exported = pathlib.Path(tempfile.mkdtemp())
weights.save(
  exported / "model.safetensors",
  model.params,
  model.model,
  metadata=model.metadata,
)
np.savez(exported / "example.npz", image=batch, logits=logits)
print(json.loads((exported / "model.json").read_text())["timm"])

# %% [markdown]
# PyTorch runs in its own process, because some releases do not load beside
# TensorFlow.

# %%
COMPARE = """
import json
import numpy as np, safetensors.torch, timm, torch

example = np.load("example.npz")
image = torch.tensor(example["image"].transpose(0, 3, 1, 2))
arguments = json.load(open("model.json"))["timm"]
# Any ViT of timm will do: the arguments make it the model of the file.
model = timm.create_model("vit_tiny_patch16_224", **arguments)
model.load_state_dict(safetensors.torch.load_file("model.safetensors"))
with torch.no_grad():
  logits = model.eval()(image).numpy()
print("timm", timm.__version__, "PyTorch", torch.__version__)
print("largest logit:     ", np.abs(logits).max())
print("largest difference:", np.abs(logits - example["logits"]).max())
"""
if importlib.util.find_spec("timm"):
  done = subprocess.run(
    [sys.executable, "-c", COMPARE],
    cwd=exported,
    check=True,
    stdout=subprocess.PIPE,
    text=True,
  )
  print(done.stdout)
else:
  print("timm is not installed.")

# %% [markdown]
# ## Fine-tune
#
# `configs/augreg.py` is the recipe of the paper: SGD, 512 images a step
# (`accumulate` computes them in parts, with the same result), from the
# recommended checkpoint of `FINETUNE`. On the command line:
#
# ```sh
# python -m vitjax.main --config=configs/augreg.py:FINETUNE,DATA,OPTIONS
# ```
#
# If you interrupt the training cell, run it again: training resumes.

# %%
from vitjax.config import shipped

config = shipped.load(f"augreg.py:{FINETUNE},{DATA},{OPTIONS}")
config.pretrained_dir = PRETRAINED_DIR
config.export_npz = True
config.report = {"every_percent": 4}
if NOTE:
  config.input.batch_size, config.schedule.warmup_steps = 4, 1
print(config)

# %%
if ":" not in DATA:  # a TFDS data set; a run downloads nothing
  import tensorflow_datasets as tfds

  tfds.builder(DATA).download_and_prepare()

# %%
import logging

from vitjax import checks, train
from vitjax.config.resolving import resolve

log = logging.getLogger("absl")  # vitjax's lines, and warnings of others
handler = logging.StreamHandler()
handler.addFilter(
  lambda x: x.levelno > logging.INFO or f"{os.sep}vitjax{os.sep}" in x.pathname
)
log.handlers, log.propagate = [handler], False
log.setLevel(logging.INFO)

run = resolve(config, checks.problems)
result = train.train_and_evaluate(run, WORKDIR.absolute())
for name, value in result.items():
  print(f"{name:20} {value:.4g}")
print(NOTE)

# %% [markdown]
# ## Look at the result

# %%
from vitjax.run_folder import reader

rows = reader.read_metrics(WORKDIR)
names = ["train/loss", *sorted(x for x in result if x.endswith("/acc@1"))]
figure, axes = plt.subplots(1, len(names), figsize=(5 * len(names), 3))
figure.suptitle(NOTE)
for ax, name in zip(axes, names):
  points = [(row["step"], row[name]) for row in rows if name in row]
  ax.plot(*zip(*points), marker=".")
  ax.set_xlabel("step")
  ax.set_title(name)
plt.show()

# %%
tuned = vitjax.load(WORKDIR)
print("classes:", tuned.labels)
batch = np.stack([tuned.prepare(x) for x in photographs])
for p in tuned.probabilities(tuned.predict(batch)):
  best = np.argsort(-p)[:3]
  print(", ".join(f"{tuned.labels[i]} {p[i]:.1%}" for i in best))
