r"""A small ViT on Fashion-MNIST: 60,000 real images, two cores, 20 minutes.

  python -m vitjax.main --config=configs/fashion_mnist.py

The data set (https://arxiv.org/abs/1708.07747) is prepared from the files of
Debian's package dataset-fashion-mnist, without a network, or by
`tfds build fashion_mnist` with one.
"""

import ml_collections

from configs import common


def get_config(arg: str | None = None) -> ml_collections.ConfigDict:
  """The config of the run. Options: epochs."""
  arg = common.parse_arg(arg, epochs=10)
  config = ml_collections.ConfigDict()
  config.seed = 0
  config.total_epochs = arg.epochs
  config.loss = "softmax_xent"

  config.input = {
    "data": "fashion_mnist",
    "split": "train",
    "batch_size": 128,
    "pp": "decode(channels=1)|random_crop(28, padding=1)|flip_lr"
    "|value_range(-1, 1)",
  }
  config.model = {
    "name": "vit",
    "patch_size": 4,
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

  config.evals = {
    "test": {
      "type": "classification",
      "split": "test",
      "pp": "decode(channels=1)|value_range(-1, 1)",
      "batch_size": 500,
      "every_epochs": 1,
    },
  }
  config.checkpoint = {"every_epochs": 1, "best_metric": "test/acc@1"}
  config.report = {"every_steps": 50}
  config.export_npz = True
  return config
