r"""Fine-tunes any weights on any data.

  python -m vitjax.main --config=configs/transfer.py:MODEL,DATASET

  transfer.py:imagenet21k/ViT-B_16,oxford_iiit_pet
  transfer.py:vit_small_patch16_224.augreg_in21k_ft_in1k,folder:/my/images
  transfer.py:convnext_tiny_22k_224,cifar100,layer_decay=0.8
  transfer.py:augreg:R_Ti_16,folder:/my/images,batch=32,accumulate=4
  transfer.py:runs/mine,folder:/my/images
  transfer.py:/my/B_16.npz,folder:/my/images,model=ViT-B_16,probe

MODEL is a published name of `vitjax.weights.zoo.entries()`, the name of an
AugReg checkpoint, a run folder, or the path or URL of a file. A run folder and
a file exported from it say what they are the weights of, and so do most
published names; otherwise `model=` says it (a name of `vitjax.models.list()`).
DATASET is a TFDS name or folder:/path; the number of classes is that of the
data. Where a batch does not fit, `accumulate=4` computes it in four parts with
the same result.

There are two sets of settings. Google's weights and those of a run get
vision_transformer's: SGD, crops of 5 % to 100 % of the area, evaluation without
a crop. Weights that come from PyTorch get AdamW, crops of 8 % and more, and
bicubic resizing. Images are normalised as they were for the weights. Rates,
steps and sizes of the table are vision_transformer's for CIFAR and ImageNet-1k
and AugReg's preset for Pets; for other data, and for AdamW, they are chosen
here. The best learning rate and number of steps depend on the data: try a third
and three times of them. No run of this file is published.

Options: weights=imagenet21k/ViT-B_16, dataset=cifar10, model, probe (trains the
head alone), layer_decay (a factor per layer, from the head down), optim (sgd,
adamw), norm (inception, imagenet, clip), lr, wd=0, steps, batch=512, res (by
default the table's, or that of the run), train and val (splits), accumulate=1,
smoke.
"""

import json
import os
import re
from typing import Any

import ml_collections

from configs import common

# Steps and those of the warm-up, size of the image, learning rate of SGD and
# of AdamW.
DATASETS = {
  "cifar10": (10_000, 500, 384, 0.03, 1e-4),
  "cifar100": (10_000, 500, 384, 0.03, 1e-4),
  "imagenet2012": (20_000, 500, 384, 0.03, 1e-4),
  "oxford_iiit_pet": (500, 100, 384, 0.03, 1e-4),
  "oxford_flowers102": (500, 100, 384, 0.03, 1e-4),
  "food101": (5_000, 500, 384, 0.03, 1e-4),
}
OTHER_DATA = (500, 100, 224, 0.01, 1e-4)

NORMALIZE = {
  "inception": "value_range(-1, 1)",
  "imagenet": "normalize",
  "clip": common.NORMALIZE_CLIP,
}
GOOGLE = ("ViT-", "R+", "R26+", "R50+", "Mixer-", "BiT-")
IMAGENET = ("convnext", "deit", "NFNet", "dm_nfnet")


def get_config(arg: str | None = None) -> ml_collections.ConfigDict:
  """The config of the run."""
  arg = common.parse_arg(
    arg,
    positional=2,
    weights="imagenet21k/ViT-B_16",
    dataset="cifar10",
    model=str,
    probe=False,
    layer_decay=float,
    optim=str,
    norm=str,
    lr=float,
    wd=0.0,
    steps=int,
    batch=512,
    res=int,
    train=str,
    val=str,
    accumulate=1,
    smoke=False,
  )
  steps, warmup_steps, res, *rates = DATASETS.get(arg.dataset, OTHER_DATA)
  about = read_about(arg.weights)
  model = about.get("model") or {"name": arg.model or model_of(arg.weights)}
  is_google = bool(about) or model["name"].startswith(GOOGLE)
  is_adamw = common.pick(
    {"sgd": False, "adamw": True},
    arg.optim or ("sgd" if is_google else "adamw"),
    "optim",
  )
  if about:
    res = about["image_size"][0]
  elif model["name"].lower().startswith("mixer"):
    res = 224  # fits no other
  res = arg.res or res

  config = common.vision_transformer_finetuning(
    model=model,
    weights=arg.weights,
    data=arg.dataset,
    steps=arg.steps or steps,
    warmup_steps=warmup_steps,
    res=res,
    learning_rate=arg.lr or rates[is_adamw],
    batch=arg.batch,
    accumulate=arg.accumulate,
  )
  if arg.steps:
    common.set_steps(
      config.schedule, "warmup", max(1, warmup_steps * arg.steps // steps)
    )
  if arg.train:
    config.input.split = arg.train
  if arg.val:
    config.evals.val.split = arg.val

  if arg.norm:
    normalize = common.pick(NORMALIZE, arg.norm, "norm")
  elif about:
    normalize = about["preprocess"].rpartition("|")[2]
  else:
    imagenet = model["name"].startswith(IMAGENET)
    normalize = NORMALIZE["imagenet" if imagenet else "inception"]
  if about.get("channels") == 1:
    config.input.pp = f"decode(channels=1)|inception_crop({res})|flip_lr"
    config.evals.val.pp = f"decode(channels=1)|resize({res})"
  elif is_google:
    config.input.pp = f"decode_jpeg_and_inception_crop({res})|flip_lr"
    config.evals.val.pp = f"decode|resize({res})"
  else:
    config.input.pp = common.bicubic_crop(res)
    config.evals.val.pp = common.bicubic_eval(res, 0.875)
  config.input.pp += f"|{normalize}"
  config.evals.val.pp += f"|{normalize}"

  if is_adamw:
    config.optim = {
      "name": "adam",
      "learning_rate": config.optim.learning_rate,
      "grad_clip_norm": 1.0,
    }
  config.optim.weight_decay = arg.wd
  if arg.layer_decay:
    config.optim.layer_decay = arg.layer_decay
  if arg.probe:
    config.optim.freeze = ("(?!head/).*",)
  if arg.smoke:
    common.make_smoke(config)
  return config


def read_about(weights: str) -> dict[str, Any]:
  """What a run folder or an exported file says about its weights, or {}."""
  for file in (
    os.path.join(weights, "model.json"),
    f"{os.path.splitext(weights)[0]}.json",
  ):
    if os.path.isfile(file):
      with open(file, encoding="utf-8") as f:
        about = json.load(f)
      del about["model"]["num_classes"]
      return about
  return {}


def model_of(weights: str) -> str:
  """The model of a published name: "ViT-B_16" of "imagenet21k/ViT-B_16"."""
  key = re.match(r"(?:augreg:)?(\w*)", weights)[1]
  if key in common.AUGREG_MODELS:
    return common.AUGREG_MODELS[key]
  if "/" in weights.removeprefix("timm/") and not re.match(
    r"(imagenet|sam/|gsam/)", weights
  ):
    raise ValueError(
      f"{weights!r} is no run folder, and does not say what it has the weights "
      "of: add model=, such as model=ViT-B_16."
    )
  name = weights.rpartition("/")[2].partition(".")[0]
  return re.sub("-(224|ILSVRC2012)$", "", name)
