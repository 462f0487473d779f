r"""Ablations of "Better plain ViT baselines", on Fashion-MNIST.

Table 1 of https://arxiv.org/abs/2205.01580 starts from a simple recipe for
ViTs and takes its choices back one by one. Here a ViT with 118 k parameters
does so on 60,000 images of 28x28 pixels:

  python -m vitjax.main --config=configs/fashion_baselines.py:no_aug,seed=1

Options: row=ours, seed=0, epochs=3.0, optim=adam, smoke. The rows:

  ours      random crop, flip, RandAugment, mixup; fixed sine-cosine position
            embedding; average pooling; a tanh layer before the head
  no_aug    without RandAugment and mixup
  learned   a learned position embedding
  tok       a class token instead of average pooling
  linear    no layer before the head
  original  learned, tok, no_aug and a four times larger batch, as in the
            ViT paper's own recipe; the head has its tanh layer

`optim=sam` is Sharpness-Aware Minimization, https://arxiv.org/abs/2010.01412,
around the same Adam; its step costs two of Adam's.

Measured results, their spread over seeds and the cost: docs/fashion_mnist.md.
"""

import ml_collections

from vitjax.config import common

# What each row takes back.
ROWS = {
  "ours": (),
  "no_aug": ("aug",),
  "learned": ("posemb",),
  "tok": ("pool",),
  "linear": ("head",),
  "original": ("aug", "posemb", "pool", "batch"),
}
RHOS = {"adam": 0.0, "sam": 0.05}


def get_config(arg: str | None = None) -> ml_collections.ConfigDict:
  """The config of the run."""
  arg = common.parse_arg(
    arg, row="ours", seed=0, epochs=3.0, optim="adam", smoke=False
  )
  back = common.pick(ROWS, arg.row, "row")
  rho = common.pick(RHOS, arg.optim, "optim")
  config = ml_collections.ConfigDict()
  config.seed = arg.seed
  config.total_epochs = arg.epochs
  config.loss = "softmax_xent"

  # Magnitude 3 of 10 moves and turns by up to 4 pixels and 9 degrees.
  randaug = "" if "aug" in back else '|timm_randaug("rand-m3-n2-inc1", fill=0)'
  config.input = {
    "data": "fashion_mnist",
    "split": "train",
    "batch_size": 256 if "batch" in back else 64,
    "cache": True,
    "pp": f"decode(channels=1)|random_crop(28, 2)|flip_lr{randaug}"
    "|value_range(-1, 1)",
  }
  config.model = {
    "name": "vit",
    "patch_size": 7,
    "width": 48,
    "depth": 4,
    "num_heads": 3,
    "pool_type": "tok" if "pool" in back else "gap",
    "posemb": "learn" if "posemb" in back else "sincos2d",
    "rep_size": "head" not in back,
  }
  config.optim = {
    "name": "adam",
    "learning_rate": 2e-3,
    "weight_decay": 1e-4,
    "decay_scale": "schedule",
    "grad_clip_norm": 1.0,
  }
  # 10,000 of the published run's 111,000 steps.
  config.schedule = {"decay": "cosine", "warmup_percent": 9}
  config.mixing = {"mixup_alpha": 0.0 if "aug" in back else 0.2}
  config.sam = {"rho": rho}

  config.evals = {
    "test": {
      "split": "test",
      "pp": "decode(channels=1)|value_range(-1, 1)",
      "batch_size": 500,
      "every_epochs": 1,
    },
  }
  config.checkpoint = {"every_epochs": 1}
  config.report = {"every_steps": 50}
  if arg.smoke:
    common.make_smoke(config)
    # As large as the crops: a learned position embedding needs that.
    config.evals.test.pp = config.evals.test.pp.replace(
      "|", "|central_crop(64)|", 1
    )
  return config
