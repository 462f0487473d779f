r"""The best of two CPU cores on Fashion-MNIST, and a ViT that it teaches.

  python -m vitjax.main --config=configs/fashion_best.py --workdir=runs/best
  python -m vitjax.main --workdir=runs/taught \
    --config=configs/fashion_best.py:vit,teacher=runs/best
  python -m vitjax.main --workdir=runs/vit --config=configs/fashion_best.py:vit

`resnet` is a ResNet of 779,000 parameters, with a stem for small images, as in
SimCLR (https://arxiv.org/abs/2002.05709), and the shortcuts of ResNet-D
(https://arxiv.org/abs/1812.01187). `vit` is the ViT of `fashion_mnist.py`; with
a teacher it learns from the teacher's probabilities alone, as in
https://arxiv.org/abs/2106.05237.

Measured results and their cost: docs/fashion_mnist.md.

Options: model=resnet (or vit), epochs (by default 20 and 12), teacher (a run
folder, for vit), seed=0, smoke.
"""

import ml_collections

from vitjax.config import common

# Mean and standard deviation of the training pixels, in 0..1.
NORMALIZE = "normalize((0.286,), (0.353,))"


def get_config(arg: str | None = None) -> ml_collections.ConfigDict:
  """The config of the run."""
  arg = common.parse_arg(
    arg, model="resnet", epochs=int, teacher=str, seed=0, smoke=False
  )
  fill = common.pick({"resnet": _resnet, "vit": _vit}, arg.model, "model")
  config = ml_collections.ConfigDict()
  config.seed = arg.seed
  config.loss = "softmax_xent"
  config.input = {
    "data": "fashion_mnist",
    "split": "train",
    "batch_size": 64,
    "cache": True,
    "pp": f"decode(channels=1)|random_crop(28, padding=2)|flip_lr|{NORMALIZE}",
  }
  fill(config)
  if arg.epochs:
    config.total_epochs = arg.epochs
  config.evals = {
    "test": {
      "split": "test",
      "pp": f"decode(channels=1)|{NORMALIZE}",
      "batch_size": 500,
      "every_epochs": 4,
    },
  }
  config.checkpoint = {"every_epochs": 1}
  config.report = {"every_steps": 100}
  config.export_npz = True
  if arg.smoke:
    common.make_smoke(config, "resnet_bn" if arg.model == "resnet" else None)
    config.evals.test.pp = config.evals.test.pp.replace(
      "|", "|central_crop(64)|", 1
    )
  if arg.teacher:
    config.distill = {"teacher": arg.teacher, "temperature": 2.0}
  return config


def _resnet(config: ml_collections.ConfigDict) -> None:
  config.total_epochs = 20
  config.model = {
    "name": "resnet_bn",
    "depths": (1, 1, 2),
    "widths": (32, 64, 128),
    "stem_widths": (32,),
    "small_images": True,
    "pool_shortcut": True,
  }
  config.optim = {
    "name": "sgd",
    "momentum": 0.9,
    "nesterov": True,
    "learning_rate": 0.05,
    "weight_decay": 5e-4,
    "decay_scale": "gradient",
  }
  config.schedule = {"decay": "cosine", "warmup_percent": 5}
  config.mixing = {"erase_prob": 0.25, "label_smoothing": 0.1}
  config.ema = {"decay": 0.999, "warmup": True}


def _vit(config: ml_collections.ConfigDict) -> None:
  config.total_epochs = 12
  config.model = {
    "name": "vit",
    "patch_size": 7,
    "width": 64,
    "depth": 4,
    "num_heads": 4,
    "pool_type": "gap",
    "posemb": "learn",
  }
  config.optim = {
    "name": "adam",
    "learning_rate": 2e-3,
    "weight_decay": 0.05,
    "grad_clip_norm": 1.0,
  }
  config.schedule = {"decay": "cosine", "warmup_percent": 5}
