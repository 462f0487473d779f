"""MaxxViT-V2: ConvNeXt blocks and attention over a grid, as timm has it.

Each block is a block of ConvNeXt (https://arxiv.org/abs/2201.03545) and the
grid attention of MaxViT (https://arxiv.org/abs/2204.01697): tokens that are
evenly spread over the map attend to each other. There is no paper of version 2,
which leaves out the attention within windows.

Grids have 1/32 of the image's side. A learned table of position biases
(`position="table"`) has that size, and is resized for other images; an MLP of
the offsets ("mlp") fits any.

No weights were published under JAX names. Ours serve the optimizer's rules:
`kernel` for all parameters that timm decays, but those of `position_bias`.
"""

from typing import Any, Literal

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from vitjax.config.ranges import Count, Finite, Positive, Rate
from vitjax.models import base, coatnet, common, convolutions
from vitjax.models.attention import Implementation

# timm's variants: fields of `Model`.
VARIANTS: dict[str, dict[str, Any]] = {
  "nano": {
    "stem_widths": (48, 96),
    "widths": (96, 192, 384, 768),
    "depths": (1, 2, 3, 1),
    "position": "table",
  },
  "rmlp-base": {
    "stem_widths": (64, 128),
    "widths": (128, 256, 512, 1024),
    "depths": (2, 6, 12, 2),
    "position": "mlp",
  },
}


def decode_variant(variant: str) -> dict[str, Any]:
  """Fields of `Model` for a variant such as "nano".

  Raises:
    ValueError: if the variant is not in the table.
  """
  if variant not in VARIANTS:
    raise ValueError(
      f"variant={variant!r} is not a MaxxViT-V2. Known: {', '.join(VARIANTS)}."
    )
  return dict(VARIANTS[variant])


PUBLISHED = {  # timm's names; parameters with 1000 classes
  "maxxvitv2_nano_rw_256": {
    "fields": {"variant": "nano"},
    "image_size": 256,
    "params": 23_696_611,
  },
  **{
    f"maxxvitv2_rmlp_base_rw_{size}": {
      "fields": {"variant": "rmlp-base"},
      "image_size": size,
      "params": 116_092_512,
    }
    for size in (224, 384)
  },
}


class ConvBlock(nn.Module):
  """ConvNeXt's block, which may halve the map and change the width."""

  width: int
  strides: int
  layer_scale_init: float | None = 1e-6
  drop_path_rate: float = 0.0
  layer_norm_eps: float = 1e-6
  gelu: common.Gelu = "erf"
  dtype: common.Dtype = jnp.float32

  @nn.compact
  def __call__(
    self, x: Float[Array, "b h w c"], train: bool = False
  ) -> Float[Array, "b _h _w d"]:
    c, d = x.shape[-1], self.width
    shortcut = x
    if self.strides > 1:
      shortcut = convolutions.mean_pool(x)
    if c != d:
      shortcut = nn.Dense(d, dtype=self.dtype, name="expand")(shortcut)
    x = convolutions.Conv(
      d,
      7,
      self.strides,
      groups=c,
      use_bias=True,
      kernel_init=nn.initializers.lecun_normal(),
      dtype=self.dtype,
      name="dwconv",
    )(x)
    x = common.layer_norm(self.layer_norm_eps, self.dtype, "norm")(x)
    b, h, w, _ = x.shape
    y = common.MlpBlock(4 * d, gelu=self.gelu, dtype=self.dtype, name="mlp")(
      x.reshape(b, h * w, d)
    ).reshape(x.shape)
    if self.layer_scale_init is not None:
      y = common.LayerScale(self.layer_scale_init, name="layer_scale")(y)
    if train and self.drop_path_rate:
      y = common.drop_path(y, self.drop_path_rate, self.make_rng("dropout"))
    return shortcut + y


class Stage(nn.Module):
  """Blocks of one width, the first with stride 2."""

  width: int
  drop_path_rates: tuple[float, ...]
  both: dict
  attention: dict
  dtype: common.Dtype = jnp.float32

  @nn.compact
  def __call__(
    self, x: Float[Array, "b h w c"], train: bool = False
  ) -> Float[Array, "b _h _w d"]:
    for i, rate in enumerate(self.drop_path_rates):
      kwargs: dict[str, Any] = {
        **self.both,
        "drop_path_rate": rate,
        "dtype": self.dtype,
      }
      name = f"block{i:02d}"
      x = ConvBlock(self.width, 1 if i else 2, name=f"{name}_conv", **kwargs)(
        x, train
      )
      x = coatnet.AttentionBlock(
        self.width, **self.attention, name=f"{name}_attention", **kwargs
      )(x, train)
    return x


