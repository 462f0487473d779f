"""Vision Transformer.

An Image is Worth 16x16 Words, https://arxiv.org/abs/2010.11929, with the
choices of Better plain ViT baselines for ImageNet-1k,
https://arxiv.org/abs/2205.01580 (average pooling, fixed position embedding),
LayerScale (https://arxiv.org/abs/2103.17239), stochastic depth
(https://arxiv.org/abs/1603.09382) and registers
(https://arxiv.org/abs/2309.16588). DINOv2, DINOv3 and EVA-02 are options of it:
SwiGLU, rotary embeddings and a norm within the MLP.

Parameter names are those of google-research/big_vision, where the position
embedding belongs to the patches and is added before the class token and the
registers are prepended.
"""

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from vitjax.config.ranges import (
  Count,
  Finite,
  Index,
  NonNegative,
  Positive,
  Range,
  Rate,
)
from vitjax.models import (
  attention,
  base,
  common,
  flexible,
  naflex,
  resizing,
  resnet,
)
from vitjax.models.attention import Implementation
from vitjax.models.published_vit import PUBLISHED  # noqa: F401, of this family
from vitjax.parallel import sharding

# Width, depth, MLP width and heads: table 2 of Scaling Vision Transformers,
# https://arxiv.org/abs/2106.04560, and table 1 of the ViT paper. So400m: table
# 4 of https://arxiv.org/abs/2305.13035.
VARIANTS = {
  "mu": (32, 1, 128, 2),
  "Ti": (192, 12, 768, 3),
  "S": (384, 12, 1536, 6),
  "M": (512, 12, 2048, 8),
  "B": (768, 12, 3072, 12),
  "L": (1024, 24, 4096, 16),
  "So400m": (1152, 27, 4304, 16),
  "H": (1280, 32, 5120, 16),
  "g": (1408, 40, 6144, 16),
  "g-opt": (1536, 40, 6144, 16),
  "G": (1664, 48, 8192, 16),
  "G-opt": (1536, 48, 8192, 16),
  "e": (1792, 56, 15360, 16),
}

# ResNet in front, its stages, and the patch size on its features; "R" alone is
# the root. Table 5 of https://arxiv.org/abs/2106.10270 and the ViT paper. The
# number behind the slash is the published name's: R+Ti/16 has a patch for each
# 32x32 pixels.
HYBRIDS = {
  "R+Ti/16": ("Ti", (), 8),
  "R26+S/32": ("S", (2, 2, 2, 2), 1),
  "R26+B/32": ("B", (2, 2, 2, 2), 1),
  "R50+B/16": ("B", (3, 4, 9), 1),
  "R50+L/32": ("L", (3, 4, 6, 3), 1),
}

Remat = Literal["none", "dots", "full"]
Factor = Annotated[float, Range(ge=1)]
_POLICIES = {
  "full": jax.checkpoint_policies.nothing_saveable,
  "dots": jax.checkpoint_policies.dots_with_no_batch_dims_saveable,
}


def decode_variant(variant: str) -> dict:
  """Fields of `Model` for a variant such as "S/16", "S" or "R26+S/32".

  Raises:
    ValueError: if the variant is not in the table.
  """
  if variant in HYBRIDS:
    name, stem, patch_size = HYBRIDS[variant]
    return {**decode_variant(f"{name}/{patch_size}"), "stem": stem}
  name, _, patch = variant.partition("/")
  if name not in VARIANTS or (patch and not patch.isdigit()):
    raise ValueError(
      f"variant={variant!r} is not a ViT. Use NAME/PATCH, such as 'S/16', "
      f"with NAME one of {', '.join(VARIANTS)}, or a hybrid: "
      f"{', '.join(HYBRIDS)}."
    )
  fields = dict(zip(("width", "depth", "mlp_dim", "num_heads"), VARIANTS[name]))
  return {**fields, "patch_size": int(patch)} if patch else fields


