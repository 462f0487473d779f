"""NFNet, a ResNet without normalisation.

High-Performance Large-Scale Image Recognition Without Normalization,
https://arxiv.org/abs/2102.06171. F0 to F7 and the wider "+" models.

Names matter to the optimizer. Adaptive gradient clipping (AGC) clips a kernel
per output channel, and `gain`, `bias` and `skip_gain` as a whole. As published,
only `head/kernel` is not clipped (the bias of the head is), and weight decay
applies to names that end in "/kernel".

Stochastic depth is the published one: the rate of block i of n is
`drop_path_rate * i / n`, so that the last block gets a little less than the
full rate, and nothing is rescaled by the probability of keeping. GELU is the
tanh form; timm's `dm_nfnet_*` use the exact one.
"""

from typing import Annotated

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from vitjax.config.ranges import Count, Finite, Range, Rate
from vitjax.models import base, common, cpu_convolution

# Test size in pixels and dropout rate of F0 to F7: table 1 of the paper, and
# the released code for F7. Fn has n + 1 times the blocks of F0.
_TABLE = (
  (256, 0.2),
  (320, 0.3),
  (352, 0.4),
  (416, 0.4),
  (512, 0.5),
  (544, 0.5),
  (576, 0.5),
  (608, 0.5),
)
_WIDTHS = {"": (256, 512, 1536, 1536), "+": (384, 768, 2048, 2048)}

VARIANTS = {
  f"F{n}{plus}": {
    "depths": tuple((n + 1) * d for d in (1, 2, 6, 3)),
    "widths": widths,
    "dropout_rate": dropout_rate,
  }
  for plus, widths in _WIDTHS.items()
  for n, (_, dropout_rate) in enumerate(_TABLE)
}

# Keeps the variance of a unit normal at 1; the same for both GELUs.
_GELU_GAIN = 1.7015043497085571
_ALPHA = 0.2
_GROUP_WIDTH = 128
# Half of the width must be at least one group.
Width = Annotated[int, Range(ge=2 * _GROUP_WIDTH)]


def decode_variant(variant: str) -> dict:
  """Fields of `Model` for a variant such as "F0" or "F3+".

  Raises:
    ValueError: if the variant is not in the table.
  """
  if variant not in VARIANTS:
    raise ValueError(
      f"variant={variant!r} is not an NFNet. Known: {', '.join(VARIANTS)}."
    )
  return dict(VARIANTS[variant])


def _published(variant: str, **fields) -> dict:
  return {
    "fields": {"variant": variant, **fields},
    "image_size": _TABLE[int(variant[1])][0],
    "params": _PARAMS[variant],
  }


_PARAMS = {  # with 1000 classes
  "F0": 71_489_284,
  "F1": 132_634_256,
  "F2": 193_779_228,
  "F3": 254_924_200,
  "F4": 316_069_172,
  "F5": 377_214_144,
  "F6": 438_359_116,
  "F7": 499_504_088,
  "F0+": 118_824_516,
  "F1+": 220_357_008,
  "F3+": 423_421_992,
  "F4+": 524_954_484,
  "F7+": 829_551_960,
}

PUBLISHED = {
  **{f"NFNet-{name}": _published(name) for name in _PARAMS},
  **{f"dm_nfnet_f{n}": _published(f"F{n}", gelu="erf") for n in range(7)},
}


