"""A run of a few seconds in which everything that is random takes part."""

import ml_collections


def get_config() -> ml_collections.ConfigDict:
  """A tiny ViT on scikit-learn's digits; nothing divides anything."""
  config = ml_collections.ConfigDict()
  config.seed = 3
  config.total_steps = 300
  config.loss = "softmax_xent"
  config.input = {
    "data": "digits",
    "split": "train",
    "batch_size": 32,
    "repeats": 2,
    "pp": "random_crop(8, padding=1)|value_range(-1, 1)",
  }
  config.model = {
    "name": "vit",
    "variant": "mu",
    "patch_size": 4,
    "pool_type": "gap",
    "posemb": "learn",
    "dropout_rate": 0.1,
  }
  config.optim = {
    "name": "adam",
    "learning_rate": 1e-3,
    "weight_decay": 0.05,
    "grad_clip_norm": 1.0,
    "mu_dtype": "bfloat16",
  }
  config.schedule = {"decay": "cosine", "warmup_percent": 10}
  config.mixing = {
    "mixup_alpha": 0.2,
    "cutmix_alpha": 1.0,
    "mode": "elem",
    "erase_prob": 0.2,
    "label_smoothing": 0.1,
  }
  config.ema = {"decay": 0.9}
  config.evals = {
    "test": {
      "split": "test",
      "pp": "value_range(-1, 1)",
      "batch_size": 104,
      "every_steps": 90,
    },
  }
  config.checkpoint = {"every_steps": 70, "best_metric": "test/acc@1"}
  config.report = {"every_steps": 3}
  config.export_npz = True
  return config
