"""EfficientNet, and EfficientNet-Lite without squeeze-and-excitation.

EfficientNet: Rethinking Model Scaling for Convolutional Neural Networks,
https://arxiv.org/abs/1905.11946. A block widens its input six times, convolves
each channel alone and returns to the stage's width; nothing follows the
addition.

The weights exist in two kinds, which differ in every logit: TensorFlow's
(timm's `tf_*`, and all Lite models of Google) have `padding="same"` and
`batch_norm_eps=1e-3`, PyTorch's have symmetric padding and 1e-5.

Stochastic depth rescales, and the rate of block i of n is
`drop_path_rate * i / n`, so that the last block gets a little less than the
full rate. Blocks without a shortcut are never dropped. Kernels start normal
with variance 2 / fan-out, where a depth-wise kernel has the fan-out of one
channel, and the head uniform within 1 / sqrt(classes).
"""

import functools
import math
from collections.abc import Callable
from typing import Literal

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from vitjax.config.ranges import Count, Finite, Positive, Rate
from vitjax.models import base, common
from vitjax.models.batch_norm import BatchNorm
from vitjax.models.convolutions import (
  Conv,
  Padding,
  SqueezeExcite,
  Stage,
  he_init,
)

# Kernel size, stride of the first block, expansion, width and blocks of the
# stages of B0: table 1 of the paper.
STAGES = (
  (3, 1, 1, 16, 1),
  (3, 2, 6, 24, 2),
  (5, 2, 6, 40, 2),
  (3, 2, 6, 80, 3),
  (5, 1, 6, 112, 3),
  (5, 2, 6, 192, 4),
  (3, 1, 6, 320, 1),
)
_STEM_WIDTH, _HEAD_WIDTH = 32, 1280
# Factors of the widths and of the number of blocks.
_FACTORS = {
  "b0": (1.0, 1.0),
  "b1": (1.0, 1.1),
  "b2": (1.1, 1.2),
  "b3": (1.2, 1.4),
  "b4": (1.4, 1.8),
  "b5": (1.6, 2.2),
  "b6": (1.8, 2.6),
  "b7": (2.0, 3.1),
  "lite0": (1.0, 1.0),
  "lite1": (1.0, 1.1),
  "lite2": (1.1, 1.2),
  "lite3": (1.2, 1.4),
  "lite4": (1.4, 1.8),
}
ACTIVATIONS = {"silu": nn.silu, "relu6": nn.relu6}


