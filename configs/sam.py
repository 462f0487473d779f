r"""A ViT or Mixer from scratch with SAM, without strong augmentation.

When Vision Transformers Outperform ResNets without Pre-training or Strong Data
Augmentations, https://arxiv.org/abs/2106.01548. Its abstract has +5.3 % (ViT-
B/16) and +11.0 % (Mixer-B/16) top-1 on ImageNet-1k by SAM. Not trained here.

  python -m vitjax.main --config=configs/sam.py:b16
  python -m vitjax.main --config=configs/sam.py:b16,family=mixer,rho=0.5

Known: random crops and flips are the only augmentation. Not known, and
chosen here or from memory: all other settings. The optimizer, batch and length
are those of the same authors' code for GSAM (see `gsam.py`); rho=0.2 of ViT-
B/16 is from memory, and depends on the model. `rho=0` is the same run without
SAM.

A step costs two gradients. SAM perturbs by the gradient of the whole batch;
the published code did so on each device's part of it.

Options: variant=b16, family (vit, mixer), rho=0.2, epochs=300, batch=4096,
data=imagenet2012, smoke.
"""

import ml_collections

from vitjax.config import common


def get_config(arg: str | None = None) -> ml_collections.ConfigDict:
  """The config of the run."""
  arg = common.parse_arg(
    arg,
    variant="B/16",
    family="vit",
    rho=0.2,
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
  model = {"vit": {"pool_type": "tok"}, "mixer": {}}
  config.model = {
    "name": arg.family,
    "variant": common.variant(arg.variant),
    "head_bias_init": -6.9,
    **common.pick(model, arg.family, "family"),
  }
  config.optim = common.big_vision_adam(3e-3, 1e-3)
  config.schedule = {"decay": "cosine", "warmup_steps": 10_000}
  config.sam = {"rho": arg.rho}

  pp_eval = "decode|resize_small(256)|central_crop(224)|value_range(-1, 1)"
  config.evals = common.evals(arg.data, pp_eval, every_epochs=5)
  if arg.smoke:
    common.make_smoke(config)
  return config
