r"""ResNet-50 on ImageNet-1k in 90 epochs: the baseline.

ResNet v1.5 with batch normalisation, https://arxiv.org/abs/1512.03385, and the
settings of https://arxiv.org/abs/1706.02677: learning rate 0.1 for each 256
images, momentum 0.9, decay 1e-4 as part of the gradient and not of norms,
warm-up of five epochs, branches that start at zero, 90 epochs; but a cosine
instead of steps. Not trained here. Published with steps, R50: 76.3 (the same
paper, batch 256 to 8192), and of torchvision's files, as timm measured them:
R50 76.2, R101 77.4, R152 78.3.

  python -m vitjax.main --config=configs/resnet50.py

The statistics of a batch are those of all of its images, on any number of
devices; in the paper they are those of 32 images on one device.

`norm=group` is big_vision's network: group norm and standardised weights, Big
Transfer, https://arxiv.org/abs/1912.11370. The settings of its own
`bit_i1k.py`, and so its result, are not known.

Options: variant=R50 (R101, R152; with norm=group R50x2, ...), norm=batch
(group), epochs=90, batch=1024, data=imagenet2012, smoke.
"""

import ml_collections

from vitjax.config import common

VARIANTS = {"R50": "resnet50", "R101": "resnet101", "R152": "resnet152"}


def get_config(arg: str | None = None) -> ml_collections.ConfigDict:
  """The config of the run."""
  arg = common.parse_arg(
    arg,
    variant="R50",
    norm="batch",
    epochs=90,
    batch=1024,
    data="imagenet2012",
    smoke=False,
  )
  models = {
    "batch": lambda: {
      "name": "resnet_bn",
      "variant": common.pick(VARIANTS, arg.variant, "variant"),
    },
    "group": lambda: {"name": "resnet", "variant": arg.variant},
  }
  model = common.pick(models, arg.norm, "norm")()
  values = "normalize" if arg.norm == "batch" else "value_range(-1, 1)"

  config = ml_collections.ConfigDict()
  config.seed = 0
  config.total_epochs = arg.epochs
  config.loss = "softmax_xent"

  config.input = {
    "data": arg.data,
    "split": common.splits(arg.data)[0],
    "batch_size": arg.batch,
    "pp": f"decode_jpeg_and_inception_crop(224)|flip_lr|{values}",
  }
  config.model = model
  config.optim = {
    "name": "sgd",
    "momentum": 0.9,
    "learning_rate": 0.1 * arg.batch / 256,
    "weight_decay": 1e-4,
    "decay_scale": "gradient",
  }
  config.schedule = {"decay": "cosine", "warmup_epochs": 5}

  pp_eval = f"decode|resize_small(256)|central_crop(224)|{values}"
  config.evals = common.evals(arg.data, pp_eval, every_epochs=5)
  if arg.smoke:
    common.make_smoke(config)
  return config
