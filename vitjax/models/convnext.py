"""ConvNeXt.

A ConvNet for the 2020s, https://arxiv.org/abs/2201.03545. GELU is the exact
(erf) form, as in the original. Stochastic depth rescales, and its rate ramps
up linearly from 0 in the first block to `drop_path_rate` in the last one of
all stages.

No weights were published under JAX names. Our names serve the optimizer's
rules: "stage2/block07/..." for layer-wise decay of the learning rate, and
`kernel` for all parameters with weight decay (the depth-wise kernels have it,
`gamma` has none).

The initialisation of kernels is a plain normal of deviation 0.02: PyTorch's
`trunc_normal_` cuts at -2 and 2, a hundred deviations away.
"""

from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from vitjax.config.ranges import Count, Finite, Positive, Rate
from vitjax.models import base, common, convolutions

# Blocks and widths of the stages: section 3 of the paper, and of timm for the
# four smallest, which have no paper. "iso" is isotropic: one stage of 16x16
# patches, section 3.3.
VARIANTS = {
  "atto": ((2, 2, 6, 2), (40, 80, 160, 320)),
  "femto": ((2, 2, 6, 2), (48, 96, 192, 384)),
  "pico": ((2, 2, 6, 2), (64, 128, 256, 512)),
  "nano": ((2, 2, 8, 2), (80, 160, 320, 640)),
  "T": ((3, 3, 9, 3), (96, 192, 384, 768)),
  "S": ((3, 3, 27, 3), (96, 192, 384, 768)),
  "B": ((3, 3, 27, 3), (128, 256, 512, 1024)),
  "L": ((3, 3, 27, 3), (192, 384, 768, 1536)),
  "XL": ((3, 3, 27, 3), (256, 512, 1024, 2048)),
  "iso-S": ((18,), (384,)),
  "iso-B": ((18,), (768,)),
  "iso-L": ((36,), (1024,)),
}


def decode_variant(variant: str) -> dict:
  """Fields of `Model` for a variant such as "T".

  Raises:
    ValueError: if the variant is not in the table.
  """
  if variant not in VARIANTS:
    raise ValueError(
      f"variant={variant!r} is not a ConvNeXt. Known: {', '.join(VARIANTS)}."
    )
  fields: dict[str, Any] = dict(zip(("depths", "widths"), VARIANTS[variant]))
  if variant.startswith("iso-"):
    fields |= {"patch_size": 16, "stem_norm": False}
    if variant != "iso-L":  # Published without LayerScale.
      fields["layer_scale_init"] = None
  return fields


def _published(variant: str, image_size: int) -> dict:
  return {
    "fields": {"variant": variant},
    "image_size": image_size,
    "params": _PARAMS[variant],
  }


_PARAMS = {  # with 1000 classes
  "atto": 3_695_520,
  "femto": 5_217_784,
  "pico": 9_045_672,
  "nano": 15_593_560,
  "T": 28_589_128,
  "S": 50_223_688,
  "B": 88_591_464,
  "L": 197_767_336,
  "XL": 350_196_968,
  "iso-S": 22_308_712,
  "iso-B": 87_083_752,
  "iso-L": 305_942_504,
}
_ORIGINAL = {
  "tiny": "T",
  "small": "S",
  "base": "B",
  "large": "L",
  "xlarge": "XL",
}

# The originals' names, then timm's, with the size that timm tests at.
PUBLISHED = {
  **{
    f"convnext_{name}_{data}_224": _published(variant, 224)
    for name, variant in _ORIGINAL.items()
    for data in ("1k", "22k", "22k_1k")
    if (name, data) != ("xlarge", "1k")
  },
  **{
    f"convnext_{name}_{data}_384": _published(variant, 384)
    for name, variant in _ORIGINAL.items()
    for data in ("1k", "22k_1k")
    if data == "22k_1k" or name in ("base", "large")
  },
  **{
    f"convnext_iso_{name}_1k_224": _published(f"iso-{_ORIGINAL[name]}", 224)
    for name in ("small", "base", "large")
  },
  **{
    f"convnext_{name}": _published(variant, 288)
    for name, variant in {**_ORIGINAL, "nano": "nano"}.items()
  },
  **{
    f"convnext_{name}": _published(name, 288)
    for name in ("atto", "femto", "pico")
  },
}

_KERNEL_INIT = nn.initializers.normal(0.02)


class Block(nn.Module):
  """Depth-wise 7x7 convolution, then an inverted bottleneck."""

  drop_path_rate: float = 0.0
  layer_scale_init: float | None = 1e-6
  gelu: common.Gelu = "erf"
  layer_norm_eps: float = 1e-6
  dtype: common.Dtype = jnp.float32

  @nn.compact
  def __call__(
    self, x: Float[Array, "b h w d"], train: bool = False
  ) -> Float[Array, "b h w d"]:
    d = x.shape[-1]
    y = convolutions.Conv(
      d,
      7,
      groups=d,
      use_bias=True,
      kernel_init=_KERNEL_INIT,
      dtype=self.dtype,
      name="dwconv",
    )(x)
    y = common.layer_norm(self.layer_norm_eps, self.dtype, "norm")(y)
    dense = {"kernel_init": _KERNEL_INIT, "dtype": self.dtype}
    y = nn.Dense(4 * d, name="pwconv1", **dense)(y.reshape(-1, d))
    y = nn.Dense(d, name="pwconv2", **dense)(common.GELU[self.gelu](y))
    y = y.reshape(x.shape)
    if self.layer_scale_init is not None:
      y = common.LayerScale(self.layer_scale_init, name="layer_scale")(y)
    if train and self.drop_path_rate:
      y = common.drop_path(y, self.drop_path_rate, self.make_rng("dropout"))
    return x + y


