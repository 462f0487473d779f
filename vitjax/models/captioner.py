"""Captioner: a Vision Transformer that learns by writing captions.

Image Captioners Are Scalable Vision Learners Too,
https://arxiv.org/abs/2306.07915. The encoder reads the image; a decoder, which
is thrown away afterwards, predicts the caption from the encoded patches. Cap
predicts each token from those before it. CapPa predicts the captions of some
images in parallel: from the image alone, without any token.

The encoder is a `vit.Model` with its parameter names. The decoder's are below
"decoder". So a trained model fits the family `vit` without its decoder, and
weights of a `vit` fit this one with a new decoder. As in the published config
of CapPa, the blocks of the decoder have no biases.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from vitjax.config.ranges import Count, Probability
from vitjax.models import attention, base, common, vit
from vitjax.parallel import sharding

decode_variant = vit.decode_variant

# Options of the ViT whose parameters captions would leave as they are -> the
# only value that is allowed.
_FIXED = {"num_classes": None, "rep_size": False, "fc_norm": False}


class DecoderBlock(nn.Module):
  """Self-attention over the text, attention to the image, and an MLP."""

  mlp_dim: int
  num_heads: int
  gelu: common.Gelu
  layer_norm_eps: float
  dtype: common.Dtype

  @nn.compact
  def __call__(
    self,
    x: Float[Array, "b t d"],
    encoded: Float[Array, "b l d"],
    mask: Bool[Array, "#b 1 t t"],
    train: bool = False,
  ) -> Float[Array, "b t d"]:
    def norm(y, suffix):
      name = f"LayerNorm_{suffix}"
      eps, dtype = self.layer_norm_eps, self.dtype
      return common.layer_norm(eps, dtype, name, use_bias=False)(y)

    def attend(y, keys, name, mask=None):
      return attention.MultiHeadDotProductAttention(
        self.num_heads,
        qkv_bias=False,
        out_bias=False,
        dtype=self.dtype,
        name=name,
      )(y, keys, mask=mask)[0]

    x = sharding.constrain_batch(x)
    y = norm(x, 0)
    x = x + attend(y, y, "SelfAttention_0", mask)
    x = x + attend(norm(x, 1), encoded, "CrossAttention_0")
    return x + common.MlpBlock(
      self.mlp_dim,
      gelu=self.gelu,
      use_bias=False,
      dtype=self.dtype,
      name="MlpBlock_0",
    )(norm(x, 2), train)


class Decoder(nn.Module):
  """Predicts the tokens of a caption.

  Attributes:
    vocab_size: number of tokens.
    depth: number of blocks.
    predicts_in_parallel: whether it ever does, and has a mask token.
    mlp_dim, num_heads, gelu, layer_norm_eps, dtype: as in the encoder.
  """

  vocab_size: int
  depth: int
  predicts_in_parallel: bool
  mlp_dim: int
  num_heads: int
  gelu: common.Gelu
  layer_norm_eps: float
  dtype: common.Dtype

  @nn.compact
  def __call__(
    self,
    encoded: Float[Array, "b l d"],
    text: Int[Array, "b t"],
    parallel: Bool[Array, "b"],
    train: bool = False,
  ) -> Float[Array, "b t n"]:
    """Logits of each token.

    Args:
      encoded: tokens of the image.
      text: tokens of the caption; token 0 begins it.
      parallel: which captions to predict from the image alone: their tokens
        are all masked, and attend to each other.
      train: whether this is training.
    """
    num_tokens, width = text.shape[1], encoded.shape[-1]
    before = jnp.pad(text, ((0, 0), (1, 0)))[:, :-1]
    mask = jnp.tri(num_tokens, dtype=bool)[None, None]
    if self.predicts_in_parallel:
      before = jnp.where(parallel[:, None], self.vocab_size, before)
      mask = mask | parallel[:, None, None, None]
    x = nn.Embed(
      self.vocab_size + self.predicts_in_parallel,
      width,
      embedding_init=nn.initializers.normal(1.0),
      dtype=self.dtype,
      name="Embed_0",
    )(before)
    posemb = self.param(
      "pos_embedding",
      nn.initializers.normal(width**-0.5),
      (1, num_tokens, width),
      jnp.float32,
    )
    x = x + posemb.astype(x.dtype)
    for i in range(self.depth):
      x = DecoderBlock(
        self.mlp_dim,
        self.num_heads,
        gelu=self.gelu,
        layer_norm_eps=self.layer_norm_eps,
        dtype=self.dtype,
        name=f"block_{i}",
      )(x, encoded, mask, train)
    x = nn.LayerNorm(self.layer_norm_eps, dtype=self.dtype, name="norm")(x)
    return nn.Dense(
      self.vocab_size, kernel_init=nn.initializers.zeros, name="logits"
    )(x.astype(jnp.float32))


class Model(vit.Model):
  """A Vision Transformer with a decoder that predicts captions.

  It has the options of `vit`, too, for its encoder. The blocks of the decoder
  have its width and heads.

  Attributes:
    vocab_size: number of tokens of the tokenizer.
    max_len: number of tokens of every caption, padding included.
    decoder_depth: number of the decoder's blocks.
    parallel_share: in training, the share of captions that are predicted from
      the image alone, with all tokens masked. 0: Cap; above 0: CapPa.
  """

  vocab_size: Count = 32_000
  max_len: Count = 64
  decoder_depth: Count = 6
  parallel_share: Probability = 0.0

  def __post_init__(self):
    for name, value in _FIXED.items():
      if getattr(self, name) != value:
        raise ValueError(
          f"{name}={getattr(self, name)!r} does not fit a captioner, which "
          f"trains no head: leave it at {value}, and set it in the model that "
          "is fine-tuned."
        )
    if self.pool_type in ("map", "none") or self.distilled:
      raise ValueError(
        f"pool_type={self.pool_type!r} with distilled={self.distilled}: a "
        "captioner has pool_type 'gap', 'tok' or 'tok+gap', and no second head."
      )
    super().__post_init__()

  @nn.nowrap
  def layers(self) -> list[str]:
    """See `contract.Model`; the decoder belongs to the last layer."""
    *blocks, last = super().layers()
    return [*blocks, f"{last}|decoder/.*"]

  @nn.nowrap
  def example_inputs(
    self, image_size: int | tuple[int, int], channels: int = 3
  ) -> tuple[jax.ShapeDtypeStruct, ...]:
    """Shapes of one image and one caption: `init` needs both."""
    text = jax.ShapeDtypeStruct((1, self.max_len), jnp.int32)
    return base.example_image(image_size, channels), text

  @nn.compact
  def __call__(
    self,
    image: Float[common.ArrayLike, "b h w c"],
    text: Int[common.ArrayLike, "b t"] | None = None,
    train: bool = False,
    parallel: Bool[Array, "b"] | None = None,
  ) -> tuple[Float[Array, "..."], dict[str, Array]]:
    """Logits (b, t, n) of the tokens of captions, or features of images.

    Args:
      image, train: see `vitjax.models`.
      text: the captions. None: pooled features (b, d) are returned.
      parallel: which captions to predict from the image alone. None: none.
    """
    features, out = super().__call__(image, train)
    if text is None:
      return features, out
    text = jnp.asarray(text)
    if text.shape[1] != self.max_len:
      raise ValueError(
        f"text has {text.shape[1]} tokens, the model takes "
        f"max_len={self.max_len}. "
        f"Tokenize with max_len={self.max_len}."
      )
    if parallel is None:
      parallel = jnp.zeros(len(text), bool)
    logits = Decoder(
      self.vocab_size,
      self.decoder_depth,
      self.parallel_share > 0,
      self.mlp_dim or 4 * self.width,
      self.num_heads,
      gelu=self.gelu,
      layer_norm_eps=self.layer_norm_eps,
      dtype=self.dtype,
      name="decoder",
    )(out["encoded"].astype(self.dtype), text, parallel, train)
    return logits, out
