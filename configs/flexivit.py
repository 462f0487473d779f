r"""FlexiViT: one ViT for all patch sizes, so one run for all speeds.

FlexiViT: One Model for All Patch Sizes, https://arxiv.org/abs/2212.08013, with
the settings of big_vision's configs `i21k_sup.py` and `i1k_deit3_distill.py`.
Each step draws one of ten patch sizes; evals measure all of them. Not trained
here. docs/flexible.md says how to use the result.

  python -m vitjax.main --config=configs/flexivit.py:B,i21k,data=folder:/path
  python -m vitjax.main --config=configs/flexivit.py:S
  python -m vitjax.main --config=configs/flexivit.py:on=fashion_mnist

i21k is the supervised run. i1k starts from DeiT III at 384 pixels and learns
from that model alone, without labels. fashion_mnist is a small ViT that learns
on a laptop at patches of 4, 7 and 14 pixels.

Different here: the draws of the patch sizes; the resizing of DeiT III's
position table to 7x7, which is antialiased; and the teacher's images, which are
enlarged from the 240 pixels of the student, and published are resized from the
crop of the photograph.

Options: variant=B (S, B, L), on=i1k (i21k, fashion_mnist), epochs=90 (25 for
fashion_mnist), batch, data, teacher (default: DeiT III for i1k, and none for
the others), smoke. The smoke variant has no default: docs/distillation.md and
distill.py show how to make a teacher.
"""

import ml_collections

from vitjax.config import common

# Patch sizes at 240 pixels, of 30x30 to 5x5 patches.
PATCH_SIZES = (8, 10, 12, 15, 16, 20, 24, 30, 40, 48)
RES = 240
FASHION_PATCH_SIZES = (4, 7, 14)
NORMALIZE = "normalize((0.286,), (0.353,))"
VARIANTS = ("S", "B", "L")


def get_config(arg: str | None = None) -> ml_collections.ConfigDict:
  """The config of the run."""
  arg = common.parse_arg(
    arg,
    positional=2,
    variant="B",
    on="i1k",
    epochs=int,
    batch=int,
    data=str,
    teacher=str,
    smoke=False,
  )
  fill = common.pick(
    {"i1k": _i1k, "i21k": _i21k, "fashion_mnist": _fashion_mnist},
    arg.on,
    "data set",
  )
  config = ml_collections.ConfigDict()
  config.seed = 0
  config.total_epochs = arg.epochs or (25 if arg.on == "fashion_mnist" else 90)
  fill(config, common.pick({x: x for x in VARIANTS}, arg.variant, "variant"))
  for section in config.evals.values():
    section.patch_sizes = config.flexible.patch_sizes
  if arg.batch:
    config.input.batch_size = arg.batch
  if arg.data:
    config.input.data = arg.data
  if arg.smoke:
    common.make_smoke(config)
    config.distill = {}
    config.flexible.patch_sizes = (8, 16)
    for section in config.evals.values():
      section.patch_sizes = (8, 16, 32)
    if "best_metric" in config.checkpoint:
      config.checkpoint.best_metric = "val/patch16/acc@1"
  if arg.teacher:
    config.distill = {"teacher": arg.teacher}
  return config


def _flexivit(variant: str, kernel: int) -> dict:
  return {
    "name": "vit",
    "variant": f"{variant}/16",
    "pool_type": "tok",
    "posemb": "learn",
    "patch_kernel": kernel,
    "posemb_grid": 7,
    "posemb_resize": "linear",
  }


def _i21k(config: ml_collections.ConfigDict, variant: str) -> None:
  """Supervised, on ImageNet-21k."""
  config.num_classes = 21_843
  config.loss = "sigmoid_xent"
  config.input = {
    "data": "imagenet21k",
    "split": "full[51200:]",
    "batch_size": 4096,
    "prefetch": 4,
    "pp": f"decode_jpeg_and_inception_crop({RES})|flip_lr|randaug(2, 10)"
    "|value_range(-1, 1)",
  }
  config.flexible = {"patch_sizes": PATCH_SIZES}
  config.model = {**_flexivit(variant, 8), "head_bias_init": -10.0}
  config.optim = common.big_vision_adam()
  config.schedule = {"decay": "cosine", "warmup_steps": 10_000}
  config.mixing = {"mixup_alpha": 0.2}
  config.evals = {
    "val": {
      "split": "full[25600:51200]",
      "pp": f"decode|resize_small({RES // 7 * 8})|central_crop({RES})"
      "|value_range(-1, 1)",
      "every_steps": 5000,
    },
  }
  config.checkpoint = {"every_steps": 1000}


def _i1k(config: ml_collections.ConfigDict, variant: str) -> None:
  """From DeiT III, which also is the teacher, on ImageNet-1k."""
  config.num_classes = 1000
  config.loss = "softmax_xent"
  config.input = {
    "data": "imagenet2012",
    "split": "train[:99%]",
    "batch_size": 1024,
    "pp": f"decode_jpeg_and_inception_crop({RES})|flip_lr|value_range(-1, 1)",
  }
  config.flexible = {"patch_sizes": PATCH_SIZES}
  config.init = {"weights": f"deit3_{variant}_384_1k"}
  config.distill = {"teacher": f"deit3_{variant}_384_1k"}
  config.model = _flexivit(variant, 16)
  config.optim = common.big_vision_adam(1e-4, 1e-5)
  config.schedule = {"decay": "cosine", "warmup_steps": 5000}
  config.mixing = {"mixup_alpha": 1.0}
  pp_eval = (
    f"decode|resize({RES // 7 * 8})|central_crop({RES})|value_range(-1, 1)"
  )
  config.evals = {
    "minival": {"split": "train[99%:]", "pp": pp_eval, "every_percent": 5},
    "val": {"split": "validation", "pp": pp_eval, "every_percent": 5},
  }
  config.checkpoint = {
    "every_steps": 1000,
    "best_metric": "minival/patch16/acc@1",
  }


def _fashion_mnist(config: ml_collections.ConfigDict, variant: str) -> None:
  """A small ViT on Fashion-MNIST, as in fashion_mnist.py."""
  del variant
  config.loss = "softmax_xent"
  config.input = {
    "data": "fashion_mnist",
    "split": "train",
    "batch_size": 64,
    "cache": True,
    "pp": f"decode(channels=1)|flip_lr|{NORMALIZE}",
  }
  config.flexible = {"patch_sizes": FASHION_PATCH_SIZES}
  config.model = {
    "name": "vit",
    "patch_size": 7,
    "patch_kernel": 14,
    "width": 64,
    "depth": 4,
    "num_heads": 4,
    "pool_type": "gap",
    "posemb": "learn",
    "posemb_grid": 7,
    "posemb_resize": "linear",
  }
  config.optim = {
    "name": "adam",
    "learning_rate": 2e-3,
    "weight_decay": 0.05,
    "grad_clip_norm": 1.0,
  }
  config.schedule = {"decay": "cosine", "warmup_percent": 5}
  config.evals = {
    "val": {
      "split": "test",
      "pp": f"decode(channels=1)|{NORMALIZE}",
      "batch_size": 500,
      "every_epochs": 5,
    },
  }
  config.checkpoint = {
    "every_epochs": 1,
    "best_metric": "val/patch7/acc@1",
  }
  config.report = {"every_steps": 200}
  config.export_npz = True
