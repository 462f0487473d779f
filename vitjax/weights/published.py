"""Published weights by name: where they are, and how they are to be used."""

import os
from typing import Any

from vitjax import models, weights
from vitjax.weights import augreg, download, imagenet, npz, zoo

_AUGREG = "augreg:"
_NORMALISE = {
  "inception": "value_range(-1, 1)",
  "imagenet": "normalize",
  "clip": (
    "normalize((0.48145466, 0.4578275, 0.40821073), "
    "(0.26862954, 0.26130258, 0.27577711))"
  ),
}


def resolve(name: str, pretrained_dir: str | None = None) -> str:
  """The name in `zoo` of "augreg:R_Ti_16"; any other name as it is.

  Args:
    name: of published weights; "augreg:R_Ti_16" is the checkpoint of How to
      train your ViT? that its index recommends for fine-tuning.
    pretrained_dir: see `find`.
  """
  if not name.startswith(_AUGREG):
    return name
  folder = (pretrained_dir or augreg.FOLDER_URL).rstrip("/")
  index = download.fetch_any(
    (zoo.File(f"{folder}/index.csv"),), "the index of AugReg"
  )
  return augreg.recommended(name.removeprefix(_AUGREG), index)


def find(name: str, pretrained_dir: str | None = None) -> str:
  """The local path of weights by any of their names; downloads what lacks it.

  Args:
    name: a path, a URL or a name of `resolve`. ":NAME" behind it is a
      sub-tree.
    pretrained_dir: a folder, URL or gs://bucket/folder to look for published
      names in; None for where they are published.
  """
  name = resolve(name, pretrained_dir)
  _, subtree = npz.split_subtree(name)
  source = name.removesuffix(f":{subtree}") if subtree else name
  file = weights.fetch(source, pretrained_dir=pretrained_dir)
  return f"{file}:{subtree}" if subtree else os.fspath(file)


def describe(
  entry: zoo.Entry, pretrained_dir: str | None = None
) -> dict[str, Any]:
  """What `model.json` would say of published weights.

  Images are prepared as where the weights were published, for the size that
  they were made for. Classes have names where they are those of ImageNet-1k.
  Fetches the vocabulary of a model that reads texts.

  Raises:
    DownloadError: if there is no vocabulary; says what to put where.
  """
  size = entry.image_size
  metadata = {
    "model": {"name": entry.model, **entry.options},
    "image_size": [size, size],
    "channels": 3,
    "preprocess": f"{_resize(entry)}|{_NORMALISE[entry.normalisation]}",
    "class_names": None,
    "data": None,
    "loss": _loss(entry),
  }
  if entry.options.get("num_classes") == imagenet.NUM_CLASSES:
    metadata["class_names"] = list(imagenet.class_names())
  facts = models.list().get(entry.model, {})
  if entry.vocab:
    vocab = download.fetch_any(
      entry.vocab, f"vocabulary of {entry.name}", pretrained_dir=pretrained_dir
    )
    metadata["tokenizer"] = {
      "name": facts["tokenizer"],
      "vocab": os.fspath(vocab),
      "max_len": facts["max_len"],
    }
  return metadata


def _resize(entry: zoo.Entry) -> str:
  """The ops before the pixels are scaled."""
  size, facts = entry.image_size, models.list().get(entry.model, {})
  method = ""
  if facts.get("interpolation") == "bicubic" or entry.model == "vit":
    method = ', "bicubic", antialias=True'
  crop = facts.get("crop_pct", 1.0)
  if entry.name.startswith(("sam/", "gsam/", "i1k-s16-")):
    # From scratch on ImageNet-1k: its usual crop.
    return f"decode|resize_small(256)|central_crop({size})"
  if entry.model.startswith("NFNet-"):
    return f"decode|resize({size + 32}{method})|central_crop({size})"
  if entry.model.startswith("resnetv2_"):
    method = ", antialias=True"
  squeezes = not method or (entry.model.startswith("convnext") and size >= 384)
  if squeezes:
    return f"decode|resize({size}{method})"
  return f"decode|resize_small({int(size / crop)}{method})|central_crop({size})"


def _loss(entry: zoo.Entry) -> str:
  """That of the training: what makes probabilities of the logits."""
  name = entry.name
  if name.startswith("SigLIP"):
    return "siglip"
  if name.startswith("LiT"):
    return "contrastive"
  if name.startswith(("deit3_", "deit_3_")) and (
    name.endswith(("_1k", ".fb_in1k"))
  ):
    return "sigmoid_xent_mean"
  google = (
    name.startswith(("sam/", "gsam/", "imagenet1k/"))
    or entry.options.get("num_classes") == zoo.I21K_CLASSES
    or ("-aug_" in name and "--" not in name)
  )
  in12k = name.endswith("_in12k")
  return "sigmoid_xent" if google or in12k else "softmax_xent"