class EncoderBlock(nn.Module):
  """Pre-norm transformer block with optional LayerScale.

  A parallel block has one norm, whose output both branches take, and one
  LayerScale for their sum: Scaling Vision Transformers to 22 Billion
  Parameters, https://arxiv.org/abs/2302.05442, sec. 2.1. Differential
  attention in a parallel block shares the bias of the MLP's output.
  """

  mlp_dim: int
  num_heads: int
  parallel: bool = False
  differential: bool = False
  dropout_rate: float = 0.0
  stochastic_depth: bool = False
  layer_scale_init: float | None = None
  qkv_bias: bool = True
  key_bias: bool = True
  causal: bool = False
  attention: Implementation = "auto"
  gelu: common.Gelu = "tanh"
  swiglu: bool = False
  mlp_norm: bool = False
  layer_norm_eps: float = 1e-6
  dtype: common.Dtype = jnp.float32

  @nn.compact
  def __call__(
    self,
    x: Float[Array, "b l d"],
    index: float | Float[Array, ""],
    drop_path_rate: float | Float[Array, ""],
    angles: Float[Array, "l e"] | None,
    mask: Bool[Array, "b 1 1 l"] | None,
    train: bool = False,
  ) -> tuple[Float[Array, "b l d"], dict[str, Array]]:
    def branch(y, suffix):
      """What happens to both branches before they are added."""
      y = nn.Dropout(self.dropout_rate)(y, deterministic=not train)
      if self.layer_scale_init is not None:
        name = f"LayerScale_{suffix}"
        y = common.LayerScale(self.layer_scale_init, name=name)(y)
      if train and self.stochastic_depth:
        y = common.drop_path(y, drop_path_rate, self.make_rng("dropout"))
      return y

    def norm(y, suffix):
      name = f"LayerNorm_{suffix}"
      return common.layer_norm(self.layer_norm_eps, self.dtype, name)(y)

    def attend(y):
      if self.differential:
        return attention.DifferentialAttention(
          self.num_heads,
          qkv_bias=self.qkv_bias,
          out_bias=not self.parallel,
          dtype=self.dtype,
          name="DifferentialAttention_0",
        )(y, index)
      return attention.MultiHeadDotProductAttention(
        self.num_heads,
        qkv_bias=self.qkv_bias,
        key_bias=self.key_bias,
        causal=self.causal,
        attention=self.attention,
        dtype=self.dtype,
        name="MultiHeadDotProductAttention_0",
      )(y, angles=angles, mask=mask)

    def mlp(y):
      return common.MlpBlock(
        self.mlp_dim,
        self.dropout_rate,
        gelu=self.gelu,
        swiglu=self.swiglu,
        norm_eps=self.layer_norm_eps if self.mlp_norm else None,
        dtype=self.dtype,
        name="MlpBlock_0",
      )(y, train)

    x = sharding.constrain_batch(x)
    y = norm(x, 0)
    attended, weights = attend(y)
    if self.parallel:
      x = x + branch(attended + mlp(y), 0)
    else:
      x = x + branch(attended, 0)
      x = x + branch(mlp(norm(x, 1)), 1)
    x = sharding.constrain_batch(x)
    return x, {"out": x, "attention": weights}


