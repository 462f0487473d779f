r"""Fine-tune a ViT that was pre-trained on ImageNet-21k.

An Image is Worth 16x16 Words, https://arxiv.org/abs/2010.11929, with the
settings of vision_transformer's `vit.py`:

  python -m vitjax.main --config=configs/vit.py:b16,cifar10 \
    --config.pretrained_dir=gs://vit_models/imagenet21k

Not trained here. Results are in table 5 of the paper, whose runs had other
numbers of steps and learning rates for each data set; the result of this
command was not published.

The published configs also name a resize to 448 pixels, which their input
pipeline does not read: training images are random crops of any size and
shape, test images are resized without a crop.

Options: model (b16, b32, l16, l32, h14, r50+b16), dataset=cifar10 (a TFDS
name, or folder:/path), steps (10,000, for ImageNet-1k 20,000), lr=0.03,
res=384, accumulate=1 (512 images of 384 pixels do not fit on one GPU), smoke.
"""

import ml_collections

from vitjax.config import common

MODELS = {
  "b16": "ViT-B_16",
  "b32": "ViT-B_32",
  "l16": "ViT-L_16",
  "l32": "ViT-L_32",
  "h14": "ViT-H_14",
  "r50+b16": "R50+ViT-B_16",
}


def get_config(arg: str | None = None) -> ml_collections.ConfigDict:
  """The config of the run."""
  arg = common.parse_arg(
    arg,
    positional=2,
    model="b16",
    dataset="cifar10",
    steps=int,
    lr=0.03,
    res=384,
    accumulate=1,
    smoke=False,
  )
  model = common.pick(MODELS, arg.model, "model")
  config = common.vision_transformer_finetuning(
    model={"name": model},
    weights=f"imagenet21k/{model}",
    data=arg.dataset,
    steps=arg.steps or (20_000 if arg.dataset == "imagenet2012" else 10_000),
    warmup_steps=500,
    res=arg.res,
    learning_rate=arg.lr,
    accumulate=arg.accumulate,
  )
  if arg.smoke:
    common.make_smoke(config, "vit")
  return config