class Model(base.ImageModel):
  """MaxxViT-V2.

  Attributes:
    num_classes: outputs of the head. None: no head, the model returns the
      pooled features.
    stem_widths: channels of the two convolutions of the stem.
    widths: channels of each stage.
    depths: number of blocks of each stage.
    position: biases of attention: a learned "table" or an "mlp" of the offsets.
    position_hidden: width of the hidden layer of that MLP.
    attention: implementation of attention, as in the Vision Transformer.
    layer_scale_init: initial gamma of LayerScale. None: no LayerScale.
    drop_path_rate: probability of dropping the branches of the last block
      (stochastic depth); it ramps up linearly from 0 in the first block.
    gelu: form of the GELU: "erf" (exact, as published) or "tanh" (approximate).
    layer_norm_eps: epsilon that LayerNorm adds to the variance.
    head_bias_init: initial bias of the head; a negative value starts a sigmoid
      loss near its prior.
    dtype: type of activations; parameters are always float32.
  """

  num_classes: Count | None = None
  stem_widths: tuple[Count, Count] = VARIANTS["nano"]["stem_widths"]
  widths: tuple[Count, ...] = VARIANTS["nano"]["widths"]
  depths: tuple[Count, ...] = VARIANTS["nano"]["depths"]
  position: Literal["table", "mlp"] = "table"
  position_hidden: Count = 512
  attention: Implementation = "auto"
  layer_scale_init: Finite | None = 1e-6
  drop_path_rate: Rate = 0.0
  gelu: common.Gelu = "erf"
  layer_norm_eps: Positive = 1e-6
  head_bias_init: Finite = 0.0
  dtype: common.Dtype = jnp.float32

  @nn.nowrap
  def layers(self) -> list[str]:
    """The layers, see `models.layers`: each block, between stem and head."""
    return [
      r"stem_\w+/.*",
      *(
        rf"stage{i}/block{b:02d}_\w+/.*"
        for i, depth in enumerate(self.depths)
        for b in range(depth)
      ),
      r"(norm|head)/.*",
    ]

  @nn.compact
  def __call__(
    self, image: Float[common.ArrayLike, "b h w c"], train: bool = False
  ) -> tuple[Float[Array, "..."], dict[str, Array]]:
    _, h, w, _ = image.shape
    coatnet.check_size(h, w)
    both: dict[str, Any] = {
      name: getattr(self, name)
      for name in ("layer_scale_init", "layer_norm_eps", "gelu")
    }
    conv = {"kernel_size": 3, "dtype": self.dtype}
    out = {}
    x = convolutions.Conv(
      self.stem_widths[0], strides=2, name="stem_conv1", **conv
    )(jnp.asarray(image))
    x = nn.LayerNorm(self.layer_norm_eps, dtype=self.dtype, name="stem_norm")(x)
    x = out["stem"] = convolutions.Conv(
      self.stem_widths[1], name="stem_conv2", **conv
    )(common.GELU[self.gelu](x))

    rates = common.drop_path_rates(self.drop_path_rate, self.depths)
    for i, width in enumerate(self.widths):
      x = out[f"stage{i}"] = Stage(
        width,
        rates[i],
        both,
        {
          "position": self.position,
          "position_hidden": self.position_hidden,
          "attention": self.attention,
          "grid": (h // 32, w // 32),
        },
        dtype=self.dtype,
        name=f"stage{i}",
      )(x, train)

    x = nn.LayerNorm(self.layer_norm_eps, name="norm")(x.astype(jnp.float32))
    x = out["pre_logits"] = x.mean(axis=(1, 2))
    if self.num_classes:
      x = out["logits"] = common.head(
        self.num_classes,
        bias_init=self.head_bias_init,
        kernel_init=nn.initializers.truncated_normal(0.02),
      )(x)
    return x, out
