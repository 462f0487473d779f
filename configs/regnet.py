r"""RegNetY on ImageNet-1k in 100 epochs.

Designing Network Design Spaces, https://arxiv.org/abs/2003.13678. What timm's
page of these models says of the authors' training: SGD with momentum 0.9, decay
5e-5, batch 512, 100 epochs. Unknown there, and chosen here: the learning rate,
0.2 for each 256 images, and its schedule, a warm-up of five epochs and a
cosine. Not trained here. Top-1 that timm measured of the authors' files:

  032 78.9, 040 79.2, 064 79.7, 080 79.9, 120 80.4, 160 80.3, 320 80.8

  python -m vitjax.main --config=configs/regnet.py:032

The settings of timm's own, better files (`ra_in1k`, `sw_in12k_ft_in1k`) are
unknown, as is the hardware.

Options: variant=032, epochs=100, batch=512, data=imagenet2012, smoke.
"""

import ml_collections

from vitjax.config import common


def get_config(arg: str | None = None) -> ml_collections.ConfigDict:
  """The config of the run."""
  arg = common.parse_arg(
    arg,
    variant="032",
    epochs=100,
    batch=512,
    data="imagenet2012",
    smoke=False,
  )
  config = ml_collections.ConfigDict()
  config.seed = 0
  config.total_epochs = arg.epochs
  config.loss = "softmax_xent"

  config.input = {
    "data": arg.data,
    "split": common.splits(arg.data)[0],
    "batch_size": arg.batch,
    "pp": f"{common.bicubic_crop(224)}|normalize",
  }
  config.model = {"name": "regnet", "variant": arg.variant}
  config.optim = {
    "name": "sgd",
    "momentum": 0.9,
    "learning_rate": 0.2 * arg.batch / 256,
    "weight_decay": 5e-5,
    "decay_scale": "gradient",
  }
  config.schedule = {"decay": "cosine", "warmup_epochs": 5}

  pp_eval = f"{common.bicubic_eval(224, 0.875)}|normalize"
  config.evals = common.evals(arg.data, pp_eval, every_epochs=5)
  if arg.smoke:
    common.make_smoke(config)
  return config
