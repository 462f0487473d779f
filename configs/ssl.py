r"""Pre-train a ViT without labels: a masked autoencoder.

  python -m vitjax.main --config=configs/ssl.py:data=images:/my/images
  python -m vitjax.main --config=configs/ssl.py:fashion --workdir=runs/ssl

Masked Autoencoders Are Scalable Vision Learners,
https://arxiv.org/abs/2111.06377, with the settings of table 8: AdamW with betas
0.9 and 0.95, a decay of 0.05, a learning rate of 1.5e-4 for each 256 images of
a batch, 40 epochs of warm-up, cosine decay, crops of 20 to 100 % of the area,
mirror images, 75 % of the patches masked, and normalised pixels to predict.
The published models, fine-tuned on ImageNet-1k at 224, reach 83.6 % with B/16,
85.9 % with L/16 and 86.9 % with H/14, after 1600 epochs. Not trained here.

`fashion` is a ViT with 0.2 million parameters on the 60,000 images of
Fashion-MNIST, for two CPU cores; docs/ssl.md has its results. The labels are
read by the two evals alone: k nearest neighbours and a linear probe on the
encoder's features.

Then fine-tune the encoder on labelled images:

  python -m vitjax.main \
    --config=configs/transfer.py:runs/ssl,folder:/my/labelled,optim=adamw

Options: data (images: or any other source), variant=B/16 (or L/16, H/14),
epochs (1600; 6 with fashion), batch (4096; 126 with fashion), res=224,
accumulate=1 (parts of a batch, to save memory), labelled (a data set with
classes for the evals; by default `data` if it has classes), seed=0, fashion,
smoke.
"""

import ml_collections

from vitjax.config import common

# Mean and standard deviation of the training pixels, in 0..1.
FASHION = "normalize((0.286,), (0.353,))"
FASHION_MODEL = {
  "name": "mae",
  "patch_size": 7,
  "width": 64,
  "depth": 4,
  "num_heads": 4,
  "pool_type": "gap",
  "class_token": True,
  "posemb": "sincos2d",
  "decoder_width": 32,
  "decoder_depth": 1,
  "decoder_num_heads": 2,
}


def make_smoke(config: ml_collections.ConfigDict) -> None:
  """Shrinks the recipe to a few steps of a tiny model on digits of 8x8."""
  common.make_smoke(config, "vit")
  del config.num_classes
  config.input.data = "digits"
  config.input.pp = "random_crop(8, padding=1)|value_range(-1, 1)"
  config.model.update(
    {
      "patch_size": 2,
      "decoder_width": 16,
      "decoder_depth": 1,
      "decoder_num_heads": 2,
    }
  )
  for section in config.evals.values():
    section.update({"split": "test[:40]", "train_split": "train[:200]"})
    section.pp = "value_range(-1, 1)"


def get_config(arg: str | None = None) -> ml_collections.ConfigDict:
  """The config of the run."""
  arg = common.parse_arg(
    arg,
    data="imagenet2012",
    variant="B/16",
    epochs=int,
    batch=int,
    res=224,
    accumulate=1,
    labelled=str,
    seed=0,
    fashion=False,
    smoke=False,
  )
  if arg.fashion:
    arg.data, arg.res = "fashion_mnist", 28
  epochs = arg.epochs or (6 if arg.fashion else 1600)
  batch = arg.batch or (128 if arg.fashion else 4096)
  config = ml_collections.ConfigDict()
  config.seed = arg.seed
  config.total_epochs = epochs
  config.loss = "normalised_pixel_mse"
  config.accumulation_steps = arg.accumulate

  config.input = {
    "data": arg.data,
    "split": common.all_of_train(arg.data),
    "batch_size": batch,
    "pp": f"decode_jpeg_and_inception_crop({arg.res}, area_min=20, "
    'method="bicubic")|flip_lr|normalize',
  }
  config.model = {
    "name": "mae",
    "variant": common.variant(arg.variant),
    "pool_type": "gap",
    "class_token": True,
    "posemb": "sincos2d",
    "gelu": "erf",
  }
  config.optim = {
    "name": "adamw",
    "b2": 0.95,
    "learning_rate": 1.5e-4 * batch / 256,
    "weight_decay": 0.05,
  }
  # 40 epochs of the published 800 and 1600; a tenth of shorter runs.
  warmup = 100 * 40 / max(epochs, 400)
  config.schedule = {"decay": "cosine", "warmup_percent": warmup}
  pp_eval = f"{common.bicubic_eval(arg.res, 0.875)}|normalize"
  if arg.fashion:
    config.model = FASHION_MODEL
    config.input.cache = True
    config.input.pp = (
      f"decode(channels=1)|random_crop(28, padding=2)|flip_lr|{FASHION}"
    )
    pp_eval = f"decode(channels=1)|{FASHION}"
    config.optim.learning_rate = 1.5e-3

  config.evals = {}
  labelled = arg.labelled or arg.data
  if not labelled.startswith(("images:", "captions:")):
    train, val = common.splits(labelled)
    own = {} if labelled == arg.data else {"data": labelled}
    common_options = {**own, "split": val, "pp": pp_eval, "batch_size": 500}
    # A part of the neighbours: features of all images would fill the memory.
    few = {"imagenet2012": "train[:65000]", "fashion_mnist": "train[:20000]"}
    few = few.get(labelled, train)
    config.evals = {
      "knn": {
        "type": "knn",
        "train_split": few,
        "every_percent": 100 if arg.fashion else 50,
        **common_options,
      },
      "probe": {
        "type": "linear_probe",
        "train_split": few,
        "l2": 1e-4,
        "max_iterations": 300,
        "every_percent": 100,
        **common_options,
      },
    }
  config.checkpoint = {"every_percent": 5}
  config.report = {"every_steps": 50}
  if arg.smoke:
    make_smoke(config)
  return config
