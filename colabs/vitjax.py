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
# # A Vision Transformer, step by step
#
# Load a published model, look inside, classify photographs, and fine-tune it on
# other images. Runs on CPU, GPU and TPU; fine-tuning needs a GPU or a TPU.

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
# `MODEL` is the name of published weights (`vitjax.weights.zoo.entries()` lists
# them), a run folder or an exported file. `IMAGES` are files to classify; if
# there are none, two photographs that come with scikit-learn. `DATA`, to
# fine-tune on, is a TFDS data set, `folder:/path` with images in folders named
# after their classes, or `labels:/path/labels.csv`.
#
# With `VITJAX_SMOKE=1` in the environment the notebook only tests that its
# cells run: random weights replace the download, and results mean nothing.

# %%
import tempfile

MODEL = "vit_tiny_patch16_224.augreg_in21k_ft_in1k"
PRETRAINED_DIR = None  # or the folder that has the file of MODEL
IMAGES = ()
DATA = "cifar10"
OPTIONS = "batch=128,steps=500,res=224"
WORKDIR = pathlib.Path("runs/colab_vitjax")

NOTE = ""
if os.environ.get("VITJAX_SMOKE") == "1":
  from colabs import smoke

  NOTE = smoke.NOTE
  print(NOTE)
  WORKDIR = pathlib.Path(tempfile.mkdtemp())
  PRETRAINED_DIR = smoke.write_weights(WORKDIR / "weights", MODEL)
  DATA = smoke.write_photographs(WORKDIR / "photographs")
  OPTIONS = "batch=4,steps=4,res=64"
  WORKDIR = WORKDIR / "run"

# %% [markdown]
# ## Load
#
# The weights are downloaded at first use. The result knows how to prepare
# images and the names of the classes.

# %%
model = vitjax.load(MODEL, pretrained_dir=PRETRAINED_DIR)
print("model:      ", model.metadata["model"])
print("image size: ", model.image_size)
print("preprocess: ", model.preprocess)
print("classes:    ", len(model.labels), model.labels[:3])

# %% [markdown]
# ## Parameters
#
# Parameters are a tree of arrays, named as in the published files.

# %%
import collections

leaves = jax.tree.leaves_with_path(model.params)
sizes = collections.Counter()
for path, x in leaves:
  name = jax.tree_util.keystr(path, simple=True, separator="/")
  sizes["/".join(name.split("/")[:2])] += x.size
for name, size in sizes.items():
  print(f"{size:12,}  {name}")
print(f"{sum(sizes.values()):12,}  in total, in {len(leaves)} arrays")

# %% [markdown]
# ## Images
#
# `prepare` takes a path, the bytes of a file, or pixels.

# %%
import matplotlib.pyplot as plt
import numpy as np
from sklearn import datasets

images = IMAGES or datasets.load_sample_images().images
batch = np.stack([model.prepare(x) for x in images])
print(batch.shape, batch.dtype, batch.min(), batch.max())

# %% [markdown]
# ## Predict

# %%
probabilities = model.probabilities(model.predict(batch))
figure, axes = plt.subplots(
  1, len(images), figsize=(5 * len(images), 4), squeeze=False
)
figure.suptitle(NOTE)
for ax, image, p in zip(axes[0], images, probabilities):
  best = np.argsort(-p)[:5]
  ax.imshow(plt.imread(image) if isinstance(image, str) else image, "gray")
  ax.axis("off")
  ax.set_title(
    "\n".join(f"{p[i]:6.1%}  {model.labels[i][:40]}" for i in best),
    fontsize=9,
    loc="left",
  )
plt.show()

# %% [markdown]
# ## Look inside
#
# A model returns its logits and a dictionary of intermediates. Patches become
# tokens, each block mixes them by attention, one token is pooled, and the head
# is a linear function of it.

# %%
logits, out = model.model.apply({"params": model.params}, batch)
last = max(x for x in out if x.startswith("encoder/block"))
last = "/".join(last.split("/")[:2])
for name, x in out.items():
  if not name.startswith("encoder/block") or name.startswith(last):
    print(f"{name:32} {x.shape}")

head = model.params["head"]
by_hand = out["pre_logits"] @ head["kernel"] + head["bias"]
print("head by hand, largest difference:", np.abs(by_hand - logits).max())

# %% [markdown]
# ## Attention
#
# The maps show where the class token reads from in the last block, for each
# head, and [attention rollout](https://arxiv.org/abs/2005.00928), which follows
# the attention weights through all blocks. They show where information came
# from, not what decided the class.

# %%
from vitjax.plots import attention_maps

heads, rollout = attention_maps.maps_fn(model.model)(model.params, batch)
num_heads = heads.shape[2]
columns = num_heads + 2
figure, axes = plt.subplots(
  len(batch), columns, figsize=(2.4 * columns, 2.5 * len(batch)), squeeze=False
)
figure.suptitle(NOTE)
for row, image, maps, rolled in zip(axes, batch, heads[:, -1], rollout):
  row[0].imshow((image - image.min()) / (image.max() - image.min()))
  row[0].set_title("prepared image")
  for k in range(num_heads):
    row[1 + k].imshow(maps[k])
    row[1 + k].set_title(f"head {k}")
  row[-1].imshow(rolled)
  row[-1].set_title("rollout")
for ax in axes.flat:
  ax.axis("off")
plt.show()

# %% [markdown]
# ## Positions
#
# Each map shows how similar the position embeddings of all patches are to that
# of one patch. In a trained model the map is bright around that patch, and
# along its row and column: training has taught it the geometry of images.
# Random weights show noise.

# %%
similarity = attention_maps.position_similarity(
  model.model, model.params, batch.shape
)
h, w = similarity.shape[:2]
patches = [(0, 0), (h // 2, w // 2), (h - 1, w // 3)]
figure, axes = plt.subplots(1, 3, figsize=(9, 3))
figure.suptitle(NOTE)
for ax, (y, x) in zip(axes, patches):
  ax.imshow(similarity[y, x], vmin=-1, vmax=1)
  ax.set_title(f"patch in row {y}, column {x}")
  ax.axis("off")
plt.show()

# %% [markdown]
# ## Fine-tune
#
# The recipe is `configs/transfer.py`, the same as on the command line:
#
# ```sh
# python -m vitjax.main --config=configs/transfer.py:MODEL,DATA,OPTIONS
# ```
#
# You can change everything in the config below before it is resolved. If you
# interrupt the training cell, run it again: training resumes.

# %%
from vitjax.config import shipped

config = shipped.load(f"transfer.py:{MODEL},{DATA},{OPTIONS}")
config.pretrained_dir = PRETRAINED_DIR
config.export_npz = True
config.report = {"every_percent": 4}
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
#
# The run folder has metrics, checkpoints and the exported weights.
# `vitjax.load` takes the folder or the file; `python -m vitjax.export` writes
# weights for timm and Hugging Face.

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
tuned = vitjax.load(WORKDIR / "params.npz")
print("classes:", tuned.labels)
batch = np.stack([tuned.prepare(x) for x in images])
for p in tuned.probabilities(tuned.predict(batch)):
  best = np.argsort(-p)[:3]
  print(", ".join(f"{tuned.labels[i]} {p[i]:.1%}" for i in best))
