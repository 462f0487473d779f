r"""EfficientNet from scratch on ImageNet-1k.

EfficientNet, https://arxiv.org/abs/1905.11946, with the settings of its section
5.2. Not trained here. Top-1 that timm measures with the released weights, those
of AutoAugment for b0 to b7: b0 76.9, b1 78.8, b2 80.1, b3 81.6, b4 83.0, b5
83.7, b6 84.1, b7 84.4; lite0 74.8, lite1 76.7, lite2 77.5, lite3 79.8, lite4
81.5 %. The hardware is not known here.

  python -m vitjax.main --config=configs/efficientnet.py:b0

Fine-tune released weights with transfer.py:tf_efficientnet_b0.ns_jft_in1k,DATA,
and see solar_cells.py for the weights of a Python package.

Not known: the batch and the warm-up, which are those of the reference
implementation from memory (a rate of 0.016 for each 256 images, 5 epochs); the
settings of the Lite models; those of timm's own weights and of its weights that
were first trained on ImageNet-12k.

Differences: timm's RandAugment takes the place of AutoAugment, which is not
implemented; the rate falls smoothly instead of by 0.97 every 2.4 epochs.

`val_ema/` is the published metric.

Options: variant=b0 (b0 to b7, lite0 to lite4), epochs=350, batch=4096 (the
learning rate follows), data=imagenet2012, smoke.
"""

import math

import ml_collections

from vitjax.config import common

# Side of the images in pixels, part kept of them in evaluation, and dropout.
SETTINGS = {
  "b0": (224, 0.875, 0.2),
  "b1": (240, 0.882, 0.2),
  "b2": (260, 0.89, 0.3),
  "b3": (300, 0.904, 0.3),
  "b4": (380, 0.922, 0.4),
  "b5": (456, 0.934, 0.4),
  "b6": (528, 0.942, 0.5),
  "b7": (600, 0.949, 0.5),
  "lite0": (224, 0.875, 0.2),
  "lite1": (240, 0.882, 0.2),
  "lite2": (260, 0.89, 0.3),
  "lite3": (300, 0.904, 0.3),
  "lite4": (380, 0.92, 0.3),
}


def get_config(arg: str | None = None) -> ml_collections.ConfigDict:
  """The config of the run."""
  arg = common.parse_arg(
    arg,
    variant="b0",
    epochs=350,
    batch=4096,
    data="imagenet2012",
    smoke=False,
  )
  res, crop_pct, dropout_rate = common.pick(SETTINGS, arg.variant, "variant")
  normalize = "normalize"
  if arg.variant.startswith("lite"):
    normalize = "value_range(-1, 1)"

  config = ml_collections.ConfigDict()
  config.seed = 0
  config.total_epochs = arg.epochs
  config.loss = "softmax_xent"

  config.input = {
    "data": arg.data,
    "split": common.all_of_train(arg.data),
    "batch_size": arg.batch,
    "pp": f"{common.bicubic_crop(res)}|{common.TIMM_RANDAUG}|{normalize}",
  }
  config.model = {
    "name": f"tf_efficientnet_{arg.variant}",
    "batch_norm_momentum": 0.99,
    "dropout_rate": dropout_rate,
    "drop_path_rate": 0.2,
  }
  config.optim = {
    "name": "rmsprop",
    "decay": 0.9,
    "momentum": 0.9,
    "learning_rate": 0.016 * arg.batch / 256,
    "weight_decay": 1e-5,
    "decay_scale": "gradient",
  }
  config.schedule = {
    "decay": "exponential",
    "warmup_epochs": 5,
    "timescale_epochs": 2.4 * math.log(0.5) / math.log(0.97),
  }
  config.mixing = {"label_smoothing": 0.1}
  config.ema = {"decay": 0.9999}

  pp_eval = f"{common.bicubic_eval(res, crop_pct)}|{normalize}"
  split = common.splits(arg.data)[1]
  config.evals = {"val": {"split": split, "pp": pp_eval, "every_epochs": 5}}
  if arg.smoke:
    common.make_smoke(config, "efficientnet")
  return config
