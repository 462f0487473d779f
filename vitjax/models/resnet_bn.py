"""ResNets with batch normalisation: v1.5, and timm's with gates and mean pools.

Deep Residual Learning, https://arxiv.org/abs/1512.03385, with the stride in the
3x3 convolution ("v1.5"); grouped convolutions of ResNeXt,
https://arxiv.org/abs/1611.05431; squeeze-and-excitation,
https://arxiv.org/abs/1709.01507; the stem of three convolutions and the mean
pool in the shortcut of ResNet-D, https://arxiv.org/abs/1812.01187. With
`antialias`, as in timm's "aa" models, a mean pool of 2x2 pixels halves the
resolution in the stem and behind the 3x3 convolution.

The networks with group norm are in `vitjax.models.resnet`. Stochastic depth
ramps up linearly from 0 in the first block to `drop_path_rate` in the last one.
"""

import functools
from typing import Any

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
  mean_pool,
)

_DEPTHS = {
  26: (2, 2, 2, 2),
  50: (3, 4, 6, 3),
  101: (3, 4, 23, 3),
  152: (3, 8, 36, 3),
  201: (3, 24, 36, 4),
}
_D: dict[str, Any] = {"stem_widths": (32, 32, 64), "pool_shortcut": True}
_AA = _D | {"antialias": True}
_SE = {"squeeze_excite": True}

# Under timm's names: fields, size of its images, parameters with 1000 classes.
_TABLE: dict[str, tuple[int, dict[str, Any], int, int]] = {
  "resnet50": (50, {}, 224, 25_557_032),
  "resnet101": (101, {}, 224, 44_549_160),
  "resnet152": (152, {}, 224, 60_192_808),
  "seresnext26d_32x4d": (
    26,
    _D | _SE | {"groups": 32, "base_width": 4},
    224,
    16_809_512,
  ),
  "resnetaa50d": (50, _AA, 224, 25_576_264),
  "seresnetaa50d": (50, _AA | _SE, 224, 28_107_256),
  "resnetaa101d": (101, _AA, 224, 44_568_392),
  "seresnextaa101d_32x8d": (
    101,
    _AA | _SE | {"groups": 32, "base_width": 8},
    288,
    93_588_280,
  ),
  "seresnextaa201d_32x8d": (
    201,
    _AA | _SE | {"groups": 32, "base_width": 8, "stem_widths": (64, 64, 128)},
    384,
    149_394_904,
  ),
}

VARIANTS = {
  name: {"depths": _DEPTHS[depth], **fields}
  for name, (depth, fields, *_) in _TABLE.items()
}

PUBLISHED = {
  name: {"fields": {"variant": name}, "image_size": size, "params": params}
  for name, (*_, size, params) in _TABLE.items()
}


def decode_variant(variant: str) -> dict:
  """Fields of `Model` for a variant such as "resnet50".

  Raises:
    ValueError: if the variant is not in the table.
  """
  if variant not in VARIANTS:
    raise ValueError(
      f"variant={variant!r} is not a ResNet with batch normalisation. "
      f"Known: {', '.join(VARIANTS)}."
    )
  return dict(VARIANTS[variant])


class Block(nn.Module):
  """Bottleneck with the norms after the convolutions.

  `inner` is the width of the 3x3 convolution; `scale_init` is of the last norm
  of the branch.
  """

  width: int
  inner: int
  groups: int
  strides: int
  drop_path_rate: float
  squeeze_excite: bool
  antialias: bool
  pool_shortcut: bool
  scale_init: nn.initializers.Initializer
  dtype: common.Dtype = jnp.float32

  @nn.compact
  def __call__(
    self, x: Float[Array, "b h w c"], train: bool = False
  ) -> Float[Array, "b _h _w o"]:
    def conv_norm(y, suffix, *args, scale_init=nn.initializers.ones):
      y = Conv(*args, dtype=self.dtype, name=f"conv{suffix}")(y)
      norm = BatchNorm(
        scale_init=scale_init, dtype=self.dtype, name=f"norm{suffix}"
      )
      return norm(y, train=train)

    halves = self.strides > 1
    strides = 1 if self.antialias else self.strides
    y = nn.relu(conv_norm(x, "1", self.inner))
    y = nn.relu(conv_norm(y, "2", self.inner, 3, strides, self.groups))
    if halves and self.antialias:
      y = nn.avg_pool(y, (2, 2), (2, 2))
    y = conv_norm(y, "3", self.width, scale_init=self.scale_init)
    if self.squeeze_excite:
      reduced = _multiple_of_8(self.width / 16)
      y = SqueezeExcite(reduced, dtype=self.dtype, name="squeeze_excite")(y)
    if train and self.drop_path_rate:
      y = common.drop_path(y, self.drop_path_rate, self.make_rng("dropout"))
    if halves or x.shape[-1] != self.width:
      strides = self.strides
      if halves and self.pool_shortcut:
        x, strides = mean_pool(x), 1
      x = conv_norm(x, "_shortcut", self.width, 1, strides)
    return nn.relu(x + y)


