r"""Few labels of Fashion-MNIST, with and without pre-training.

  python -m vitjax.main --config=configs/ssl_labels.py:percent=1
  python -m vitjax.main \
    --config=configs/ssl_labels.py:percent=1,weights=runs/ssl

The ViT of `configs/ssl.py:fashion` learns from 1, 10 or 100 % of the labels:
from scratch, or from the encoder of a run of that recipe. All else is the same
but the learning rate of the layers, which with `weights` falls by a quarter
from each to the one before, as https://arxiv.org/abs/2111.06377 has it. Seeds
draw other images, and pairs of runs with one seed have the same.

Results: docs/ssl.md.

Options: percent=1 (of the labels, at most 100), weights (a run folder; none:
from scratch), epochs (by default 60 for 1 %, 6 for 10 % and 1 for 100 %),
lr=2e-3, seed=0, smoke.
"""

import ml_collections

from vitjax.config import common

# Mean and standard deviation of the training pixels, in 0..1.
NORMALIZE = "normalize((0.286,), (0.353,))"
EPOCHS = {1: 60, 10: 6, 100: 1}


def get_config(arg: str | None = None) -> ml_collections.ConfigDict:
  """The config of the run."""
  arg = common.parse_arg(
    arg, percent=1, weights=str, epochs=int, lr=2e-3, seed=0, smoke=False
  )
  epochs = arg.epochs or common.pick(EPOCHS, arg.percent, "percent")
  first = arg.seed * arg.percent % 100
  config = ml_collections.ConfigDict()
  config.seed = arg.seed
  config.total_epochs = epochs
  config.loss = "softmax_xent"
  if arg.weights:
    config.init = {"weights": arg.weights}

  config.input = {
    "data": "fashion_mnist",
    "split": f"train[{first}%:{first + arg.percent}%]",
    "batch_size": 64,
    "cache": True,
    "pp": f"decode(channels=1)|random_crop(28, padding=2)|flip_lr|{NORMALIZE}",
  }
  config.model = {
    "name": "vit",
    "patch_size": 7,
    "width": 64,
    "depth": 4,
    "num_heads": 4,
    "pool_type": "gap",
    "class_token": True,
    "posemb": "sincos2d",
  }
  config.optim = {
    "name": "adamw",
    "learning_rate": arg.lr,
    "weight_decay": 0.05,
    "grad_clip_norm": 1.0,
  }
  if arg.weights:
    config.optim.layer_decay = 0.75
  config.schedule = {"decay": "cosine", "warmup_percent": 10}

  pp_eval = f"decode(channels=1)|{NORMALIZE}"
  config.evals = {
    "test": {
      "split": "test",
      "pp": pp_eval,
      "batch_size": 500,
      "every_percent": 100,
    }
  }
  if arg.percent == 100:  # what features learned with all labels are worth
    config.evals.knn = {
      "type": "knn",
      "train_split": "train[:20000]",
      "split": "test",
      "pp": pp_eval,
      "batch_size": 500,
      "every_percent": 100,
    }
  config.checkpoint = {"every_percent": 25}
  config.report = {"every_steps": 20}
  if arg.smoke:
    common.make_smoke(config)
    config.evals.test.pp = config.evals.test.pp.replace(
      "|", "|central_crop(64)|", 1
    )
  return config
