r"""A plain ViT from scratch on any classification data set.

The recipe of Better plain ViT baselines for ImageNet-1k,
https://arxiv.org/abs/2205.01580, with the size of the model, the resolution
and the data left open; `vit_s16_i1k.py` is the published run itself.

  python -m vitjax.main --config=configs/plain_vit.py:s16
  python -m vitjax.main \
    --config=configs/plain_vit.py:ti16,res=160,data=folder:/my/images,batch=128

Options: variant (ti16, s16, s32, m16, b16, b32, l16, h14, ...), res=224,
data=imagenet2012 (a TFDS name, or folder:/path), train= and val= (splits; by
default the data set's usual ones), epochs=90, batch=1024, accumulate=1 (split
a batch that does not fit), smoke (a few steps on made-up data).
"""

import ml_collections

from vitjax.config import common


def get_config(arg: str | None = None) -> ml_collections.ConfigDict:
  """The config of the run."""
  arg = common.parse_arg(
    arg,
    variant="S/16",
    res=224,
    data="imagenet2012",
    train="",
    val="",
    epochs=90,
    batch=1024,
    accumulate=1,
    smoke=False,
  )
  train, val = common.splits(arg.data)
  config = ml_collections.ConfigDict()
  config.seed = 0
  config.total_epochs = arg.epochs
  config.loss = "softmax_xent"
  config.accumulation_steps = arg.accumulate

  config.input = {
    "data": arg.data,
    "split": arg.train or train,
    "batch_size": arg.batch,
    "pp": f"decode_jpeg_and_inception_crop({arg.res})|flip_lr|randaug(2, 10)"
    "|value_range(-1, 1)",
  }
  config.model = {
    "name": "vit",
    "variant": common.variant(arg.variant),
    "pool_type": "gap",
    "posemb": "sincos2d",
    "rep_size": True,
  }
  config.optim = common.big_vision_adam()
  # 10,000 of the published run's 111,000 steps, for a run of any length.
  config.schedule = {"decay": "cosine", "warmup_percent": 9}
  config.mixing = {"mixup_alpha": 0.2}

  # The published 256 -> 224, at any resolution.
  small = round(arg.res * 256 / 224)
  config.evals = {
    "val": {
      "split": arg.val or val,
      "pp": f"decode|resize_small({small})|central_crop({arg.res})"
      "|value_range(-1, 1)",
      "every_epochs": 2,
    },
  }
  config.checkpoint = {"every_epochs": 1, "best_metric": "val/acc@1"}
  config.report = {"every_steps": 50}
  if arg.smoke:
    common.make_smoke(config)
  return config
