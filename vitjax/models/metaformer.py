"""ConvFormer and CAFormer.

MetaFormer Baselines for Vision, https://arxiv.org/abs/2210.13452. Four stages
of blocks that mix tokens by separable convolutions; CAFormer's last two stages
have attention instead. Norms have no bias, but for those of the head, which has
a hidden layer. Images may be of any size: there is no position embedding.

No weights were published under JAX names. Ours serve the optimizer's rules:
`kernel` for all parameters with weight decay.
"""

from typing import Any, Literal

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from vitjax.config.ranges import Count, Finite, Positive, Rate
from vitjax.models import attention, base, common
from vitjax.models.convolutions import Conv

Mixer = Literal["conv", "attention"]

# Blocks and widths of the stages: table 2 of the paper.
SIZES = {
  "S18": ((3, 3, 9, 3), (64, 128, 320, 512)),
  "S36": ((3, 12, 18, 3), (64, 128, 320, 512)),
  "M36": ((3, 12, 18, 3), (96, 192, 384, 576)),
  "B36": ((3, 12, 18, 3), (128, 256, 512, 768)),
}
MIXERS: dict[str, tuple[Mixer, ...]] = {
  "Conv": ("conv", "conv", "conv", "conv"),
  "CA": ("conv", "conv", "attention", "attention"),
}


def decode_variant(variant: str) -> dict:
  """Fields of `Model` for a variant such as "CA-S18" or "Conv-B36".

  Raises:
    ValueError: if the variant is not in the tables.
  """
  mixer, _, size = variant.partition("-")
  if mixer not in MIXERS or size not in SIZES:
    raise ValueError(
      f"variant={variant!r} is not a MetaFormer. Use MIXER-SIZE, such as "
      f"'CA-S18', with MIXER one of {', '.join(MIXERS)} and SIZE one of "
      f"{', '.join(SIZES)}."
    )
  depths, widths = SIZES[size]
  return {"depths": depths, "widths": widths, "mixers": MIXERS[mixer]}


_PARAMS = {  # with 1000 classes
  "Conv-S18": 26_774_448,
  "Conv-S36": 40_012_152,
  "Conv-M36": 57_051_640,
  "Conv-B36": 99_882_616,
  "CA-S18": 26_341_656,
  "CA-S36": 39_297_102,
  "CA-M36": 56_204_878,
  "CA-B36": 98_753_614,
}

# timm's names.
PUBLISHED = {
  variant.replace("-", "former_").lower(): {
    "fields": {"variant": variant},
    "image_size": 224,
    "params": params,
  }
  for variant, params in _PARAMS.items()
}

_KERNEL_INIT = nn.initializers.truncated_normal(0.02)


class StarReLU(nn.Module):
  """scale * relu(x)^2 + bias, with two learned numbers: section 2.2."""

  @nn.compact
  def __call__(self, x: Float[Array, "*b d"]) -> Float[Array, "*b d"]:
    scale = self.param("scale", nn.initializers.ones, (1,))
    bias = self.param("bias", nn.initializers.zeros, (1,))
    scale, bias = (
      a.reshape((1,) * x.ndim).astype(x.dtype) for a in (scale, bias)
    )
    return scale * jnp.square(nn.relu(x)) + bias


def _dense(width: int, dtype: common.Dtype, name: str) -> nn.Dense:
  return nn.Dense(
    width, use_bias=False, kernel_init=_KERNEL_INIT, dtype=dtype, name=name
  )


class SeparableConv(nn.Module):
  """Point-wise to twice the width, depth-wise 7x7, point-wise back."""

  dtype: common.Dtype = jnp.float32

  @nn.compact
  def __call__(self, x: Float[Array, "b h w d"]) -> Float[Array, "b h w d"]:
    d = x.shape[-1]
    x = StarReLU(name="act")(_dense(2 * d, self.dtype, "pwconv1")(x))
    x = Conv(
      2 * d,
      7,
      groups=2 * d,
      kernel_init=_KERNEL_INIT,
      dtype=self.dtype,
      name="dwconv",
    )(x)
    return _dense(d, self.dtype, "pwconv2")(x)


