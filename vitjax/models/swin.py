"""Swin Transformer, versions 1 and 2.

https://arxiv.org/abs/2103.14030 and https://arxiv.org/abs/2111.09883. Version 2
puts the norm behind each branch, compares queries and keys by their cosine, and
computes position biases from the offsets, so that weights fit any window.

Maps that are no multiple of the window are padded with zeros, which attention
sees, as in the published code. A window is never larger than the map. Images
may be of any size; a position table (version 1) has that of the window, so it
is resized where weights were trained with another.

No weights were published under JAX names. Ours serve the optimizer's rules:
`kernel` for all parameters that Microsoft's recipes decay, but those of
`position_bias`, which they do not.
"""

import functools
from typing import Any, Literal

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from vitjax.config.ranges import Count, Finite, Positive, Rate
from vitjax.models import attention, base, common, relative_position
from vitjax.models.attention import Implementation

# Width of the first stage, depths, heads: section 3.3 of the first paper.
VARIANTS = {
  "T": (96, (2, 2, 6, 2), (3, 6, 12, 24)),
  "S": (96, (2, 2, 18, 2), (3, 6, 12, 24)),
  "B": (128, (2, 2, 18, 2), (4, 8, 16, 32)),
  "L": (192, (2, 2, 18, 2), (6, 12, 24, 48)),
}


def decode_variant(variant: str) -> dict:
  """Fields of `Model` for a variant such as "T", or "v2-T" of version 2.

  Raises:
    ValueError: if the variant is not in the table.
  """
  name = variant.removeprefix("v2-")
  if name not in VARIANTS:
    raise ValueError(
      f"variant={variant!r} is not a Swin Transformer. Use one of "
      f"{', '.join(VARIANTS)}, with 'v2-' before it for version 2."
    )
  fields: dict[str, Any] = dict(
    zip(("width", "depths", "num_heads"), VARIANTS[name])
  )
  return {**fields, "version": 2, "window": 8} if name != variant else fields


def _published(
  variant: str, window: int, image_size: int, params: int, **fields
) -> dict:
  return {
    "fields": {"variant": variant, "window": window, **fields},
    "image_size": image_size,
    "params": params,
  }


_PRETRAINED = {"trained_windows": (12, 12, 12, 6)}

# timm's names; parameters with 1000 classes.
PUBLISHED = {
  "swin_tiny_patch4_window7_224": _published("T", 7, 224, 28_288_354),
  "swin_small_patch4_window7_224": _published("S", 7, 224, 49_606_258),
  "swin_base_patch4_window7_224": _published("B", 7, 224, 87_768_224),
  "swin_base_patch4_window12_384": _published("B", 12, 384, 87_903_584),
  "swin_large_patch4_window7_224": _published("L", 7, 224, 196_532_476),
  "swin_large_patch4_window12_384": _published("L", 12, 384, 196_735_516),
  **{
    f"swinv2_{name}_window{window}_256": _published(
      f"v2-{variant}", window, 256, params
    )
    for name, variant, params in (
      ("tiny", "T", 28_347_154),
      ("small", "S", 49_728_418),
      ("base", "B", 87_918_816),
    )
    for window in (8, 16)
  },
  **{
    f"swinv2_{name}_window12{tag}": _published(
      f"v2-{variant}", window, size, params, **fields
    )
    for name, variant, params in (
      ("base", "B", 87_918_816),
      ("large", "L", 196_739_932),
    )
    for tag, window, size, fields in (
      ("_192", 12, 192, {}),
      ("to16_192to256", 16, 256, _PRETRAINED),
      ("to24_192to384", 24, 384, _PRETRAINED),
    )
  },
}

_KERNEL_INIT = nn.initializers.truncated_normal(0.02)


