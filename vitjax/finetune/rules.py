"""The rules of `vitjax finetune`: what is chosen, why, and who says so.

Each rule is a function of what was found and of nothing else. The first line
of its docstring is the rule, then come the reason and the source; the table in
docs/finetune.md is made of them.
"""

import math

from vitjax.finetune.facts import Data, Device

UNEVEN = 2.0  # images of the largest class by those of the smallest
RARE = 5.0  # likewise, from where on small classes are shown more often
SMALL = 96  # pixels of the shorter side, as in BiT's rule
ENOUGH = 0.25  # share of the wanted epochs


def metric(data: Data) -> str:
  """Balanced accuracy if a class has twice the images of another; else top-1.

  Accuracy rewards a model that answers the largest class.
  Source: https://doi.org/10.1109/ICPR.2010.764
  """
  return "balanced_acc" if data.imbalance >= UNEVEN else "acc@1"


def sampling(data: Data) -> str | None:
  """Every class is shown equally often if one has 5 times another's images.

  In short runs that gained balanced accuracy where classes were 12 to 1, and
  lost some at 2 to 1; weights in the loss did less: docs/solar_cells.md.
  Source: https://arxiv.org/abs/1710.05381
  """
  return "balanced" if data.imbalance >= RARE else None


def published(device: Device) -> tuple[str, ...]:
  """AugReg's ViT-S/16, on a CPU ViT-Ti/16; else EfficientNet-Lite0; else none.

  Pre-training on ImageNet-21k transfers best to small data; the smaller model
  has a quarter of the operations. A Python package has EfficientNet's weights,
  for machines that reach no other server.
  Source: https://arxiv.org/abs/2106.10270
  """
  size = "tiny" if device.platform == "cpu" else "small"
  return (f"vit_{size}_patch16_224.augreg_in21k_ft_in1k", "efficientnet-lite0")


def sides(data: Data, *, is_pretrained: bool) -> tuple[int, ...]:
  """Pixels to try: 224 down to 96; 128 down to 64 for images below 96 pixels.

  From scratch 96 down to 32, and at most the images' own size. Larger images
  are more accurate and slower; the first is timed, and if it leaves too few
  epochs, the first that should leave enough is taken. Pre-trained models gain
  from enlarged small images.
  Source: https://arxiv.org/abs/1912.11370
  """
  if is_pretrained:
    return (128, 96, 64) if data.side < SMALL else (224, 160, 128, 96)
  own = max(32, -(-data.side // 8) * 8)
  return tuple(x for x in (96, 64, 32) if x <= own)


def batch_size(data: Data, device: Device) -> int:
  """The power of two with 20 steps an epoch, from 16 to 64; GPU, TPU: to 512.

  Small data need the number of steps; a CPU gains nothing from larger batches.
  The batch is a multiple of the number of devices.
  Source: https://arxiv.org/abs/1812.06162
  """
  most = 64 if device.platform == "cpu" else 512
  size = 2 ** int(math.log2(max(1, data.num_train / 20)))
  size = min(max(size, 16), most)
  return -(-size // device.count) * device.count


def rate_factor(batch_size: int, base: int, *, is_adam: bool) -> float:
  """The recipe's rate, times the batch's ratio to its batch; Adam: its root.

  This keeps the noise of the updates.
  Source: https://arxiv.org/abs/1706.02677, https://arxiv.org/abs/2205.10287
  """
  ratio = batch_size / base
  return math.sqrt(ratio) if is_adam else ratio


def epochs(data: Data, batch_size: int, *, is_pretrained: bool) -> int:
  """10 epochs and 500 steps; from scratch 40 epochs and 1,000 steps.

  Few images are seen more often. The minutes may allow less. From scratch:
  chosen here on digits and 2,000 images of Fashion-MNIST.
  Source: https://arxiv.org/abs/1912.11370 (500 steps)
  """
  least, steps = (10, 500) if is_pretrained else (40, 1000)
  return max(least, math.ceil(steps * batch_size / data.num_train))


def mirrors(data: Data) -> bool:
  """Random mirror images, unless classes are characters or directions.

  A mirrored 3 is no 3, and a left turn becomes a right one.
  Source: https://doi.org/10.1186/s40537-019-0197-0
  """
  return not any(
    len(name) == 1
    or {"left", "right"} & {*name.lower().replace("_", " ").split()}
    for name in data.class_names
  )


RULES = (
  published,
  sides,
  batch_size,
  rate_factor,
  epochs,
  mirrors,
  metric,
  sampling,
)