class Attention(nn.Module):
  """Attention of all tokens of the map, with heads of 32 channels."""

  dtype: common.Dtype = jnp.float32

  @nn.compact
  def __call__(self, x: Float[Array, "b h w d"]) -> Float[Array, "b h w d"]:
    b, h, w, d = x.shape
    tokens = x.reshape(b, h * w, d)
    y, _ = attention.MultiHeadDotProductAttention(
      d // 32,
      qkv_bias=False,
      out_bias=False,
      kernel_init=_KERNEL_INIT,
      dtype=self.dtype,
      name="attention",
    )(tokens)
    return y.reshape(b, h, w, d)


class Mlp(nn.Module):
  """Two layers without biases."""

  dtype: common.Dtype = jnp.float32

  @nn.compact
  def __call__(self, x: Float[Array, "b h w d"]) -> Float[Array, "b h w d"]:
    d = x.shape[-1]
    y = common.flatten_tokens(x, self.dtype)
    y = StarReLU(name="act")(_dense(4 * d, self.dtype, "Dense_0")(y))
    return _dense(d, self.dtype, "Dense_1")(y).reshape(x.shape)


class Block(nn.Module):
  """A token mixer and an MLP; `scaled` learns a factor of the shortcuts."""

  mixer: Mixer
  scaled: bool
  drop_path_rate: float = 0.0
  layer_norm_eps: float = 1e-6
  dtype: common.Dtype = jnp.float32

  @nn.compact
  def __call__(
    self, x: Float[Array, "b h w d"], train: bool = False
  ) -> Float[Array, "b h w d"]:
    mixer = SeparableConv if self.mixer == "conv" else Attention
    branches = (mixer(self.dtype, name="mixer"), Mlp(self.dtype, name="mlp"))
    for i, branch in enumerate(branches, 1):
      norm = common.layer_norm(
        self.layer_norm_eps, self.dtype, f"norm{i}", use_bias=False
      )
      y = branch(norm(x))
      if train and self.drop_path_rate:
        y = common.drop_path(y, self.drop_path_rate, self.make_rng("dropout"))
      if self.scaled:
        x = common.LayerScale(1.0, name=f"shortcut_scale{i}")(x)
      x = x + y
    return x


class Stage(nn.Module):
  """A strided convolution and blocks of one width."""

  width: int
  drop_path_rates: tuple[float, ...]
  block: dict
  downsample: bool
  layer_norm_eps: float = 1e-6
  dtype: common.Dtype = jnp.float32

  @nn.compact
  def __call__(
    self, x: Float[Array, "b h w c"], train: bool = False
  ) -> Float[Array, "b _h _w d"]:
    kwargs: dict[str, Any] = {
      "layer_norm_eps": self.layer_norm_eps,
      "dtype": self.dtype,
    }
    if self.downsample:
      x = nn.LayerNorm(
        self.layer_norm_eps,
        use_bias=False,
        dtype=self.dtype,
        name="downsample_norm",
      )(x)
      x = _strided(self.width, 3, 2, 1, self.dtype, "downsample_conv")(x)
    for i, rate in enumerate(self.drop_path_rates):
      x = Block(
        **self.block, drop_path_rate=rate, **kwargs, name=f"block{i:02d}"
      )(x, train)
    return x


def _strided(
  width: int,
  size: int,
  strides: int,
  padding: int,
  dtype: common.Dtype,
  name: str,
) -> nn.Conv:
  """A convolution with PyTorch's padding, the same on all sides."""
  return nn.Conv(
    width,
    (size, size),
    strides=strides,
    padding=padding,
    kernel_init=_KERNEL_INIT,
    dtype=dtype,
    name=name,
  )


