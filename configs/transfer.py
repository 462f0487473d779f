r"""Fine-tune published weights or those of a run on any classification data.

  python -m vitjax.main --config=configs/transfer.py:MODEL,DATASET

  transfer.py:imagenet21k/ViT-B_16,oxford_iiit_pet
  transfer.py:vit_small_patch16_224.augreg_in21k_ft_in1k,folder:/my/images
  transfer.py:convnext_tiny_22k_224,cifar100,layer_decay=0.8
  transfer.py:augreg:R_Ti_16,folder:/my/images,batch=32,accumulate=4
  transfer.py:runs/mine,folder:/my/images
  transfer.py:hf:OWNER/REPO,folder:/my/images
  transfer.py:/my/B_16.npz,folder:/my/images,model=ViT-B_16,probe

MODEL is a published name of `vitjax.weights.zoo.entries()`, the name of an
AugReg checkpoint, a repository of the Hugging Face hub, a run folder, or the
path or URL of a file. A run folder, a file exported from it, a repository and
most published names say which model the weights belong to; otherwise name it
with `model=` (one of `vitjax.models.list()`). DATASET is a TFDS name or
folder:/path; the number of classes is that of the data. If a batch does not
fit, `accumulate=4` computes it in four parts with the same result.

There are two sets of settings. Google's weights and those of a run get
vision_transformer's: SGD, crops of 5 % to 100 % of the area, evaluation without
a crop. Weights that come from PyTorch or the hub get AdamW, crops of 8 % and
more, and bicubic resizing. Images are normalised as they were for the weights.
`probe` trains the head alone, on whole images as in evaluation and at ten times
the rate.

Steps, batch (512), rates and sizes of the table below are vision_transformer's
for CIFAR and ImageNet-1k and AugReg's preset for Pets. Other data get 10 epochs
in batches of 64, so that a few thousand images make some hundred steps; these
settings and those of AdamW and of `probe` are chosen here. Networks with batch
normalisation get ten times AdamW's rate: EfficientNet-Lite0 on 2,000 images of
Fashion-MNIST, 64 pixels and 3 epochs, had 63 % with 1e-4, 82 % with 1e-3 and
78 % with 3e-3. A new head starts at zero. The best learning
rate and length depend on the data: try a third and three times of them. No run
of this file is published.

Options: weights=imagenet21k/ViT-B_16, dataset=cifar10, model, probe,
layer_decay (a factor per layer, from the head down), optim (sgd, adamw), norm
(inception, imagenet, clip), lr, wd=0, epochs or steps, batch, res (by default
the table's, or that of the run), train and val (splits), accumulate=1,
flip=false (no mirror images; for digits and text), smoke.
"""

import json
import os
from typing import Any

import ml_collections

from vitjax.config import common
from vitjax.weights import augreg, zoo

# Data set -> steps, steps of the warm-up, side of the image in pixels, learning
# rates of SGD and of AdamW.
DATASETS = {
  "cifar10": (10_000, 500, 384, 0.03, 1e-4),
  "cifar100": (10_000, 500, 384, 0.03, 1e-4),
  "imagenet2012": (20_000, 500, 384, 0.03, 1e-4),
  "oxford_iiit_pet": (500, 100, 384, 0.03, 1e-4),
  "oxford_flowers102": (500, 100, 384, 0.03, 1e-4),
  "food101": (5_000, 500, 384, 0.03, 1e-4),
}
# Other data, whose number of images is unknown here: side of the image and
# learning rates; length and batch for some thousand images.
OTHER_DATA = (224, 0.01, 1e-4)
OTHER_EPOCHS, OTHER_BATCH = 10, 64
BATCH_NORM = ("efficientnet", "regnet", "resnet_bn")  # families


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
    epochs=float,
    batch=int,
    res=int,
    train=str,
    val=str,
    accumulate=1,
    flip=True,
    smoke=False,
  )
  is_known = arg.dataset in DATASETS
  steps, warmup_steps, *settings = DATASETS.get(
    arg.dataset, (0, 0, *OTHER_DATA)
  )
  res, *rates = settings
  about = read_about(arg.weights, arg.model)
  entry = None if about else record_of(arg.weights, arg.model)
  model = about.get("model") or model_of(entry, arg.model)
  known = entry or zoo.of_model(model["name"])
  family = known.family if known else model["name"]
  if family == "efficientnet":  # the heads of the others are small or zero
    model = {**model, "head_zero_init": True}
  if about:
    is_google = not arg.weights.startswith("hf:")
  else:
    is_google = bool(entry) and entry.conventions == "vision_transformer"
  is_adamw = common.pick(
    {"sgd": False, "momentum": False, "adam": True, "adamw": True},
    arg.optim or ("sgd" if is_google else "adamw"),
    "optim",
  )
  if about:
    res = about["size"]
  elif entry and entry.family == "mixer":
    res = entry.image_size  # fits no other
  res = arg.res or res
  rate = rates[is_adamw] * (10 if arg.probe else 1)
  if is_adamw and family in BATCH_NORM:
    rate *= 10

  config = common.vision_transformer_finetuning(
    model=model,
    weights=arg.weights,
    data=arg.dataset,
    steps=steps,
    warmup_steps=warmup_steps,
    res=res,
    learning_rate=arg.lr or rate,
    batch=arg.batch or (512 if is_known else OTHER_BATCH),
    accumulate=arg.accumulate,
  )
  if arg.steps or arg.epochs or not is_known:
    del config.total_steps, config.schedule.warmup_steps
    config.schedule.warmup_percent = 100 * warmup_steps / steps if steps else 10
    if arg.steps:
      config.total_steps = arg.steps
    else:
      config.total_epochs = arg.epochs or OTHER_EPOCHS
  # Accuracy alone hides a model that answers the largest class.
  config.evals.val.metrics = ("balanced_acc", "majority")
  if arg.train:
    config.input.split = arg.train
  if arg.val:
    config.evals.val.split = arg.val

  if arg.norm:
    normalize = common.pick(zoo.NORMALISATIONS, arg.norm, "norm")
  elif about:
    normalize = about["normalise"]
  else:
    normalize = entry.normalise if entry else zoo.NORMALISATIONS["inception"]
  if about.get("channels") == 1:
    config.input.pp = f"decode(channels=1)|inception_crop({res})|flip_lr"
    config.evals.val.pp = f"decode(channels=1)|resize({res})"
  elif is_google:
    config.input.pp = f"decode_jpeg_and_inception_crop({res})|flip_lr"
    config.evals.val.pp = f"decode|resize({res})"
  else:
    config.input.pp = common.bicubic_crop(res)
    config.evals.val.pp = common.bicubic_eval(res, 0.875)
  if arg.probe:  # of features of whole images, as in evaluation
    config.input.pp = f"{config.evals.val.pp}|flip_lr"
  if not arg.flip:
    config.input.pp = config.input.pp.replace("|flip_lr", "")
  if normalize:
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
    common.make_smoke(config, known and family)
  common.fit_labels(config)
  return config


