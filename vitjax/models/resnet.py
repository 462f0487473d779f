"""ResNets with group norm and standardised weights, and the stems of hybrids.

Two networks of Big Transfer (BiT), https://arxiv.org/abs/1912.11370, which
share their table and little else:

- `preact=False`: norm after each convolution, TensorFlow's asymmetric "SAME"
  padding. big_vision's ResNet baseline, and the stem of the hybrids of
  https://arxiv.org/abs/2010.11929, where `backbone` puts its parameters at
  the top of the tree of the ViT.
- `preact=True`: BiT itself, norm before each convolution (ResNet v2,
  https://arxiv.org/abs/1603.05027), symmetric padding. The released weights
  are of this kind.

They standardise weights (https://arxiv.org/abs/1903.10520) with different
epsilons: the first adds 1e-5 to the deviation, the second 1e-10 to the
variance. timm adds 1e-8 to the variance in both: use `std_eps` for BiT; the
layout of timm's hybrids corrects for it. Parameter names are those of
google-research/big_vision.

BiT's max-pooling pads with zeros, as did the code that trained the released
weights; big_vision's port pads with minus infinity, which changes the border
of the image.
"""

import re
from collections.abc import Sequence

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from vitjax.config.ranges import Count, Finite, Positive
from vitjax.models import base, common, cpu_convolution

# Units of each stage, https://arxiv.org/abs/1512.03385, table 1; 26 is of
# the hybrids in https://arxiv.org/abs/2106.10270.
STAGES = {
  26: (2, 2, 2, 2),
  50: (3, 4, 6, 3),
  101: (3, 4, 23, 3),
  152: (3, 8, 36, 3),
  200: (3, 24, 36, 3),
}

# Parameters before the first unit, in both networks.
ROOT = r"(conv_root|gn_root|root_block)/.*"


def decode_variant(variant: str) -> dict:
  """Fields of `Model` for a variant such as "R50", "R50x3" or "BiT-R152x4".

  Raises:
    ValueError: if the variant is not in the table.
  """
  match = re.fullmatch(r"(BiT-)?R(\d+)(?:x(\d+))?", variant)
  if not match or int(match[2]) not in STAGES:
    raise ValueError(
      f"variant={variant!r} is not a ResNet. Use RDEPTHxWIDTH, such as "
      "'R50x1', or 'BiT-R50x1' for the pre-activation network of BiT, with "
      f"DEPTH one of {', '.join(map(str, STAGES))}."
    )
  return {
    "stages": STAGES[int(match[2])],
    "width_factor": int(match[3] or 1),
    "preact": match[1] is not None,
  }


def _published(name: str, image_size: int, **fields) -> dict:
  return {
    "fields": {"variant": f"BiT-R{name}", **fields},
    "image_size": image_size,
    "params": _PARAMS[name],
  }


_PARAMS = {  # with 1000 classes
  "50x1": 25_549_352,
  "50x3": 217_319_080,
  "101x1": 44_541_480,
  "101x3": 387_934_888,
  "152x2": 236_335_208,
  "152x4": 936_533_224,
}

# BiT-S was trained on ImageNet-1k, BiT-M on ImageNet-21k. timm's are BiT-M
# after fine-tuning on ImageNet-1k.
PUBLISHED = {
  **{
    f"BiT-{data}-R{name}": _published(name, 224)
    for data in "SM"
    for name in _PARAMS
  },
  **{
    f"resnetv2_{name}_bit": _published(
      name, 480 if name == "152x4" else 448, std_eps=1e-8
    )
    for name in _PARAMS
  },
}


