"""An image tower and a text tower that meet in one embedding.

CLIP, https://arxiv.org/abs/2103.00020, and LiT,
https://arxiv.org/abs/2111.07991, with a softmax over the batch, and SigLIP,
https://arxiv.org/abs/2303.15343, with a sigmoid for each pair:

  logits = exp(t) * image_embedding @ text_embedding.T + b

Embeddings have norm 1. `t` is the *logarithm* of the temperature and `b`
exists for the sigmoid loss only. The losses live in `vitjax.losses`.
"""

import dataclasses
import itertools
from collections.abc import Mapping
from typing import Any, Literal

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from vitjax import models
from vitjax.config.ranges import Finite, Positive
from vitjax.models import base, common, vit


def _published(
  image: dict[str, Any], text: dict[str, Any], image_size: int, **fields
) -> dict[str, Any]:
  return {
    "fields": {"image": image, "text": text, **fields},
    "image_size": image_size,
    "max_len": text.get("max_len", 16),
  }


def _lit(
  image: str, image_head: int | None, text: dict, text_model: str
) -> dict[str, Any]:
  """A row of LiT's model card; without a head, [cls] is the embedding."""
  tower = {
    "variant": image,
    "pool_type": "tok",
    "posemb_prefix": True,
    "num_classes": image_head,
  }
  more = {"text_model": text_model, "temperature_init": 1.0}
  return _published(tower, text, 224, **more)


def _siglip(
  variant: str,
  image_size: int,
  vocab_size: int,
  *,
  text: str | None = None,
  num_classes: int | None,
  max_len: int = 64,
  scan_layers: bool = False,
) -> dict[str, Any]:
  """A published SigLIP: towers of one size unless `text` names another."""
  image_tower = {
    "variant": variant,
    "pool_type": "map",
    "scan_layers": scan_layers,
  }
  text_tower = {
    "variant": text or variant.partition("/")[0],
    "num_classes": num_classes,
    "vocab_size": vocab_size,
    "max_len": max_len,
    "scan_layers": scan_layers,
  }
  return _published(image_tower, text_tower, image_size, bias_init=-10.0)


def _clip(
  variant: str, image_size: int, embedding: int, text_width: int, gelu: str
) -> dict[str, Any]:
  """A row of table 20 of the paper; heads have a width of 64."""
  both = {
    "num_classes": embedding,
    "head_bias": False,
    "gelu": gelu,
    "layer_norm_eps": 1e-5,
  }
  image_tower = {
    "variant": variant,
    "pool_type": "tok",
    "posemb_prefix": True,
    "pre_norm": True,
    "head_zero_init": False,
    **both,
  }
  text_tower = {
    "width": text_width,
    "depth": 12,
    "num_heads": text_width // 64,
    "vocab_size": 49_408,
    "max_len": 77,
    "pool_type": "eot",
    "causal": True,
    **both,
  }
  return _published(
    image_tower, text_tower, image_size, temperature_init=1 / 0.07
  )


def _small_text(variant: str) -> dict[str, Any]:
  return {
    "variant": variant,
    "num_classes": 1024,
    "vocab_size": 16_000,
    "max_len": 16,
  }


# SigLIP 2, https://arxiv.org/abs/2502.14786: image tower, its embedding, the
# text tower and the image sizes.
_SIGLIP2 = (
  ("B/32", 768, "B", (256,)),
  ("B/16", 768, "B", (224, 256, 384, 512)),
  ("L/16", 1024, "L", (256, 384, 512)),
  ("So400m/14", 1152, "So400m", (224, 384)),
  ("So400m/16", 1152, "So400m", (256, 384, 512)),
  ("g-opt/16", 1536, "So400m", (256, 384)),
)

# CLIP by the names of OpenCLIP: image tower, image size, embedding, width of
# the text tower, parameters as counted in OpenCLIP, and the GELUs. OpenAI's
# weights have the quick one, OpenCLIP's own the exact one.
_EXACT, _QUICK = ("", "erf"), ("-quickgelu", "quick")
_CLIP = {
  "ViT-B-32": ("B/32", 224, 512, 512, 151_277_313, (_EXACT, _QUICK)),
  "ViT-B-16": ("B/16", 224, 512, 512, 149_620_737, (_EXACT, _QUICK)),
  "ViT-L-14": ("L/14", 224, 768, 768, 427_616_513, (_EXACT, _QUICK)),
  "ViT-L-14-336": ("L/14", 336, 768, 768, 427_944_193, (_QUICK,)),
}

