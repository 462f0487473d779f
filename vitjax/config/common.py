"""Shared by config files: options, splits of data sets, and fragments.

A fragment is a part that several recipes have in common: big_vision's
optimizer, vision_transformer's fine-tuning, the evaluation of PyTorch's
recipes.
"""

import re
from collections.abc import Mapping
from typing import Any

import ml_collections

from vitjax.config import messages

# timm's RandAugment in the recipes of DeiT and ConvNeXt.
TIMM_RANDAUG = 'timm_randaug("rand-m9-mstd0.5-inc1", method="bicubic")'

# Captions that are made from the name of a class.
CAPTIONS = (
  "{}",
  "a {}",
  "a photo of a {}.",
  "a picture of the {}.",
  "a small black and white photo of a {}.",
  "one {} on a plain background.",
)
# Of the words above and of Fashion-MNIST, with all letters for other words.
CAPTIONS_VOCAB = "configs/lit_vocab.txt"  # shipped, wherever the run starts

VARIANT = re.compile(r"([A-Za-z]+[\w-]*?)/?(\d+)")


def parse_arg(
  arg: str | None, *, positional: int = 1, **defaults
) -> ml_collections.ConfigDict:
  """Reads the options after the colon of `--config=file.py:OPTIONS`.

  Options are separated by commas and written `name=value`. The first ones may
  omit their names, and the name of a switch alone turns it on:

    parse_arg("s16,res=256,smoke", variant="B/16", res=224, smoke=False)

  Args:
    arg: the options, or None.
    positional: how many of the first options may omit their names.
    **defaults: name and default of each option. A value has the type of the
      default, but `epochs` may be a fraction. A type instead of a default
      means that the option is None unless it is set.

  Raises:
    ValueError: if an option is not known or its value has another type.
  """
  kinds = {
    k: v if isinstance(v, type) else type(v) for k, v in defaults.items()
  }
  options = ml_collections.ConfigDict(
    {k: None if isinstance(v, type) else v for k, v in defaults.items()}
  )
  unnamed = list(defaults)[:positional]
  for item in filter(None, (arg or "").split(",")):
    if match := re.fullmatch(r"(\w+)=(.*)", item):
      name, value = match.groups()
      unnamed = []
    elif kinds.get(item) is bool:
      name, value = item, "true"
    elif unnamed:
      name, value = unnamed.pop(0), item
    else:
      name, value = item, ""
    if name not in kinds or not value:
      hint = messages.did_you_mean(name, kinds)
      known = ", ".join(
        f"{k}={'' if v is None else v}" for k, v in options.items()
      )
      raise ValueError(
        f"option {item!r} of the config is not known.{hint} Options and their "
        f"values: {known}."
      )
    kind = kinds[name]
    try:
      if kind is bool:
        read = {"true": True, "false": False}[value.lower()]
      elif name == "epochs" and "." in value:
        read = float(value)  # such as half an epoch
      else:
        read = kind(value)
    except (ValueError, KeyError):
      default = defaults[name]
      example = "" if default is kind else f", such as {default!r}"
      raise ValueError(
        f"option {name}={value!r} of the config must be of type "
        f"{kind.__name__}{example}."
      ) from None
    with options.ignore_type():
      options[name] = read
  return options


def pick(table: Mapping[str, Any], key: str, what: str) -> Any:
  """Returns `table[key]`.

  Raises:
    ValueError: if there is none; lists the known keys.
  """
  if key not in table:
    hint = messages.did_you_mean(key, table)
    raise ValueError(
      f"{what} {key!r} is not in the recipe.{hint} Known: {', '.join(table)}."
    )
  return table[key]


def variant(text: str) -> str:
  """The published spelling of a variant: "s16" and "S/16" are "S/16"."""
  match = VARIANT.fullmatch(text)
  if not match:
    raise ValueError(
      f"variant {text!r} is not NAME/PATCH, such as s16, b32, so400m14 or h14."
    )
  name, patch = match.groups()
  special = {"mu": "mu", "so400m": "So400m", "ti": "Ti"}
  name = special.get(name.lower(), name)
  if len(name) == 1 and name in "smblh":
    name = name.upper()
  return f"{name}/{patch}"


def splits(data: str) -> tuple[str, str]:
  """The usual training and evaluation split of a data set."""
  name = re.split("[:/]", data)[0]
  return {
    "imagenet2012": ("train[:99%]", "validation"),
    "imagenet21k": ("train[51200:]", "train[:51200]"),
    "oxford_flowers102": ("train+validation", "test"),
    "food101": ("train", "validation"),
    **dict.fromkeys(
      ("folder", "labels", "wds", "parquet", "mixture"),
      ("train", "val"),
    ),
    # A path alone, which is that of a folder or of a file of labels.
    **dict.fromkeys(("", ".", "..", "~"), ("train", "val")),
  }.get(name, ("train", "test"))


