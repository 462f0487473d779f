"""MLP-Mixer.

MLP-Mixer: An all-MLP Architecture for Vision,
https://arxiv.org/abs/2105.01601. Parameter names are the published ones.
There is no position embedding and the token MLP fixes the number of patches,
so a model fits one image size only.

Stochastic depth is big_vision's: a linear ramp from 0 to `drop_path_rate`,
one mask for each of the two branches, and no rescaling by the probability of
keeping. GELU is the tanh form; timm's `mixer_*` use the exact one.
"""

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from vitjax.config.ranges import Count, Finite, Index, Positive, Rate
from vitjax.models import base, common

# Width, depth, width of the token MLP and of the channel MLP: table 1.
VARIANTS = {
  "S": (512, 8, 256, 2048),
  "B": (768, 12, 384, 3072),
  "L": (1024, 24, 512, 4096),
  "H": (1280, 32, 640, 5120),
}


def decode_variant(variant: str) -> dict[str, int]:
  """Fields of `Model` for a variant such as "B/16" or "B".

  Raises:
    ValueError: if the variant is not in the table.
  """
  name, _, patch = variant.partition("/")
  if name not in VARIANTS or (patch and not patch.isdigit()):
    raise ValueError(
      f"variant={variant!r} is not a Mixer. Use NAME/PATCH, such as 'B/16', "
      f"with NAME one of {', '.join(VARIANTS)}."
    )
  names = ("width", "depth", "tokens_mlp_dim", "mlp_dim")
  fields = dict(zip(names, VARIANTS[name]))
  return {**fields, "patch_size": int(patch)} if patch else fields


def _published(variant: str, params: int, **fields) -> dict:
  return {
    "fields": {"variant": variant, **fields},
    "image_size": 224,
    "params": params,
  }


_TIMM_NAMES = {
  "mixer_s32_224": ("S/32", 19_104_624),
  "mixer_s16_224": ("S/16", 18_528_264),
  "mixer_b32_224": ("B/32", 60_293_428),
  "mixer_b16_224": ("B/16", 59_880_472),
  "mixer_l32_224": ("L/32", 206_939_264),
  "mixer_l16_224": ("L/16", 208_196_168),
}

PUBLISHED = {
  "Mixer-B_16": _published("B/16", 59_880_472),
  "Mixer-B_32": _published("B/32", 60_293_428),
  "Mixer-L_16": _published("L/16", 208_196_168),
  **{
    name: _published(variant, params, gelu="erf")
    for name, (variant, params) in _TIMM_NAMES.items()
  },
}


class MixerBlock(nn.Module):
  """Mixes the tokens of each channel, then the channels of each token."""

  tokens_mlp_dim: int
  mlp_dim: int
  drop_path_rate: float = 0.0
  gelu: common.Gelu = "tanh"
  layer_norm_eps: float = 1e-6
  dtype: common.Dtype = jnp.float32

  @nn.compact
  def __call__(
    self, x: Float[Array, "b l d"], train: bool = False
  ) -> Float[Array, "b l d"]:
    def norm(y, name):
      return common.layer_norm(self.layer_norm_eps, self.dtype, name)(y)

    def mlp(y, mlp_dim, name):
      return common.MlpBlock(
        mlp_dim,
        gelu=self.gelu,
        kernel_init=nn.initializers.lecun_normal(),
        bias_init=nn.initializers.zeros,
        dtype=self.dtype,
        name=name,
      )(y)

    def drop(y):
      if not train or not self.drop_path_rate:
        return y
      key = self.make_rng("dropout")
      return common.drop_path(y, self.drop_path_rate, key, rescale=False)

    y = norm(x, "LayerNorm_0").swapaxes(1, 2)
    y = mlp(y, self.tokens_mlp_dim, "token_mixing").swapaxes(1, 2)
    x = x + drop(y)
    y = mlp(norm(x, "LayerNorm_1"), self.mlp_dim, "channel_mixing")
    return x + drop(y)


class Model(base.ImageModel):
  """MLP-Mixer.

  Attributes:
    num_classes: outputs of the head. None: no head, the model returns the
      pooled features.
    patch_size: side of the square patches in pixels. A border that does not
      fill a patch is padded with zeros; ViT drops it.
    width: channels of each token.
    depth: number of mixer blocks.
    tokens_mlp_dim: hidden channels of the MLP that mixes tokens.
    mlp_dim: hidden channels of the MLP that mixes channels.
    drop_path_rate: probability of dropping a branch of the last block
      (stochastic depth); it ramps up linearly from 0 in the first block.
    gelu: form of the GELU: "tanh" (approximate, Google's weights) or "erf"
      (exact, timm's weights).
    layer_norm_eps: epsilon that LayerNorm adds to the variance.
    head_bias_init: initial bias of the head; a negative value starts a sigmoid
      loss near its prior.
    head_zero_init: initialise the kernel of the head with zeros, as published.
      False: LeCun normal.
    dtype: type of activations; parameters are always float32.
  """

  num_classes: Count | None = None
  patch_size: Count = 16
  width: Count = 768
  depth: Index = 12
  tokens_mlp_dim: Count = 384
  mlp_dim: Count = 3072
  drop_path_rate: Rate = 0.0
  gelu: common.Gelu = "tanh"
  layer_norm_eps: Positive = 1e-6
  head_bias_init: Finite = 0.0
  head_zero_init: bool = True
  dtype: common.Dtype = jnp.float32

  @nn.nowrap
  def layers(self) -> list[str]:
    """The layers, see `models.layers`: stem, each block, norm and head."""
    return [
      r"stem/.*",
      *(rf"MixerBlock_{i}/.*" for i in range(self.depth)),
      r"(pre_head_layer_norm|head)/.*",
    ]

  @nn.compact
  def __call__(
    self, image: Float[common.ArrayLike, "b h w c"], train: bool = False
  ) -> tuple[Float[Array, "..."], dict[str, Array]]:
    out = {}
    p = self.patch_size
    x = nn.Conv(
      self.width,
      (p, p),
      strides=p,
      padding="SAME",
      dtype=self.dtype,
      name="stem",
    )(image)
    x = out["stem"] = x.reshape(x.shape[0], -1, self.width)

    for i in range(self.depth):
      x = out[f"block{i:02d}"] = MixerBlock(
        self.tokens_mlp_dim,
        self.mlp_dim,
        self.drop_path_rate * i / max(self.depth - 1, 1),
        gelu=self.gelu,
        layer_norm_eps=self.layer_norm_eps,
        dtype=self.dtype,
        name=f"MixerBlock_{i}",
      )(x, train)

    x = nn.LayerNorm(
      self.layer_norm_eps, dtype=self.dtype, name="pre_head_layer_norm"
    )(x)
    x = out["encoded"] = x.astype(jnp.float32)
    x = out["pre_logits"] = x.mean(axis=1)
    if self.num_classes:
      x = out["logits"] = common.head(
        self.num_classes, self.head_zero_init, self.head_bias_init
      )(x)
    return x, out
