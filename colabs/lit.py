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
# # LiT: classify images by describing the classes
#
# [LiT](https://arxiv.org/abs/2111.07991) has two towers. One turns images into
# vectors, the other texts. Training makes the vectors of an image and a text
# that belong together similar. So any texts can serve as classes, without
# further training; this is called zero-shot. Runs on CPU, GPU and TPU.

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
# `MODEL` is the name of published weights (SigLIP or LiT), a run folder of
# `configs/lit.py`, or an exported file. LiT's own files, such as "LiT-B16B",
# are in a bucket that has refused anonymous readers since February 2026; SigLIP
# is a later model of the same kind. `DATA` is a TFDS data set with labels.
#
# With `VITJAX_SMOKE=1` in the environment the notebook only tests that its
# cells run: random weights replace the download, and results mean nothing.

# %%
import tempfile

MODEL = "SigLIP B/16 224"
PRETRAINED_DIR = None  # or the folder that has the weights and the vocabulary
DATA, SPLIT = "cifar10", "test[:500]"

NOTE = ""
if os.environ.get("VITJAX_SMOKE") == "1":
  from colabs import smoke

  NOTE = smoke.NOTE
  print(NOTE)
  MODEL = smoke.write_two_towers(tempfile.mkdtemp())
  DATA = smoke.write_photographs(tempfile.mkdtemp())

# %% [markdown]
# ## Load
#
# The tokenizer comes with the model, with its lower case, length and padding.

# %%
model = vitjax.load(MODEL, pretrained_dir=PRETRAINED_DIR)
print("preprocess:", model.preprocess)
print("token ids: ", model.tokenizer(["a photo of a flower."])[0])

# %% [markdown]
# ## Images and texts
#
# Both towers return vectors of length 1. Their dot products, times a learned
# temperature, are the logits. A softmax over the texts (SigLIP: a sigmoid for
# each text) turns them into probabilities.

# %%
import matplotlib.pyplot as plt
import numpy as np
from sklearn import datasets

texts = [
  "a photo of a flower.",
  "a photo of a temple.",
  "a photo of a dog.",
  "an orange dahlia in a garden.",
  "a pagoda by a lake.",
]
photographs = datasets.load_sample_images().images
batch = np.stack([model.prepare(x) for x in photographs])
features, text_features = model.features(batch), model.text_features(texts)
print("vectors:", features.shape, text_features.shape)
logits = model.compare(features, text_features)
probabilities = model.probabilities(logits)

figure, axes = plt.subplots(1, 2, figsize=(11, 4))
figure.suptitle(NOTE)
for ax, photograph, p in zip(axes, photographs, probabilities):
  ax.imshow(photograph)
  ax.axis("off")
  ax.set_title(
    "\n".join(f"{p[i]:6.1%}  {texts[i]}" for i in np.argsort(-p)),
    fontsize=9,
    loc="left",
  )
plt.show()

# %% [markdown]
# ## Zero-shot classification
#
# A class is the mean of the vectors of several sentences about it. Write the
# sentences like captions, and try others: they change the accuracy.

# %%
TEMPLATES = (
  "a photo of a {}.",
  "a blurry photo of a {}.",
  "a small picture of a {}.",
)

# %%
if ":" in DATA:
  files = sorted(pathlib.Path(DATA.partition(":")[2]).glob("val/*/*"))
  names = sorted({file.parent.name for file in files})
  images = files
  labels = np.array([names.index(file.parent.name) for file in files])
else:
  import tensorflow_datasets as tfds

  examples = tfds.data_source(DATA, split=SPLIT)  # downloads it if needed
  info = examples.dataset_info
  names = [x.replace("_", " ") for x in info.features["label"].names]
  images = [x["image"] for x in examples]
  labels = np.array([x["label"] for x in examples])
print(f"{len(images)} images of {len(names)} classes: {', '.join(names[:10])}")


# %%
def class_vectors(names):
  """The vector of each class, of length 1: (classes, width)."""
  vectors = []
  for name in names:
    sentences = [template.format(name) for template in TEMPLATES]
    mean = model.text_features(sentences).mean(axis=0)
    vectors.append(mean / np.linalg.norm(mean))
  return np.stack(vectors)


BATCH = 50
vectors = []
for i in range(0, len(images), BATCH):
  part = images[i : i + BATCH]
  vectors.append(model.features(np.stack([model.prepare(x) for x in part])))
vectors = np.concatenate(vectors)
logits = model.compare(vectors, class_vectors(names))
right = logits.argmax(axis=1) == labels
print(f"zero-shot accuracy {right.mean():.1%} of {len(right)} images", NOTE)

# %% [markdown]
# ## Find an image by a text
#
# The same dot products, used the other way: the images most similar to a text.

# %%
query = "a photo of a flower."
scores = model.compare(vectors, model.text_features([query]))[:, 0]
best = np.argsort(-scores)[:5]
_, axes = plt.subplots(1, len(best), figsize=(2.2 * len(best), 2.4))
for ax, i in zip(axes, best):
  pixels = model.prepare(images[i])
  ax.imshow((pixels - pixels.min()) / (pixels.max() - pixels.min()))
  ax.set_title(f"{names[labels[i]]}, {scores[i]:.1f}")
  ax.axis("off")
plt.suptitle(f"{query} {NOTE}")
plt.tight_layout()
plt.show()

# %% [markdown]
# ## On the command line
#
# ```sh
# python -m vitjax.predict --model="SigLIP B/16 224" photos/ \
#   --texts="a cat,a dog"
# python -m vitjax.main --config=configs/lit.py:fashion
# ```
#
# The second command trains a text tower for a fixed image tower, that of the
# run of `configs/fashion_mnist.py`.