def all_of_train(data: str) -> str:
  """The whole training split of ImageNet-1k, with nothing held out."""
  return "train" if data.startswith("imagenet2012") else splits(data)[0]


def evals(data: str, pp: str, **every) -> dict[str, dict[str, Any]]:
  """Evals of the usual split, and of the images that `splits` holds out."""
  sections = {"val": {"split": splits(data)[1], "pp": pp, **every}}
  if data.startswith("imagenet2012"):
    minival = {"split": "train[99%:]", "pp": pp, **every}
    sections = {"minival": minival, **sections}
  return sections


def imagenet_label_sets(pp: str, **every) -> dict[str, dict[str, Any]]:
  """Evals of ImageNet-v2 and of ReaL's labels; skipped without their data."""
  common = {"pp": pp, "optional": True, **every}
  return {
    "v2": {
      "data": "imagenet_v2/matched-frequency",
      "split": "test",
      **common,
    },
    "real": {
      "data": "imagenet2012_real",
      "split": "validation",
      "labels": "real_label",
      **common,
    },
  }


def fewshot(res: int = 224, **every) -> dict[str, dict[str, Any]]:
  """big_vision's few-shot evals of pre-training; skipped without their data.

  The penalty is the published one, so the accuracies can be compared.
  """
  data = {
    "caltech": ("caltech101", "train", "test"),
    "cars": ("cars196", "train", "test"),
    "cifar100": ("cifar100", "train", "test"),
    "dtd": ("dtd", "train", "test"),
    "pets": ("oxford_iiit_pet", "train", "test"),
    "uc_merced": ("uc_merced", "train[:1000]", "train[1000:]"),
    # At least 30 images of each class.
    "imagenet": ("imagenet2012", "train[:65000]", "validation"),
  }
  pp = f"decode|resize({res * 8 // 7})|central_crop({res})|value_range(-1, 1)"
  return {
    f"fewshot_{name}": {
      "type": "fewshot",
      "data": data_name,
      "train_split": train,
      "split": test,
      "l2": 2.0**10,
      "pp": pp,
      "optional": True,
      **every,
    }
    for name, (data_name, train, test) in data.items()
  }


def big_vision_adam(
  learning_rate: float = 1e-3, weight_decay: float = 1e-4
) -> dict[str, Any]:
  """The optimizer of big_vision's recipes.

  The schedule scales the decay, the learning rate does not: a decay of 1e-4
  here is 0.1 in PyTorch and in the names of AugReg's files, at a rate of 1e-3.
  """
  return {
    "name": "adam",
    "mu_dtype": "bfloat16",
    "learning_rate": learning_rate,
    "weight_decay": weight_decay,
    "decay_scale": "schedule",
    "grad_clip_norm": 1.0,
  }


def bicubic_crop(size: int) -> str:
  """Training ops of PyTorch's recipes: a random crop and a random flip."""
  return (
    f"decode_jpeg_and_inception_crop({size}, area_min=8, "
    'method="bicubic")|flip_lr'
  )


def bicubic_eval(size: int, crop_pct: float | None) -> str:
  """Evaluation ops of PyTorch's recipes: resize and crop the centre.

  Args:
    size: side of the result in pixels.
    crop_pct: share of the shorter side that is kept; None squeezes the whole
      image into a square.
  """
  bicubic = '"bicubic", antialias=True'
  if crop_pct is None:
    return f"decode|resize({size}, {bicubic})"
  small = int(size / crop_pct)
  return f"decode|resize_small({small}, {bicubic})|central_crop({size})"


def vision_transformer_finetuning(
  *,
  model: Mapping[str, Any],
  weights: str,
  data: str,
  steps: int,
  warmup_steps: int,
  res: int,
  learning_rate: float = 0.03,
  batch: int = 512,
  accumulate: int = 1,
) -> ml_collections.ConfigDict:
  """How vision_transformer fine-tunes ViTs and Mixers with a new head."""
  train, val = splits(data)
  config = ml_collections.ConfigDict()
  config.seed = 0
  config.total_steps = steps
  config.loss = "softmax_xent"
  config.accumulation_steps = accumulate
  config.pretrained_dir = None
  config.init = {
    "weights": weights,
    "reinit": ("head",),
    "ignore": ("pre_logits",),  # the tanh layer of the published models
  }

  config.input = {
    "data": data,
    "split": train,
    "batch_size": batch,
    "pp": f"decode_jpeg_and_inception_crop({res})|flip_lr|value_range(-1, 1)",
  }
  config.model = dict(model)
  config.optim = {
    "name": "sgd",
    "momentum": 0.9,
    "accumulator_dtype": "bfloat16",
    "learning_rate": learning_rate,
    "grad_clip_norm": 1.0,
  }
  config.schedule = {"decay": "cosine", "warmup_steps": warmup_steps}
  # The aspect ratio is not kept, as published.
  pp_eval = f"decode|resize({res})|value_range(-1, 1)"
  config.evals = {"val": {"split": val, "pp": pp_eval, "every_percent": 10}}
  return config


