"""timm's config.json: our metadata for it, and one for a model of ours.

The architecture is a name that timm and `vitjax.models.list()` share, with
`model_args` that change it. `pretrained_cfg` says how images are prepared.
"""

import dataclasses
import functools
from collections.abc import Mapping
from typing import Any

from vitjax import models
from vitjax.config import messages
from vitjax.weights import fitting, imagenet, layouts, zoo
from vitjax.weights.hub import images
from vitjax.weights.hub.fields import Fields

Options = dict[str, Any]

_POOLING = {"avg": "gap", "token": "tok", "map": "map"}
_GELU = {"gelu": "erf", "gelu_tanh": "tanh"}

# Arguments that every family has.
_COMMON = ("img_size", "in_chans", "num_classes")

# Options that do not change the outputs of a trained model.
_TRAINING = {
  "attention",
  "batch_norm_momentum",
  "drop_path_rate",
  "drop_path_schedule",
  "dropout_rate",
  "dtype",
  "head_bias_init",
  "head_init_scale",
  "head_zero_init",
  "name",
  "num_classes",
  "parent",
  "remat",
  "scan_layers",
  "zero_init_residual",
}
# Options of a ViT that timm's arguments or its weights express.
_EXPRESSED = {
  "class_token",
  "depth",
  "fc_norm",
  "gelu",
  "key_bias",
  "layer_scale_init",
  "mlp_dim",
  "num_heads",
  "num_registers",
  "patch_size",
  "pool_type",
  "posemb",
  "posemb_prefix",
  "qkv_bias",
  "width",
}
# A ViT of timm takes its sizes as arguments, so this name stands for all.
_ANY_VIT = "vit_base_patch16_224"


@functools.cache
def architectures() -> tuple[str, ...]:
  """timm's names of the models that vitjax has too."""
  known = models.list()
  tagged = {name.partition(".")[0] for name in zoo.entries() if "." in name}
  return tuple(sorted(tagged & known.keys()))


def describe(fields: Fields) -> dict[str, Any]:
  """The metadata of a model, see `weights.description`.

  Args:
    fields: config.json.

  Raises:
    ValueError: for what is not implemented; names it.
  """
  name = fields.get("architecture", "")
  known = models.list()
  if name not in known:
    raise ValueError(
      f"{fields.where}: architecture={name!r} is not implemented here."
      f"{messages.did_you_mean(name, architectures(), most=3)} "
      f"{len(architectures())} architectures of timm are: see "
      "vitjax.models.list()."
    )
  family = known[name]["model"]
  where = f"{fields.where} pretrained_cfg"
  given = Fields(fields.get("pretrained_cfg", {}), where)
  size, preprocess = images.from_timm(given)
  arguments = Fields(fields.get("model_args", {}), f"{fields.where} model_args")
  options = _options(arguments, family)
  side = arguments.get("img_size", None)
  if side is not None and _pair(side) != size:
    raise ValueError(
      f"{fields.where}: model_args has img_size={side!r}, and pretrained_cfg "
      f"input_size={given.content.get('input_size')!r}: they must agree."
    )
  channels = arguments.get("in_chans", 3)
  if channels != given.get("input_size", (3, 224, 224))[0] or channels != 3:
    raise ValueError(
      f"{fields.where}: images of {channels} channels are not implemented "
      "here; those of 3 are."
    )
  num_classes = fields.get("num_classes", given.get("num_classes", 1000))
  options["num_classes"] = num_classes or None
  return {
    "model": {"name": name, **options},
    "image_size": list(size),
    "channels": 3,
    "preprocess": preprocess,
    "class_names": _class_names(fields, given, num_classes),
    "data": None,
    "loss": "softmax_xent",
  }


def _options(arguments: Fields, family: str) -> Options:
  """Options of our model for timm's `model_args`."""
  options: Options = {}
  if "act_layer" in arguments.content:
    options["gelu"] = arguments.choose("act_layer", _GELU, "gelu")
  if family == "vit":
    options |= _vit_options(arguments)
  for name in _COMMON:
    arguments.get(name, None)
  if rest := arguments.unread():
    raise ValueError(
      f"{arguments.where}: {messages.shorten(rest)} of a model of family "
      f"{family!r} cannot be read here. Known: "
      f"{', '.join(sorted({*arguments.content} - {*rest})) or 'none of them'}."
    )
  return options


