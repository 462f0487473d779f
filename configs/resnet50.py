r"""ResNet-50 on ImageNet-1k in 90 epochs: the baseline.

The network is big_vision's: group norm and standardised weights, Big Transfer,
https://arxiv.org/abs/1912.11370. The settings are those that a ResNet-50 is
usually trained with, https://arxiv.org/abs/1706.02677: batch 1024, learning
rate 0.1 for each 256 images, decay 1e-4 as part of the gradient, warm-up of
five epochs, 90 epochs; but a cosine instead of steps. Not trained here.

  python -m vitjax.main --config=configs/resnet50.py

Not known: the settings of big_vision's own `bit_i1k.py`, and so its result.

Options: variant=R50 (R101, R152, R50x2, ...), epochs=90, batch=1024,
data=imagenet2012, smoke.
"""

import ml_collections

from vitjax.config import common


def get_config(arg: str | None = None) -> ml_collections.ConfigDict:
  """The config of the run."""
  arg = common.parse_arg(
    arg,
    variant="R50",
    epochs=90,
    batch=1024,
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
    "pp": "decode_jpeg_and_inception_crop(224)|flip_lr|value_range(-1, 1)",
  }
  config.model = {"name": "resnet", "variant": arg.variant}
  config.optim = {
    "name": "sgd",
    "momentum": 0.9,
    "learning_rate": 0.1 * arg.batch / 256,
    "weight_decay": 1e-4,
    "decay_scale": "gradient",
  }
  config.schedule = {"decay": "cosine", "warmup_epochs": 5}

  pp_eval = "decode|resize_small(256)|central_crop(224)|value_range(-1, 1)"
  config.evals = common.evals(arg.data, pp_eval, every_epochs=5)
  if arg.smoke:
    common.make_smoke(config)
  return config