def set_steps(section: ml_collections.ConfigDict, name: str, steps: int):
  """Sets a duration in steps; replaces the key of any other unit."""
  for key in [k for k in section if k.startswith(f"{name}_")]:
    del section[key]
  section[f"{name}_steps"] = steps


# The smallest model of a family that still has all of its parts.
TINY = {
  "convnext": {"depths": (1, 1, 2, 1), "widths": (8, 16, 24, 32)},
  "coatnet": {
    "stem_widths": (8, 16),
    "widths": (16, 32, 32, 64),
    "depths": (1, 1, 1, 1),
  },
  "maxxvit": {
    "stem_widths": (8, 32),
    "widths": (32, 32, 64, 64),
    "depths": (1, 1, 1, 1),
  },
  "metaformer": {"depths": (1, 1, 2, 1), "widths": (8, 16, 32, 64)},
  "efficientnet": {
    "depths": (1,) * 7,
    "widths": (8,) * 7,
    "stem_width": 8,
    "head_width": 32,
  },
  "mixer": {"width": 32, "depth": 2, "tokens_mlp_dim": 16, "mlp_dim": 64},
  "nfnet": {"depths": (1, 2), "widths": (256, 256)},
  "regnet": {"depths": (1, 1), "widths": (8, 16), "group_width": 4},
  "resnet": {"stages": (1, 1)},
  "resnet_bn": {"depths": (1, 1), "widths": (4, 8)},
  "swin": {
    "width": 8,
    "depths": (1, 1, 2, 1),
    "num_heads": (1, 2, 2, 2),
    "window": 4,
  },
  "vit": {"width": 32, "depth": 2, "mlp_dim": 64, "num_heads": 2},
}


# Kind of labels -> loss, metric of the best checkpoint.
_OF_LABELS = {
  "multi_label": ("sigmoid_xent_mean", "mAP"),
  "regression": ("mse", "mae"),
}


def fit_labels(config: ml_collections.ConfigDict) -> None:
  """Fits a recipe for images of one class to the labels that its data name.

  "labels:table.csv:multi_label=..." and "...:regression=..." get their loss,
  evals and metric of the best checkpoint; other data change nothing.
  """
  match = re.search(rf":({'|'.join(_OF_LABELS)})=", config.input.data)
  if match is None:
    return
  config.loss, metric = _OF_LABELS[match[1]]
  for section in config.evals.values():
    section.type = match[1]
    if "metrics" in section:
      del section.metrics
  if "best_metric" in config.get("checkpoint", {}):
    name, _, _ = config.checkpoint.best_metric.partition("/")
    config.checkpoint.best_metric = f"{name}/{metric}"


def make_smoke(
  config: ml_collections.ConfigDict, family: str | None = None
) -> None:
  """Shrinks a recipe to a few steps of a tiny model on random images.

  Ops, mixing, loss and optimizer stay; weights to start from are left out, as
  they would not fit.

  Args:
    config: the recipe.
    family: family of its model, a key of `TINY`. None: the model's name.
  """

  def smaller(pp):
    return re.sub(r"(crop|resize\w*)\(\d+", r"\1(64", pp)

  set_steps(config, "total", 4)
  config.num_classes = 10
  repeats = config.input.get("repeats", 1)
  config.input.data = "fake:40,72x96x3,10"
  config.input.split = "train"
  config.input.batch_size = 8 * repeats if repeats > 1 else 16
  config.input.pp = smaller(config.input.pp)
  if config.get("accumulation_steps", 1) > 1:
    config.accumulation_steps = 2
  if "init" in config:
    del config.init

  model = config.model
  name = f"{model.name} {model.get('variant')}"
  fields = pick(TINY, family or model.name, "family")
  if " iso-" in name:
    fields = {"depths": (2,), "widths": (8,)}
  if re.search(r"R\d+\+|_r\d+_", name):  # a hybrid with stages
    fields = {**fields, "stem": (1,)}
  if model.get("patch_size", 16) < 8:
    fields = {**fields, "patch_size": 16}
  model.update(fields)

  schedule = config.get("schedule", {})
  for key in [k for k in schedule if re.match("(warmup|cooldown)_", k)]:
    set_steps(schedule, key.partition("_")[0], 1)
  for name in [name for name, x in config.evals.items() if "data" in x]:
    del config.evals[name]  # data that is missing
  for section in config.evals.values():
    section.split = "train"
    section.pp = smaller(section.pp)
    set_steps(section, "every", 2)
  for name, steps in (("checkpoint", 2), ("report", 1)):
    if name not in config:
      config[name] = ml_collections.ConfigDict()
    set_steps(config[name], "every", steps)


def small_text(width: int, max_len: int = 16) -> dict[str, int]:
  """A small text tower for `CAPTIONS_VOCAB`."""
  return {
    "width": width,
    "depth": 2,
    "num_heads": 4,
    "vocab_size": 256,
    "max_len": max_len,
    "num_classes": width,
  }
