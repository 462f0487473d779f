r"""AugReg: pre-train a ViT on ImageNet-21k or -1k, or fine-tune theirs.

How to train your ViT? Data, Augmentation, and Regularization in Vision
Transformers, https://arxiv.org/abs/2106.10270. Not trained here.

Pre-training on ImageNet-21k or ImageNet-1k, as big_vision publishes it:

  python -m vitjax.main --config=configs/augreg.py:pretrain,b16,i21k
  python -m vitjax.main --config=configs/augreg.py:pretrain,b16,i1k,aug=strong2

Options: model (ti16, s32, s16, b32, b16, l16), on (i21k, i1k), aug (none,
light1, light2, medium1, medium2, strong1, strong2; by default that of the
model and data), epochs=300, wd=1e-4 (0.1 in the names of files is 1e-4, 0.03
is 3e-5), dropout=0 and drop_path=0 (both 0.1 in the other half of the grid),
data (the TFDS name, or folder:/path), smoke. TFDS does not prepare
ImageNet-21k; a folder of its 21,843 classes will do.

Not known: which images were held out (here: 51,200), and the code of dropout
and stochastic depth (here: the model's own, with a linear ramp).

Fine-tuning of the checkpoint that the authors recommend, by their table of
all checkpoints, or of any one of them by its full name:

  python -m vitjax.main --config=configs/augreg.py:R_Ti_16,oxford_iiit_pet
  python -m vitjax.main --config=configs/augreg.py:B_16-i21k-300ep-lr_0.001-\
aug_medium1-wd_0.1-do_0.0-sd_0.0,imagenet2012,steps=20000,lr=0.01

Options: checkpoint=R_Ti_16, dataset=oxford_iiit_pet (a TFDS name, or
folder:/path), steps=500, lr=0.03, res=384, accumulate=1 (512 images of 384
pixels do not fit on one GPU), smoke. `--config.pretrained_dir` is where the
files are; by default they are fetched.

`vitjax.weights.zoo` has the published top-1 on ImageNet-1k of the recommended
checkpoints, fine-tuned at 384 pixels.
"""

import ml_collections

from vitjax.config import common
from vitjax.weights import augreg

# Layers and magnitude of RandAugment, and mixup.
AUGMENTATIONS = {
  "none": ("", 0.0),
  "light1": ("|randaug(2, 0)", 0.0),  # magnitude 0 is not nothing
  "light2": ("|randaug(2, 10)", 0.2),
  "medium1": ("|randaug(2, 15)", 0.2),
  "medium2": ("|randaug(2, 15)", 0.5),
  "strong1": ("|randaug(2, 20)", 0.5),
  "strong2": ("|randaug(2, 20)", 0.8),
}
# What suits a model on ImageNet-21k and on ImageNet-1k.
DEFAULTS = {
  "Ti/16": {"i21k": "none", "i1k": "light1"},
  "S/32": {"i21k": "none", "i1k": "medium1"},
  "S/16": {"i21k": "light1", "i1k": "medium2"},
  "B/32": {"i21k": "light2", "i1k": "medium2"},
  "B/16": {"i21k": "light2", "i1k": "medium2"},
  "L/16": {"i21k": "medium2", "i1k": "medium2"},
}
# Data, classes, initial bias of the head, and the head itself.
DATA = {
  "i21k": ("imagenet21k", 21_843, -10.0, {"pool_type": "gap"}),
  "i1k": ("imagenet2012", 1000, -6.9, {"pool_type": "tok", "rep_size": True}),
}


def get_config(arg: str | None = None) -> ml_collections.ConfigDict:
  """The config of the run."""
  first, _, rest = (arg or "").partition(",")
  return pretrain(rest) if first == "pretrain" else finetune(arg)


def pretrain(arg: str) -> ml_collections.ConfigDict:
  """The config of a pre-training run."""
  arg = common.parse_arg(
    arg,
    positional=2,
    model="B/16",
    on="i21k",
    aug=str,
    epochs=300,
    wd=1e-4,
    dropout=0.0,
    drop_path=0.0,
    data=str,
    smoke=False,
  )
  data, num_classes, head_bias, head = common.pick(DATA, arg.on, "data")
  data = arg.data or data
  variant = common.variant(arg.model)
  aug = arg.aug or common.pick(DEFAULTS, variant, "model")[arg.on]
  randaug, mixup_alpha = common.pick(AUGMENTATIONS, aug, "augmentation")
  config = ml_collections.ConfigDict()
  config.seed = 0
  config.total_epochs = arg.epochs
  config.num_classes = num_classes
  config.loss = "sigmoid_xent"

  config.input = {
    "data": data,
    "split": common.splits(data)[0],
    "batch_size": 4096,
    "pp": f"decode_jpeg_and_inception_crop(224)|flip_lr{randaug}"
    "|value_range(-1, 1)",
  }
  config.model = {
    "name": "vit",
    "variant": variant,
    "posemb": "learn",
    "head_bias_init": head_bias,
    "dropout_rate": arg.dropout,
    "drop_path_rate": arg.drop_path,
    **head,
  }
  config.optim = common.big_vision_adam(weight_decay=arg.wd)
  config.schedule = {"decay": "cosine", "warmup_steps": 10_000}
  config.mixing = {"mixup_alpha": mixup_alpha}

  pp_eval = "decode|resize_small(256)|central_crop(224)|value_range(-1, 1)"
  config.evals = common.evals(data, pp_eval, every_epochs=5)
  config.evals.update(common.fewshot(every_epochs=10))
  if arg.smoke:
    common.make_smoke(config)
  return config


def finetune(arg: str | None) -> ml_collections.ConfigDict:
  """The config of a fine-tuning run."""
  arg = common.parse_arg(
    arg,
    positional=2,
    checkpoint="R_Ti_16",
    dataset="oxford_iiit_pet",
    steps=500,
    lr=0.03,
    res=384,
    accumulate=1,
    smoke=False,
  )
  key, is_full_name, _ = arg.checkpoint.partition("-")
  config = common.vision_transformer_finetuning(
    model={
      "name": common.pick(augreg.MODELS, key, "checkpoint"),
      "dropout_rate": 0.0,
    },
    weights=arg.checkpoint if is_full_name else f"augreg:{arg.checkpoint}",
    data=arg.dataset,
    steps=arg.steps,
    warmup_steps=100,
    res=arg.res,
    learning_rate=arg.lr,
    accumulate=arg.accumulate,
  )
  if arg.smoke:
    common.make_smoke(config, "vit")
  return config