class StdConv(nn.Module):
  """Convolution, without bias, whose kernel has mean 0 and deviation 1.

  With `std_eps`, it is BiT's and pads symmetrically; None is the ResNet
  baseline.
  """

  features: int
  kernel_size: int = 1
  strides: int = 1
  std_eps: float | None = None
  dtype: common.Dtype = jnp.float32

  @nn.compact
  def __call__(self, x: Float[Array, "b h w c"]) -> Float[Array, "b _h _w o"]:
    k = self.kernel_size
    kernel = self.param(
      "kernel",
      nn.initializers.lecun_normal(),
      (k, k, x.shape[-1], self.features),
      jnp.float32,
    )
    axes = (0, 1, 2)
    kernel = kernel - kernel.mean(axes, keepdims=True)
    variance = jnp.square(kernel).mean(axes, keepdims=True)
    if self.std_eps is None:
      kernel = kernel / (jnp.sqrt(variance) + 1e-5)
      padding = "SAME"
    else:
      kernel = kernel / jnp.sqrt(variance + self.std_eps)
      padding = ((k // 2, k // 2),) * 2
    return cpu_convolution.conv(
      x.astype(self.dtype), kernel, self.strides, padding
    )


def _max_pool(x: Array, padding: str) -> Array:
  return nn.max_pool(x, (3, 3), strides=(2, 2), padding=padding)


class Unit(nn.Module):
  """Bottleneck with the norms after the convolutions."""

  width: int
  strides: int = 1
  dtype: common.Dtype = jnp.float32

  @nn.compact
  def __call__(self, x: Float[Array, "b h w c"]) -> Float[Array, "b _h _w o"]:
    def conv_norm(y, suffix, features, *args, **kwargs):
      y = StdConv(features, *args, dtype=self.dtype, name=f"conv{suffix}")(y)
      return nn.GroupNorm(dtype=self.dtype, name=f"gn{suffix}", **kwargs)(y)

    features = 4 * self.width
    y = nn.relu(conv_norm(x, "1", self.width))
    y = nn.relu(conv_norm(y, "2", self.width, 3, self.strides))
    y = conv_norm(y, "3", features, scale_init=nn.initializers.zeros)
    if self.strides != 1 or x.shape[-1] != features:
      x = conv_norm(x, "_proj", features, 1, self.strides)
    return nn.relu(x + y)


class PreactUnit(nn.Module):
  """Bottleneck with the norms before the convolutions."""

  width: int
  std_eps: float
  strides: int = 1
  dtype: common.Dtype = jnp.float32

  @nn.compact
  def __call__(self, x: Float[Array, "b h w c"]) -> Float[Array, "b _h _w o"]:
    def norm_relu(y, name):
      return nn.relu(_preact_norm(name, self.dtype)(y))

    def conv(y, name, features, kernel_size=1, strides=1):
      return StdConv(
        features, kernel_size, strides, self.std_eps, self.dtype, name=name
      )(y)

    features = 4 * self.width
    y = norm_relu(x, "gn1")
    if self.strides != 1 or x.shape[-1] != features:
      x = conv(y, "conv_proj", features, 1, self.strides)
    y = conv(y, "conv1", self.width)
    y = conv(norm_relu(y, "gn2"), "conv2", self.width, 3, self.strides)
    y = conv(norm_relu(y, "gn3"), "conv3", features)
    return x + y


def _preact_norm(name: str, dtype: common.Dtype) -> nn.GroupNorm:
  return nn.GroupNorm(
    epsilon=1e-5, use_fast_variance=False, dtype=dtype, name=name
  )


class Stage(nn.Module):
  """Units of one width; the first one halves the resolution by `strides`."""

  units: int
  width: int
  strides: int
  std_eps: float | None = None
  dtype: common.Dtype = jnp.float32

  @nn.compact
  def __call__(self, x: Float[Array, "b h w c"]) -> Float[Array, "b _h _w o"]:
    for i in range(self.units):
      strides = self.strides if i == 0 else 1
      if self.std_eps is None:
        unit = Unit(self.width, strides, self.dtype, name=f"unit{i + 1}")
      else:
        unit = PreactUnit(
          self.width,
          self.std_eps,
          strides,
          self.dtype,
          name=f"unit{i + 1:02d}",
        )
      x = unit(x)
    return x


class PreactRoot(nn.Module):
  """The first convolution of BiT; its norm is in the first unit."""

  width: int
  std_eps: float
  dtype: common.Dtype = jnp.float32

  @nn.compact
  def __call__(self, x: Float[Array, "b h w c"]) -> Float[Array, "b _h _w o"]:
    x = StdConv(self.width, 7, 2, self.std_eps, self.dtype, name="conv_root")(x)
    return _max_pool(jnp.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0))), "VALID")


