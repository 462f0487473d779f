"""OpenCLIP's open_clip_config.json: two towers, images and a tokenizer.

The defaults of fields are those of OpenCLIP. Everything that is not read is
refused: `model_cfg` decides what the weights are of.
"""

import os
from typing import Any

from vitjax import models
from vitjax.config import messages
from vitjax.weights import download
from vitjax.weights.hub import images, repository
from vitjax.weights.hub.fields import Fields
from vitjax.weights.hub.repository import MissingFileError, Repository
from vitjax.weights.zoo import two_towers

Options = dict[str, Any]

# Options of OpenCLIP's blocks that only one value is implemented of.
_PLAIN = {
  "ls_init_value": None,
  "final_ln_after_pool": False,
  "block_type": None,
  "qk_norm": False,
  "scaled_cosine_attn": False,
  "scale_heads": False,
  "scale_attn_inner": False,
  "scale_attn": False,
  "scale_fc": False,
}
_PLAIN_IMAGE = {
  "attentional_pool": False,
  "no_ln_pre": False,
  "pos_embed_type": "learnable",
  "pool_type": "tok",
}
_PLAIN_TEXT = {
  "hf_model_name": None,
  "embed_cls": False,
  "tokenizer_mode": None,
}
# Fields that do not change the outputs of a trained model.
_IRRELEVANT = {
  "attn_pooler_heads",
  "attn_pooler_queries",
  "eos_id",
  "hf_model_pretrained",
  "hf_pooler_type",
  "hf_proj_type",
  "output_tokens",
  "pad_id",
  "patch_dropout",
  "timm_drop",
  "timm_drop_path",
  "timm_model_pretrained",
  "timm_proj_bias",
}
# Classes of tokenizers -> our tokenizer and the token that fills a text up.
_TOKENIZERS = {
  "GemmaTokenizer": ("open_clip_gemma", "<pad>"),
  "GemmaTokenizerFast": ("open_clip_gemma", "<pad>"),
  "T5Tokenizer": ("open_clip_siglip", "</s>"),
  "T5TokenizerFast": ("open_clip_siglip", "</s>"),
}


def describe(fields: Fields, repo: Repository) -> dict[str, Any]:
  """The metadata of a model with two towers, see `weights.description`.

  Args:
    fields: open_clip_config.json.
    repo: where the vocabulary is.

  Raises:
    DownloadError: if a file cannot be had.
    ValueError: for what is not implemented; names it.
  """
  model = _part(fields, "model_cfg")
  for name in ("custom_text", "nonscalar_logit_scale"):
    model.get(name, False)  # names and shapes of arrays, which the layout reads
  model.get("init_logit_scale", 0.0)
  embedding = model.get("embed_dim", 512)
  quick = model.get("quick_gelu", False)
  image, text = _part(model, "vision_cfg"), _part(model, "text_cfg")
  size = image.get("image_size", 224)
  towers = {
    "image": _image(image, embedding, quick, size),
    "text": _text(text, embedding, quick),
  }
  bias = model.get("init_logit_bias", None)
  more = {"temperature_init": 1 / 0.07}
  if bias is not None:
    more = {"bias_init": float(bias)}
  tokenizer = _tokenizer(text, repo)
  for part in (model, image, text):
    _refuse_unread(part)
  return {
    "model": {
      "name": "two_tower",
      "image_model": "vit",
      "text_model": "text",
      **towers,
      **more,
    },
    "image_size": [size, size],
    "channels": 3,
    "preprocess": images.from_open_clip(_part(fields, "preprocess_cfg"), size),
    "class_names": None,
    "data": None,
    "loss": "contrastive" if bias is None else "siglip",
    "tokenizer": {**tokenizer, "max_len": towers["text"]["max_len"]},
  }


def _part(fields: Fields, name: str) -> Fields:
  return Fields(fields.get(name, {}), f"{fields.where} {name}")


def _refuse_unread(part: Fields) -> None:
  if rest := set(part.unread()) - _IRRELEVANT:
    raise ValueError(
      f"{part.where}: {messages.shorten(sorted(rest))} cannot be read here. "
      "Name another repository, or convert the weights to a model of "
      "vitjax.models.list()."
    )


