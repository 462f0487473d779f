"""CoAtNet, as timm has it.

CoAtNet: Marrying Convolution and Attention for All Data Sizes,
https://arxiv.org/abs/2106.04803, in the variants called `rw`, which were
trained. Two stages of inverted bottlenecks, two of attention over the whole
map with biases for relative positions.

A learned table of biases (`position="table"`) has the size of the map, and is
resized for images of another; an MLP of the offsets ("mlp") fits any.

No weights were published under JAX names. Ours serve the optimizer's rules:
`kernel` for all parameters that timm decays, but those of `position_bias`.
"""

import functools
from typing import Any, Literal

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from vitjax.config.ranges import Count, Finite, Positive, Rate
from vitjax.models import (
  attention,
  base,
  common,
  convolutions,
  relative_position,
)
from vitjax.models.attention import Implementation
from vitjax.models.batch_norm import BatchNorm

HEAD_WIDTH = 32

# Widths of the stem and of the stages, depths.
SIZES = {
  "0": ((32, 64), (96, 192, 384, 768), (2, 3, 7, 2)),
  "1": ((32, 64), (96, 192, 384, 768), (2, 6, 14, 2)),
  "2": ((64, 128), (128, 256, 512, 1024), (2, 6, 14, 2)),
  "3": ((96, 192), (192, 384, 768, 1536), (2, 6, 14, 2)),
}
_LATE = {"se_place": "late", "shortcut_bias": True}
# timm's variants: size and further fields of `Model`.
VARIANTS: dict[str, tuple[str, dict[str, Any]]] = {
  "0": ("0", {"strided_by": "pool"}),
  "1": ("1", {}),
  "2": ("2", {**_LATE, "se_act": "silu"}),
  "3": ("3", {**_LATE, "se_act": "silu", "layer_scale_init": 1e-6}),
  "rmlp-1": (
    "1",
    {
      "strided_by": "pool",
      "pool": "max",
      "position": "mlp",
      "position_hidden": 384,
    },
  ),
  "rmlp-1-rw2": ("1", {**_LATE, "position": "mlp"}),
  "rmlp-2": (
    "2",
    {
      **_LATE,
      "se_act": "silu",
      "layer_scale_init": 1e-6,
      "position": "mlp",
    },
  ),
}


def decode_variant(variant: str) -> dict[str, Any]:
  """Fields of `Model` for a variant such as "2" or "rmlp-2".

  Raises:
    ValueError: if the variant is not in the table.
  """
  if variant not in VARIANTS:
    raise ValueError(
      f"variant={variant!r} is not a CoAtNet. Known: {', '.join(VARIANTS)}."
    )
  size, fields = VARIANTS[variant]
  names = ("stem_widths", "widths", "depths")
  return {**dict(zip(names, SIZES[size])), **fields}


_PUBLISHED = {  # timm's names: variant, pixels, parameters with 1000 classes
  "coatnet_0_rw_224": ("0", 224, 27_435_562),
  "coatnet_1_rw_224": ("1", 224, 41_721_502),
  "coatnet_2_rw_224": ("2", 224, 73_868_400),
  "coatnet_3_rw_224": ("3", 224, 165_173_428),
  "coatnet_rmlp_1_rw_224": ("rmlp-1", 224, 41_691_982),
  "coatnet_rmlp_1_rw2_224": ("rmlp-1-rw2", 224, 41_724_622),
  "coatnet_rmlp_2_rw_224": ("rmlp-2", 224, 73_881_264),
  "coatnet_rmlp_2_rw_384": ("rmlp-2", 384, 73_881_264),
}
PUBLISHED = {
  name: {
    "fields": {"variant": variant},
    "image_size": image_size,
    "params": params,
  }
  for name, (variant, image_size, params) in _PUBLISHED.items()
}


def _pool(x: Float[Array, "b h w c"], kind: str) -> Array:
  if kind == "max":
    return nn.max_pool(x, (3, 3), (2, 2), ((1, 1), (1, 1)))
  return convolutions.mean_pool(x)


