"""The record of one published file, and what its fields mean.

Only the standard library is imported here and in the tables, so that config
files can read them in milliseconds.
"""

import dataclasses
import posixpath
import urllib.parse
from collections.abc import Mapping
from typing import Any

# Name of a normalisation -> the op that does it.
NORMALISATIONS = {
  "inception": "value_range(-1, 1)",
  "imagenet": "normalize",
  "clip": (
    "normalize((0.48145466, 0.4578275, 0.40821073), "
    "(0.26862954, 0.26130258, 0.27577711))"
  ),
  "sat493m": "normalize((0.43, 0.411, 0.296), (0.213, 0.156, 0.143))",
}

HUB = "https://huggingface.co"

# Files of a hub that have these names in every repository.
_NAMES_OF_ALL = (
  "open_clip_model.safetensors",
  "pytorch_model.bin",
  "spiece.model",
  "tokenizer.json",
)

# Files of this bucket stay in the table for those who may read it; mirrors
# come first.
_CLOSED = "gs://vit_models/"
WHY_CLOSED = (
  "The bucket vit_models has refused anonymous readers (HTTP 403) since "
  "February 2026."
)


@dataclasses.dataclass(frozen=True)
class File:
  """One home of a file.

  Attributes:
    url: https:// or gs:// address; or "package:NAME/PATH", a file of an
      installed Python package.
    size: size in bytes; None if unknown.
    sha256: hexadecimal checksum, or only its first digits where no more is
      published; None if unknown.
  """

  url: str
  size: int | None = None
  sha256: str | None = None

  @property
  def name(self) -> str:
    """The file's own name; on a hub, where all have one name, the model's."""
    path = urllib.parse.urlsplit(self.url).path
    base = posixpath.basename(path)
    if base == "model.safetensors":
      return f"{path.split('/')[2]}.safetensors"
    if base in _NAMES_OF_ALL:
      return f"{path.split('/')[2]}.{base}"
    return base

  @property
  def package(self) -> str | None:
    """Name of the Python package that has the file; None if none has."""
    prefix, _, path = self.url.partition(":")
    return path.partition("/")[0] if prefix == "package" else None

  @property
  def is_closed(self) -> bool:
    """Whether anonymous readers are known to be refused."""
    return self.url.startswith(_CLOSED)


@dataclasses.dataclass(frozen=True)
class Entry:
  """A published file.

  Attributes:
    name: as given to `find`.
    files: mirrors, in the order in which they are tried.
    model: name for `vitjax.models.create`.
    options: further options of `create`.
    image_size: side of the images that the file was made for, in pixels.
    normalisation: normalisation of its images, a key of `NORMALISATIONS`.
    vocab: mirrors of the vocabulary of its text tower's tokenizer.
    family: model family, such as "vit".
    resize: side to which images are resized before the centre crop, in
      pixels; None for `image_size`.
    keep_aspect: whether `resize` is the shorter side; otherwise images are
      squeezed into a square.
    interpolation: interpolation when resizing, "bilinear" or "bicubic".
    antialias: whether images are blurred before they are made smaller.
    conventions: whose settings the name stands for when it is fine-tuned:
      "vision_transformer" (SGD, bilinear resizing) or "timm" (AdamW,
      bicubic).
    classes: "imagenet2012" if the head's classes are those of ImageNet-1k, in
      the usual order; None if they have no names here.
    loss: loss of the training, a name of `config.loss`; it says how logits
      become probabilities.
    tokenizer: the text tower's tokenizer, a name of `vitjax.data.tokenizers`.
    data: data sets that it was trained on, in order.
    paper: address of the paper that describes the training.
    licence: SPDX identifier, as published with the file, or "LicenseRef-NAME"
      of another licence; None if not stated.
    top1: published accuracy on ImageNet-1k's validation set, in per cent, with
      images prepared as here; zero-shot accuracy for models without classes.
    source: address where `top1` is published.
    instead: the nearest name that has an open home, if this one has none.
  """

  name: str
  files: tuple[File, ...]
  model: str
  options: Mapping[str, Any]
  image_size: int = 224
  normalisation: str = "inception"
  vocab: tuple[File, ...] = ()
  family: str = "vit"
  resize: int | None = None
  keep_aspect: bool = False
  interpolation: str = "bilinear"
  antialias: bool = False
  conventions: str = "vision_transformer"
  classes: str | None = None
  loss: str = "softmax_xent"
  tokenizer: str | None = None
  data: tuple[str, ...] = ()
  paper: str | None = None
  licence: str | None = "Apache-2.0"
  top1: float | None = None
  source: str | None = None
  instead: str | None = None

  @property
  def has_home(self) -> bool:
    """Whether some home is not known to refuse anonymous readers."""
    return not all(file.is_closed for file in self.files)

  @property
  def normalise(self) -> str:
    """The op that normalises images."""
    return NORMALISATIONS[self.normalisation]

  @property
  def preprocess(self) -> str:
    """The ops from the bytes of an image to what the model takes."""
    size = self.resize or self.image_size
    method = '"bicubic"' if self.interpolation == "bicubic" else None
    antialias = "antialias=True" if self.antialias else None
    arguments = ", ".join(filter(None, (str(size), method, antialias)))
    op = "resize_small" if self.keep_aspect else "resize"
    crop = ""
    if self.keep_aspect or size != self.image_size:
      crop = f"|central_crop({self.image_size})"
    return f"decode|{op}({arguments}){crop}|{self.normalise}"


