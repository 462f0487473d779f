r"""Swin Transformers from scratch on ImageNet-1k or -22k, and fine-tuned.

https://arxiv.org/abs/2103.14030 and https://arxiv.org/abs/2111.09883 (variants
v2-T, v2-S, v2-B, v2-L), with the settings of the authors' config files. Not
trained here. Top-1 on ImageNet-1k that timm measured of the authors' weights:

  swin.py:VARIANT               T 81.4, S 83.2, B 83.6; windows of 8 at 256
                                pixels: v2-T 81.8, v2-S 83.8, v2-B 84.2
  swin.py:VARIANT,1k,window=16  v2-T 82.8, v2-S 84.2, v2-B 84.6
  swin.py:VARIANT,22k           (to be fine-tuned)
  swin.py:VARIANT,22k_1k        T 81.0, S 83.3, B 85.3, L 86.3; at 256 pixels:
                                v2-B 86.3, v2-L 86.9
  swin.py:VARIANT,22k_1k,res=384
                                B 86.4, L 87.1, v2-B 87.1, v2-L 87.5

  python -m vitjax.main --config=configs/swin.py:T
  python -m vitjax.main --config=configs/swin.py:B,22k_1k,res=384

The stages that fine-tune start from the published weights of the stage before,
or from `weights=` (a file or a run folder). Their head is new; the authors take
the rows of the old one that have the same classes. TFDS does not prepare
ImageNet-22k: `data=folder:/path`, of 21,841 classes. The hardware is not known
here.

Options: variant=T, stage (1k, 22k, 22k_1k), res, window, weights, epochs, data,
smoke.
"""

import ml_collections

from vitjax.config import common

# Rates of stochastic depth.
DROP_PATHS = {
  "1k": {"T": 0.2, "S": 0.3, "B": 0.5},
  "22k": {"T": 0.1, "S": 0.2, "B": 0.2, "L": 0.2},
  "22k_1k": {"T": 0.1, "S": 0.2, "B": 0.2, "L": 0.2},
}
# Epochs and those of the warm-up, batch, learning rate, decay.
STAGES = {
  "1k": (300, 20, 1024, 1e-3, 0.05),
  "22k": (90, 5, 4096, 1e-3, 0.05),
  "22k_1k": (30, 5, 1024, 4e-5, 1e-8),
}
# Pixels and window, by version.
SIZES = {
  1: {"1k": (224, 7), "22k": (224, 7), "22k_1k": (224, 7)},
  2: {"1k": (256, 8), "22k": (192, 12), "22k_1k": (256, 16)},
}
LARGE_WINDOWS = {1: 12, 2: 24}  # at 384 pixels
NAMES = {"T": "tiny", "S": "small", "B": "base", "L": "large"}


def get_config(arg: str | None = None) -> ml_collections.ConfigDict:
  """The config of the run."""
  arg = common.parse_arg(
    arg,
    positional=2,
    variant="T",
    stage="1k",
    res=int,
    window=int,
    weights=str,
    epochs=int,
    data=str,
    smoke=False,
  )
  settings = common.pick(STAGES, arg.stage, "stage")
  epochs, warmup_epochs, batch, learning_rate, weight_decay = settings
  version = 2 if arg.variant.startswith("v2-") else 1
  size = arg.variant.removeprefix("v2-")
  what = f"stage {arg.stage} of variant"
  drop_path = common.pick(DROP_PATHS[arg.stage], size, what)
  res, window = SIZES[version][arg.stage]
  if arg.res:
    res = arg.res
    window = LARGE_WINDOWS[version] if res == 384 else window
  if version == 2 and arg.stage == "22k":
    weight_decay = 0.1
  data = arg.data or ("imagenet21k" if arg.stage == "22k" else "imagenet2012")

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
    "name": "swin",
    "variant": arg.variant,
    "window": arg.window or window,
    "drop_path_rate": drop_path,
  }
  config.optim = {
    "name": "adam",
    "learning_rate": learning_rate,
    "weight_decay": weight_decay,
    "eps": 1e-8,
    # Not position biases and the scales of version 2's attention.
    "decay_params": (r"(?!.*/position_bias/).*/kernel",),
    "grad_clip_norm": 5.0,
  }
  config.schedule = {
    "decay": "cosine",
    "warmup_epochs": warmup_epochs,
    "end_value": 0.01,
  }
  config.mixing = {
    "mixup_alpha": 0.8,
    "cutmix_alpha": 1.0,
    "partner": "flip",
    "erase_prob": 0.25,
    "label_smoothing": 0.1,
  }
  if arg.stage == "22k_1k":
    before = "window12_192" if version == 2 else "patch4_window7_224"
    name = f"{'swinv2' if version == 2 else 'swin'}_{NAMES[size]}_{before}"
    config.init = {
      "weights": arg.weights or f"{name}.ms_in22k",
      "reinit": ("head",),
    }
    if version == 2:
      # The window of the weights, which shrinks to the map of the last stage.
      config.model.trained_windows = (12, 12, 12, 6)

  crop_pct = 0.875 if res < 384 else None
  pp_eval = f"{common.bicubic_eval(res, crop_pct)}|normalize"
  split = common.splits(data)[1]
  config.evals = {"val": {"split": split, "pp": pp_eval, "every_epochs": 5}}
  if arg.smoke:
    common.make_smoke(config)
  return config
