r"""A small ViT on scikit-learn's digits: the whole program in a minute.

  python -m vitjax.main --config=configs/quickstart.py

1,797 images of 8x8 pixels come with scikit-learn; nothing is downloaded.
"""

import ml_collections

from vitjax.config import common


def get_config(arg: str | None = None) -> ml_collections.ConfigDict:
  """The config of the run. Options: epochs, smoke."""
  arg = common.parse_arg(arg, epochs=60, smoke=False)
  config = ml_collections.ConfigDict()
  config.seed = 0
  config.total_epochs = arg.epochs
  config.loss = "softmax_xent"

  config.input = {
    "data": "digits",
    "split": "train",
    "batch_size": 64,
    "pp": "value_range(-1, 1)",
  }
  config.model = {
    "name": "vit",
    "patch_size": 2,
    "width": 64,
    "depth": 3,
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
  config.mixing = {"mixup_alpha": 0.2}

  config.evals = {
    "test": {
      "type": "classification",
      "split": "test",
      "pp": "value_range(-1, 1)",
      "batch_size": 120,
      "every_epochs": 20,
    },
  }
  config.checkpoint = {"every_epochs": 20, "best_metric": "test/acc@1"}
  config.report = {"every_steps": 50}
  config.export_npz = True
  if arg.smoke:
    common.make_smoke(config)
  return config
