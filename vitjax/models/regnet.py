"""RegNetY.

Designing Network Design Spaces, https://arxiv.org/abs/2003.13678. Padding,
epsilon and the layers of each block are those of timm's `regnety_*`: the width
between the layers of squeeze-and-excitation is a quarter of the block's input.

Stochastic depth ramps up linearly from 0 in the first block to
`drop_path_rate` in the last one.
"""

import functools

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from vitjax.config.ranges import Count, Finite, Rate
from vitjax.models import base, common
from vitjax.models.batch_norm import BatchNorm
from vitjax.models.convolutions import (
  HEAD_INIT,
  Conv,
  SqueezeExcite,
  Stage,
  he_init,
)

# By the number of multiplications of an image of 224 pixels, in 1e8: blocks
# and widths of the stages, channels of a group, parameters with 1000 classes.
# Appendix D of the paper; timm rounds the widths to whole groups.
_TABLE = {
  "032": ((2, 5, 13, 1), (72, 216, 576, 1512), 24, 19_436_338),
  "040": ((2, 6, 12, 2), (128, 192, 512, 1088), 64, 20_646_656),
  "064": ((2, 7, 14, 2), (144, 288, 576, 1296), 72, 30_583_252),
  "080": ((2, 4, 10, 1), (168, 448, 896, 2016), 56, 39_180_068),
  "120": ((2, 5, 11, 1), (224, 448, 896, 2240), 112, 51_822_544),
  "160": ((2, 4, 11, 1), (224, 448, 1232, 3024), 112, 83_590_140),
  "320": ((2, 5, 12, 1), (232, 696, 1392, 3712), 232, 145_046_770),
}

VARIANTS = {
  name: {"depths": depths, "widths": widths, "group_width": group_width}
  for name, (depths, widths, group_width, _) in _TABLE.items()
}

# timm's names.
PUBLISHED = {
  f"regnety_{name}": {
    "fields": {"variant": name},
    "image_size": 224,
    "params": params,
  }
  for name, (*_, params) in _TABLE.items()
}


def decode_variant(variant: str) -> dict:
  """Fields of `Model` for a variant such as "032".

  Raises:
    ValueError: if the variant is not in the table.
  """
  if variant not in VARIANTS:
    raise ValueError(
      f"variant={variant!r} is not a RegNetY. Known: {', '.join(VARIANTS)}."
    )
  return dict(VARIANTS[variant])


class Block(nn.Module):
  """Bottleneck of one width with a grouped convolution and a gate.

  `scale_init` is of the last norm of the branch.
  """

  width: int
  group_width: int
  strides: int
  drop_path_rate: float
  scale_init: nn.initializers.Initializer
  dtype: common.Dtype = jnp.float32

  @nn.compact
  def __call__(
    self, x: Float[Array, "b h w c"], train: bool = False
  ) -> Float[Array, "b _h _w o"]:
    def conv_norm(y, suffix, *args, scale_init=nn.initializers.ones, **kwargs):
      y = Conv(
        self.width, *args, **kwargs, dtype=self.dtype, name=f"conv{suffix}"
      )(y)
      norm = BatchNorm(
        scale_init=scale_init, dtype=self.dtype, name=f"norm{suffix}"
      )
      return norm(y, train=train)

    inputs = x.shape[-1]
    groups = self.width // self.group_width
    y = nn.relu(conv_norm(x, "1"))
    y = conv_norm(
      y,
      "2",
      3,
      self.strides,
      groups,
      kernel_init=he_init(groups),
    )
    y = nn.relu(y)
    y = SqueezeExcite(
      round(inputs / 4), dtype=self.dtype, name="squeeze_excite"
    )(y)
    y = conv_norm(y, "3", scale_init=self.scale_init)
    if train and self.drop_path_rate:
      y = common.drop_path(y, self.drop_path_rate, self.make_rng("dropout"))
    if self.strides > 1 or inputs != self.width:
      x = conv_norm(x, "_shortcut", 1, self.strides)
    return nn.relu(x + y)


class Model(base.ImageModel):
  """RegNetY.

  Attributes:
    num_classes: outputs of the head. None: no head, the model returns the
      pooled features.
    depths: number of blocks of each stage.
    widths: channels of each stage.
    group_width: channels of a group of the 3x3 convolutions.
    stem_width: channels of the first convolution.
    drop_path_rate: probability of dropping the last block (stochastic depth);
      it ramps up linearly from 0 in the first block.
    zero_init_residual: initialise the scale of the last norm of each branch
      with 0, so that a block starts as its shortcut.
    head_bias_init: initial bias of the head; a negative value starts a sigmoid
      loss near its prior.
    dtype: type of activations; parameters and statistics are always float32.
  """

  num_classes: Count | None = None
  depths: tuple[Count, ...] = _TABLE["032"][0]
  widths: tuple[Count, ...] = _TABLE["032"][1]
  group_width: Count = _TABLE["032"][2]
  stem_width: Count = 32
  drop_path_rate: Rate = 0.0
  zero_init_residual: bool = True
  head_bias_init: Finite = 0.0
  dtype: common.Dtype = jnp.float32

  @nn.nowrap
  def layers(self) -> list[str]:
    """The layers, see `models.layers`: stem, blocks of all stages, head."""
    return [
      r"stem(_norm)?/.*",
      *base.stage_layers(self.depths),
      r"head/.*",
    ]

  @nn.compact
  def __call__(
    self, image: Float[common.ArrayLike, "b h w c"], train: bool = False
  ) -> tuple[Float[Array, "..."], dict[str, Array]]:
    if any(width % self.group_width for width in self.widths):
      raise ValueError(
        f"widths={self.widths} are not all multiples of "
        f"group_width={self.group_width}."
      )
    x = jnp.asarray(image)
    x = Conv(self.stem_width, 3, 2, dtype=self.dtype, name="stem")(x)
    x = BatchNorm(dtype=self.dtype, name="stem_norm")(x, train=train)
    x = nn.relu(x)
    out = {"stem": x}
    ones, zeros = nn.initializers.ones, nn.initializers.zeros
    scale_init = zeros if self.zero_init_residual else ones
    rates = common.drop_path_rates(self.drop_path_rate, self.depths)
    for s, width in enumerate(self.widths):
      block = functools.partial(
        Block,
        width,
        self.group_width,
        scale_init=scale_init,
        dtype=self.dtype,
      )
      stage = Stage(block, rates[s], name=f"stage{s}")
      x = out[f"stage{s}"] = stage(x, train)
    x = out["pre_logits"] = x.astype(jnp.float32).mean(axis=(1, 2))
    if self.num_classes:
      x = out["logits"] = common.head(
        self.num_classes, bias_init=self.head_bias_init, kernel_init=HEAD_INIT
      )(x)
    return x, out