def _vit_options(arguments: Fields) -> Options:
  """Inverse of `timm_vit.timm_arguments`."""
  same = {
    "depth": "depth",
    "embed_dim": "width",
    "fc_norm": "fc_norm",
    "init_values": "layer_scale_init",
    "class_token": "class_token",
    "num_heads": "num_heads",
    "patch_size": "patch_size",
    "qkv_bias": "qkv_bias",
    "reg_tokens": "num_registers",
  }
  given = arguments.content
  options = {
    ours: arguments.get(theirs, None)
    for theirs, ours in same.items()
    if theirs in given
  }
  if "global_pool" in given:
    options["pool_type"] = arguments.choose("global_pool", _POOLING, "token")
  if "no_embed_class" in given:
    options["posemb_prefix"] = not arguments.get("no_embed_class", False)
  if "mlp_ratio" in given:
    if "embed_dim" not in given:
      raise ValueError(
        f"{arguments.where}: mlp_ratio cannot be read without embed_dim."
      )
    options["mlp_dim"] = int(options["width"] * arguments.get("mlp_ratio", 4.0))
  return options


def _pair(side: Any) -> tuple[int, int]:
  return (side, side) if isinstance(side, int) else tuple(side)


def _class_names(
  fields: Fields, given: Fields, num_classes: int
) -> list[str] | None:
  """Names by id: those of the file, or ImageNet-1k's where the tag says so."""
  names = fields.get("label_names", given.get("label_names", None))
  if isinstance(names, dict):
    names = [names.get(str(i)) for i in range(num_classes)]
  if names is not None:
    if len(names) != num_classes or not all(isinstance(x, str) for x in names):
      raise ValueError(
        f"{fields.where}: label_names should name {num_classes} classes."
      )
    about = fields.get("label_descriptions", {})
    return [about.get(name, name) for name in names]
  if num_classes == imagenet.NUM_CLASSES and "in1k" in given.get("tag", ""):
    return list(imagenet.class_names())
  return None


def config_of(
  model: models.Model, metadata: Mapping[str, Any]
) -> tuple[dict[str, Any] | None, str]:
  """config.json with which timm creates `model`, and a remark.

  Returns:
    The config, or None if timm has no such model; and what a reader must know,
    if anything: how timm prepares images differently, or why it cannot load
    the model.
  """
  architecture = _architecture(model, metadata["model"]["name"])
  if architecture is None:
    return None, (
      f"timm has no architecture for this model of family "
      f"{fitting.family(model)!r} with its options."
    )
  layout = layouts.get(layouts.default(model, ".safetensors"))
  arguments = dict(layout.facts(model, metadata)["timm"])
  num_classes = arguments.pop("num_classes")
  if arguments.get("in_chans") == 3:
    del arguments["in_chans"]
  size, channels = metadata["image_size"], metadata["channels"]
  prepared, remark = images.to_timm(metadata["preprocess"], size[0])
  config = {
    "architecture": architecture,
    "num_classes": num_classes,
    **({"model_args": arguments} if arguments else {}),
    "pretrained_cfg": {
      "input_size": [channels, *size],
      "num_classes": num_classes,
      **prepared,
    },
  }
  if names := metadata.get("class_names"):
    config["label_names"] = list(names)
    readable = dict(zip(names, imagenet.readable(names)))
    if any(name != words for name, words in readable.items()):
      config["label_descriptions"] = readable
  return config, remark


def _architecture(model: models.Model, name: str) -> str | None:
  """timm's name of `model`, or of one that its arguments make the same."""
  family = fitting.family(model)
  if family == "vit" and _is_plain(model):
    return name if name in architectures() else _ANY_VIT
  known = models.list()
  for candidate in sorted(architectures(), key=lambda x: x != name):
    if known[candidate]["model"] == family:
      if _facts(models.create(candidate)) == _facts(model):
        return candidate
  return None


def _is_plain(model) -> bool:
  """Whether timm's arguments can make any ViT into this one."""
  return (
    model.posemb in ("learn", "sincos2d")
    and model.pool_type in _POOLING.values()
    and model.gelu in _GELU.values()
    and all(
      getattr(model, field.name) == field.default
      for field in dataclasses.fields(model)
      if field.name not in _TRAINING | _EXPRESSED
    )
  )


def _facts(model) -> dict[str, Any]:
  """Options that decide the outputs of a trained model."""
  fields = {f.name: getattr(model, f.name) for f in dataclasses.fields(model)}
  if "layer_scale_init" in fields:
    fields["layer_scale_init"] = fields["layer_scale_init"] is not None
  return {
    name: tuple(x) if isinstance(x, list) else x
    for name, x in fields.items()
    if name not in _TRAINING
  }