def _multiple_of_8(width: float) -> int:
  return max(8, int(width + 4) // 8 * 8)


class Stem(nn.Module):
  """One 7x7 convolution or three 3x3, then a pool: a quarter of the size.

  With `small_images`, 3x3 convolutions that keep the size, and no pool.
  """

  widths: tuple[int, ...]
  antialias: bool
  small_images: bool
  dtype: common.Dtype = jnp.float32

  @nn.compact
  def __call__(
    self, x: Float[Array, "b h w c"], train: bool = False
  ) -> Float[Array, "b _h _w o"]:
    size = 7 if len(self.widths) == 1 and not self.small_images else 3
    for i, width in enumerate(self.widths):
      strides = 2 if i == 0 and not self.small_images else 1
      x = Conv(width, size, strides, dtype=self.dtype, name=f"conv{i + 1}")(x)
      x = BatchNorm(dtype=self.dtype, name=f"norm{i + 1}")(x, train=train)
      x = nn.relu(x)
    if self.small_images:
      return x
    if self.antialias:
      return nn.avg_pool(x, (2, 2), (2, 2))
    return nn.max_pool(x, (3, 3), (2, 2), ((1, 1), (1, 1)))


class Model(base.ImageModel):
  """ResNet with batch normalisation.

  Attributes:
    num_classes: outputs of the head. None: no head, the model returns the
      pooled features.
    depths: number of blocks of each stage.
    widths: channels that define each stage: a quarter of its output, and those
      of its 3x3 convolutions without groups.
    groups: groups of the 3x3 convolutions (ResNeXt).
    base_width: channels of a group where the width is 64; with one group 64.
    stem_widths: channels of the convolutions of the stem, one or three.
    small_images: a stem of 3x3 convolutions that keeps the size of the image,
      for images of about 32 pixels (SimCLR, https://arxiv.org/abs/2002.05709,
      appendix B.9).
    squeeze_excite: gate the channels of each branch.
    antialias: halve the resolution with mean pools instead of strides, and
      instead of the max pool of the stem.
    pool_shortcut: halve the resolution of shortcuts with mean pools instead of
      strides.
    drop_path_rate: probability of dropping the last block (stochastic depth);
      it ramps up linearly from 0 in the first block.
    zero_init_residual: initialise the scale of the last norm of each branch
      with 0, so that a block starts as its shortcut.
    head_bias_init: initial bias of the head; a negative value starts a sigmoid
      loss near its prior.
    dtype: type of activations; parameters and statistics are always float32.
  """

  num_classes: Count | None = None
  depths: tuple[Count, ...] = _DEPTHS[50]
  widths: tuple[Count, ...] = (64, 128, 256, 512)
  groups: Count = 1
  base_width: Count = 64
  stem_widths: tuple[Count, ...] = (64,)
  small_images: bool = False
  squeeze_excite: bool = False
  antialias: bool = False
  pool_shortcut: bool = False
  drop_path_rate: Rate = 0.0
  zero_init_residual: bool = True
  head_bias_init: Finite = 0.0
  dtype: common.Dtype = jnp.float32

  @nn.nowrap
  def layers(self) -> list[str]:
    """The layers, see `models.layers`: stem, blocks of all stages, head."""
    return [
      r"stem/.*",
      *base.stage_layers(self.depths),
      r"head/.*",
    ]

  @nn.compact
  def __call__(
    self, image: Float[common.ArrayLike, "b h w c"], train: bool = False
  ) -> tuple[Float[Array, "..."], dict[str, Array]]:
    _, h, w, _ = image.shape
    stride = 2 ** (len(self.widths) + (-1 if self.small_images else 1))
    if self.antialias and (h % stride or w % stride):
      raise ValueError(
        f"image of {h}x{w}: with antialias=True height and width must be "
        f"multiples of {stride}."
      )
    out = {}
    x = out["stem"] = Stem(
      self.stem_widths,
      self.antialias,
      self.small_images,
      self.dtype,
      name="stem",
    )(jnp.asarray(image), train)
    ones, zeros = nn.initializers.ones, nn.initializers.zeros
    rates = common.drop_path_rates(self.drop_path_rate, self.depths)
    for s, width in enumerate(self.widths):
      block = functools.partial(
        Block,
        width=4 * width,
        inner=width * self.base_width // 64 * self.groups,
        groups=self.groups,
        squeeze_excite=self.squeeze_excite,
        antialias=self.antialias,
        pool_shortcut=self.pool_shortcut,
        scale_init=zeros if self.zero_init_residual else ones,
        dtype=self.dtype,
      )
      stage = Stage(block, rates[s], 1 if s == 0 else 2, name=f"stage{s}")
      x = out[f"stage{s}"] = stage(x, train)
    x = out["pre_logits"] = x.astype(jnp.float32).mean(axis=(1, 2))
    if self.num_classes:
      x = out["logits"] = common.head(
        self.num_classes, bias_init=self.head_bias_init, kernel_init=HEAD_INIT
      )(x)
    return x, out
