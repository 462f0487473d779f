"""BERT, as the text tower of LiT.

BERT, https://arxiv.org/abs/1810.04805, sec. 3: a transformer with the norm
*after* each residual sum. The embedding of a text is the last layer's first
token, [CLS], without BERT's pooler. LayerNorm's epsilon is 1e-12 and GELU the
tanh form, as in the published weights. Parameter names are those of
google/flaxformer, where the kernels of the attention have two dimensions.

Differs from the paper in that the attention weights see no dropout.
"""

from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from vitjax.config.ranges import Count, Index, Positive, Rate
from vitjax.models import attention, base, common

# Table 1 of the paper: width, depth, MLP width, heads.
VARIANTS = {
  "base": (768, 12, 3072, 12),
  "large": (1024, 24, 4096, 16),
}

_INIT = nn.initializers.truncated_normal(0.02)


def decode_variant(variant: str) -> dict[str, int]:
  """Fields of `Model` for "base" or "large".

  Raises:
    ValueError: if the variant is not in the table.
  """
  if variant not in VARIANTS:
    raise ValueError(
      f"variant={variant!r} is not a BERT. Use one of {', '.join(VARIANTS)}."
    )
  return dict(
    zip(("width", "depth", "mlp_dim", "num_heads"), VARIANTS[variant])
  )


class Embedder(nn.Module):
  """Sums the embeddings of tokens, positions and segments (all 0 here)."""

  width: int
  vocab_size: int
  max_len: int
  num_segments: int
  dtype: common.Dtype = jnp.float32

  @nn.compact
  def __call__(self, text: Int[Array, "b t"]) -> Float[Array, "b t d"]:
    def embed(ids, rows, name):
      return nn.Embed(
        rows,
        self.width,
        embedding_init=_INIT,
        dtype=self.dtype,
        name=f"embedders_{name}_ids",
      )(ids)

    positions = jnp.arange(text.shape[1])[None]
    return (
      embed(text, self.vocab_size, "token")
      + embed(positions, self.max_len, "position")
      + embed(jnp.zeros_like(positions), self.num_segments, "segment")
    )


class AttentionLayer(nn.Module):
  """Self-attention without the output projection, (b, t, d) to (b, t, d)."""

  num_heads: int
  dtype: common.Dtype = jnp.float32

  @nn.compact
  def __call__(
    self, x: Float[Array, "b t d"], mask: Bool[Array, "b 1 t t"]
  ) -> tuple[Float[Array, "b t d"], Float[Array, "b k t t"]]:
    query, key, value = (
      _dense(x.shape[-1], self.dtype, name)(x)
      for name in ("query", "key", "value")
    )
    return attention.attend(query, key, value, self.num_heads, mask=mask)


class AttentionBlock(nn.Module):
  """`LayerNorm(x + Dense(attention(x)))`."""

  num_heads: int
  dropout_rate: float
  layer_norm_eps: float
  dtype: common.Dtype = jnp.float32

  @nn.compact
  def __call__(
    self, x: Float[Array, "b t d"], mask: Bool[Array, "b 1 t t"], train: bool
  ) -> tuple[Float[Array, "b t d"], Float[Array, "b k t t"]]:
    y, weights = AttentionLayer(
      self.num_heads, dtype=self.dtype, name="attention_layer"
    )(x, mask)
    y = _dense(x.shape[-1], self.dtype, "dense_layer")(y)
    y = nn.Dropout(self.dropout_rate)(y, deterministic=not train)
    norm = nn.LayerNorm(
      self.layer_norm_eps, dtype=self.dtype, name="layer_norm"
    )
    return norm(x + y), weights


class Mlp(nn.Module):
  """The hidden layer of the MLP."""

  mlp_dim: int
  dtype: common.Dtype = jnp.float32

  @nn.compact
  def __call__(self, x: Float[Array, "b t d"]) -> Float[Array, "b t f"]:
    x = _dense(self.mlp_dim, self.dtype, "dense_layer")(x)
    return common.GELU["tanh"](x)


class MlpBlock(nn.Module):
  """`LayerNorm(x + Dense(gelu(Dense(x))))`."""

  mlp_dim: int
  dropout_rate: float
  layer_norm_eps: float
  dtype: common.Dtype = jnp.float32

  @nn.compact
  def __call__(
    self, x: Float[Array, "b t d"], train: bool
  ) -> Float[Array, "b t d"]:
    y = Mlp(self.mlp_dim, dtype=self.dtype, name="mlp")(x)
    y = _dense(x.shape[-1], self.dtype, "dense_layer")(y)
    y = nn.Dropout(self.dropout_rate)(y, deterministic=not train)
    return nn.LayerNorm(
      self.layer_norm_eps, dtype=self.dtype, name="layer_norm"
    )(x + y)


class Layer(nn.Module):
  """Attention, then MLP."""

  mlp_dim: int
  num_heads: int
  dropout_rate: float
  layer_norm_eps: float
  dtype: common.Dtype = jnp.float32

  @nn.compact
  def __call__(
    self, x: Float[Array, "b t d"], mask: Bool[Array, "b 1 t t"], train: bool
  ) -> tuple[Float[Array, "b t d"], Float[Array, "b k t t"]]:
    shared = (self.dropout_rate, self.layer_norm_eps, self.dtype)
    x, weights = AttentionBlock(
      self.num_heads, *shared, name="attention_block"
    )(x, mask, train)
    return MlpBlock(self.mlp_dim, *shared, name="mlp_block")(x, train), weights


