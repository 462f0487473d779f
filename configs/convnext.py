r"""ConvNeXt from scratch on ImageNet-1k or -21k, and fine-tuned.

A ConvNet for the 2020s, https://arxiv.org/abs/2201.03545, with the settings of
the authors' `TRAINING.md`. Not trained here. Published top-1 on ImageNet-1k:

  convnext.py:VARIANT           T 82.1, S 83.1, B 83.8, L 84.3; isotropic: iso-S
                                78.7, iso-B 82.0, iso-L 82.6
  convnext.py:VARIANT,1k_384    B 85.1, L 85.5
  convnext.py:VARIANT,22k       (to be fine-tuned)
  convnext.py:VARIANT,22k_1k    T 82.9, S 84.6, B 85.8, L 86.6, XL 87.0
  convnext.py:VARIANT,22k_1k,res=384
                                T 84.1, S 85.8, B 86.8, L 87.5, XL 87.8

  python -m vitjax.main --config=configs/convnext.py:T
  python -m vitjax.main --config=configs/convnext.py:B,22k_1k

The stages that fine-tune start from the published weights of the stage before,
or from `weights=` (a file or a run folder). The hardware is not known here.

Not known: stochastic depth of T and S on ImageNet-21k and after it, and T's
groups of layer-wise decay; those of this project are used, and `drop_path=`
must be given. TFDS does not prepare ImageNet-21k: `data=folder:/path`, of
21,841 classes.

With an average of the weights (1k; XL after 22k) `val_ema/` is the published
metric.

Options: variant=T, stage (1k, 1k_384, 22k, 22k_1k), res=224 (of 22k_1k),
drop_path, weights, epochs, data, smoke.
"""

import ml_collections

from vitjax.config import common

# Rates of stochastic depth.
DROP_PATHS = {
  "1k": {
    "T": 0.1,
    "S": 0.4,
    "B": 0.5,
    "L": 0.5,
    "iso-S": 0.1,
    "iso-B": 0.2,
    "iso-L": 0.5,
  },
  "1k_384": {"B": 0.8, "L": 0.95},
  "22k": {"B": 0.1, "L": 0.1, "XL": 0.2},
  "22k_1k": {"B": 0.2, "L": 0.3, "XL": 0.4},
}
NAMES = {"T": "tiny", "S": "small", "B": "base", "L": "large", "XL": "xlarge"}
# Epochs and those of the warm-up, batch, learning rate, decay.
STAGES = {
  "1k": (300, 20, 4096, 4e-3, 0.05),
  "1k_384": (30, 0, 512, 5e-5, 1e-8),
  "22k": (90, 5, 4096, 4e-3, 0.05),
  "22k_1k": (30, 0, 512, 5e-5, 1e-8),
}


def get_config(arg: str | None = None) -> ml_collections.ConfigDict:
  """The config of the run."""
  arg = common.parse_arg(
    arg,
    positional=2,
    variant="T",
    stage="1k",
    res=224,
    drop_path=float,
    weights=str,
    epochs=int,
    data=str,
    smoke=False,
  )
  settings = common.pick(STAGES, arg.stage, "stage")
  epochs, warmup_epochs, batch, learning_rate, weight_decay = settings
  drop_path = arg.drop_path
  if drop_path is None:
    what = f"without drop_path=, stage {arg.stage} of"
    drop_path = common.pick(DROP_PATHS[arg.stage], arg.variant, what)
  if arg.variant.startswith("iso-"):
    warmup_epochs = 50
  res = 384 if arg.stage == "1k_384" else arg.res
  data = arg.data or ("imagenet21k" if arg.stage == "22k" else "imagenet2012")
  before = {"1k_384": "1k_224", "22k_1k": "22k_224"}.get(arg.stage)

  config = ml_collections.ConfigDict()
  config.seed = 0
  config.total_epochs = arg.epochs or epochs
  config.loss = "softmax_xent"

  config.input = {
    "data": data,
    "split": common.all_of_train(data),
    "batch_size": batch,
    "pp": f"{common.bicubic_crop(res)}|{common.TIMM_RANDAUG}|normalize",
  }
  config.model = {
    "name": "convnext",
    "variant": arg.variant,
    "drop_path_rate": drop_path,
  }
  config.optim = {
    "name": "adam",
    "learning_rate": learning_rate,
    "weight_decay": weight_decay,
  }
  config.schedule = {"decay": "cosine", "end_value": 1e-6 / learning_rate}
  config.mixing = {"label_smoothing": 0.1, "erase_prob": 0.25}
  if before:
    config.init = {
      "weights": arg.weights or f"convnext_{NAMES[arg.variant]}_{before}",
      "reinit": ("head",) if arg.stage == "22k_1k" else (),
    }
    config.model.head_init_scale = 0.001  # of a new head
    config.optim.layer_decay = 0.8 if arg.stage == "22k_1k" else 0.7
  else:
    config.schedule.warmup_epochs = warmup_epochs
    config.mixing.update(mixup_alpha=0.8, cutmix_alpha=1.0, partner="flip")
  if arg.stage == "1k" or (arg.variant, arg.stage) == ("XL", "22k_1k"):
    config.ema = {"decay": 0.9999}

  crop_pct = 0.875 if res < 384 else None
  pp_eval = f"{common.bicubic_eval(res, crop_pct)}|normalize"
  split = common.splits(data)[1]
  config.evals = {"val": {"split": split, "pp": pp_eval, "every_epochs": 5}}
  if arg.smoke:
    common.make_smoke(config)
  return config