class Encoder(nn.Module):
  """The blocks, as a loop or as one scanned block, and the final norm."""

  depth: int
  block: Mapping[str, Any]
  drop_path_rate: float = 0.0
  drop_path_schedule: Literal["linear", "constant"] = "linear"
  scan_layers: bool = False
  remat: Remat = "none"
  final_norm: bool = True
  layer_norm_eps: float = 1e-6
  dtype: common.Dtype = jnp.float32

  @nn.compact
  def __call__(
    self,
    x: Float[Array, "b l d"],
    train: bool = False,
    angles: Float[Array, "l e"] | None = None,
    mask: Bool[Array, "b 1 1 l"] | None = None,
  ) -> tuple[Float[Array, "b l d"], dict[str, Array]]:
    block = EncoderBlock
    if self.remat != "none":
      block = nn.remat(
        block,
        policy=_POLICIES[self.remat],
        prevent_cse=not self.scan_layers,
        static_argnums=(6,),  # train, counted with self
      )
    kwargs: dict[str, Any] = {
      **self.block,
      "stochastic_depth": self.drop_path_rate > 0,
      "layer_norm_eps": self.layer_norm_eps,
      "dtype": self.dtype,
    }
    ramp = [i / max(self.depth - 1, 1) for i in range(self.depth)]
    if self.drop_path_schedule == "constant":
      ramp = [1.0] * self.depth
    rates = [self.drop_path_rate * part for part in ramp]
    out = {}
    if self.scan_layers:
      blocks = nn.scan(
        block,
        variable_axes={"params": 0},
        split_rngs={"params": True, "dropout": True},
        in_axes=(0, 0, nn.broadcast, nn.broadcast, nn.broadcast),
        length=self.depth,
      )(**kwargs, name="encoderblock")
      indices = jnp.arange(self.depth, dtype=jnp.float32)
      x, stacked = blocks(
        x, indices, jnp.asarray(rates, jnp.float32), angles, mask, train
      )
      for i in range(self.depth):
        for key, value in stacked.items():
          out[f"encoder/block{i:02d}/{key}"] = value[i]
    else:
      for i, rate in enumerate(rates):
        x, more = block(**kwargs, name=f"encoderblock_{i}")(
          x, float(i), rate, angles, mask, train
        )
        for key, value in more.items():
          out[f"encoder/block{i:02d}/{key}"] = value
    if self.final_norm:
      x = nn.LayerNorm(
        self.layer_norm_eps, dtype=self.dtype, name="encoder_norm"
      )(x)
    return x, out