class ConvBlock(nn.Module):
  """Inverted bottleneck, normalised before; four times the input's width."""

  width: int
  strides: int
  strided_by: Literal["pool", "depthwise"]
  pool: Literal["mean", "max"]
  se_place: Literal["early", "late"]
  se_act: Literal["relu", "silu"]
  drop_path_rate: float = 0.0
  batch_norm_eps: float = 1e-5
  dtype: common.Dtype = jnp.float32

  @nn.compact
  def __call__(
    self, x: Float[Array, "b h w c"], train: bool = False
  ) -> Float[Array, "b _h _w d"]:
    c = x.shape[-1]

    def norm(x, name):
      y = BatchNorm(self.batch_norm_eps, dtype=self.dtype, name=name)
      return nn.silu(y(x, train=train))

    def gate(x):
      return convolutions.SqueezeExcite(
        c, self.se_act, dtype=self.dtype, name="se"
      )(x)

    def conv(features, name, **options):
      return convolutions.Conv(features, dtype=self.dtype, name=name, **options)

    shortcut = x
    if self.strides > 1:
      shortcut = _pool(x, self.pool)
      if c != self.width:
        shortcut = conv(self.width, "expand")(shortcut)
    pools = self.strides > 1 and self.strided_by == "pool"
    x = norm(x, "pre_norm")
    if pools:
      x = convolutions.mean_pool(x)
    x = norm(conv(4 * c, "conv1")(x), "norm1")
    x = conv(
      4 * c,
      "conv2",
      kernel_size=3,
      strides=1 if pools else self.strides,
      groups=4 * c,
    )(x)
    if self.se_place == "early":
      x = norm(gate(x), "norm2")
    else:
      x = gate(norm(x, "norm2"))
    x = conv(self.width, "conv3")(x)
    if train and self.drop_path_rate:
      x = common.drop_path(x, self.drop_path_rate, self.make_rng("dropout"))
    return shortcut + x


