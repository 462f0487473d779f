r"""MLP-Mixer from scratch on ImageNet-1k.

MLP-Mixer: An all-MLP Architecture for Vision,
https://arxiv.org/abs/2105.01601, with the settings of big_vision's
`mlp_mixer_i1k.py`: published top-1 of B/16 after 300 epochs 76.3 %. Not
trained here. The hardware is not known.

  python -m vitjax.main --config=configs/mixer.py:b16

Options: variant=b16 (s32, s16, b32, b16, l32, l16, h14; published is b16),
epochs=300, batch=4096, data=imagenet2012, smoke.
"""

import ml_collections

from vitjax.config import common


def get_config(arg: str | None = None) -> ml_collections.ConfigDict:
  """The config of the run."""
  arg = common.parse_arg(
    arg,
    variant="B/16",
    epochs=300,
    batch=4096,
    data="imagenet2012",
    smoke=False,
  )
  config = ml_collections.ConfigDict()
  config.seed = 0
  config.total_epochs = arg.epochs
  config.loss = "sigmoid_xent"

  config.input = {
    "data": arg.data,
    "split": common.splits(arg.data)[0],
    "batch_size": arg.batch,
    "pp": "decode_jpeg_and_inception_crop(224)|flip_lr|randaug(2, 15)"
    "|value_range(-1, 1)",
  }
  config.model = {
    "name": "mixer",
    "variant": common.variant(arg.variant),
    "drop_path_rate": 0.1,
    "head_bias_init": -6.9,
  }
  config.optim = common.big_vision_adam()
  config.schedule = {
    "decay": "linear",
    "warmup_steps": 10_000,
    "end_value": 1e-5,
  }
  config.mixing = {"mixup_alpha": 0.5}

  pp_eval = "decode|resize_small(256)|central_crop(224)|value_range(-1, 1)"
  config.evals = common.evals(arg.data, pp_eval, every_epochs=5)
  if arg.smoke:
    common.make_smoke(config)
  return config
