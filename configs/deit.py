r"""DeiT: a ViT from scratch on ImageNet-1k, also with a teacher.

Training data-efficient image transformers & distillation through attention,
https://arxiv.org/abs/2012.12877, with the defaults of the authors' `main.py`:
published top-1 Ti 72.2, S 79.8, B 81.8 %; with the token of distillation 74.5,
81.2 and 83.4 %. Not trained here. The hardware is not known here.

  python -m vitjax.main --config=configs/deit.py:S
  python -m vitjax.main --config=configs/deit.py:S,distilled

`distilled` adds a second token and head, which learn the class that the teacher
predicts, a RegNetY of 16 GFLOPs.

Different here: the warm-up starts at 0, not 1e-6; the cosine decays per step,
not per epoch; kernels are initialised as in this project's other ViTs (Xavier,
not a normal distribution of 0.02). The code also keeps an average of the
weights (`--config.ema.decay=0.99996`).

Options: variant (Ti, S, B), distilled, epochs=300, data=imagenet2012, smoke.
"""

import ml_collections

from vitjax.config import common

NAMES = {"Ti": "tiny", "S": "small", "B": "base"}


def get_config(arg: str | None = None) -> ml_collections.ConfigDict:
  """The config of the run."""
  arg = common.parse_arg(
    arg,
    variant="S",
    distilled=False,
    epochs=300,
    data="imagenet2012",
    smoke=False,
  )
  size = common.pick(NAMES, arg.variant, "variant")
  config = ml_collections.ConfigDict()
  config.seed = 0
  config.total_epochs = arg.epochs
  config.loss = "softmax_xent"

  config.input = {
    "data": arg.data,
    "split": common.all_of_train(arg.data),
    "batch_size": 1024,
    "repeats": 3,
    "pp": f"{common.bicubic_crop(224)}|{common.TIMM_RANDAUG}|normalize",
  }
  token = "_distilled" if arg.distilled else ""
  config.model = {
    "name": f"deit_{size}{token}_patch16_224",
    "drop_path_rate": 0.1,
    "head_zero_init": False,
  }
  config.optim = {
    "name": "adam",
    "learning_rate": 1e-3,
    "weight_decay": 0.05,
  }
  config.schedule = {
    "decay": "cosine",
    "warmup_epochs": 5,
    "end_value": 1e-5 / 1e-3,
  }
  config.mixing = {
    "mixup_alpha": 0.8,
    "cutmix_alpha": 1.0,
    "partner": "flip",
    "label_smoothing": 0.1,
    "erase_prob": 0.25,
  }

  if arg.distilled:
    config.distill = {
      "teacher": "regnety_160.deit_in1k",
      "loss": "hard",
      "label_weight": 0.5,
    }

  pp_eval = f"{common.bicubic_eval(224, 0.875)}|normalize"
  split = common.splits(arg.data)[1]
  config.evals = {"val": {"split": split, "pp": pp_eval, "every_epochs": 5}}
  if arg.smoke:
    common.make_smoke(config, "vit")
  return config
