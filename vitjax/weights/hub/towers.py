"""transformers' CLIPModel, SiglipModel and Siglip2Model: two towers.

The defaults of fields are those of the library's configs.
"""

import math
import os
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from vitjax.weights.hub import images, repository, transformers
from vitjax.weights.hub.fields import Fields
from vitjax.weights.hub.repository import Repository

Options = dict[str, Any]

_GELU = {**transformers.GELU, "quick_gelu": "quick"}
# Classes of tokenizers -> our tokenizer, and its file.
_SIGLIP_TOKENIZERS = {
  "GemmaTokenizer": ("gemma", "tokenizer.json"),
  "GemmaTokenizerFast": ("gemma", "tokenizer.json"),
  "Siglip2Tokenizer": ("gemma", "tokenizer.json"),
  "SiglipTokenizer": ("hf_siglip", "spiece.model"),
}


class Family(NamedTuple):
  """A `model_type` of transformers with two towers.

  Attributes:
    architecture: the class that is read.
    processor: its image processor, a key of `images.PROCESSORS`.
    loss: name of the loss that compares images with texts.
    towers: reads the fields of config.json; returns the model's options.
    tokenizer: reads which tokenizer it has; returns our name and the files
      that may hold its vocabulary.
  """

  architecture: str
  processor: str
  loss: str
  towers: Callable[[Fields], Options]
  tokenizer: Callable[[Repository], tuple[str, tuple[str, ...]]]


def _part(fields: Fields, name: str) -> Fields:
  where = f"{fields.where} {name}"
  return Fields(fields.get(f"{name}_config", {}), where)


def _sizes(part: Fields, *, width: int, heads: int, act: str, eps: float):
  """Options that both towers have."""
  return {
    "width": part.get("hidden_size", width),
    "depth": part.get("num_hidden_layers", 12),
    "mlp_dim": part.get("intermediate_size", 4 * width),
    "num_heads": part.get("num_attention_heads", heads),
    "gelu": part.choose("hidden_act", _GELU, act),
    "layer_norm_eps": part.get("layer_norm_eps", eps),
  }


def _clip(fields: Fields) -> Options:
  image, text = _part(fields, "vision"), _part(fields, "text")
  projection = {
    "head_bias": False,
    "num_classes": fields.get("projection_dim", 512),
  }
  common: Options = {"act": "quick_gelu", "eps": 1e-5}
  return {
    "image": {
      **_sizes(image, width=768, heads=12, **common),
      **projection,
      "patch_size": image.get("patch_size", 32),
      "pool_type": "tok",
      "posemb_prefix": True,
      "pre_norm": True,
      "head_zero_init": False,
    },
    "text": {
      **_sizes(text, width=512, heads=8, **common),
      **projection,
      "vocab_size": text.get("vocab_size", 49_408),
      "max_len": text.get("max_position_embeddings", 77),
      "pool_type": "eot",
      "causal": True,
    },
    "temperature_init": 1 / 0.07,
  }


def _siglip(fields: Fields) -> Options:
  image, text = _part(fields, "vision"), _part(fields, "text")
  image.require("vision_use_head", True)
  common: Options = {"act": "gelu_pytorch_tanh", "eps": 1e-6}
  sizes = _sizes(text, width=768, heads=12, **common)
  return {
    "image": {
      **_sizes(image, width=768, heads=12, **common),
      "patch_size": image.get("patch_size", 16),
      "pool_type": "map",
    },
    "text": {
      **sizes,
      "num_classes": text.get("projection_size", sizes["width"]),
      "vocab_size": text.get("vocab_size", 32_000),
      "max_len": text.get("max_position_embeddings", 64),
    },
    "bias_init": -10.0,
  }


def _siglip2(fields: Fields) -> Options:
  """NaFlex: images of any shape, with a position table of `num_patches`."""
  options = _siglip(fields)
  image = _part(fields, "vision")
  patches = image.get("num_patches", 256)
  side = math.isqrt(patches)
  image.require("num_patches", side * side)
  naflex = {
    "posemb_grid": side,
    "posemb_resize": "linear",
    "naflex": True,
  }
  return {**options, "image": {**options["image"], **naflex}}


def _clip_tokenizer(repo: Repository) -> tuple[str, tuple[str, ...]]:
  return "clip", ("tokenizer.json", "merges.txt")


def _siglip_tokenizer(repo: Repository) -> tuple[str, tuple[str, ...]]:
  file = "tokenizer_config.json"
  fields = Fields(repository.read_json(repo, file), f"{repo}: {file}")
  name, vocab = fields.choose("tokenizer_class", _SIGLIP_TOKENIZERS, "")
  return name, (vocab,)


FAMILIES: Mapping[str, Family] = {
  "clip": Family("CLIPModel", "CLIP", "contrastive", _clip, _clip_tokenizer),
  "siglip": Family(
    "SiglipModel", "Siglip", "siglip", _siglip, _siglip_tokenizer
  ),
  "siglip2": Family(
    "Siglip2Model", "Siglip2", "siglip", _siglip2, _siglip_tokenizer
  ),
}


def describe(
  fields: Fields, processor: Callable[[], Fields], repo: Repository
) -> dict[str, Any]:
  """The metadata of a model with two towers, see `weights.description`.

  Args:
    fields: config.json.
    processor: reads preprocessor_config.json.
    repo: where the vocabulary is.

  Raises:
    DownloadError: if a file cannot be had.
    ValueError: for what is not implemented; names it.
  """
  family = fields.choose("model_type", FAMILIES, None)
  fields.require("architectures", (family.architecture,))
  options = family.towers(fields)
  size, preprocess = images.from_processor(processor(), family.processor)
  name, vocabs = family.tokenizer(repo)
  return {
    "model": {
      "name": "two_tower",
      "image_model": "vit",
      "text_model": "text",
      **options,
    },
    "image_size": list(size),
    "channels": 3,
    "preprocess": preprocess,
    "class_names": None,
    "data": None,
    "loss": family.loss,
    "tokenizer": {
      "name": name,
      "vocab": os.fspath(repository.fetch_first(repo, vocabs)),
      "max_len": options["text"]["max_len"],
    },
  }