class LayerSequence(nn.Module):
  """The layers, one after the other."""

  depth: int
  layer: Mapping[str, Any]

  @nn.compact
  def __call__(
    self, x: Float[Array, "b t d"], mask: Bool[Array, "b 1 t t"], train: bool
  ) -> tuple[Float[Array, "b t d"], dict[str, Array]]:
    out = {}
    for i in range(self.depth):
      x, weights = Layer(**self.layer, name=f"layers_{i}")(x, mask, train)
      out[f"encoder/block{i:02d}/out"] = x
      out[f"encoder/block{i:02d}/attention"] = weights
    return x, out


class EncoderBlock(nn.Module):
  """Holds the layers at their published path."""

  depth: int
  layer: Mapping[str, Any]

  @nn.compact
  def __call__(self, *args):
    return LayerSequence(self.depth, self.layer, name="layer_sequence")(*args)


class Encoder(nn.Module):
  """Embedding, norm and layers."""

  embedder: Mapping[str, Any]
  depth: int
  layer: Mapping[str, Any]

  @nn.compact
  def __call__(
    self, text: Int[Array, "b t"], train: bool
  ) -> tuple[Float[Array, "b t d"], dict[str, Array]]:
    x = Embedder(**self.embedder, name="embedder")(text)
    x = nn.LayerNorm(
      self.layer["layer_norm_eps"], dtype=self.layer["dtype"], name="layer_norm"
    )(x)
    x = nn.Dropout(self.layer["dropout_rate"])(x, deterministic=not train)
    known = text != 0
    mask = known[:, None, :, None] & known[:, None, None, :]
    y, out = EncoderBlock(self.depth, self.layer, name="encoder_block")(
      x, mask, train
    )
    return y, {"embedded": x, **out}


class Model(base.ImageModel):
  """BERT's encoder; token id 0 is padding.

  Attributes:
    num_classes: outputs of the head. None: no head, the model returns the [CLS]
      token.
    width: channels of the encoder; a multiple of `num_heads`.
    depth: number of transformer blocks.
    mlp_dim: hidden channels of each MLP.
    num_heads: attention heads of each block.
    vocab_size: number of rows of the token embedding.
    max_len: rows of the position embedding; texts may be shorter.
    num_segments: rows of the segment embedding; only the first is used.
    dropout_rate: probability of dropout after the embedding and at the end of
      each branch.
    layer_norm_eps: epsilon that LayerNorm adds to the variance.
    dtype: type of activations; parameters are always float32.
  """

  num_classes: Count | None = None
  width: Count = 768
  depth: Index = 12
  mlp_dim: Count = 3072
  num_heads: Count = 12
  vocab_size: Count = 30_522
  max_len: Count = 512
  num_segments: Count = 2
  dropout_rate: Rate = 0.1
  layer_norm_eps: Positive = 1e-12
  dtype: common.Dtype = jnp.float32

  def __post_init__(self):
    attention.check_heads(self.width, self.num_heads)
    super().__post_init__()

  @nn.compact
  def __call__(
    self, text: Int[common.ArrayLike, "b t"], train: bool = False
  ) -> tuple[Float[Array, "b d"], dict[str, Array]]:
    if text.shape[1] > self.max_len:
      raise ValueError(
        f"text has {text.shape[1]} tokens, the model has positions for "
        f"max_len={self.max_len}."
      )
    x, out = Encoder(
      embedder={
        "width": self.width,
        "vocab_size": self.vocab_size,
        "max_len": self.max_len,
        "num_segments": self.num_segments,
        "dtype": self.dtype,
      },
      depth=self.depth,
      layer={
        "mlp_dim": self.mlp_dim,
        "num_heads": self.num_heads,
        "dropout_rate": self.dropout_rate,
        "layer_norm_eps": self.layer_norm_eps,
        "dtype": self.dtype,
      },
      name="BertEncoder_0",
    )(jnp.asarray(text), train)
    x = out["encoded"] = x.astype(jnp.float32)
    x = out["pre_logits"] = x[:, 0]
    if self.num_classes:
      x = out["logits"] = nn.Dense(self.num_classes, name="head")(x)
    return x, out

  @nn.nowrap
  def example_inputs(
    self, image_size: Any = None, channels: int = 3
  ) -> tuple[jax.ShapeDtypeStruct, ...]:
    """The shape of one text; the size of an image is ignored."""
    return (jax.ShapeDtypeStruct((1, self.max_len), jnp.int32),)

  @nn.nowrap
  def layers(self) -> list[str]:
    """The layers, see `models.layers`: embeddings, each block, the head."""
    blocks = "BertEncoder_0/encoder_block/layer_sequence"
    return [
      r"BertEncoder_0/(embedder|layer_norm)/.*",
      *(rf"{blocks}/layers_{i}/.*" for i in range(self.depth)),
      r"head/.*",
    ]


def _dense(features: int, dtype: common.Dtype, name: str) -> nn.Dense:
  return nn.Dense(features, kernel_init=_INIT, dtype=dtype, name=name)
