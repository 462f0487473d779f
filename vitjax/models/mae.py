"""Masked autoencoder: a Vision Transformer that learns without labels.

Masked Autoencoders Are Scalable Vision Learners,
https://arxiv.org/abs/2111.06377. The encoder reads a quarter of the patches of
an image; a small decoder, which is thrown away afterwards, predicts the pixels
of the others.

The encoder is a `vit.Model` with its parameter names. The decoder's are below
"decoder". So a trained model fits the family `vit` without its decoder, and
weights of a `vit` fit this one with a new decoder. The decoder's blocks are
those of the ViT paper, and it also reads the class token and the registers. Its
positions are `common.posemb_sincos_2d`, whose frequencies differ from the
published ones.
"""

from collections.abc import Sequence
from typing import Annotated

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from vitjax.config.ranges import Count, Range
from vitjax.models import attention, common, vit
from vitjax.models.attention import Implementation

decode_variant = vit.decode_variant

# Options of the ViT whose parameters masked training would leave as they are,
# or by which masked patches could be seen -> the only value that is allowed.
_FIXED = {
  "num_classes": None,
  "rep_size": False,
  "fc_norm": False,
  "stem": None,
  "naflex": False,
}


class Decoder(nn.Module):
  """Predicts the pixels of all patches from the tokens of some.

  Attributes:
    width: channels of the decoder.
    depth: number of transformer blocks.
    num_heads: attention heads of each block.
    patch_values: pixels of a patch times channels.
    gelu, layer_norm_eps, attention, scan_layers, remat, dtype: as in the
      encoder.
  """

  width: int
  depth: int
  num_heads: int
  patch_values: int
  gelu: common.Gelu
  layer_norm_eps: float
  attention: Implementation
  scan_layers: bool
  remat: vit.Remat
  dtype: common.Dtype

  @nn.compact
  def __call__(
    self,
    prefix: Float[Array, "b p d"],
    patches: Float[Array, "b k d"],
    order: Int[Array, "b l"],
    grid: tuple[int, int],
    train: bool = False,
  ) -> Float[Array, "b l n"]:
    """Predictions in the order of the image.

    Args:
      prefix: encoded class token and registers.
      patches: encoded patches, the first of `order`.
      order: see `Model`.
      grid: rows and columns of patches.
      train: whether this is training.
    """
    num_prefix, num_kept = prefix.shape[1], patches.shape[1]
    x = jnp.concatenate([prefix, patches], axis=1)
    x = nn.Dense(self.width, dtype=self.dtype, name="embedding")(x)
    token = self.param(
      "mask_token", nn.initializers.normal(0.02), (1, 1, self.width)
    )
    masked = jnp.broadcast_to(
      token.astype(x.dtype), (len(x), order.shape[1] - num_kept, self.width)
    )
    patches = jnp.concatenate([x[:, num_prefix:], masked], axis=1)
    back = jnp.argsort(order, axis=1)[..., None]
    patches = jnp.take_along_axis(patches, back, axis=1)
    patches += common.posemb_sincos_2d(*grid, self.width).astype(x.dtype)
    x = jnp.concatenate([x[:, :num_prefix], patches], axis=1)
    x, _ = vit.Encoder(
      self.depth,
      block={
        "mlp_dim": 4 * self.width,
        "num_heads": self.num_heads,
        "attention": self.attention,
        "gelu": self.gelu,
      },
      scan_layers=self.scan_layers,
      remat=self.remat,
      layer_norm_eps=self.layer_norm_eps,
      dtype=self.dtype,
      name="Transformer",
    )(x, train)
    x = x[:, num_prefix:].astype(jnp.float32)
    return nn.Dense(self.patch_values, name="pixels")(x)


