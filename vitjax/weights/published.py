"""Published weights by name: finding the file, and using it as published."""

import os
from collections.abc import Collection
from typing import Any

from vitjax import models, weights
from vitjax.weights import augreg, download, imagenet, npz, zoo
from vitjax.weights.hub import describing, repository

_AUGREG = "augreg:"


def resolve(name: str, pretrained_dir: str | None = None) -> str:
  """The name in `zoo` of "augreg:R_Ti_16"; any other name as it is.

  A repository of the hub, "hf:OWNER/REPO@REVISION", gets the commit of its
  revision, so that the name stands for the same files from then on.

  The record gives the recommendation. AugReg's index is read if the record has
  none, or if `pretrained_dir` is given, which has an index of its own.

  Args:
    name: name of published weights; "augreg:R_Ti_16" is the checkpoint of How
      to train your ViT? that its authors recommend for fine-tuning.
    pretrained_dir: see `find`.
  """
  if repository.is_name(name):
    return str(repository.pin(repository.parse(name)))
  if not name.startswith(_AUGREG):
    return name
  known = zoo.recommended(name.removeprefix(_AUGREG))
  if known and pretrained_dir is None:
    return known
  folder = (pretrained_dir or augreg.FOLDER_URL).rstrip("/")
  index = download.fetch_any(
    (zoo.File(f"{folder}/index.csv"),), "the index of AugReg"
  )
  return augreg.recommended(name.removeprefix(_AUGREG), index)


def find(name: str, pretrained_dir: str | None = None) -> str:
  """The local path of weights by any of their names; downloads absent files.

  Args:
    name: a path, a URL or a name of `resolve`, followed by ":NAME" for a
      sub-tree.
    pretrained_dir: folder, URL or gs://bucket/folder with the files of
      published names; None for where they are published.
  """
  if repository.is_name(name):
    repo = repository.parse(name)
    file = repository.fetch_weights(repository.pin(repo))
    return f"{file}:{repo.subtree}" if repo.subtree else os.fspath(file)
  name = resolve(name, pretrained_dir)
  _, subtree = npz.split_subtree(name)
  source = name.removesuffix(f":{subtree}") if subtree else name
  file = weights.fetch(source, pretrained_dir=pretrained_dir)
  return f"{file}:{subtree}" if subtree else os.fspath(file)


def family(name: str) -> str:
  """The family of the model of published weights, such as "vit".

  Raises:
    KeyError: if there is no such name; otherwise as `describe`.
  """
  if not repository.is_name(name):
    return zoo.find(name).family
  model = describe(name)["model"]["name"]
  known = models.list()
  return known[model]["model"] if model in known else model


def describe(
  name: str,
  pretrained_dir: str | None = None,
  names: Collection[str] | None = None,
) -> dict[str, Any]:
  """The content of `model.json` for published weights.

  It comes from the config.json of a repository of the hub, and for all other
  names from their record. Fetches the vocabulary of a model that reads texts.

  Args:
    name: a repository of the hub, or a name of `zoo`.
    pretrained_dir: see `find`.
    names: names of the arrays in the file, if it has been read.

  Raises:
    KeyError: if there is no such name; its argument says what is near.
    DownloadError: if a file cannot be had; says what to put where.
    ValueError: if the repository holds a model that vitjax does not have.
  """
  if repository.is_name(name):
    return describing.describe(repository.parse(name), names)
  entry = zoo.find(resolve(name, pretrained_dir))
  metadata: dict[str, Any] = {
    "model": {"name": entry.model, **entry.options},
    "image_size": [entry.image_size, entry.image_size],
    "channels": 3,
    "preprocess": entry.preprocess,
    "class_names": None,
    "data": None,
    "loss": entry.loss,
  }
  if entry.classes == "imagenet2012":
    metadata["class_names"] = list(imagenet.class_names())
  if entry.tokenizer:
    vocab = download.fetch_any(
      entry.vocab,
      f"vocabulary of {entry.name}",
      instead=entry.instead,
      pretrained_dir=pretrained_dir,
    )
    metadata["tokenizer"] = {
      "name": entry.tokenizer,
      "vocab": os.fspath(vocab),
      "max_len": models.list()[entry.model]["max_len"],
    }
  return metadata
