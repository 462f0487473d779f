r"""SigLIP: an image and a text tower from scratch, with a sigmoid loss.

The longest run of SigLIP, whose data (WebLI) are not public. Settings, by
source:

- SigLIP, https://arxiv.org/abs/2303.15343, sec. 4.6: batch 32k, 40 billion
  examples, 256 patches, 64 tokens. Sec. 4.2: images are resized, and no other
  augmentation is named; SentencePiece model of English C4 with 32,000 pieces.
  Sec. 3.2: temperature 10, bias -10. Sec. 4.7: beta2 0.95. App. C: learning
  rate 1e-3, weight decay 1e-4, cosine; AdamW, which is as good as the Adafactor
  of the other runs.
- SigLIP 2, https://arxiv.org/abs/2502.14786, sec. 2.1, for what SigLIP leaves
  open: warm-up of 20,000 steps, gradients clipped to norm 1, texts in lower
  case. Batch, length, learning rate and decay are the same.
- The defaults of https://github.com/google-research/big_vision, the code of
  both: kernels decay, decay follows the schedule, images are resized
  bilinearly without antialiasing.
- Unknown: SigLIP's own warm-up, and whether 32k is 32,768 or 32,000.

  python -m vitjax.main \
    --config=configs/siglip.py:data=captions:/my/captions.csv,vocab=c4_en.model

Not trained here. `vocab` is gs://t5-data/vocabs/cc_en.32000/sentencepiece.model
or the file of another `tokenizer` with at most as many pieces. The data file is
as for configs/lit.py. `accumulate=32` computes the batch in 32 parts for less
memory, with the same result to rounding, see docs/scale.md. By the compiler, 16
chips of v5e need `accumulate=4` for 32,768 pairs (14.9 of 15.75 GiB).

And on Fashion-MNIST, with small towers and captions that are made from its ten
class names, in four parts of a batch of 256:

  python -m vitjax.main --config=configs/siglip.py:fashion

With `naflex`, images keep their aspect ratio and are padded to the number of
patches of a square image of `res` pixels, see docs/flexible.md: the model of
SigLIP 2 NaFlex, which was trained with several such numbers and this is with
one.

Options: data=coco_captions (or captions:FILE, or fashion), vocab=,
tokenizer=siglip, variant=B/16, res=256, naflex, batch=, accumulate=,
loss=siglip (or contrastive), smoke (a few steps on made-up data).
"""

import ml_collections

from vitjax.config import common


def get_config(arg: str | None = None) -> ml_collections.ConfigDict:
  """The config of the run."""
  arg = common.parse_arg(
    arg,
    data="coco_captions",
    vocab="c4_en.model",
    tokenizer="siglip",
    variant="B/16",
    res=256,
    naflex=False,
    batch=0,
    accumulate=0,
    loss="siglip",
    smoke=False,
  )
  config = ml_collections.ConfigDict()
  config.seed = 0
  config.loss = arg.loss
  config.model = {"name": "two_tower", "temperature_init": 10.0}
  if arg.loss == "siglip":
    config.model.bias_init = -10.0
  config.optim = {
    "name": "adam",
    "b2": 0.95,
    "learning_rate": 1e-3,
    "weight_decay": 1e-4,
    "decay_scale": "schedule",
    "grad_clip_norm": 1.0,
  }
  config.schedule = {"decay": "cosine"}
  if arg.smoke or arg.data == "fashion":
    set_small(config, arg)
  else:
    set_captions(config, arg)
  if arg.batch:
    config.input.batch_size = arg.batch
  if arg.accumulate:
    config.accumulation_steps = arg.accumulate
  return config


def set_captions(config, arg) -> None:
  """The published sizes, on images with captions by people."""
  coco = arg.data.startswith("coco_captions")
  variant = common.variant(arg.variant)
  patch_size = int(variant.partition("/")[2])
  side = arg.res // patch_size
  resize = f"decode|resize({arg.res})"
  if arg.naflex:
    resize = f"decode|naflex({side**2}, {patch_size})"
    config.model.image = {
      "variant": variant,
      "pool_type": "map",
      **naflex_options(side),
    }
  tokenize = f"tokenize('{arg.tokenizer}', '{arg.vocab}', max_len=64"
  config.total_examples = 40_000_000_000
  config.schedule.warmup_steps = 20_000
  config.input = {
    "data": arg.data,
    "split": "train+restval" if coco else "train",
    "batch_size": 32_768,
    "pp": f"{resize}|choice()|{tokenize})|value_range(-1, 1)",
  }
  config.model.variant = variant
  config.evals = {
    "retrieval": {
      "type": "retrieval",
      "split": "val",
      "pp": f"{resize}|{tokenize}, inkey='captions', num_texts=5)"
      "|value_range(-1, 1)",
      "batch_size": 1024,
      "every_steps": 5000,
    },
  }
  config.checkpoint = {"every_steps": 1000}
  config.report = {"every_steps": 50}


def naflex_options(side: int) -> dict:
  """Options of the image tower for a position table of `side` rows."""
  return {"naflex": True, "posemb_grid": side, "posemb_resize": "linear"}


def set_small(config, arg) -> None:
  """Small towers and captions from class names, on Fashion-MNIST or noise."""
  size = (8, 32) if arg.smoke else (16, 64)
  max_len, width = size
  patch_size, side = (16, 2) if arg.smoke else (7, 4)
  image = "value_range(-1, 1)"
  if arg.naflex:
    image = f"naflex({side**2}, {patch_size})|{image}"
  decode = "" if arg.smoke else "decode(channels=1)|"
  tokenize = f"tokenize('bert', '{common.CAPTIONS_VOCAB}', max_len={max_len})"
  captions = common.CAPTIONS[:3] if arg.smoke else common.CAPTIONS
  pairs = f"{decode}label_to_text({captions})|{tokenize}|{image}"
  config.total_steps = 4 if arg.smoke else 400
  config.schedule.warmup_percent = 10
  config.input = {
    "data": "fake:40,32x32x3,10" if arg.smoke else "fashion_mnist",
    "split": "train",
    "batch_size": 16 if arg.smoke else 256,
    "cache": True,
    "pp": pairs,
  }
  config.accumulation_steps = 2 if arg.smoke else 4
  config.model.image = {
    "patch_size": patch_size,
    "width": width,
    "depth": 2 if arg.smoke else 4,
    "num_heads": 4,
    "pool_type": "map",
    "posemb": "learn",
    "num_classes": None,
    **(naflex_options(side) if arg.naflex else {}),
  }
  config.model.text = common.small_text(width, max_len)
  every = 2 if arg.smoke else 100
  test = "val" if arg.smoke else "test"
  config.evals = {
    "zeroshot": {
      "type": "zeroshot",
      "split": test,
      "pp": f"{decode}{image}",
      "templates": captions,
      "every_steps": every,
    },
    "retrieval": {
      "type": "retrieval",
      "split": test,
      "pp": pairs,
      "every_steps": every,
    },
  }
  config.checkpoint = {"every_steps": every}
  config.report = {"every_steps": 1 if arg.smoke else 20}
  config.export_npz = True