def _image(part: Fields, embedding: int, quick: bool, size: int) -> Options:
  name = part.get("timm_model_name", "")
  if name:
    return _timms(part, name, size)
  for field, value in (_PLAIN | _PLAIN_IMAGE).items():
    part.require(field, value)
  head_width = part.get("head_width", 64)
  sizes = _sizes(part, 768, quick)
  return {
    **sizes,
    "num_heads": sizes["width"] // head_width,
    "num_classes": embedding,
    "head_bias": False,
    "head_zero_init": False,
    "patch_size": part.get("patch_size", 16),
    "pool_type": "tok",
    "posemb_prefix": True,
    "pre_norm": True,
  }


def _timms(part: Fields, name: str, size: int) -> Options:
  """An image tower that is a ViT of timm, whose pooling is the embedding."""
  known = models.list()
  vits = [x for x in known if known[x]["model"] == "vit" and "siglip" in x]
  if name not in vits:
    raise ValueError(
      f"{part.where}: timm_model_name={name!r} is not implemented here."
      f"{messages.did_you_mean(name, vits)} Known: {', '.join(vits)}."
    )
  part.require("timm_pool", "map")
  part.require("timm_proj", "none")
  if size != known[name]["image_size"]:
    raise ValueError(
      f"{part.where}: image_size={size}, and {name} takes images of "
      f"{known[name]['image_size']} pixels: they must agree."
    )
  return dict(known[name]["fields"])


def _text(part: Fields, embedding: int, quick: bool) -> Options:
  for field, value in (_PLAIN | _PLAIN_TEXT).items():
    part.require(field, value)
  has_head = part.choose("proj_type", {"linear": True, "none": False}, "linear")
  return {
    **_sizes(part, 512, quick),
    "num_heads": part.get("heads", 8),
    "num_classes": embedding if has_head else None,
    "head_bias": part.get("proj_bias", False),
    "vocab_size": part.get("vocab_size", 49_408),
    "max_len": part.get("context_length", 77),
    "pool_type": part.choose(
      "pool_type", {"argmax": "eot", "last": "last"}, "argmax"
    ),
    "causal": not part.get("no_causal_mask", False),
  }


def _sizes(part: Fields, default: int, quick: bool) -> Options:
  width = part.get("width", default)
  norm, act = _part(part, "norm_kwargs"), _part(part, "act_kwargs")
  forms = {"none": "quick"} if quick else {"none": "erf", "tanh": "tanh"}
  sizes = {
    "width": width,
    "depth": part.get("layers", 12),
    "mlp_dim": int(width * part.get("mlp_ratio", 4.0)),
    "gelu": act.choose("approximate", forms, "none"),
    "layer_norm_eps": norm.get("eps", 1e-5),
  }
  for options in (norm, act):
    _refuse_unread(options)
  return sizes


def _tokenizer(part: Fields, repo: Repository) -> dict[str, str]:
  """Our name of the tokenizer, and the path of its vocabulary."""
  source = part.get("hf_tokenizer_name", "")
  options = _part(part, "tokenizer_kwargs")
  if not source:  # OpenCLIP brings CLIP's, which is often in the repository too
    options.require("clean", "lower")
    _refuse_unread(options)
    try:
      vocab = repository.fetch_first(repo, ("tokenizer.json", "merges.txt"))
    except MissingFileError:
      vocab = download.fetch_any(two_towers.CLIP_VOCAB, "vocabulary of CLIP")
    return {"name": "clip", "vocab": os.fspath(vocab)}
  options.choose("clean", {"canonicalize": True}, "whitespace")
  _refuse_unread(options)
  file = "tokenizer_config.json"
  if source != repo.id:
    repo = repository.pin(Repository(source), (file,))
  fields = Fields(repository.read_json(repo, file), f"{repo}: {file}")
  name, pad = fields.choose("tokenizer_class", _TOKENIZERS, "")
  fields.require("pad_token", pad)
  vocab = repository.fetch(repo, "tokenizer.json")
  return {"name": name, "vocab": os.fspath(vocab)}