class Model(vit.Model):
  """A Vision Transformer with a decoder that predicts masked patches.

  It has the options of `vit`, too, for its encoder.

  Attributes:
    mask_ratio: share of the patches that are masked.
    decoder_width: channels of the decoder; a multiple of 4 and of
      `decoder_num_heads`.
    decoder_depth: number of the decoder's blocks.
    decoder_num_heads: attention heads of each block of the decoder.
  """

  mask_ratio: Annotated[float, Range(gt=0, lt=1)] = 0.75
  decoder_width: Count = 512
  decoder_depth: Count = 8
  decoder_num_heads: Count = 16

  def __post_init__(self):
    attention.check_heads(self.decoder_width, self.decoder_num_heads)
    for name, value in _FIXED.items():
      if getattr(self, name) != value:
        raise ValueError(
          f"{name}={getattr(self, name)!r} does not fit a masked autoencoder, "
          f"which trains no head and must not mix patches before it masks "
          f"them: leave it at {value}, and set it in the model that is "
          "fine-tuned."
        )
    if self.pool_type in ("map", "none") or "rope" in self.posemb:
      raise ValueError(
        f"pool_type={self.pool_type!r} with posemb={self.posemb!r}: a masked "
        "autoencoder has pool_type 'gap', 'tok' or 'tok+gap', and posemb "
        "'learn' or 'sincos2d'."
      )
    super().__post_init__()

  @nn.nowrap
  def layers(self) -> list[str]:
    """See `contract.Model`; the decoder belongs to the last layer."""
    *blocks, last = super().layers()
    return [*blocks, f"{last}|decoder/.*"]

  @nn.nowrap
  def num_kept(self, num_patches: int) -> int:
    """How many patches of an image the encoder reads in training.

    Raises:
      ValueError: if none would be read, or all.
    """
    kept = int(num_patches * (1 - self.mask_ratio))
    if not 0 < kept < num_patches:
      raise ValueError(
        f"mask_ratio={self.mask_ratio} leaves {kept} of the {num_patches} "
        f"patches of an image. Use smaller patches than patch_size="
        f"{self.patch_size}, larger images, or another mask_ratio."
      )
    return kept

  @nn.nowrap
  def grid(self, shape: Sequence[int]) -> tuple[int, int]:
    """Rows and columns of patches of images of shape (b, h, w, c)."""
    return shape[1] // self.patch_size, shape[2] // self.patch_size

  @nn.nowrap
  def draw_order(
    self, key: jax.Array, shape: Sequence[int]
  ) -> Int[Array, "b l"]:
    """The patches of each image in random order, for images of this shape."""
    rows, columns = self.grid(shape)
    noise = jax.random.uniform(key, (shape[0], rows * columns))
    return jnp.argsort(noise, axis=1)

  @nn.nowrap
  def patches(
    self, image: Float[common.ArrayLike, "b h w c"]
  ) -> Float[Array, "b l n"]:
    """The pixels of each patch, by row, column and channel."""
    (b, _, _, c), p = image.shape, self.patch_size
    h, w = self.grid(image.shape)
    x = jnp.asarray(image)[:, : h * p, : w * p].reshape(b, h, p, w, p, c)
    return x.swapaxes(2, 3).reshape(b, h * w, p * p * c)

  @nn.compact
  def __call__(
    self,
    image: Float[common.ArrayLike, "b h w c"],
    train: bool = False,
    order: Int[Array, "b l"] | None = None,
  ) -> tuple[Float[Array, "..."], dict[str, Array]]:
    """Predictions of all patches, or the features of a whole image.

    Args:
      image, train: see `vitjax.models`.
      order: the patches of each image in random order: the encoder reads the
        first of them, and `out["is_masked"]` says which it does not. None: it
        reads all, and pooled features (b, d) are returned; no patch is
        predicted.
    """
    rows, columns = self.grid(image.shape)
    if order is None and self.is_initializing():
      order = jnp.broadcast_to(
        jnp.arange(rows * columns), (len(image), rows * columns)
      )
    if order is None:
      return super().__call__(image, train)
    num_kept = self.num_kept(rows * columns)
    _, out = super().__call__(image, train, order[:, :num_kept])
    num_prefix = self.has_class_token + self.num_registers
    tokens = out["encoded"].astype(self.dtype)
    predictions = Decoder(
      self.decoder_width,
      self.decoder_depth,
      self.decoder_num_heads,
      self.patch_size**2 * image.shape[-1],
      gelu=self.gelu,
      layer_norm_eps=self.layer_norm_eps,
      attention=self.attention,
      scan_layers=self.scan_layers,
      remat=self.remat,
      dtype=self.dtype,
      name="decoder",
    )(
      tokens[:, :num_prefix],
      tokens[:, num_prefix:],
      order,
      (rows, columns),
      train,
    )
    out["is_masked"] = jnp.argsort(order, axis=1) >= num_kept
    return predictions, out