class Patches(nn.Module):
  """A convolution of patches, with a norm after it (stem) or before it."""

  width: int
  patch_size: int
  norm: str | None = "before"
  layer_norm_eps: float = 1e-6
  dtype: common.Dtype = jnp.float32

  @nn.compact
  def __call__(self, x: Float[Array, "b h w c"]) -> Float[Array, "b _h _w d"]:
    norm = nn.LayerNorm(self.layer_norm_eps, dtype=self.dtype, name="norm")
    if self.norm == "before":
      x = norm(x)
    x = nn.Conv(
      self.width,
      (self.patch_size, self.patch_size),
      strides=self.patch_size,
      padding="VALID",
      kernel_init=_KERNEL_INIT,
      dtype=self.dtype,
      name="conv",
    )(x)
    return norm(x) if self.norm == "after" else x


class Stage(nn.Module):
  """Down-sampling, in all stages but the first, and blocks of one width."""

  width: int
  drop_path_rates: tuple[float, ...]
  downsample: bool
  block: dict
  layer_norm_eps: float = 1e-6
  dtype: common.Dtype = jnp.float32

  @nn.compact
  def __call__(
    self, x: Float[Array, "b h w c"], train: bool = False
  ) -> Float[Array, "b _h _w d"]:
    kwargs = {"layer_norm_eps": self.layer_norm_eps, "dtype": self.dtype}
    if self.downsample:
      x = Patches(self.width, 2, name="downsample", **kwargs)(x)
    for i, rate in enumerate(self.drop_path_rates):
      x = Block(rate, **self.block, **kwargs, name=f"block{i:02d}")(x, train)
    return x


class Model(base.ImageModel):
  """ConvNeXt.

  Attributes:
    num_classes: outputs of the head. None: no head, the model returns the
      pooled features.
    depths: number of blocks of each stage.
    widths: channels of each stage.
    patch_size: stride of the stem in pixels.
    stem_norm: add a norm after the stem; the isotropic models have none.
    drop_path_rate: probability of dropping the last block (stochastic depth);
      it ramps up linearly from 0 in the first block.
    layer_scale_init: initial gamma of LayerScale. None: no LayerScale.
    gelu: form of the GELU: "erf" (exact, as published) or "tanh" (approximate).
    layer_norm_eps: epsilon that LayerNorm adds to the variance.
    head_init_scale: factor of the initial kernel of the head. Loaded weights
      are not scaled.
    head_bias_init: initial bias of the head; a negative value starts a sigmoid
      loss near its prior.
    dtype: type of activations; parameters are always float32.
  """

  num_classes: Count | None = None
  depths: tuple[Count, ...] = VARIANTS["T"][0]
  widths: tuple[Count, ...] = VARIANTS["T"][1]
  patch_size: Count = 4
  stem_norm: bool = True
  drop_path_rate: Rate = 0.0
  layer_scale_init: Finite | None = 1e-6
  gelu: common.Gelu = "erf"
  layer_norm_eps: Positive = 1e-6
  head_init_scale: Finite = 1.0
  head_bias_init: Finite = 0.0
  dtype: common.Dtype = jnp.float32

  @nn.nowrap
  def layers(self) -> list[str]:
    """The layers, see `models.layers`: up to three blocks of a stage in each.

    The stem; three consecutive blocks at a time, the first of a stage with
    the down-sampling ahead of them; norm and head. With stages of 3, 3, 27
    and 3 blocks these are the published 14, numbers 0 to 13. The published
    code refuses other depths; for 3, 3, 9 and 3 this gives 0 to 7.
    """
    regexes = [r"stem/.*"]
    for i, depth in enumerate(self.depths):
      for first in range(0, depth, 3):
        names = [f"block{b:02d}" for b in range(first, min(first + 3, depth))]
        if first == 0:
          names.append("downsample")
        regexes.append(rf"stage{i}/({'|'.join(names)})/.*")
    return [*regexes, r"(norm|head)/.*"]

  @nn.compact
  def __call__(
    self, image: Float[common.ArrayLike, "b h w c"], train: bool = False
  ) -> tuple[Float[Array, "..."], dict[str, Array]]:
    _, h, w, _ = image.shape
    stride = self.patch_size * 2 ** (len(self.depths) - 1)
    if min(h, w) < stride:
      raise ValueError(
        f"image of {h}x{w} is smaller than the strides of ConvNeXt: use at "
        f"least {stride} pixels."
      )
    common.warn_of_border(h, w, stride)
    kwargs: dict[str, Any] = {
      "layer_norm_eps": self.layer_norm_eps,
      "dtype": self.dtype,
    }
    norm = "after" if self.stem_norm else None
    out = {}
    x = out["stem"] = Patches(
      self.widths[0], self.patch_size, norm, name="stem", **kwargs
    )(jnp.asarray(image))

    rates = common.drop_path_rates(self.drop_path_rate, self.depths)
    for i, (width, stage_rates) in enumerate(zip(self.widths, rates)):
      x = out[f"stage{i}"] = Stage(
        width,
        stage_rates,
        downsample=i > 0,
        block={"layer_scale_init": self.layer_scale_init, "gelu": self.gelu},
        name=f"stage{i}",
        **kwargs,
      )(x, train)

    x = x.astype(jnp.float32).mean(axis=(1, 2))
    x = nn.LayerNorm(self.layer_norm_eps, name="norm")(x)
    out["pre_logits"] = x
    if self.num_classes:

      def kernel_init(*args):
        return self.head_init_scale * _KERNEL_INIT(*args)

      x = out["logits"] = common.head(
        self.num_classes, bias_init=self.head_bias_init, kernel_init=kernel_init
      )(x)
    return x, out
