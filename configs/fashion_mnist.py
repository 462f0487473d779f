r"""A small ViT on Fashion-MNIST: 60,000 real images on a laptop.

  python -m vitjax.main --config=configs/fashion_mnist.py

The data set (https://arxiv.org/abs/1708.07747) is prepared from the files of
Debian's package dataset-fashion-mnist, without a network, or by
`tfds build fashion_mnist` with one. Measured: 90.5 % top-1 on the 10,000 test
images, in 10 minutes on two CPU cores. `docs/curves/fashion_mnist` has the
record.
"""

import ml_collections

from vitjax.config import common

# Mean and standard deviation of the training pixels, in 0..1.
NORMALIZE = "normalize((0.286,), (0.353,))"


def get_config(arg: str | None = None) -> ml_collections.ConfigDict:
  """The config of the run. Options: epochs, smoke."""
  arg = common.parse_arg(arg, epochs=25, smoke=False)
  config = ml_collections.ConfigDict()
  config.seed = 0
  config.total_epochs = arg.epochs
  config.loss = "softmax_xent"

  config.input = {
    "data": "fashion_mnist",
    "split": "train",
    "batch_size": 64,
    "cache": True,
    "pp": f"decode(channels=1)|flip_lr|{NORMALIZE}",
  }
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

  config.evals = {
    "test": {
      "type": "classification",
      "split": "test",
      "pp": f"decode(channels=1)|{NORMALIZE}",
      "batch_size": 500,
      "every_epochs": 5,
    },
  }
  config.checkpoint = {"every_epochs": 1, "best_metric": "test/acc@1"}
  config.report = {"every_steps": 200}
  config.export_npz = True
  if arg.smoke:
    common.make_smoke(config)
  return config