# Checksums of timm's copies, from the hub's own pages about the files, such as
# https://huggingface.co/timm/convnext_tiny.fb_in22k/blob/main/model.safetensors
_TIMM_SHA256 = {
  "convnext_atto.d2_in1k": (
    "0f70bc49f1896c8c15af857d2d1d418abfaf097a62b4e29a35e6e65b752f5953"
  ),
  "convnext_large.fb_in1k": (
    "657d0be988c24d14138f74805c34c69b5e493596a92dadbd3a63e7079ddbe28e"
  ),
  "convnext_nano.d1h_in1k": (
    "9dfdcca04dfe3a335d11639ccda0904a875e92b6b152a986fc6740eb42d6d5c8"
  ),
  "convnext_small.fb_in1k": (
    "5ec5ed9e97fb835093aaf3e6c3fce406b160b367117b6a2b8c7b703386218d1b"
  ),
  "convnext_small.fb_in22k_ft_in1k": (
    "2457488bec2ffcb2061b9e3fdd63360114549615e3e35ef6dc5c5efe549cbbc9"
  ),
  "convnext_tiny.fb_in22k": (
    "2b40f8d53b566a8c08c0c75f93ff5ac6fa33bd213afb27ee40766af7ffe5943b"
  ),
  "deit3_base_patch16_224.fb_in1k": (
    "9a6f0f93c19c3f6b05836231b9de6b07cc9eca1b002b30c3b5b0b77411687650"
  ),
  "deit3_large_patch16_384.fb_in1k": (
    "a86475140fad38fc565acc29ddc2b17ea07ba2789cf114f3a45ad8b3d07df2ea"
  ),
  "deit_base_patch16_384.fb_in1k": (
    "2d2054a7bea2e586426f4ab1a89bc88c665a3e6eef764dcea4bdd2653030947a"
  ),
  "deit_tiny_patch16_224.fb_in1k": (
    "21d4764d94f6c3ffdb6da3581115a0a1ee2d505537d96883b540e54766407c9e"
  ),
  "vit_base_patch32_224.orig_in21k": (
    "40478a42db6781eff919a325f6e06dfa04f8ed3ff91d0b4121d48e6593d116b7"
  ),
  "vit_base_r50_s16_224.orig_in21k": (
    "a03ec9cf78476304ef12edb58ef42c72f159c16d35a3cfd2277fae7a061af813"
  ),
  "vit_huge_patch14_224.orig_in21k": (
    "a804377e4bbb21acd46facd90fc747f1c1dcda67b08311fd4a309699651cdd03"
  ),
}


def timm(name: str) -> File:
  """The home of timm's copy `name`."""
  url = f"{HUB}/timm/{name}/resolve/main/model.safetensors"
  return File(url, sha256=_TIMM_SHA256.get(name))


def google(name: str) -> File:
  """The home of Google's copy `name` for transformers."""
  return File(f"{HUB}/google/{name}/resolve/main/model.safetensors")


def shorter_side(image_size: int, crop: float) -> dict[str, Any]:
  """Fields: the shorter side resized so that a crop keeps the part `crop`."""
  return {
    "image_size": image_size,
    "resize": int(image_size / crop),
    "keep_aspect": True,
  }


def squeezed(image_size: int, crop: float = 1.0) -> dict[str, Any]:
  """Fields: the image squeezed so that a crop keeps the part `crop`."""
  resize = None if crop == 1 else int(image_size / crop)
  return {"image_size": image_size, "resize": resize}


# Fields of the conventions that PyTorch's models have.
PYTORCH: dict[str, Any] = {
  "interpolation": "bicubic",
  "antialias": True,
  "conventions": "timm",
}

# Data sets, as `Entry.data` names them.
I1K, I12K, I21K = "ImageNet-1k", "ImageNet-12k", "ImageNet-21k"
I22K = "ImageNet-22k"  # as PyTorch's models count its classes

# Fields of a head of Google's classes of ImageNet-21k, of those of
# ImageNet-22k, and of ImageNet-1k's.
HEAD_21K: dict[str, Any] = {
  "options": {"num_classes": 21_843},
  "loss": "sigmoid_xent",
}
HEAD_22K: dict[str, Any] = {"options": {"num_classes": 21_841}}
HEAD_1K: dict[str, Any] = {
  "options": {"num_classes": 1000},
  "classes": "imagenet2012",
}

# What timm measured of the files that it publishes.
TIMM_RESULTS = (
  "https://github.com/huggingface/pytorch-image-models/blob/main/results/"
  "results-imagenet.csv"
)