class ScaledStdConv(nn.Module):
  """Convolution with scaled weight standardisation: eq. 1 and section 2.

  Each output channel of the kernel gets mean 0, variance 1 / fan_in and a
  learned gain. The variance is bounded from below, where timm adds an
  epsilon to it.
  """

  features: int
  kernel_size: int = 1
  strides: int = 1
  groups: int = 1
  dtype: common.Dtype = jnp.float32

  @nn.compact
  def __call__(self, x: Float[Array, "b h w c"]) -> Float[Array, "b _h _w o"]:
    k, c = self.kernel_size, self.features
    shape = (k, k, x.shape[-1] // self.groups, c)
    init = nn.initializers.variance_scaling(1.0, "fan_in", "normal")
    kernel = self.param("kernel", init, shape, jnp.float32)
    gain = self.param("gain", nn.initializers.ones, (c,), jnp.float32)
    bias = self.param("bias", nn.initializers.zeros, (c,), jnp.float32)
    axes = (0, 1, 2)
    kernel = kernel - kernel.mean(axes, keepdims=True)
    variance = jnp.square(kernel).mean(axes, keepdims=True)
    fan_in = k * k * shape[2]
    scale = jax.lax.rsqrt(jnp.maximum(variance * fan_in, 1e-4))
    kernel = kernel * scale * gain.reshape(1, 1, 1, c)
    x = cpu_convolution.conv(
      x.astype(self.dtype), kernel, self.strides, groups=self.groups
    )
    return x + bias.reshape(1, 1, 1, c).astype(x.dtype)


class SqueezeExcite(nn.Module):
  """Computes a gate in (0, 1) for each channel from the mean over the image.

  https://arxiv.org/abs/1709.01507, with a ratio of 1/2.
  """

  dtype: common.Dtype = jnp.float32

  @nn.compact
  def __call__(self, x: Float[Array, "b h w c"]) -> Float[Array, "b 1 1 c"]:
    c = x.shape[-1]
    y = x.mean(axis=(1, 2))
    y = nn.relu(nn.Dense(c // 2, dtype=self.dtype, name="Dense_0")(y))
    y = nn.sigmoid(nn.Dense(c, dtype=self.dtype, name="Dense_1")(y))
    return y.reshape(-1, 1, 1, c)


class Block(nn.Module):
  """Pre-activation bottleneck with two grouped convolutions.

  `beta` is 1 / the expected standard deviation of the block's input.
  """

  width: int
  strides: int
  beta: float
  drop_path_rate: float = 0.0
  gelu: common.Gelu = "tanh"
  dtype: common.Dtype = jnp.float32

  @nn.compact
  def __call__(
    self, x: Float[Array, "b h w c"], train: bool = False
  ) -> Float[Array, "b _h _w o"]:
    def conv(y, name, features, *args):
      return ScaledStdConv(features, *args, dtype=self.dtype, name=name)(y)

    # Half of the width of the output, in whole groups.
    groups = self.width // 2 // _GROUP_WIDTH
    mid = groups * _GROUP_WIDTH
    y = activation(x, self.gelu) * self.beta
    if self.strides > 1 or x.shape[-1] != self.width:
      x = y
      if self.strides > 1:
        x = nn.avg_pool(
          x, (2, 2), strides=(2, 2), padding="SAME", count_include_pad=False
        )
      x = conv(x, "conv_shortcut", self.width)

    y = activation(conv(y, "conv0", mid), self.gelu)
    y = activation(conv(y, "conv1", mid, 3, self.strides, groups), self.gelu)
    y = activation(conv(y, "conv1b", mid, 3, 1, groups), self.gelu)
    y = conv(y, "conv2", self.width)
    y = y * 2 * SqueezeExcite(self.dtype, name="squeeze_excite")(y)
    if train and self.drop_path_rate:
      key = self.make_rng("dropout")
      y = common.drop_path(y, self.drop_path_rate, key, rescale=False)
    skip_gain = self.param("skip_gain", nn.initializers.zeros, (), jnp.float32)
    return x + y * (_ALPHA * skip_gain).astype(y.dtype)


def activation(x: Float[Array, "..."], gelu: str) -> Float[Array, "..."]:
  """GELU that keeps the variance of a unit normal."""
  return common.GELU[gelu](x) * _GELU_GAIN


def betas(depths: tuple[int, ...]) -> list[float]:
  """One over the expected deviation at the input of each block.

  The variance grows by alpha squared in each block. The first block of a
  stage, whose shortcut is a convolution of the scaled input, resets it after
  having used it.
  """
  result = []
  variance = 1.0
  for depth in depths:
    for i in range(depth):
      result.append(variance**-0.5)
      variance = (1.0 if i == 0 else variance) + _ALPHA**2
  return result


class Model(base.ImageModel):
  """NFNet.

  Attributes:
    num_classes: outputs of the head. None: no head, the model returns the
      pooled features.
    depths: number of blocks of each stage.
    widths: channels of each stage.
    dropout_rate: probability of dropout before the head.
    drop_path_rate: stochastic depth: block i of n is dropped with probability
      drop_path_rate * i / n. The published training used 0.25.
    gelu: form of the GELU: "tanh" (approximate, DeepMind's weights) or "erf"
      (exact, timm's weights).
    head_bias_init: initial bias of the head; a negative value starts a sigmoid
      loss near its prior.
    dtype: type of activations; parameters are always float32.
  """

  num_classes: Count | None = None
  depths: tuple[Count, ...] = VARIANTS["F0"]["depths"]
  widths: tuple[Width, ...] = VARIANTS["F0"]["widths"]
  dropout_rate: Rate = 0.0
  drop_path_rate: Rate = 0.0
  gelu: common.Gelu = "tanh"
  head_bias_init: Finite = 0.0
  dtype: common.Dtype = jnp.float32

  @nn.nowrap
  def layers(self) -> list[str]:
    """The layers, see `models.layers`: stem, each block, the rest."""
    return [
      r"stem_conv\d/.*",
      *(rf"nf_block_{i}/.*" for i in range(sum(self.depths))),
      r"(final_conv|head)/.*",
    ]

  @nn.compact
  def __call__(
    self, image: Float[common.ArrayLike, "b h w c"], train: bool = False
  ) -> tuple[Float[Array, "..."], dict[str, Array]]:
    out = {}
    x = jnp.asarray(image)
    stem = ((16, 2), (32, 1), (64, 1), (self.widths[0] // 2, 2))
    for i, (width, strides) in enumerate(stem):
      x = activation(x, self.gelu) if i else x
      x = ScaledStdConv(
        width, 3, strides, dtype=self.dtype, name=f"stem_conv{i}"
      )(x)
    out["stem"] = x

    i = 0
    for stage, (depth, width) in enumerate(zip(self.depths, self.widths)):
      for unit in range(depth):
        x = Block(
          width,
          strides=2 if stage > 0 and unit == 0 else 1,
          beta=betas(self.depths)[i],
          drop_path_rate=self.drop_path_rate * i / sum(self.depths),
          gelu=self.gelu,
          dtype=self.dtype,
          name=f"nf_block_{i}",
        )(x, train)
        i += 1
      out[f"stage{stage}"] = x

    x = ScaledStdConv(2 * self.widths[-1], dtype=self.dtype, name="final_conv")(
      x
    )
    x = activation(x, self.gelu).astype(jnp.float32).mean(axis=(1, 2))
    out["pre_logits"] = x
    x = nn.Dropout(self.dropout_rate)(x, deterministic=not train)
    if self.num_classes:
      x = out["logits"] = nn.Dense(
        self.num_classes,
        kernel_init=nn.initializers.normal(0.01),
        bias_init=nn.initializers.constant(self.head_bias_init),
        name="head",
      )(x)
    return x, out