def scaled(
  width_factor: float, depth_factor: float, *, lite: bool = False
) -> dict:
  """Fields of `Model` for B0, scaled.

  Args:
    width_factor: of all widths, which are rounded to multiples of 8.
    depth_factor: of the blocks of each stage, rounded up.
    lite: leave out squeeze-and-excitation, bound activations at 6, and scale
      neither the widths of stem and head nor the first and last stage's depth.
  """

  def width(x: int) -> int:
    y = max(8, int(x * width_factor + 4) // 8 * 8)
    return y + 8 if y < 0.9 * x * width_factor else y

  last = len(STAGES) - 1
  fields = {
    "depths": tuple(
      blocks if lite and i in (0, last) else math.ceil(blocks * depth_factor)
      for i, (*_, blocks) in enumerate(STAGES)
    ),
    "widths": tuple(width(x) for *_, x, _ in STAGES),
    "stem_width": _STEM_WIDTH if lite else width(_STEM_WIDTH),
    "head_width": _HEAD_WIDTH if lite else width(_HEAD_WIDTH),
  }
  if lite:
    fields |= {"squeeze_excite": False, "activation": "relu6"}
  return fields


def decode_variant(variant: str) -> dict:
  """Fields of `Model` for a variant such as "b0" or "lite4".

  Raises:
    ValueError: if the variant is not in the table.
  """
  if variant not in _FACTORS:
    raise ValueError(
      f"variant={variant!r} is not an EfficientNet. "
      f"Known: {', '.join(_FACTORS)}."
    )
  return scaled(*_FACTORS[variant], lite=variant.startswith("lite"))


# Parameters with 1000 classes; size in pixels of timm's weights and of
# TensorFlow's.
_TABLE = {
  "b0": (5_288_548, 224, 224),
  "b1": (7_794_184, 224, 240),
  "b2": (9_109_994, 256, 260),
  "b3": (12_233_232, 288, 300),
  "b4": (19_341_616, 320, 380),
  "b5": (30_389_784, 448, 456),
  "b6": (43_040_704, 528, 528),
  "b7": (66_347_960, 600, 600),
  "lite0": (4_652_008, 224, 224),
  "lite1": (5_416_680, 240, 240),
  "lite2": (6_092_072, 260, 260),
  "lite3": (8_197_096, 300, 300),
  "lite4": (13_006_568, 380, 380),
}
TENSORFLOW = {"padding": "same", "batch_norm_eps": 1e-3}

# timm's names: PyTorch's models, and the ports of TensorFlow's.
PUBLISHED = {
  f"{prefix}efficientnet_{variant}": {
    "fields": {"variant": variant, **fields},
    "image_size": sizes[kind],
    "params": params,
  }
  for kind, (prefix, fields) in enumerate((("", {}), ("tf_", TENSORFLOW)))
  for variant, (params, *sizes) in _TABLE.items()
}


class Block(nn.Module):
  """Inverted bottleneck: expand, convolve each channel, gate, project.

  `conv`, `norm` and `gate` make layers with the model's options.
  """

  features: int
  kernel_size: int
  strides: int
  expansion: int
  drop_path_rate: float
  conv: Callable[..., Conv]
  norm: Callable[..., BatchNorm]
  gate: Callable[..., SqueezeExcite] | None
  activation: str

  @nn.compact
  def __call__(
    self, x: Float[Array, "b h w c"], train: bool = False
  ) -> Float[Array, "b _h _w o"]:
    inputs = x.shape[-1]
    width = self.expansion * inputs
    act = ACTIVATIONS[self.activation]
    y = x
    if self.expansion > 1:
      y = self.conv(width, name="expand")(y)
      y = act(self.norm(name="expand_norm")(y, train=train))
    y = self.conv(
      width,
      self.kernel_size,
      self.strides,
      groups=width,
      kernel_init=he_init(width),
      name="depthwise",
    )(y)
    y = act(self.norm(name="depthwise_norm")(y, train=train))
    if self.gate:
      y = self.gate(round(inputs / 4), name="squeeze_excite")(y)
    y = self.conv(self.features, name="project")(y)
    y = self.norm(name="project_norm")(y, train=train)
    if self.strides > 1 or inputs != self.features:
      return y
    if train and self.drop_path_rate:
      y = common.drop_path(y, self.drop_path_rate, self.make_rng("dropout"))
    return x + y


class Model(base.ImageModel):
  """EfficientNet.

  Attributes:
    num_classes: outputs of the head. None: no head, the model returns the
      pooled features.
    depths: number of blocks of each of the seven stages.
    widths: channels of each stage.
    stem_width: channels of the first convolution.
    head_width: channels of the last convolution, the pooled features.
    squeeze_excite: gate the channels in each block. False in Lite.
    activation: "silu", or "relu6" in Lite.
    padding: "symmetric" as in PyTorch, or "same" as in TensorFlow, which pads
      more at the bottom and at the right.
    batch_norm_eps: epsilon that BatchNorm adds to the variance: 1e-5 in
      PyTorch's models, 1e-3 in TensorFlow's.
    batch_norm_momentum: weight of the old running statistics in training.
    dropout_rate: dropout in front of the head.
    drop_path_rate: probability of dropping a block (stochastic depth); it
      ramps up linearly from 0 in the first block.
    head_zero_init: initialise the kernel of the head with zeros.
    head_bias_init: initial bias of the head; a negative value starts a sigmoid
      loss near its prior.
    dtype: type of activations; parameters and statistics are always float32.
  """

  num_classes: Count | None = None
  depths: tuple[Count, ...] = tuple(blocks for *_, blocks in STAGES)
  widths: tuple[Count, ...] = tuple(width for *_, width, _ in STAGES)
  stem_width: Count = _STEM_WIDTH
  head_width: Count = _HEAD_WIDTH
  squeeze_excite: bool = True
  activation: Literal["silu", "relu6"] = "silu"
  padding: Padding = "symmetric"
  batch_norm_eps: Positive = 1e-5
  batch_norm_momentum: Rate = 0.9
  dropout_rate: Rate = 0.0
  drop_path_rate: Rate = 0.0
  head_zero_init: bool = False
  head_bias_init: Finite = 0.0
  dtype: common.Dtype = jnp.float32

  @nn.nowrap
  def layers(self) -> list[str]:
    """The layers, see `models.layers`: stem, blocks of all stages, head."""
    return [
      r"stem(_norm)?/.*",
      *base.stage_layers(self.depths),
      r"head(_conv(_norm)?)?/.*",
    ]

  @nn.compact
  def __call__(
    self, image: Float[common.ArrayLike, "b h w c"], train: bool = False
  ) -> tuple[Float[Array, "..."], dict[str, Array]]:
    act = ACTIVATIONS[self.activation]
    conv = functools.partial(Conv, padding=self.padding, dtype=self.dtype)
    norm = functools.partial(
      BatchNorm,
      self.batch_norm_eps,
      self.batch_norm_momentum,
      dtype=self.dtype,
    )
    gate = None
    if self.squeeze_excite:
      gate = functools.partial(
        SqueezeExcite, activation=self.activation, dtype=self.dtype
      )
    x = conv(self.stem_width, 3, 2, name="stem")(jnp.asarray(image))
    x = act(norm(name="stem_norm")(x, train=train))
    out = {"stem": x}
    # As if another block followed the last one.
    *rates, _ = common.drop_path_rates(self.drop_path_rate, (*self.depths, 1))
    for s, ((size, strides, expansion, *_), width, stage_rates) in enumerate(
      zip(STAGES, self.widths, rates, strict=True)
    ):
      block = functools.partial(
        Block,
        width,
        size,
        expansion=expansion,
        conv=conv,
        norm=norm,
        gate=gate,
        activation=self.activation,
      )
      stage = Stage(block, stage_rates, strides, name=f"stage{s}")
      x = out[f"stage{s}"] = stage(x, train)
    x = conv(self.head_width, name="head_conv")(x)
    x = act(norm(name="head_conv_norm")(x, train=train))
    out["pre_logits_2d"] = x
    x = out["pre_logits"] = x.mean(axis=(1, 2), dtype=jnp.float32)
    if self.num_classes:
      x = nn.Dropout(self.dropout_rate)(x, deterministic=not train)
      bound = self.num_classes**-0.5

      def kernel_init(key, shape, dtype):
        return jax.random.uniform(key, shape, dtype, -bound, bound)

      x = out["logits"] = common.head(
        self.num_classes, self.head_zero_init, self.head_bias_init, kernel_init
      )(x)
    return x, out