def backbone(
  x: Float[Array, "b h w c"],
  stages: Sequence[int],
  width_factor: int = 1,
  std_eps: float | None = None,
  dtype: common.Dtype = jnp.float32,
) -> tuple[Float[Array, "b _h _w o"], dict[str, Array]]:
  """Root and stages, as submodules of the Linen module that calls this.

  Args:
    x: images.
    stages: number of units of each stage; () is the root alone.
    width_factor: multiplies the width of every layer.
    std_eps: that of BiT; None is the ResNet baseline.
    dtype: of the computation.

  Returns:
    The last feature map and all of them by name. The image is 4 times larger
    than what the root returns, and each stage but the first halves that.
  """
  width = 64 * width_factor
  if std_eps is None:
    x = StdConv(width, 7, 2, dtype=dtype, name="conv_root")(x)
    x = nn.relu(nn.GroupNorm(dtype=dtype, name="gn_root")(x))
    x = _max_pool(x, "SAME")
  else:
    x = PreactRoot(width, std_eps, dtype, name="root_block")(x)
  out = {"root": x}
  for i, units in enumerate(stages):
    x = out[f"block{i + 1}"] = Stage(
      units,
      width * 2**i,
      strides=1 if i == 0 else 2,
      std_eps=std_eps,
      dtype=dtype,
      name=f"block{i + 1}",
    )(x)
  return x, out


class Model(base.ImageModel):
  """ResNet with group norm and standardised weights.

  Attributes:
    num_classes: outputs of the head. None: no head, the model returns the
      pooled features.
    stages: number of bottleneck units of each stage.
    width_factor: factor of the channels of every layer.
    preact: norms before the convolutions (BiT). False: after them (the ResNet
      baseline).
    std_eps: epsilon that BiT adds to the variance of a kernel; timm's models
      use 1e-8. The baseline has a constant epsilon.
    head_bias_init: initial bias of the head; a negative value starts a sigmoid
      loss near its prior.
    head_zero_init: initialise the kernel of the head with zeros, as published.
      False: LeCun normal.
    dtype: type of activations; parameters are always float32.
  """

  num_classes: Count | None = None
  stages: Sequence[Count] = STAGES[50]
  width_factor: Count = 1
  preact: bool = False
  std_eps: Positive = 1e-10
  head_bias_init: Finite = 0.0
  head_zero_init: bool = True
  dtype: common.Dtype = jnp.float32

  @nn.nowrap
  def layers(self) -> list[str]:
    """The layers, see `models.layers`: root, units of all stages, head."""
    return [
      ROOT,
      *(
        rf"block{i + 1}/unit0*{j + 1}/.*"
        for i, units in enumerate(self.stages)
        for j in range(units)
      ),
      r"(norm-pre-head|head)/.*",
    ]

  @nn.compact
  def __call__(
    self, image: Float[common.ArrayLike, "b h w c"], train: bool = False
  ) -> tuple[Float[Array, "..."], dict[str, Array]]:
    del train  # Neither dropout nor batch statistics.
    std_eps = self.std_eps if self.preact else None
    x, out = backbone(
      jnp.asarray(image), self.stages, self.width_factor, std_eps, self.dtype
    )
    if self.preact:
      x = nn.relu(_preact_norm("norm-pre-head", self.dtype)(x))
    x = out["pre_logits_2d"] = x.astype(jnp.float32)
    x = out["pre_logits"] = x.mean(axis=(1, 2))
    if self.num_classes:
      x = out["logits"] = common.head(
        self.num_classes, self.head_zero_init, self.head_bias_init
      )(x)
    return x, out