class AttentionBlock(nn.Module):
  """Attention and an MLP, normalised before.

  `grid` is the number (rows, columns) of tokens that attend to each other,
  spread evenly over the map; None for all tokens of the map.
  """

  width: int
  position: Literal["table", "mlp"]
  position_hidden: int = 512
  grid: tuple[int, int] | None = None
  attention: Implementation = "auto"
  strides: int = 1
  pool: Literal["mean", "max"] = "mean"
  shortcut_bias: bool = True
  layer_scale_init: float | None = None
  drop_path_rate: float = 0.0
  layer_norm_eps: float = 1e-6
  gelu: common.Gelu = "erf"
  dtype: common.Dtype = jnp.float32

  @nn.compact
  def __call__(
    self, x: Float[Array, "b h w c"], train: bool = False
  ) -> Float[Array, "b _h _w d"]:
    def norm(x, name):
      return common.layer_norm(self.layer_norm_eps, self.dtype, name)(x)

    def add(shortcut, y, name):
      if self.layer_scale_init is not None:
        y = common.LayerScale(self.layer_scale_init, name=name)(y)
      if train and self.drop_path_rate:
        y = common.drop_path(y, self.drop_path_rate, self.make_rng("dropout"))
      return shortcut + y

    y = norm(x, "norm1")
    if self.strides > 1:
      x, y = _pool(x, self.pool), _pool(y, self.pool)
    if x.shape[-1] != self.width:
      x = nn.Dense(
        self.width,
        use_bias=self.shortcut_bias,
        dtype=self.dtype,
        name="expand",
      )(x)
    b, h, w, d = y.shape
    position = relative_position.Table
    if self.position == "mlp":
      position = functools.partial(
        relative_position.Mlp, hidden=self.position_hidden
      )
    attention.check_heads(d, d // HEAD_WIDTH)
    attend = attention.MultiHeadDotProductAttention(
      d // HEAD_WIDTH,
      self.width,
      position=position,
      attention=self.attention,
      dtype=self.dtype,
      name="attention",
    )
    y = attention.within_grid(attend, y, self.grid or (h, w), train)
    x = add(x, y, "layer_scale1")
    y = common.MlpBlock(
      4 * self.width, gelu=self.gelu, dtype=self.dtype, name="mlp"
    )(norm(x, "norm2").reshape(b, h * w, -1))
    return add(x, y.reshape(x.shape), "layer_scale2")


def check_size(h: int, w: int) -> None:
  """Raises ValueError for images that four halvings of a map do not fit."""
  if h % 32 or w % 32:
    raise ValueError(
      f"images of {h}x{w} do not fit: height and width must be multiples of "
      f"32, such as {max(round(h / 32), 1) * 32}x{max(round(w / 32), 1) * 32}."
    )


class Model(base.ImageModel):
  """CoAtNet.

  Attributes:
    num_classes: outputs of the head. None: no head, the model returns the
      pooled features.
    stem_widths: channels of the two convolutions of the stem.
    widths: channels of each stage.
    depths: number of blocks of each of the two stages of convolutions and the
      two of attention.
    strided_by: what halves the map in a block of convolutions: mean pooling
      before it ("pool") or its 3x3 convolution ("depthwise").
    pool: pooling of the shortcuts, and before attention: "mean" of 2x2 or "max"
      of 3x3.
    se_place: the squeeze-and-excitation gate stands before ("early") or after
      ("late") the norm of the 3x3 convolution.
    se_act: activation within the gate.
    shortcut_bias: biases in the shortcuts of attention that change the width.
    layer_scale_init: initial gamma of LayerScale after attention and MLP. None:
      no LayerScale.
    position: biases of attention: a learned "table" or an "mlp" of the offsets.
    position_hidden: width of the hidden layer of that MLP.
    attention: implementation of attention, as in the Vision Transformer.
    drop_path_rate: probability of dropping the last block (stochastic depth);
      it ramps up linearly from 0 in the first block.
    gelu: form of the GELU: "erf" (exact, as published) or "tanh" (approximate).
    batch_norm_eps: epsilon that BatchNorm adds to the variance.
    layer_norm_eps: epsilon that LayerNorm adds to the variance.
    head_bias_init: initial bias of the head; a negative value starts a sigmoid
      loss near its prior.
    dtype: type of activations; parameters are always float32.
  """

  num_classes: Count | None = None
  stem_widths: tuple[Count, Count] = SIZES["0"][0]
  widths: tuple[Count, Count, Count, Count] = SIZES["0"][1]
  depths: tuple[Count, Count, Count, Count] = SIZES["0"][2]
  strided_by: Literal["pool", "depthwise"] = "depthwise"
  pool: Literal["mean", "max"] = "mean"
  se_place: Literal["early", "late"] = "early"
  se_act: Literal["relu", "silu"] = "relu"
  shortcut_bias: bool = False
  layer_scale_init: Finite | None = None
  position: Literal["table", "mlp"] = "table"
  position_hidden: Count = 512
  attention: Implementation = "auto"
  drop_path_rate: Rate = 0.0
  gelu: common.Gelu = "erf"
  batch_norm_eps: Positive = 1e-5
  layer_norm_eps: Positive = 1e-6
  head_bias_init: Finite = 0.0
  dtype: common.Dtype = jnp.float32

  @nn.nowrap
  def layers(self) -> list[str]:
    """The layers, see `models.layers`: each block, between stem and head."""
    return [
      r"stem_\w+/.*",
      *base.stage_layers(self.depths),
      r"(norm|head)/.*",
    ]

  @nn.compact
  def __call__(
    self, image: Float[common.ArrayLike, "b h w c"], train: bool = False
  ) -> tuple[Float[Array, "..."], dict[str, Array]]:
    check_size(*image.shape[1:3])
    conv = {"kernel_size": 3, "dtype": self.dtype}
    out = {}
    x = convolutions.Conv(
      self.stem_widths[0], strides=2, name="stem_conv1", **conv
    )(jnp.asarray(image))
    x = BatchNorm(self.batch_norm_eps, dtype=self.dtype, name="stem_norm")(
      x, train=train
    )
    x = out["stem"] = convolutions.Conv(
      self.stem_widths[1], name="stem_conv2", **conv
    )(nn.silu(x))

    rates = common.drop_path_rates(self.drop_path_rate, self.depths)
    for i, width in enumerate(self.widths):
      if i < 2:
        kind = ConvBlock
        names = ["strided_by", "se_place", "se_act", "batch_norm_eps"]
      else:
        kind = AttentionBlock
        names = ["position", "position_hidden", "shortcut_bias", "gelu"]
        names += ["layer_scale_init", "layer_norm_eps", "attention"]
      options = {
        name: getattr(self, name) for name in (*names, "pool", "dtype")
      }
      block = functools.partial(kind, width, **options)
      stage = convolutions.Stage(block, rates[i], name=f"stage{i}")
      x = out[f"stage{i}"] = stage(x, train)

    x = nn.LayerNorm(self.layer_norm_eps, name="norm")(x.astype(jnp.float32))
    x = out["pre_logits"] = x.mean(axis=(1, 2))
    if self.num_classes:
      x = out["logits"] = common.head(
        self.num_classes,
        bias_init=self.head_bias_init,
        kernel_init=nn.initializers.truncated_normal(0.02),
      )(x)
    return x, out
