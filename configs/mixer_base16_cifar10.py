r"""Fine-tune a Mixer-B/16 on CIFAR-10.

MLP-Mixer, https://arxiv.org/abs/2105.01601, with the settings of
vision_transformer's `mixer_base16_cifar10.py`:

  python -m vitjax.main --config=configs/mixer_base16_cifar10.py \
    --config.pretrained_dir=gs://mixer_models/imagenet21k

Not trained here; no published result of this command is known. Images have
224 pixels, because a Mixer fits one size only.

Options: dataset=cifar10 (a TFDS name, or folder:/path), steps=10000, lr=0.03,
accumulate=1, smoke.
"""

import ml_collections

from vitjax.config import common


def get_config(arg: str | None = None) -> ml_collections.ConfigDict:
  """The config of the run."""
  arg = common.parse_arg(
    arg, dataset="cifar10", steps=10_000, lr=0.03, accumulate=1, smoke=False
  )
  config = common.vision_transformer_finetuning(
    model={"name": "Mixer-B_16"},
    weights="imagenet21k/Mixer-B_16",
    data=arg.dataset,
    steps=arg.steps,
    warmup_steps=500,
    res=224,
    learning_rate=arg.lr,
    accumulate=arg.accumulate,
  )
  if arg.smoke:
    common.make_smoke(config, "mixer")
  return config
