"""Text transformer: the text towers of CLIP and SigLIP, the small one of LiT.

LiT, https://arxiv.org/abs/2111.07991, and SigLIP,
https://arxiv.org/abs/2303.15343: a ViT encoder over token embeddings with
learned positions. Neither padding nor the future is masked; the embedding of
the text is the *last* token, which the tokenizer makes an end of sentence.

CLIP, https://arxiv.org/abs/2103.00020, masks the future, and the embedding is
the token of the end of the text, the first with the largest id. So padding
behind it is never read.

Differs from big_vision's tower, whose parameter names these are, in that the
logits over the vocabulary are not returned: no contrastive loss reads them.
"""

from typing import Any, Literal

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from vitjax.config.ranges import Count, Index, Positive, Rate
from vitjax.models import attention, base, common, vit
from vitjax.models.attention import Implementation


def decode_variant(variant: str) -> dict[str, int]:
  """Fields of `Model` for the name of a ViT without its patch, such as "B".

  Raises:
    ValueError: if the variant is not in the table of ViTs.
  """
  if "/" in variant:
    raise ValueError(
      f"text variant={variant!r} has a patch size. "
      f"Use {variant.partition('/')[0]!r}."
    )
  return vit.decode_variant(variant)


class Model(base.ImageModel):
  """Text transformer.

  Attributes:
    num_classes: outputs of the head. None: no head, the model returns the
      pooled token.
    width: channels of the encoder; a multiple of `num_heads`.
    depth: number of transformer blocks.
    mlp_dim: hidden channels of each MLP. None: 4 * `width`.
    num_heads: attention heads of each block.
    vocab_size: number of rows of the token embedding.
    max_len: number of tokens of every text, padding included.
    pool_type: the token that is the embedding: "last", or "eot", the first with
      the largest id.
    causal: a token attends to itself and to those before it only. Then
      `attention` must not be "fused".
    head_bias: add a bias in the head.
    gelu: form of the GELU, as in the Vision Transformer.
    layer_norm_eps: epsilon that LayerNorm adds to the variance.
    dropout_rate: probability of dropout after the position embedding and in
      each block.
    attention: implementation of attention, as in the Vision Transformer.
    scan_layers: compile one block for all, as in the Vision Transformer.
    remat: what the backward pass recomputes, as in the Vision Transformer.
    dtype: type of activations; parameters are always float32.
  """

  num_classes: Count | None = None
  width: Count = 512
  depth: Index = 12
  mlp_dim: Count | None = None
  num_heads: Count = 8
  vocab_size: Count = 32_000
  max_len: Count = 64
  pool_type: Literal["last", "eot"] = "last"
  causal: bool = False
  head_bias: bool = True
  gelu: common.Gelu = "tanh"
  layer_norm_eps: Positive = 1e-6
  dropout_rate: Rate = 0.0
  attention: Implementation = "auto"
  scan_layers: bool = False
  remat: vit.Remat = "none"
  dtype: common.Dtype = jnp.float32

  def __post_init__(self):
    attention.check_heads(self.width, self.num_heads)
    if self.causal and self.attention == "fused":
      raise ValueError(
        "causal attention has no fused kernels: use attention='auto' or 'xla' "
        "with causal=True."
      )
    super().__post_init__()

  @nn.compact
  def __call__(
    self, text: Int[common.ArrayLike, "b t"], train: bool = False
  ) -> tuple[Float[Array, "b d"], dict[str, Array]]:
    if text.shape[1] != self.max_len:
      raise ValueError(
        f"text has {text.shape[1]} tokens, the model takes "
        f"max_len={self.max_len}. "
        f"Tokenize with max_len={self.max_len}."
      )
    out = {}
    x = out["embedded"] = nn.Embed(
      self.vocab_size, self.width, dtype=self.dtype, name="Embed_0"
    )(text)
    posemb = self.param(
      "pos_embedding",
      nn.initializers.normal(self.width**-0.5),
      (1, self.max_len, self.width),
      jnp.float32,
    )
    x = out["with_posemb"] = x + posemb.astype(x.dtype)
    x = nn.Dropout(self.dropout_rate)(x, deterministic=not train)
    x, blocks = vit.Encoder(
      self.depth,
      block={
        "mlp_dim": self.mlp_dim or 4 * self.width,
        "num_heads": self.num_heads,
        "causal": self.causal,
        "attention": self.attention,
        "gelu": self.gelu,
        "dropout_rate": self.dropout_rate,
      },
      scan_layers=self.scan_layers,
      remat=self.remat,
      layer_norm_eps=self.layer_norm_eps,
      dtype=self.dtype,
      name="Encoder_0",
    )(x, train)
    out.update(blocks)
    x = out["encoded"] = x.astype(jnp.float32)
    if self.pool_type == "eot":
      end = jnp.argmax(text, axis=1)[:, None, None]
      x = jnp.take_along_axis(x, end, axis=1)
    x = out["pre_logits"] = x[:, -1]
    if self.num_classes:
      x = out["logits"] = nn.Dense(
        self.num_classes, use_bias=self.head_bias, name="head"
      )(x)
    return x, out

  @nn.nowrap
  def layers(self) -> list[str]:
    """The layers, see `models.layers`: embeddings, each block, the rest."""
    return [
      r"Embed_0/.*|pos_embedding",
      *(rf"Encoder_0/encoderblock(_{i})?/.*" for i in range(self.depth)),
      r"(Encoder_0/encoder_norm|head)/.*",
    ]

  @nn.nowrap
  def example_inputs(
    self, image_size: Any = None, channels: int = 3
  ) -> tuple[jax.ShapeDtypeStruct, ...]:
    """The shape of one text; the size of an image is ignored."""
    return (jax.ShapeDtypeStruct((1, self.max_len), jnp.int32),)