class Block(nn.Module):
  """Attention within windows, shifted ones if asked for, and an MLP."""

  num_heads: int
  window: tuple[int, int]
  shifted: bool
  version: Literal[1, 2] = 1
  trained_window: int | None = None
  attention: Implementation = "auto"
  drop_path_rate: float = 0.0
  gelu: common.Gelu = "erf"
  layer_norm_eps: float = 1e-5
  dtype: common.Dtype = jnp.float32

  def _attention(self, x: Float[Array, "b h w d"]) -> Array:
    position = relative_position.Table
    if self.version == 2:
      trained = (self.trained_window,) * 2 if self.trained_window else None
      position = functools.partial(relative_position.LogMlp, trained=trained)
    attend = attention.MultiHeadDotProductAttention(
      self.num_heads,
      key_bias=self.version == 1,
      cosine=self.version == 2,
      position=position,
      kernel_init=_KERNEL_INIT,
      attention=self.attention,
      dtype=self.dtype,
      name="attention",
    )
    return attention.within_windows(attend, x, self.window, self.shifted)

  def _mlp(self, x: Float[Array, "b h w d"]) -> Array:
    b, h, w, d = x.shape
    return common.MlpBlock(
      4 * d,
      gelu=self.gelu,
      kernel_init=_KERNEL_INIT,
      bias_init=nn.initializers.zeros,
      dtype=self.dtype,
      name="mlp",
    )(x.reshape(b, h * w, d)).reshape(b, h, w, d)

  @nn.compact
  def __call__(
    self, x: Float[Array, "b h w d"], train: bool = False
  ) -> Float[Array, "b h w d"]:
    for i, branch in enumerate((self._attention, self._mlp), 1):
      if self.version == 1:
        norm = common.layer_norm(self.layer_norm_eps, self.dtype, f"norm{i}")
        y = branch(norm(x))
      else:
        y = nn.LayerNorm(
          self.layer_norm_eps,
          scale_init=nn.initializers.zeros,
          dtype=self.dtype,
          name=f"norm{i}",
        )(branch(x))
      if train and self.drop_path_rate:
        y = common.drop_path(y, self.drop_path_rate, self.make_rng("dropout"))
      x = x + y
    return x


