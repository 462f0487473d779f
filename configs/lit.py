r"""LiT: train a text tower on a locked image tower, for zero-shot use.

LiT, https://arxiv.org/abs/2111.07991: a text tower learns to agree with a
trained image tower, whose weights do not change. On captions, with the sigmoid
loss of SigLIP, https://arxiv.org/abs/2303.15343, and the settings of
big_vision's small example on COCO: Adam, learning rate 1e-3, weight decay
0.01, temperature 10, bias -2.71, batch 512, 5,000 steps. Unknown, and chosen
here: the schedule, the augmentation, the image tower and the initial weights
of the text tower.

  tfds build coco_captions
  python -m vitjax.main --config=configs/lit.py:vocab=/path/to/vocab.txt
  python -m vitjax.main \
    --config=configs/lit.py:data=captions:/my/captions.csv,vocab=/path/vocab.txt

Not trained here. `vocab` is the vocabulary of BERT (uncased, 30,522 lines),
as it is published beside LiT's weights. The data file has the columns `file`
and `caption`; see `vitjax/data/sources/captions.py`.

And on Fashion-MNIST, with captions that are made from its ten class names,
on top of the model of configs/fashion_mnist.py:

  python -m vitjax.main --config=configs/fashion_mnist.py
  python -m vitjax.main --config=configs/lit.py:fashion
  python -m vitjax.main --config=configs/lit.py:fashion,weights=/my/run

The second line expects the image tower in runs/fashion_mnist; the third names
another run folder.

Measured: 90.3 % ± 0.1 zero-shot top-1 on the 10,000 test images (mean and
standard deviation of --config.seed=0, 1, 2), in 41 seconds of CPU time. The
image tower's own classifier has 90.5 %. This shows only that the parts work
together: every class of the test was in the captions, and the image tower has
even seen their labels.

Options: data=coco_captions (or captions:FILE, or fashion), weights= (of the
image tower: a file, a published name or a run folder), text_weights= (of the
text tower; random without), variant=B/16 (of the image tower), vocab=, loss=
(siglip, or contrastive as in LiT, which Fashion-MNIST has by default), steps=,
batch=, smoke (a few steps on made-up data).
"""

import ml_collections

from vitjax.config import common


def get_config(arg: str | None = None) -> ml_collections.ConfigDict:
  """The config of the run."""
  arg = common.parse_arg(
    arg,
    data="coco_captions",
    weights="",
    text_weights="",
    variant="B/16",
    vocab="vocab.txt",
    loss="",
    steps=0,
    batch=0,
    smoke=False,
  )
  config = ml_collections.ConfigDict()
  config.seed = 0
  fashion = arg.data == "fashion"
  config.loss = arg.loss or ("contrastive" if fashion else "siglip")
  config.model = {
    "name": "two_tower",
    "temperature_init": 10.0,
  }
  if config.loss == "siglip":
    config.model.bias_init = -2.71
  config.init = {"weights": {}, "ignore": ()}
  config.optim = {
    "name": "adam",
    "learning_rate": 1e-3,
    "weight_decay": 0.01,
    "decay_scale": "schedule",
    "grad_clip_norm": 1.0,
    "freeze": ("img/.*",),
  }
  config.schedule = {"decay": "cosine", "warmup_percent": 5}
  if arg.smoke:
    set_smoke(config)
  elif fashion:
    set_fashion(config)
  else:
    set_captions(config, arg)
  if arg.steps:
    config.total_steps = arg.steps
  if arg.batch:
    config.input.batch_size = arg.batch
  if arg.weights:
    config.init.weights.img = arg.weights
  if arg.text_weights:
    config.init.weights.txt = arg.text_weights
  if not config.init.weights:
    del config.init
  return config


def set_captions(config, arg) -> None:
  """Images with captions by people, and towers as in LiT-B16B_2."""
  coco = arg.data.startswith("coco_captions")
  tokenize = f"tokenize('bert', '{arg.vocab}', max_len=16"
  config.total_steps = 5000
  config.input = {
    "data": arg.data,
    "split": "train+restval" if coco else "train",
    "batch_size": 512,
    # Whole images: a crop may lack what the caption is about.
    "pp": f"decode|resize(224)|flip_lr|choice()|{tokenize})|value_range(-1, 1)",
  }
  config.model.image = {
    "variant": common.variant(arg.variant),
    "pool_type": "tok",
    "num_classes": None,
  }
  config.model.text_model = "bert"
  config.model.text = {"variant": "base", "num_classes": 768}
  config.init.weights.img = "augreg:B_16"
  config.init.ignore = ("img/head", "img/pre_logits")
  config.evals = {
    "retrieval": {
      "type": "retrieval",
      "split": "val",
      "pp": "decode|resize(224)"
      f"|{tokenize}, inkey='captions', num_texts=5)|value_range(-1, 1)",
      "every_steps": 1000,
    },
  }
  config.checkpoint = {"every_steps": 500}
  config.report = {"every_steps": 50}


def set_fashion(config) -> None:
  """Captions from the class names of Fashion-MNIST, and small towers."""
  # What configs/fashion_mnist.py normalises with.
  image = "normalize((0.286,), (0.353,))"
  texts = f"label_to_text({common.CAPTIONS})"
  tokenize = f"tokenize('bert', '{common.CAPTIONS_VOCAB}', max_len=16)"
  config.total_steps = 100
  config.input = {
    "data": "fashion_mnist",
    "split": "train",
    "batch_size": 256,
    "cache": True,
    "pp": f"decode(channels=1)|{texts}|{tokenize}|{image}",
  }
  config.model.image = {
    "patch_size": 7,
    "width": 64,
    "depth": 4,
    "num_heads": 4,
    "pool_type": "gap",
    "posemb": "learn",
    "num_classes": None,
  }
  config.model.text = common.small_text(width=64)
  config.init.weights.img = "runs/fashion_mnist"
  config.init.ignore = ("img/head",)
  config.evals = {
    "zeroshot": {
      "type": "zeroshot",
      "split": "test",
      "pp": f"decode(channels=1)|{image}",
      "batch_size": 500,
      "templates": common.CAPTIONS,
      "every_steps": 50,
    },
  }
  config.checkpoint = {"every_steps": 50}
  config.report = {"every_steps": 20}
  config.export_npz = True


def set_smoke(config) -> None:
  """A few steps of tiny towers on noise, with every part that a run has."""
  tokenize = f"tokenize('bert', '{common.CAPTIONS_VOCAB}', max_len=8)"
  made = f"label_to_text({common.CAPTIONS[:3]})|{tokenize}|value_range(-1, 1)"
  config.total_steps = 4
  config.input = {
    "data": "fake:40,32x32x3,10",
    "split": "train",
    "batch_size": 16,
    "pp": made,
  }
  config.model.image = {"variant": "mu/16", "num_classes": None}
  config.model.text = common.small_text(width=32, max_len=8)
  config.evals = {
    "zeroshot": {
      "type": "zeroshot",
      "split": "val",
      "pp": "value_range(-1, 1)",
      "every_steps": 2,
    },
    "retrieval": {
      "type": "retrieval",
      "split": "val",
      "pp": made,
      "every_steps": 2,
    },
  }
  config.checkpoint = {"every_steps": 2}
  config.report = {"every_steps": 1}
