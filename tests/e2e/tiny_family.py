"""A few steps from the file of a small model of windows or convolutions."""

import ml_collections

from tests.numerics import (
  reference,
  test_batch_norm_families,
  test_coatnet_reference,
  test_metaformer_reference,
  test_swin_reference,
)
from vitjax.config import common

CASES = {
  **test_swin_reference.CASES,
  **test_metaformer_reference.CASES,
  **test_coatnet_reference.CASES,
  **test_batch_norm_families.CASES,
}


def get_config(arg: str | None = None) -> ml_collections.ConfigDict:
  """The config of the run."""
  arg = common.parse_arg(arg, case="", weights="")
  model, fields = CASES[arg.case]
  height, width = reference.case(arg.case)["image_shape"][1:3]
  config = ml_collections.ConfigDict()
  config.seed = 1
  config.total_steps = 30
  config.loss = "softmax_xent"
  config.input = {
    "data": f"fake:40,{height}x{width}x3,7",
    "split": "train",
    "batch_size": 8,
    "pp": "flip_lr|value_range(-1, 1)",
  }
  config.model = {"name": model, **fields}
  config.init = {"weights": arg.weights, "reinit": ("head",)}
  config.optim = {"name": "adam", "learning_rate": 1e-3, "layer_decay": 0.7}
  config.schedule = {"decay": "cosine", "warmup_percent": 10}
  config.checkpoint = {"every_steps": 10}
  config.report = {"every_steps": 1}
  config.export_npz = True
  config.evals = {
    "val": {"split": "val", "pp": "value_range(-1, 1)", "every_steps": 15}
  }
  return config