class Model(base.ImageModel):
  """Vision Transformer.

  Attributes:
    num_classes: outputs of the head. None: no head, the model returns the
      pooled features.
    patch_size: side of the square patches in pixels. Rows and columns that do
      not fill a patch are dropped, with a warning.
    patch_kernel: side of the stored kernel of the patch embedding in pixels,
      which is resized to `patch_size` (FlexiViT's PI-resize). None:
      `patch_size`.
    stem: hybrid model: units of each stage of a ResNet that computes features
      of which `patch_size` counts the pixels. (): only the root of the ResNet,
      whose features are 4 times smaller than the image. None: a plain ViT.
    width: channels of the encoder; a multiple of `num_heads`.
    depth: number of transformer blocks.
    mlp_dim: hidden channels of each MLP. None: 4 * `width`.
    num_heads: attention heads of each block.
    pool_type: pooling of the tokens: "gap" (mean over the patches), "tok"
      (class token), "tok+gap" (both, next to each other), "map" (attention
      pooling) or "none" (no pooling).
    posemb: position embedding: "learn" (learned table), "sincos2d" (fixed
      sine-cosine table), "rope" (rotary embedding of the patches), or
      "learn+rope" (a learned table as well).
    posemb_grid: rows and columns of the stored position table, which is resized
      to the grid of the patches, as in FlexiViT. None: that grid.
    posemb_resize: how position tables are resized, in the model and when
      weights for another image size are loaded: "corners" (bilinear, the
      corners of both grids coincide, as Google's models), "antialias" (bicubic,
      as timm's and DINOv2 with registers), "bicubic" (without antialiasing, as
      DINOv2 without registers), or "linear" (bilinear with antialiasing, as
      FlexiViT).
    naflex: read images of any shape as strips of padded patches, see
      `vitjax.models.naflex`; the position table is resized for each image.
    rope_grid: what rotary embeddings count: "index" (patches, relative to a
      grid of 16x16, as EVA-02) or "centered" (the image from -1 to 1, as
      DINOv3).
    rope_base: ratio of the periods of rotary embeddings.
    rope_shift: in training, the largest number that is added to coordinates of
      the grid; see `attention.move_coordinates`.
    rope_jitter: in training, the largest factor of rows, and of columns.
    rope_rescale: in training, the largest factor of both.
    rep_size: channels of a tanh layer before the head. True: `width`; False: no
      such layer.
    class_token: prepend a learned class token. None: if `pool_type` needs one.
    num_registers: number of register tokens: learned, and read by no pooling.
    distilled: add a second head on the first register, DeiT's token of
      distillation. The logits are the mean of both heads; with a teacher, see
      `config.distill`, the first head learns from the labels and the second
      from the teacher.
    parallel: compute attention and MLP of a block in parallel, not in sequence.
    qkv_bias: add biases to query, key and value.
    key_bias: with `qkv_bias`, add one to the key as well.
    attention: implementation of attention: "xla"; "fused", which never writes
      the scores to memory (a Pallas kernel on TPUs, cuDNN on GPUs); or "auto",
      which is "fused" on TPUs where possible and "xla" elsewhere.
    differential: use differential attention, the difference of two softmaxes.
    fc_norm: put the final LayerNorm after the pooling instead of before it.
    pre_norm: normalise the tokens, with their positions, before the first
      block, as CLIP does; the patch embedding then has no bias.
    posemb_prefix: the position table has rows for class token and registers, as
      in vision_transformer; big_vision's table has none.
    dropout_rate: probability of dropout after the position embedding and in
      each block.
    drop_path_rate: probability of dropping a branch of the last block
      (stochastic depth).
    drop_path_schedule: rate of the other blocks: "linear" ramps up from 0 in
      the first block, "constant" is the same in all, as in DeiT III.
    layer_scale_init: initial gamma of LayerScale. None: no LayerScale.
    gelu: form of the GELU: "tanh" (approximate, Google's ViT), "erf" (exact,
      PyTorch's) or "quick" (x * sigmoid(1.702 x), OpenAI's CLIP).
    swiglu: gate the MLPs with a SiLU instead of the GELU; `mlp_dim` is the
      width of the gate.
    mlp_norm: put a LayerNorm before the last layer of each MLP.
    layer_norm_eps: epsilon that LayerNorm adds to the variance.
    head_bias: add a bias in the head.
    head_bias_init: initial bias of the head; a negative value starts a sigmoid
      loss near its prior.
    head_zero_init: initialise the kernel of the head with zeros, as published.
      False: LeCun normal.
    scan_layers: stack the parameters of all blocks and compile one block for
      all of them, which compiles faster.
    remat: what the backward pass recomputes to save memory: "none", "dots" (all
      but matrix products) or "full" (everything).
    dtype: type of activations; parameters are always float32.
  """

  num_classes: Count | None = None
  patch_size: Count = 16
  patch_kernel: Count | None = None
  stem: Sequence[Count] | None = None
  width: Count = 768
  depth: Index = 12
  mlp_dim: Count | None = None
  num_heads: Count = 12
  pool_type: Literal["gap", "tok", "tok+gap", "map", "none"] = "gap"
  posemb: Literal["learn", "sincos2d", "rope", "learn+rope"] = "learn"
  posemb_grid: Count | None = None
  posemb_resize: resizing.Method = "corners"
  naflex: bool = False
  rope_grid: attention.RopeGrid = "index"
  rope_base: Positive = 10_000.0
  rope_shift: NonNegative = 0.0
  rope_jitter: Factor = 1.0
  rope_rescale: Factor = 1.0
  rep_size: Index | bool = False
  class_token: bool | None = None
  num_registers: Index = 0
  distilled: bool = False
  pre_norm: bool = False
  posemb_prefix: bool = False
  parallel: bool = False
  differential: bool = False
  fc_norm: bool = False
  dropout_rate: Rate = 0.0
  drop_path_rate: Rate = 0.0
  drop_path_schedule: Literal["linear", "constant"] = "linear"
  layer_scale_init: Finite | None = None
  qkv_bias: bool = True
  key_bias: bool = True
  attention: Implementation = "auto"
  gelu: common.Gelu = "tanh"
  swiglu: bool = False
  mlp_norm: bool = False
  layer_norm_eps: Positive = 1e-6
  head_bias: bool = True
  head_bias_init: Finite = 0.0
  head_zero_init: bool = True
  scan_layers: bool = False
  remat: Remat = "none"
  dtype: common.Dtype = jnp.float32

  def __post_init__(self):
    attention.check_heads(
      self.width, 2 * self.num_heads if self.differential else self.num_heads
    )
    if "rope" in self.posemb and self.differential:
      raise ValueError(
        "differential attention is not rotated: use posemb='learn' or "
        "'sincos2d' with differential=True."
      )
    if self.attention == "fused" and self.differential:
      raise ValueError(
        "differential attention has no fused kernels: use attention='auto' or "
        "'xla' with differential=True."
      )
    if "tok" in self.pool_type and self.class_token is False:
      raise ValueError(
        f"pool_type={self.pool_type!r} pools the class token: it needs one."
      )
    if self.posemb_grid is not None and "learn" not in self.posemb:
      raise ValueError(
        f"posemb_grid={self.posemb_grid} is the size of a learned table, and "
        f"posemb={self.posemb!r} has none: use posemb='learn', or remove "
        "posemb_grid."
      )
    if self.naflex:
      self._check_naflex()
    if self.distilled and not self.num_registers:
      raise ValueError(
        "distilled=True puts a second head on the first register: use "
        "num_registers=1."
      )
    if self.distilled and (self.fc_norm or self.rep_size):
      raise ValueError(
        "distilled=True has nothing between the tokens and the two heads: use "
        "fc_norm=False and rep_size=False."
      )
    super().__post_init__()

  @nn.nowrap
  def _check_naflex(self) -> None:
    """Raises ValueError for options that strips of patches do not have."""
    if self.posemb_grid is None:
      raise ValueError(
        "naflex=True resizes the position table for each image: give the "
        "table's own rows and columns, such as posemb_grid=16."
      )
    for name, value in (
      ("posemb", "learn"),
      ("posemb_resize", "linear"),
      ("posemb_prefix", False),
      ("stem", None),
      ("differential", False),
    ):
      if (given := getattr(self, name)) != value:
        raise ValueError(
          f"naflex=True is implemented for {name}={value!r}, not {given!r}."
        )
    if self.patch_size < 3:
      raise ValueError(
        f"naflex=True needs patches of at least 3 pixels, not patch_size="
        f"{self.patch_size}."
      )

  @nn.nowrap
  def layers(self) -> list[str]:
    """The layers, see `models.layers`: those of BEiT, DeiT and timm.

    The tokens, the positions, the patches and a ResNet in front of them; each
    block; and the rest.
    """
    stem = r"cls|registers|pos_embedding|(embedding|pre_norm)/.*"
    return [
      rf"{stem}|{resnet.ROOT}|block\d+/.*",
      *(rf"Transformer/encoderblock(_{i})?/.*" for i in range(self.depth)),
      r"(Transformer/encoder_norm|MAPHead_0|fc_norm|pre_logits|head(_dist)?)/.*",
    ]

  @property
  def has_class_token(self) -> bool:
    if self.class_token is None:
      return "tok" in self.pool_type
    return self.class_token

  @nn.compact
  def __call__(
    self,
    image: Float[common.ArrayLike, "b h w c"],
    train: bool = False,
    kept: Int[Array, "b k"] | None = None,
  ) -> tuple[Float[Array, "..."], dict[str, Array]]:
    """See `vitjax.models`; `kept`: the patches to read, None for all."""
    out = {}
    if self.stem is not None:
      image, stages = resnet.backbone(
        jnp.asarray(image), self.stem, dtype=self.dtype
      )
      out.update({f"resnet/{name}": x for name, x in stages.items()})
    b, h, w, _ = image.shape
    p = self.patch_size
    if h < p or w < p:
      raise ValueError(f"image of {h}x{w} is smaller than patch_size={p}.")
    grid = None
    if self.naflex:
      image, grid = naflex.read(image, p)
    if self.stem is None:  # a ResNet pads
      common.warn_of_border(h, w, p)
    x = self._embedding()(image)
    _, h, w, d = x.shape
    x = out["stem"] = x.reshape(b, h * w, d)

    num_prefix = self.has_class_token + self.num_registers
    if self.posemb == "rope":
      x = self._with_prefix(x)
    elif self.posemb_prefix:
      x = self._with_prefix(x)
      x = x + self._posemb(h, w, num_prefix).astype(x.dtype)
    else:
      x = self._with_prefix(x + self._posemb(h, w, 0, grid).astype(x.dtype))
    if kept is not None:
      patches = jnp.take_along_axis(x[:, num_prefix:], kept[..., None], axis=1)
      x = jnp.concatenate([x[:, :num_prefix], patches], axis=1)
    mask = is_patch = None
    if grid is not None:
      is_patch = naflex.is_patch(grid, h)
      prefix = ((0, 0), (num_prefix, 0))
      mask = jnp.pad(is_patch, prefix, constant_values=True)[:, None, None]
    angles = None
    if "rope" in self.posemb:
      angles = jnp.pad(self._angles(h, w, train), ((num_prefix, 0), (0, 0)))
    out["with_posemb"] = x
    if self.pre_norm:
      x = nn.LayerNorm(self.layer_norm_eps, dtype=self.dtype, name="pre_norm")(
        x
      )
    x = nn.Dropout(self.dropout_rate)(x, deterministic=not train)

    x, blocks = Encoder(
      self.depth,
      block={
        "mlp_dim": self.mlp_dim or 4 * self.width,
        "num_heads": self.num_heads,
        "parallel": self.parallel,
        "differential": self.differential,
        "dropout_rate": self.dropout_rate,
        "layer_scale_init": self.layer_scale_init,
        "qkv_bias": self.qkv_bias,
        "key_bias": self.key_bias,
        "attention": self.attention,
        "gelu": self.gelu,
        "swiglu": self.swiglu,
        "mlp_norm": self.mlp_norm,
      },
      drop_path_rate=self.drop_path_rate,
      drop_path_schedule=self.drop_path_schedule,
      scan_layers=self.scan_layers,
      remat=self.remat,
      final_norm=not self.fc_norm,
      layer_norm_eps=self.layer_norm_eps,
      dtype=self.dtype,
      name="Transformer",
    )(x, train, angles, mask)
    out.update(blocks)
    x = out["encoded"] = x.astype(jnp.float32)

    if self.pool_type == "gap":
      x = _mean(x[:, num_prefix:], is_patch)
    elif self.pool_type == "tok":
      x = x[:, 0]
    elif self.pool_type == "tok+gap":
      mean = _mean(x[:, num_prefix:], is_patch)
      x = jnp.concatenate([x[:, 0], mean], axis=1)
    elif self.pool_type == "map":
      x, out["map_head/attention"] = attention.MAPHead(
        self.mlp_dim or 4 * self.width,
        self.num_heads,
        gelu=self.gelu,
        layer_norm_eps=self.layer_norm_eps,
        name="MAPHead_0",
      )(x[:, num_prefix:], is_patch)
    if self.fc_norm:
      x = nn.LayerNorm(self.layer_norm_eps, name="fc_norm")(x)
    out["head_input"] = x

    if self.rep_size:
      rep_size = self.width if self.rep_size is True else self.rep_size
      x = jnp.tanh(nn.Dense(rep_size, name="pre_logits")(x))
    tokens = {"head": x}
    if self.distilled:
      tokens["head_dist"] = out["encoded"][:, int(self.has_class_token)]
      x = (x + tokens["head_dist"]) / 2
    out["pre_logits"] = x

    if self.num_classes:
      kernel_init = (
        nn.initializers.zeros
        if self.head_zero_init
        else nn.initializers.lecun_normal()
      )
      logits = [
        nn.Dense(
          self.num_classes,
          use_bias=self.head_bias,
          kernel_init=kernel_init,
          bias_init=nn.initializers.constant(self.head_bias_init),
          name=name,
        )(token)
        for name, token in tokens.items()
      ]
      x = logits[0]
      if self.distilled:
        out["logits/head"], out["logits/head_dist"] = logits
        x = (logits[0] + logits[1]) / 2
      out["logits"] = x
    return x, out

  def _embedding(self) -> nn.Module:
    """The patch embedding."""
    p = self.patch_size
    options: dict[str, Any] = {
      "use_bias": not self.pre_norm,
      "dtype": self.dtype,
      "name": "embedding",
    }
    if self.patch_kernel is None:
      return nn.Conv(self.width, (p, p), p, padding="VALID", **options)
    return flexible.PatchEmbedding(self.width, self.patch_kernel, p, **options)

  def _posemb(
    self,
    h: int,
    w: int,
    num_prefix: int,
    grid: Int[Array, "b 2"] | None = None,
  ) -> Float[common.ArrayLike, "#b l d"]:
    if self.posemb == "sincos2d":
      table = common.posemb_sincos_2d(h, w, self.width)
      return jnp.pad(table, ((0, 0), (num_prefix, 0), (0, 0)))
    side = self.posemb_grid
    rows = h * w if side is None else side**2
    table = self.param(
      "pos_embedding",
      nn.initializers.normal(self.width**-0.5),
      (1, num_prefix + rows, self.width),
      jnp.float32,
    )
    if side is None:
      return table
    if grid is not None:
      return naflex.positions(table, side, grid, h)
    return flexible.resize_table(table, side, (h, w), self.posemb_resize)

  def _angles(self, h: int, w: int, train: bool) -> Float[Array, "l e"]:
    """Angles of the patches, moved in training."""
    coordinates = attention.patch_coordinates(h, w, self.rope_grid)
    moves = (self.rope_shift, self.rope_jitter, self.rope_rescale)
    if train and moves != (0, 1, 1):
      key = self.make_rng("dropout")
      coordinates = attention.move_coordinates(coordinates, key, *moves)
    head_width = self.width // self.num_heads
    return attention.rope_angles(
      coordinates, head_width, self.rope_base, self.rope_grid
    )

  def _with_prefix(self, x: Float[Array, "b l d"]) -> Float[Array, "b t d"]:
    """Puts the class token and the registers in front of the patches."""
    prefix = []
    if self.has_class_token:
      shape = (1, 1, self.width)
      prefix += [self.param("cls", nn.initializers.zeros, shape, jnp.float32)]
    if self.num_registers:
      init = nn.initializers.normal(1e-6)
      shape = (1, self.num_registers, self.width)
      prefix += [self.param("registers", init, shape, jnp.float32)]
    prefix = [jnp.broadcast_to(t, (x.shape[0], *t.shape[1:])) for t in prefix]
    return jnp.concatenate([t.astype(x.dtype) for t in prefix] + [x], axis=1)


def _mean(
  x: Float[Array, "b l d"], is_patch: Bool[Array, "b l"] | None
) -> Float[Array, "b d"]:
  """The mean of all tokens, or of those that are patches."""
  if is_patch is None:
    return x.mean(axis=1)
  return x.mean(axis=1, where=is_patch[..., None])