_TABLE = {
  "LiT-B16B": _lit(
    "B/16", 768, {"variant": "base", "num_classes": 768}, "bert"
  ),
  "LiT-B16B_2": _lit(
    "B/16", None, {"variant": "base", "num_classes": 768}, "bert"
  ),
  "LiT-L16L": _lit(
    "L/16", None, {"variant": "large", "num_classes": 1024}, "bert"
  ),
  "LiT-L16S": _lit("L/16", None, _small_text("S"), "text"),
  "LiT-L16Ti": _lit("L/16", None, _small_text("Ti"), "text"),
  **{
    f"{name}{suffix}": _clip(*row[:4], gelu)
    for name, row in _CLIP.items()
    for suffix, gelu in row[-1]
  },
  **{
    f"SigLIP B/16 {size}": _siglip("B/16", size, 32_000, num_classes=768)
    for size in (224, 256, 384, 512)
  },
  **{
    f"SigLIP L/16 {size}": _siglip("L/16", size, 32_000, num_classes=1024)
    for size in (256, 384)
  },
  "SigLIP So400m/14 224": _siglip(
    "So400m/14", 224, 32_000, num_classes=1152, max_len=16
  ),
  "SigLIP So400m/14 384": _siglip("So400m/14", 384, 32_000, num_classes=1152),
  "SigLIP B/16-i18n 256": _siglip("B/16", 256, 250_000, num_classes=768),
  "SigLIP So400m/16-i18n 256": _siglip(
    "So400m/16", 256, 250_000, num_classes=None
  ),
  **{
    f"SigLIP2 {variant} {size}": _siglip(
      variant, size, 256_000, text=text, num_classes=width, scan_layers=True
    )
    for variant, width, text, sizes in _SIGLIP2
    for size in sizes
  },
}


# Counted in the published code; the last one with 64 tokens, although the
# published file lacks 48 rows of its position table.
_PARAMS = {
  "LiT-B16B": 195_871_489,
  "LiT-B16B_2": 195_280_897,
  "LiT-L16L": 638_443_521,
  "LiT-L16S": 331_140_353,
  "LiT-L16Ti": 311_913_089,
  **{
    f"{name}{suffix}": row[-2]
    for name, row in _CLIP.items()
    for suffix, _ in row[-1]
  },
  "SigLIP B/16 224": 203_155_970,
  "SigLIP So400m/14 224": 877_360_306,
}

PUBLISHED: dict[str, dict[str, Any]] = {
  name: facts | ({"params": _PARAMS[name]} if name in _PARAMS else {})
  for name, facts in _TABLE.items()
}


def decode_variant(variant: str) -> dict[str, Any]:
  """Fields of `Model` for a published name or a ViT such as "B/16".

  "B/16" is the SigLIP of that size with a vocabulary of 32,000 and 64 tokens.

  Raises:
    ValueError: if it is neither.
  """
  if variant in PUBLISHED:
    return PUBLISHED[variant]["fields"]
  width = vit.VARIANTS.get(variant.partition("/")[0], (None,))[0]
  if width is None or "/" not in variant:
    raise ValueError(
      f"variant={variant!r} is not a two-tower model. Use a ViT such as "
      f"'B/16', or one of: {', '.join(PUBLISHED)}."
    )
  return _siglip(variant, 224, 32_000, num_classes=width)["fields"]


