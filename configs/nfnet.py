r"""NFNet: ResNets without normalisation, on ImageNet-1k or fine-tuned.

High-Performance Large-Scale Image Recognition Without Normalization,
https://arxiv.org/abs/2102.06171, with the settings of the authors'
`experiment_nfnets.py`. Not trained here. Published top-1 on ImageNet-1k of the
released weights: F0 83.6, F1 84.7, F2 85.1, F3 85.7, F4 85.9, F5 86.0; F6 with
SAM 86.5 %. The hardware is not known here.

  python -m vitjax.main --config=configs/nfnet.py:F0
  python -m vitjax.main --config=configs/nfnet.py:F6,rho=0.05
  python -m vitjax.main --config=configs/nfnet.py:F3,finetune,data=cifar100

Images are trained at the variant's size and evaluated at its larger one.

Not known: the settings of SAM; only F6 is said to use it. rho=0.05 is from
memory, and the ascent here is on the whole batch. For `finetune`, ConvNets
Match Vision Transformers at Scale, https://arxiv.org/abs/2310.16764, gives only
the 50 epochs with SAM (from memory). The tenth of the learning rate, rho=0.05,
no mixing and no decay are chosen here.

Differences: mixup or cutmix is drawn for each image, where the paper mixes half
of a batch with each, and mixing follows RandAugment instead of preceding it.
Crops cover 8 % to 100 % of the image's area, as usual.

Options: variant=F0 (F0 to F7, and with "+" the wider F0+ and so on), stage
(pretrain, finetune), rho=0 (of SAM), weights, batch=4096 (the learning rate
follows), epochs, data=imagenet2012, smoke.
"""

import ml_collections

from vitjax.config import common

# Sizes in training and evaluation, and the magnitude of RandAugment.
SETTINGS = {
  "F0": (192, 256, 5),
  "F1": (224, 320, 10),
  "F2": (256, 352, 10),
  "F3": (320, 416, 15),
  "F4": (384, 512, 15),
  "F5": (416, 544, 15),
  "F6": (448, 576, 15),
  "F7": (480, 608, 15),
}


def get_config(arg: str | None = None) -> ml_collections.ConfigDict:
  """The config of the run."""
  arg = common.parse_arg(
    arg,
    positional=2,
    variant="F0",
    stage="pretrain",
    rho=float,
    weights=str,
    batch=4096,
    epochs=int,
    data="imagenet2012",
    smoke=False,
  )
  finetunes = common.pick(
    {"pretrain": False, "finetune": True}, arg.stage, "stage"
  )
  res, res_eval, magnitude = common.pick(
    SETTINGS, arg.variant.removesuffix("+"), "variant"
  )
  config = ml_collections.ConfigDict()
  config.seed = 0
  config.total_epochs = arg.epochs or (50 if finetunes else 360)
  config.loss = "softmax_xent"

  config.input = {
    "data": arg.data,
    "split": common.all_of_train(arg.data),
    "batch_size": arg.batch,
    "pp": f"{common.bicubic_crop(res)}|randaug(4, {magnitude})|normalize",
  }
  config.model = {
    "name": "nfnet",
    "variant": arg.variant,
    "drop_path_rate": 0.25,
  }
  config.optim = {
    "name": "sgd",
    "momentum": 0.9,
    "nesterov": True,
    "learning_rate": 0.1 * arg.batch / 256,
    "agc_clip": 0.01,
    "agc_exclude": ("head/kernel",),
    "weight_decay": 2e-5,
    "decay_scale": "gradient",
  }
  config.schedule = {"decay": "cosine", "warmup_epochs": 5}
  config.mixing = {
    "mixup_alpha": 0.2,
    "cutmix_alpha": 1.0,
    "mode": "elem",
    "label_smoothing": 0.1,
  }
  config.ema = {"decay": 0.99999, "warmup": True}
  rho = arg.rho
  if finetunes:
    config.init = {
      "weights": arg.weights or f"NFNet-{arg.variant}",
      "reinit": ("head",),
    }
    config.optim.learning_rate /= 10
    config.optim.weight_decay = 0.0
    config.mixing = {"label_smoothing": 0.1}
    rho = 0.05 if rho is None else rho
  if rho:
    config.sam = {"rho": rho}

  bicubic = '"bicubic", antialias=True'
  pp_eval = (
    f"decode|resize({res_eval + 32}, {bicubic})|central_crop({res_eval})"
    "|normalize"
  )
  split = common.splits(arg.data)[1]
  config.evals = {"val": {"split": split, "pp": pp_eval, "every_epochs": 5}}
  if arg.smoke:
    common.make_smoke(config)
  return config