class Model(base.ImageModel):
  """ConvFormer or CAFormer.

  Attributes:
    num_classes: outputs of the head. None: no head, and no hidden layer before
      it; the model returns the pooled features.
    depths: number of blocks of each stage.
    widths: channels of each stage.
    mixers: token mixer of each stage: separable convolutions ("conv") or
      "attention", whose width must be a multiple of 32.
    scaled_stages: number of the last stages whose shortcuts have a learned
      factor.
    drop_path_rate: probability of dropping the branches of the last block
      (stochastic depth); it ramps up linearly from 0 in the first block.
    dropout_rate: probability of dropping a feature before the head.
    layer_norm_eps: epsilon that LayerNorm adds to the variance.
    head_bias_init: initial bias of the head; a negative value starts a sigmoid
      loss near its prior.
    dtype: type of activations; parameters are always float32.
  """

  num_classes: Count | None = None
  depths: tuple[Count, ...] = SIZES["S18"][0]
  widths: tuple[Count, ...] = SIZES["S18"][1]
  mixers: tuple[Mixer, ...] = MIXERS["CA"]
  scaled_stages: Count = 2
  drop_path_rate: Rate = 0.0
  dropout_rate: Rate = 0.0
  layer_norm_eps: Positive = 1e-6
  head_bias_init: Finite = 0.0
  dtype: common.Dtype = jnp.float32

  @nn.nowrap
  def layers(self) -> list[str]:
    """The layers, see `models.layers`: each block, between stem and head.

    The first block of a stage has the down-sampling ahead of it.
    """
    return [
      r"(stem|stem_norm)/.*",
      *base.stage_layers(self.depths, ahead=r"downsample_\w+"),
      r"(norm|head_hidden|head_norm|head)/.*",
    ]

  @nn.compact
  def __call__(
    self, image: Float[common.ArrayLike, "b h w c"], train: bool = False
  ) -> tuple[Float[Array, "..."], dict[str, Array]]:
    for option in ("widths", "mixers"):
      value = getattr(self, option)
      if len(value) != len(self.depths):
        raise ValueError(
          f"{option}={value} has {len(value)} entries for {len(self.depths)} "
          "stages: give one for each entry of depths."
        )
    kwargs: dict[str, Any] = {
      "layer_norm_eps": self.layer_norm_eps,
      "dtype": self.dtype,
    }
    out = {}
    x = _strided(self.widths[0], 7, 4, 2, self.dtype, "stem")(
      jnp.asarray(image)
    )
    x = out["stem"] = nn.LayerNorm(
      self.layer_norm_eps, use_bias=False, dtype=self.dtype, name="stem_norm"
    )(x)

    rates = common.drop_path_rates(self.drop_path_rate, self.depths)
    for i, (width, stage_rates) in enumerate(zip(self.widths, rates)):
      x = out[f"stage{i}"] = Stage(
        width,
        stage_rates,
        block={
          "mixer": self.mixers[i],
          "scaled": i >= len(self.depths) - self.scaled_stages,
        },
        downsample=i > 0,
        name=f"stage{i}",
        **kwargs,
      )(x, train)

    x = x.astype(jnp.float32).mean(axis=(1, 2))
    x = nn.LayerNorm(self.layer_norm_eps, name="norm")(x)
    if self.num_classes:
      x = nn.Dense(
        4 * x.shape[-1], kernel_init=_KERNEL_INIT, name="head_hidden"
      )(x)
      x = jnp.square(nn.relu(x))
      x = nn.LayerNorm(self.layer_norm_eps, name="head_norm")(x)
    out["pre_logits"] = x
    if self.num_classes:
      x = nn.Dropout(self.dropout_rate)(x, deterministic=not train)
      x = out["logits"] = common.head(
        self.num_classes,
        bias_init=self.head_bias_init,
        kernel_init=_KERNEL_INIT,
      )(x)
    return x, out
