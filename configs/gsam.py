r"""A ViT from scratch with GSAM, without strong augmentation.

Surrogate Gap Minimization Improves Sharpness-Aware Training,
https://arxiv.org/abs/2203.08065, after big_vision's `vit_i1k_gsam_no_aug.py`.
Not trained here; the published accuracies are in the paper's table 1.

  python -m vitjax.main --config=configs/gsam.py:b32

Known: crops and flips are the only augmentation; average pooling; no hidden
layer in the head. From memory, not certain: 300 epochs, batch 4096, learning
rate 3e-3, decay 1e-3, head bias -6.9, rho falling with the learning rate from
0.6 to 0.1, alpha 0.6, linear decay.

Options: variant=b32 (s32, s16, b32, b16 were published), rho=0.6, rho_min=0.1,
alpha=0.6, epochs=300, batch=4096, data=imagenet2012, smoke.
"""

import ml_collections

from vitjax.config import common


def get_config(arg: str | None = None) -> ml_collections.ConfigDict:
  """The config of the run."""
  arg = common.parse_arg(
    arg,
    variant="B/32",
    rho=0.6,
    rho_min=0.1,
    alpha=0.6,
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
    "pp": "decode_jpeg_and_inception_crop(224)|flip_lr|value_range(-1, 1)",
  }
  config.model = {
    "name": "vit",
    "variant": common.variant(arg.variant),
    "pool_type": "gap",
    "head_bias_init": -6.9,
  }
  config.optim = common.big_vision_adam(3e-3, 1e-3)
  config.schedule = {"decay": "linear", "warmup_steps": 10_000}
  config.sam = {"rho": arg.rho, "rho_min": arg.rho_min, "alpha": arg.alpha}

  pp_eval = "decode|resize_small(256)|central_crop(224)|value_range(-1, 1)"
  config.evals = common.evals(arg.data, pp_eval, every_epochs=5)
  if arg.smoke:
    common.make_smoke(config)
  return config