class Model(base.ImageModel):
  """An image tower and a text tower that share one embedding space.

  `apply({"params": params}, image, text)` returns the image embedding, the
  text embedding, and a dict: the intermediate arrays of the towers under
  `img/` and `txt/`, the temperature `t` (not its logarithm) and the bias `b`.
  Either input may be None: its embedding is then None, and its parameters are
  not needed.

  Attributes:
    image: options of the image tower, as for `vitjax.models.create`. Its output
      is the embedding: set `num_classes` for a projection to that width.
    text: options of the text tower, likewise.
    image_model: family of the image tower; any but "bert", "captioner", "text"
      and "two_tower".
    text_model: family of the text tower.
    temperature_init: initial temperature, which multiplies the logits; the
      parameter `t` starts at its logarithm.
    bias_init: initial bias of the logits. None: no bias.
    dtype: type of the towers' activations, unless their options set one.
  """

  image: Mapping[str, Any] = dataclasses.field(default_factory=dict)
  text: Mapping[str, Any] = dataclasses.field(default_factory=dict)
  image_model: str = "vit"
  text_model: Literal["text", "bert"] = "text"
  temperature_init: Positive = 10.0
  bias_init: Finite | None = None
  dtype: common.Dtype = jnp.float32

  def __post_init__(self):
    if errors := [
      *models.problems(self.image_model, self.image, "image."),
      *models.problems(self.text_model, self.text, "text."),
    ]:
      raise ValueError("\n".join(errors))
    # Modules are hashable, so that `jit` can take them as static arguments.
    self.image, self.text = nn.FrozenDict(self.image), nn.FrozenDict(self.text)
    super().__post_init__()

  @nn.nowrap
  def image_tower(self) -> models.Model:
    """The module of the image tower."""
    return self._tower(self.image_model, self.image)

  @nn.nowrap
  def text_tower(self) -> models.Model:
    """The module of the text tower."""
    return self._tower(self.text_model, self.text)

  @nn.nowrap
  def _tower(self, name: str, fields: Mapping[str, Any]) -> models.Model:
    options: dict[str, Any] = {"dtype": self.dtype, **fields}
    return models.create(name, **options)

  @nn.nowrap
  def towers(self) -> dict[str, models.Model]:
    """The towers by the first parts of their parameters' names."""
    return {"img": self.image_tower(), "txt": self.text_tower()}

  def setup(self):
    self.img = self.image_tower()
    self.txt = self.text_tower()
    init = nn.initializers.constant(np.log(self.temperature_init))
    self.t = self.param("t", init, (1,), jnp.float32)
    if self.bias_init is not None:
      init = nn.initializers.constant(self.bias_init)
      self.b = self.param("b", init, (1,), jnp.float32)

  def __call__(
    self,
    image: Float[common.ArrayLike, "b h w c"] | None = None,
    text: Int[common.ArrayLike, "n t"] | None = None,
    train: bool = False,
  ) -> tuple[
    Float[Array, "b d"] | None, Float[Array, "n d"] | None, dict[str, Array]
  ]:
    if image is None and text is None:
      raise ValueError("image and text are both None. Give at least one.")
    out = self.scale()
    image_embedding = text_embedding = None
    if image is not None:
      z, more = self.img(image, train)
      out.update({f"img/{key}": value for key, value in more.items()})
      image_embedding = _normalise(z)
    if text is not None:
      z, more = self.txt(text, train)
      out.update({f"txt/{key}": value for key, value in more.items()})
      text_embedding = _normalise(z)
    if image_embedding is not None and text_embedding is not None:
      i, t = image_embedding.shape[-1], text_embedding.shape[-1]
      if i != t:
        raise ValueError(
          f"the image embedding has {i} numbers, the text embedding {t}. Set "
          "`num_classes` of one tower or of both."
        )
    return image_embedding, text_embedding, out

  def scale(self) -> dict[str, Array]:
    """The temperature `t` and, if there is one, the bias `b` of the logits."""
    out = {"t": jnp.exp(self.t)}
    if self.bias_init is not None:
      out["b"] = self.b
    return out

  @nn.nowrap
  def example_inputs(
    self, image_size: int | tuple[int, int], channels: int = 3
  ) -> tuple[jax.ShapeDtypeStruct, ...]:
    """Shapes of one image and one text: `init` needs both."""
    text = self.text_tower().example_inputs(image_size, channels)
    return base.example_image(image_size, channels), *text

  @nn.nowrap
  def layers(self) -> list[str]:
    """The layers of both towers, see `models.layers`, counted from the head.

    So equally far from the embedding means equally far from the last layer,
    and the stem of the tower with fewer blocks is not in the first layer.
    """
    towers = [
      [f"{name}/({regex})" for regex in tower.layers()]
      for name, tower in self.towers().items()
    ]
    pairs = itertools.zip_longest(*map(reversed, towers))
    layers = ["|".join(filter(None, pair)) for pair in pairs][::-1]
    return [*layers[:-1], f"{layers[-1]}|t|b"]


def _normalise(z: Float[Array, "b d"]) -> Float[Array, "b d"]:
  z = z.astype(jnp.float32)
  return z / (jnp.linalg.norm(z, axis=-1, keepdims=True) + 1e-8)
