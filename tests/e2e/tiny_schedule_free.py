"""The run of `tiny.py` with an average of the weights in place of a decay."""

import ml_collections

from tests.e2e import tiny


def get_config() -> ml_collections.ConfigDict:
  config = tiny.get_config()
  config.optim = {
    "name": "schedule_free_adamw",
    "learning_rate": 1e-2,
    "weight_decay": 0.05,
    "grad_clip_norm": 1.0,
  }
  config.schedule = {"decay": "constant", "warmup_percent": 10}
  return config
