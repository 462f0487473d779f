r"""ConvFormer and CAFormer on ImageNet-1k.

MetaFormer Baselines for Vision, https://arxiv.org/abs/2210.13452, with the
settings of the authors' scripts. Not trained here. Top-1 that timm measured of
the authors' weights:

  metaformer.py:VARIANT         CA-S18 83.7, CA-S36 84.5, CA-M36 85.2, CA-B36
                                85.5; Conv-S18 83.0, Conv-S36 84.1, Conv-M36
                                84.5, Conv-B36 84.8
  metaformer.py:VARIANT,1k_384  CA-S18 85.0, CA-S36 85.8, CA-M36 86.2, CA-B36
                                86.4; Conv-S18 84.4, Conv-S36 85.4, Conv-M36
                                85.6, Conv-B36 85.8; of the average (val_ema)

  python -m vitjax.main --config=configs/metaformer.py:CA-S18

The settings on ImageNet-22k were not published. The second stage starts from
the published weights of the first, or from `weights=` (a file or a run folder).
The hardware is not known here.

Options: variant=CA-S18, stage (1k, 1k_384), weights, epochs, data, smoke.
"""

import ml_collections

from vitjax.config import common

# Stochastic depth and dropout before the head.
RATES = {
  "1k": {
    "CA-S18": (0.15, 0.0),
    "CA-S36": (0.3, 0.4),
    "CA-M36": (0.4, 0.4),
    "CA-B36": (0.6, 0.5),
    "Conv-S18": (0.2, 0.0),
    "Conv-S36": (0.3, 0.0),
    "Conv-M36": (0.4, 0.0),
    "Conv-B36": (0.6, 0.0),
  },
  "1k_384": {
    "CA-S18": (0.3, 0.4),
    "CA-S36": (0.5, 0.4),
    "CA-M36": (0.7, 0.4),
    "CA-B36": (0.8, 0.5),
    "Conv-S18": (0.3, 0.4),
    "Conv-S36": (0.5, 0.4),
    "Conv-M36": (0.8, 0.5),
    "Conv-B36": (0.8, 0.5),
  },
}
# Optimizer and learning rates of the stages, by token mixer.
OPTIMIZERS = {
  "CA": ("lamb", {"1k": 8e-3, "1k_384": 1e-4}),
  "Conv": ("adam", {"1k": 4e-3, "1k_384": 5e-5}),
}


def get_config(arg: str | None = None) -> ml_collections.ConfigDict:
  """The config of the run."""
  arg = common.parse_arg(
    arg,
    positional=2,
    variant="CA-S18",
    stage="1k",
    weights=str,
    epochs=int,
    data="imagenet2012",
    smoke=False,
  )
  variants = common.pick(RATES, arg.stage, "stage")
  drop_path, dropout = common.pick(variants, arg.variant, "variant")
  optimizer, rates = OPTIMIZERS[arg.variant.partition("-")[0]]
  learning_rate = rates[arg.stage]
  is_first = arg.stage == "1k"
  res = 224 if is_first else 384

  config = ml_collections.ConfigDict()
  config.seed = 0
  config.total_epochs = arg.epochs or (310 if is_first else 30)
  config.loss = "softmax_xent"

  config.input = {
    "data": arg.data,
    "split": common.all_of_train(arg.data),
    "batch_size": 4096 if is_first else 1024,
    "pp": f"{common.bicubic_crop(res)}|{common.TIMM_RANDAUG}|normalize",
  }
  config.model = {
    "name": "metaformer",
    "variant": arg.variant,
    "drop_path_rate": drop_path,
    "dropout_rate": dropout,
  }
  config.optim = {
    "name": optimizer,
    "learning_rate": learning_rate,
    "weight_decay": 0.05,
  }
  config.mixing = {"label_smoothing": 0.1, "erase_prob": 0.25}
  if is_first:
    # timm's cosine ends after 300 epochs; 10 more at its end value follow.
    # Here it is stretched over all of them.
    config.schedule = {
      "decay": "cosine",
      "warmup_epochs": 20,
      "end_value": 1e-5 / learning_rate,
    }
    config.mixing.update(mixup_alpha=0.8, cutmix_alpha=1.0, partner="flip")
  else:
    config.schedule = {"decay": "constant"}
    config.ema = {"decay": 0.9999}
    name = arg.variant.replace("-", "former_").lower()
    config.init = {"weights": arg.weights or f"{name}.sail_in1k"}

  pp_eval = f"{common.bicubic_eval(res, 1.0)}|normalize"
  split = common.splits(arg.data)[1]
  config.evals = {"val": {"split": split, "pp": pp_eval, "every_epochs": 5}}
  if arg.smoke:
    common.make_smoke(config)
  return config
