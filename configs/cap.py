r"""Cap and CapPa: pre-train a ViT by writing captions.

Image Captioners Are Scalable Vision Learners Too,
https://arxiv.org/abs/2306.07915. The settings are those of CapPa in
https://github.com/google-research/big_vision, `configs/proj/cappa`: 366,500
steps of 8,192 images of 224 pixels with texts of 64 tokens, ViT-B/16, six
blocks in the decoder, Adafactor, learning rate 1e-3, weight decay 1e-4, 10,000
steps of warm-up, cosine decay, gradients clipped to norm 1, and three of four
captions predicted in parallel. The published data (WebLI) are not public. Not
trained here.

  python -m vitjax.main \
    --config=configs/cap.py:data=captions:/my/captions.csv,vocab=c4_en.model
  python -m vitjax.main --config=configs/cap.py:parallel=0,vocab=c4_en.model

With `parallel=0` it is Cap. `vocab` and the data file are as for
configs/siglip.py. On Fashion-MNIST, with a small model and captions that are
made from its ten class names:

  python -m vitjax.main --config=configs/cap.py:fashion

Then fine-tune the encoder on labelled images, from the folder of the run:

  python -m vitjax.main \
    --config=configs/transfer.py:runs/cap,folder:/my/labelled,optim=adamw

Options: data=coco_captions (or captions:FILE), vocab=, tokenizer=siglip,
variant=B/16, res=224, batch=, parallel=0.75, fashion, smoke (a few steps on
made-up data).
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
    res=224,
    batch=0,
    parallel=0.75,
    fashion=False,
    smoke=False,
  )
  config = ml_collections.ConfigDict()
  config.seed = 0
  config.loss = "caption_xent"
  config.model = {"name": "captioner", "parallel_share": arg.parallel}
  config.optim = {
    "name": "adafactor",
    "beta2_cap": 0.999,
    "learning_rate": 1e-3,
    "weight_decay": 1e-4,
    "decay_scale": "schedule",
    "grad_clip_norm": 1.0,
  }
  config.schedule = {"decay": "cosine"}
  if arg.smoke or arg.fashion:
    set_small(config, arg)
  else:
    set_captions(config, arg)
  if arg.batch:
    config.input.batch_size = arg.batch
  return config


def set_captions(config, arg) -> None:
  """The published sizes, on images with captions by people."""
  coco = arg.data.startswith("coco_captions")
  resize = f"decode|resize({arg.res})"
  tokenize = f"tokenize('{arg.tokenizer}', '{arg.vocab}', max_len=64"
  config.total_steps = 366_500
  config.schedule.warmup_steps = 10_000
  config.input = {
    "data": arg.data,
    "split": "train+restval" if coco else "train",
    "batch_size": 8192,
    "pp": f"{resize}|choice()|{tokenize})|value_range(-1, 1)",
  }
  config.model.update(
    {
      "variant": common.variant(arg.variant),
      "pool_type": "gap",
      "vocab_size": 32_000,
      "max_len": 64,
      "decoder_depth": 6,
    }
  )
  config.evals = {
    "captions": {
      "type": "perplexity",
      "split": "val",
      "pp": f"{resize}|{tokenize}, inkey='captions', num_texts=5)"
      "|value_range(-1, 1)",
      "batch_size": 1024,
      "every_steps": 5000,
    },
  }
  config.checkpoint = {"every_steps": 1000}
  config.report = {"every_steps": 50}


def set_small(config, arg) -> None:
  """A small model and captions from class names, on Fashion-MNIST or noise."""
  max_len, width = (8, 32) if arg.smoke else (16, 64)
  image = "value_range(-1, 1)"
  decode = "" if arg.smoke else "decode(channels=1)|"
  tokenize = f"tokenize('bert', '{common.CAPTIONS_VOCAB}', max_len={max_len})"
  captions = f"{decode}label_to_text({common.CAPTIONS})|{tokenize}|{image}"
  config.total_steps = 4 if arg.smoke else 600
  config.schedule.warmup_percent = 10
  config.input = {
    "data": "fake:40,32x32x3,10" if arg.smoke else "fashion_mnist",
    "split": "train",
    "batch_size": 16 if arg.smoke else 256,
    "cache": True,
    "pp": captions,
  }
  config.accumulation_steps = 2 if arg.smoke else 1
  config.model.update(
    {
      "patch_size": 16 if arg.smoke else 7,
      "width": width,
      "depth": 2 if arg.smoke else 4,
      "num_heads": 4,
      "pool_type": "gap",
      "vocab_size": 256,
      "max_len": max_len,
      "decoder_depth": 1 if arg.smoke else 2,
    }
  )
  every = 2 if arg.smoke else 200
  train, test = ("train", "val") if arg.smoke else ("train[:20000]", "test")
  config.evals = {
    "captions": {
      "type": "perplexity",
      "split": test,
      "pp": captions,
      "every_steps": every,
    },
    "knn": {
      "type": "knn",
      "split": test,
      "train_split": train,
      "pp": f"{decode}{image}",
      "every_steps": every,
    },
  }
  config.checkpoint = {"every_steps": every}
  config.report = {"every_steps": 1 if arg.smoke else 20}
  config.export_npz = True
