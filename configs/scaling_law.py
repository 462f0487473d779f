r"""Loss against compute, for ViTs and ConvNeXts on Fashion-MNIST.

In the form of "ConvNets Match Vision Transformers at Scale",
https://arxiv.org/abs/2310.16764: a ladder of models in which the number of
parameters and the number of epochs double together, so that compute grows
about fourfold from one size to the next.

  python -m vitjax.main --config=configs/scaling_law.py:vit,size=1,seed=0 \
    --workdir=runs/scaling/vit-1-0
  python -m scripts.scaling_law runs/scaling/* --out=scaling

Options: family=vit (or convnext), size=1 (to 4), seed=0, lr=0.004, smoke. The
second command computes FLOPs, fits a power law and draws it;
docs/fashion_mnist.md has the result.
"""

import ml_collections

from vitjax.config import common

# Widths and depths. The width of a head is 16.
VIT = {"1": (32, 2), "2": (32, 4), "3": (48, 4), "4": (64, 4)}
# Widths and depths of two stages, on 7x7 and 3x3 positions.
CONVNEXT = {
  "1": ((16, 32), (1, 1)),
  "2": ((24, 48), (1, 1)),
  "3": ((32, 64), (1, 1)),
  "4": ((32, 64), (2, 2)),
}
# The best for both at size 3, by the last 5 % of the training images.
LEARNING_RATE = 4e-3


def get_config(arg: str | None = None) -> ml_collections.ConfigDict:
  """The config of the run."""
  arg = common.parse_arg(
    arg, family="vit", size="1", seed=0, lr=LEARNING_RATE, smoke=False
  )
  sizes = common.pick({"vit": VIT, "convnext": CONVNEXT}, arg.family, "family")
  widths, depths = common.pick(sizes, arg.size, "size")
  config = ml_collections.ConfigDict()
  config.seed = arg.seed
  config.total_epochs = 2.0 ** (int(arg.size) - 3)
  config.loss = "softmax_xent"

  config.input = {
    "data": "fashion_mnist",
    "split": "train[:95%]",
    "batch_size": 64,
    "cache": True,
    "pp": "decode(channels=1)|random_crop(28, 2)|flip_lr|value_range(-1, 1)",
  }
  if arg.family == "vit":
    config.model = {
      "name": "vit",
      "patch_size": 7,
      "width": widths,
      "depth": depths,
      "num_heads": widths // 16,
      "pool_type": "gap",
      "posemb": "sincos2d",
    }
  else:
    config.model = {
      "name": "convnext",
      "widths": widths,
      "depths": depths,
      "layer_scale_init": None,  # it is for deep ones
    }
  config.optim = {
    "name": "adam",
    "learning_rate": arg.lr,
    "weight_decay": 1e-4,
    "decay_scale": "schedule",
    "grad_clip_norm": 1.0,
  }
  config.schedule = {"decay": "cosine", "warmup_percent": 9}

  pp_eval = "decode(channels=1)|value_range(-1, 1)"
  config.evals = {
    "val": {"split": "train[95%:]", "pp": pp_eval, "batch_size": 500},
    "test": {"split": "test", "pp": pp_eval, "batch_size": 500},
  }
  config.checkpoint = {"every_percent": 50}
  config.report = {"every_steps": 50}
  if arg.smoke:
    common.make_smoke(config)
  return config
