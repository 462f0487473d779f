r"""A small ViT or ResNet from scratch on small images, without a network.

  python -m vitjax.main --config=configs/small_vit.py:folder:images

`vitjax.data sample images` makes such a folder of digits; on it the run takes
90 seconds on two CPU cores and ends with 97.5 % accuracy; with model=resnet and
epochs=20, with 99.2 %. For photographs, fine-tune published weights instead:
`transfer.py`.

Images with several classes or with numbers: see "Labels" in docs/data.md.

Options: data (a folder:, labels: or TFDS data set), model=vit (or resnet: two
units of BiT's; more accurate on a few thousand images, and a step takes three
times as long), res=32 (a multiple of 8, the size of the patches), epochs=60,
batch=64, flip (mirror images at random; wrong for digits and text), train= and
val= (splits; by default the data set's usual ones), smoke (a few steps on
made-up data).
"""

import ml_collections

from vitjax.config import common

# Model -> its section of the config, and its learning rate.
MODELS = {
  "vit": (
    {
      "name": "vit",
      "patch_size": 8,
      "width": 128,
      "depth": 4,
      "num_heads": 4,
      "pool_type": "gap",
      "posemb": "learn",
    },
    2e-3,
  ),
  "resnet": ({"name": "resnet", "stages": (1, 1), "preact": True}, 1e-3),
}


def get_config(arg: str | None = None) -> ml_collections.ConfigDict:
  """The config of the run."""
  arg = common.parse_arg(
    arg,
    data="folder:images",
    model="vit",
    res=32,
    epochs=60,
    batch=64,
    flip=False,
    train="",
    val="",
    smoke=False,
  )
  train, val = common.splits(arg.data)
  config = ml_collections.ConfigDict()
  config.seed = 0
  config.total_epochs = arg.epochs
  config.loss = "softmax_xent"

  flip = "|flip_lr" if arg.flip else ""
  config.input = {
    "data": arg.data,
    "split": arg.train or train,
    "batch_size": arg.batch,
    "pp": f"decode|resize({arg.res})|random_crop({arg.res}, padding=2){flip}"
    "|value_range(-1, 1)",
  }
  model, learning_rate = common.pick(MODELS, arg.model, "model")
  config.model = model
  config.optim = {
    "name": "adam",
    "learning_rate": learning_rate,
    "weight_decay": 0.05,
    "grad_clip_norm": 1.0,
  }
  config.schedule = {"decay": "cosine", "warmup_percent": 5}
  config.mixing = {"mixup_alpha": 0.2}

  config.evals = {
    "val": {
      "split": arg.val or val,
      "pp": f"decode|resize({arg.res})|value_range(-1, 1)",
      "every_percent": 20,
      # Accuracy alone hides a model that answers the largest class.
      "metrics": ("balanced_acc", "majority"),
    },
  }
  config.checkpoint = {"every_percent": 20, "best_metric": "val/acc@1"}
  config.report = {"every_steps": 50}
  config.export_npz = True
  if arg.smoke:
    common.make_smoke(config)
  common.fit_labels(config)
  return config
