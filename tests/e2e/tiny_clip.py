"""A few steps from the file of a small CLIP: all of it, or its image tower."""

import ml_collections

from vitjax.config import common

BOTH = {
  "depth": 2,
  "num_heads": 2,
  "num_classes": 16,
  "head_bias": False,
  "gelu": "quick",
  "layer_norm_eps": 1e-5,
}
IMAGE = {
  **BOTH,
  "patch_size": 8,
  "width": 24,
  "pool_type": "tok",
  "posemb_prefix": True,
  "pre_norm": True,
}
TEXT = {
  **BOTH,
  "width": 16,
  "max_len": 12,
  "pool_type": "eot",
  "causal": True,
}
TEMPLATES = ("{}", "a photo of a {}.")


def get_config(arg: str | None = None) -> ml_collections.ConfigDict:
  """The config of the run."""
  arg = common.parse_arg(arg, both=False, weights="", vocab="", vocab_size=0)
  config = ml_collections.ConfigDict()
  config.seed = 1
  config.total_steps = 6
  config.input = {
    "data": "fake:40,32x32x3,10",
    "split": "train",
    "batch_size": 16,
    "pp": "value_range(-1, 1)",
  }
  config.optim = {"name": "adam", "learning_rate": 1e-3, "layer_decay": 0.7}
  config.schedule = {"decay": "cosine", "warmup_percent": 10}
  config.checkpoint = {"every_steps": 2}
  config.report = {"every_steps": 1}
  config.export_npz = True
  test = {"split": "val", "pp": "value_range(-1, 1)", "every_steps": 3}
  if arg.both:
    config.loss = "contrastive"
    text = {**TEXT, "vocab_size": arg.vocab_size}
    config.model = {"name": "two_tower", "image": IMAGE, "text": text}
    config.init = {"weights": arg.weights}
    config.input.pp = (
      f"label_to_text({TEMPLATES})|tokenize('clip', '{arg.vocab}', max_len=12)"
      "|value_range(-1, 1)"
    )
    config.evals = {
      "zeroshot": {**test, "type": "zeroshot", "templates": TEMPLATES}
    }
  else:
    config.loss = "softmax_xent"
    config.model = {"name": "vit", **IMAGE, "head_bias": True}
    del config.model.num_classes  # that of the data
    config.init = {"weights": f"{arg.weights}:img", "reinit": ("head",)}
    config.evals = {"val": test}
  return config