class Merging(nn.Module):
  """Joins 2x2 neighbours and halves their channels: patch merging."""

  version: Literal[1, 2] = 1
  layer_norm_eps: float = 1e-5
  dtype: common.Dtype = jnp.float32

  @nn.compact
  def __call__(self, x: Float[Array, "b h w d"]) -> Float[Array, "b _h _w c"]:
    b, h, w, d = x.shape
    x = jnp.pad(x, ((0, 0), (0, h % 2), (0, w % 2), (0, 0)))
    x = x.reshape(b, -(-h // 2), 2, -(-w // 2), 2, d)
    # Published order: down the column first, then the next column.
    x = x.transpose(0, 1, 3, 4, 2, 5).reshape(b, *x.shape[1:4:2], 4 * d)
    norm = nn.LayerNorm(self.layer_norm_eps, dtype=self.dtype, name="norm")
    reduce = nn.Dense(
      2 * d,
      use_bias=False,
      kernel_init=_KERNEL_INIT,
      dtype=self.dtype,
      name="reduction",
    )
    return reduce(norm(x)) if self.version == 1 else norm(reduce(x))


class Stage(nn.Module):
  """Patch merging, in all stages but the first, and blocks of one width."""

  drop_path_rates: tuple[float, ...]
  downsample: bool
  block: dict
  version: Literal[1, 2] = 1
  layer_norm_eps: float = 1e-5
  dtype: common.Dtype = jnp.float32

  @nn.compact
  def __call__(
    self, x: Float[Array, "b h w c"], train: bool = False
  ) -> Float[Array, "b _h _w d"]:
    kwargs: dict[str, Any] = {
      "version": self.version,
      "layer_norm_eps": self.layer_norm_eps,
      "dtype": self.dtype,
    }
    if self.downsample:
      x = Merging(name="downsample", **kwargs)(x)
    for i, rate in enumerate(self.drop_path_rates):
      x = Block(
        shifted=i % 2 == 1,
        drop_path_rate=rate,
        **self.block,
        **kwargs,
        name=f"block{i:02d}",
      )(x, train)
    return x


class Model(base.ImageModel):
  """Swin Transformer.

  Attributes:
    num_classes: outputs of the head. None: no head, the model returns the
      pooled features.
    version: 1, or 2 for Swin Transformer V2.
    width: channels of the first stage; each later one has twice as many.
    depths: number of blocks of each stage.
    num_heads: number of heads of each stage.
    window: side of the windows in tokens, or (height, width).
    trained_windows: for version 2, the window of each stage that the position
      biases were trained with, where that is another one. None: `window`.
    patch_size: side of a patch in pixels.
    attention: implementation of attention, as in the Vision Transformer.
    drop_path_rate: probability of dropping the branches of the last block
      (stochastic depth); it ramps up linearly from 0 in the first block.
    gelu: form of the GELU: "erf" (exact, as published) or "tanh" (approximate).
    layer_norm_eps: epsilon that LayerNorm adds to the variance.
    head_bias_init: initial bias of the head; a negative value starts a sigmoid
      loss near its prior.
    dtype: type of activations; parameters are always float32.
  """

  num_classes: Count | None = None
  version: Literal[1, 2] = 1
  width: Count = VARIANTS["T"][0]
  depths: tuple[Count, ...] = VARIANTS["T"][1]
  num_heads: tuple[Count, ...] = VARIANTS["T"][2]
  window: Count | tuple[Count, Count] = 7
  trained_windows: tuple[Count, ...] | None = None
  patch_size: Count = 4
  attention: Implementation = "auto"
  drop_path_rate: Rate = 0.0
  gelu: common.Gelu = "erf"
  layer_norm_eps: Positive = 1e-5
  head_bias_init: Finite = 0.0
  dtype: common.Dtype = jnp.float32

  @nn.nowrap
  def layers(self) -> list[str]:
    """The layers, see `models.layers`: each block, between stem and head.

    The first block of a stage has the patch merging ahead of it.
    """
    return [
      r"(stem|stem_norm)/.*",
      *base.stage_layers(self.depths, ahead="downsample"),
      r"(norm|head)/.*",
    ]

  @nn.compact
  def __call__(
    self, image: Float[common.ArrayLike, "b h w c"], train: bool = False
  ) -> tuple[Float[Array, "..."], dict[str, Array]]:
    _, h, w, _ = image.shape
    self._check(h, w)
    common.warn_of_border(h, w, self.patch_size)
    kwargs: dict[str, Any] = {
      "layer_norm_eps": self.layer_norm_eps,
      "dtype": self.dtype,
    }
    out = {}
    x = nn.Conv(
      self.width,
      (self.patch_size,) * 2,
      strides=self.patch_size,
      padding="VALID",
      dtype=self.dtype,
      name="stem",
    )(jnp.asarray(image))
    x = out["stem"] = nn.LayerNorm(
      self.layer_norm_eps, dtype=self.dtype, name="stem_norm"
    )(x)

    window = self.window
    rates = common.drop_path_rates(self.drop_path_rate, self.depths)
    for i, stage_rates in enumerate(rates):
      x = out[f"stage{i}"] = Stage(
        stage_rates,
        downsample=i > 0,
        block={
          "num_heads": self.num_heads[i],
          "window": (window, window) if isinstance(window, int) else window,
          "trained_window": self.trained_windows and self.trained_windows[i],
          "attention": self.attention,
          "gelu": self.gelu,
        },
        version=self.version,
        name=f"stage{i}",
        **kwargs,
      )(x, train)

    x = nn.LayerNorm(self.layer_norm_eps, name="norm")(x.astype(jnp.float32))
    x = out["pre_logits"] = x.mean(axis=(1, 2))
    if self.num_classes:
      x = out["logits"] = common.head(
        self.num_classes,
        bias_init=self.head_bias_init,
        kernel_init=_KERNEL_INIT,
      )(x)
    return x, out

  @nn.nowrap
  def _check(self, h: int, w: int) -> None:
    """Raises ValueError for options or images that make no network."""
    stages = len(self.depths)
    for option in ("num_heads", "trained_windows"):
      value = getattr(self, option)
      if value is not None and len(value) != stages:
        raise ValueError(
          f"{option}={value} has {len(value)} entries for {stages} stages: "
          "give one for each entry of depths."
        )
    if self.trained_windows and self.version == 1:
      raise ValueError(
        f"trained_windows={self.trained_windows} has no effect with version=1,"
        " whose tables are resized on loading. Leave it out."
      )
    if min(h, w) < self.patch_size:
      raise ValueError(
        f"image of {h}x{w} is smaller than a patch: use at least "
        f"{self.patch_size} pixels."
      )