def read_about(weights: str, module: str | None) -> dict[str, Any]:
  """What a run, an exported file or a repository says of its weights, or {}.

  Args:
    weights: the option.
    module: dotted path of a model that the file may name: the option `model`.

  Raises:
    ValueError: if the file is damaged or names another module.
  """
  if weights.startswith("hf:"):
    from vitjax.weights import published  # imports JAX

    found = _facts(weights, published.describe(weights), module)
    found["model"].pop("rep_size", None)
    return found
  for file in (
    os.path.join(weights, "model.json"),
    f"{os.path.splitext(weights)[0]}.json",
  ):
    if os.path.isfile(file):
      break
  else:
    return {}
  with open(file, encoding="utf-8") as f:
    return _facts(file, f.read(), module)


def _facts(file: str, about: Any, module: str | None) -> dict[str, Any]:
  """What is needed of the content of `model.json`, or of its text."""
  try:
    about = json.loads(about) if isinstance(about, str) else about
    model = {k: x for k, x in about["model"].items() if k != "num_classes"}
    found = {
      "model": model,
      "size": int(about["image_size"][0]),
      "channels": int(about["channels"]),
      "normalise": about["preprocess"].rpartition("|")[2],
    }
    if model["name"] == "mae":  # its encoder
      own = ("decoder_", "mask_")
      model = {k: x for k, x in model.items() if not k.startswith(own)}
      model["name"] = "vit"
      found["model"] = model
    modules = [model["name"], model.get("image_model", "")]
    modules = [name for name in modules if "." in name and name != module]
  except (ValueError, TypeError, KeyError, IndexError, AttributeError) as e:
    raise ValueError(
      f"{file} does not describe weights: {type(e).__name__}: {e}."
    ) from e
  if modules:
    raise ValueError(
      f"{file} names the module {modules[0]!r}, and importing it would run its "
      f"code. If you trust it, add model={modules[0]}."
    )
  if not found["normalise"].startswith(("value_range", "normalize")):
    found["normalise"] = ""  # images stay as they are
  return found


def record_of(weights: str, model: str | None) -> zoo.Entry | None:
  """The record of weights by their published name, or of a file's model.

  Args:
    weights: the option.
    model: the option; a model without published weights has no record.

  Raises:
    ValueError: if neither says what the weights are of, or they have no
      classes.
  """
  prefix, _, key = weights.partition(":")
  try:
    entry = zoo.find(weights)
  except KeyError:
    if not model and prefix == "augreg":
      model = common.pick(augreg.MODELS, key, "checkpoint")
    elif not model:
      raise ValueError(
        f"{weights!r} is neither a run folder nor a published name of "
        "`vitjax.weights.zoo`, and does not say what it has the weights of: "
        "add model=, such as model=ViT-B_16."
      ) from None
    entry = None
  if model:
    return zoo.of_model(model) or entry
  if entry.family == "two_tower":
    raise ValueError(
      f"{weights!r} compares images with texts and has no classes. Fine-tune a "
      "classifier of `vitjax.weights.zoo`."
    )
  return entry


def model_of(entry: zoo.Entry | None, name: str | None) -> dict[str, Any]:
  """The model to fine-tune: without the head and the layer before it."""
  if name or not entry:
    return {"name": name}
  options = dict(entry.options)
  for key in ("num_classes", "rep_size"):
    options.pop(key, None)
  return {"name": entry.model, **options}
