"""Vision Transformers of Google, except for those of AugReg's grid."""

import dataclasses
from collections.abc import Iterator
from typing import Any

from vitjax.weights.zoo.entry import (
  HEAD_1K,
  HEAD_21K,
  I1K,
  I21K,
  PYTORCH,
  TIMM_RESULTS,
  Entry,
  File,
  google,
  shorter_side,
  timm,
)

# An Image is Worth 16x16 Words.
_PAPER = "https://arxiv.org/abs/2010.11929"
_SAM = "https://arxiv.org/abs/2106.01548"
_GSAM = "https://arxiv.org/abs/2203.08065"
_BASELINES = "https://arxiv.org/abs/2205.01580"
_DEIT3 = "https://arxiv.org/abs/2204.07118"

# Pre-trained model -> timm's, whose copies lack the head, and whose name has
# timm's GELU and resizing.
_PRETRAINED = {
  "ViT-B_16": "vit_base_patch16_224",
  "ViT-B_32": "vit_base_patch32_224",
  "ViT-L_16": "vit_large_patch16_224",
  "ViT-L_32": "vit_large_patch32_224",
  "ViT-H_14": "vit_huge_patch14_224",
  "R50+ViT-B_16": "vit_base_r50_s16_224",
}

# Fine-tuned file -> model, pixels, and timm's copy with the accuracy that timm
# measured; or Google's own copy for transformers where timm has none.
_FINETUNED = {
  "ViT-B_16-224": ("ViT-B_16", 224, ("vit_base_patch16_224", 81.782)),
  "ViT-B_16": ("ViT-B_16", 384, ("vit_base_patch16_384", 84.212)),
  "ViT-B_32": ("ViT-B_32", 384, "vit-base-patch32-384"),
  "ViT-L_16-224": ("ViT-L_16", 224, "vit-large-patch16-224"),
  "ViT-L_16": ("ViT-L_16", 384, "vit-large-patch16-384"),
  "ViT-L_32": ("ViT-L_32", 384, ("vit_large_patch32_384", 81.508)),
  "R50+ViT-B_16": ("R50+ViT-B_16", 384, ("vit_base_r50_s16_384", 84.988)),
}


def originals() -> Iterator[Entry]:
  """The files of ImageNet-21k have a tanh layer, and mostly a head of zeros."""
  facts: dict[str, Any] = {"data": (I21K,), "paper": _PAPER}
  for name, timm_model in _PRETRAINED.items():
    timm_name = f"{timm_model}.orig_in21k"
    yield Entry(
      f"imagenet21k/{name}",
      (File(f"gs://vit_models/imagenet21k/{name}.npz"),),
      name,
      {**HEAD_21K["options"], "rep_size": True},
      loss=HEAD_21K["loss"],
      instead=timm_name,
      **facts,
    )
    yield Entry(
      timm_name,
      (timm(timm_name),),
      timm_model,
      {"num_classes": None},
      loss="sigmoid_xent",
      **shorter_side(224, 0.9),
      **PYTORCH,
      **facts,
    )
  folder = "imagenet21k+imagenet2012"
  facts = {"data": (I21K, I1K), "paper": _PAPER, **HEAD_1K}
  for name, (model, size, mirror) in _FINETUNED.items():
    file = File(f"gs://vit_models/{folder}/{name}.npz")
    entry = Entry(f"{folder}/{name}", (file,), model, image_size=size, **facts)
    if isinstance(mirror, str):
      yield dataclasses.replace(entry, files=(google(mirror), file))
      continue
    timm_model, top1 = mirror
    timm_name = f"{timm_model}.orig_in21k_ft_in1k"
    files = (timm(timm_name), file)
    yield dataclasses.replace(entry, files=files)
    yield Entry(
      timm_name,
      files,
      timm_model,
      top1=top1,
      source=TIMM_RESULTS,
      **shorter_side(size, 1.0 if size == 384 else 0.9),
      **PYTORCH,
      **facts,
    )


def sharpness_aware() -> Iterator[Entry]:
  """ImageNet-1k without strong augmentation: SAM, then GSAM."""
  facts: dict[str, Any] = {
    "data": (I1K,),
    "paper": _SAM,
    **HEAD_1K,
    "loss": "sigmoid_xent",
  }
  crop = shorter_side(224, 0.875)
  for name, timm_model, top1 in (
    ("ViT-B_16", "vit_base_patch16_224", 80.246),
    ("ViT-B_32", "vit_base_patch32_224", 73.704),
  ):
    timm_name = f"{timm_model}.sam_in1k"
    files = (timm(timm_name), File(f"gs://vit_models/sam/{name}.npz"))
    yield Entry(f"sam/{name}", files, name, **crop, **facts)
    yield Entry(
      timm_name,
      files,
      timm_model,
      top1=top1,
      source=TIMM_RESULTS,
      **shorter_side(224, 0.9),
      **PYTORCH,
      **facts,
    )
  facts["paper"] = _GSAM
  for size, instead in (
    ("S_16", "vit_small_patch16_224.augreg_in1k"),
    ("S_32", "vit_small_patch32_224.augreg_in21k_ft_in1k"),
    ("B_16", "vit_base_patch16_224.sam_in1k"),
    ("B_32", "vit_base_patch32_224.sam_in1k"),
  ):
    name = f"ViT-{size}-gap-norep"
    file = File(f"gs://vit_models/gsam/{name}.npz")
    entry = Entry(f"gsam/{name}", (file,), name, **crop, **facts)
    yield dataclasses.replace(entry, instead=instead)


def big_vision() -> Iterator[Entry]:
  """Better plain ViT baselines, and DeiT III for images in [-1, 1].

  DeiT III was trained with the exact GELU, which a ViT is not told apart by.
  Its LayerScale is folded into the kernels.
  """
  plain = {"variant": "S/16", "posemb": "sincos2d", "rep_size": True}
  for epochs, top1 in ((90, 76.5), (150, None), (300, None)):
    yield Entry(
      f"i1k-s16-{epochs}ep",
      (File(f"gs://big_vision/vit_s16_i1k_{epochs}ep.npz"),),
      "vit",
      {**HEAD_1K["options"], **plain},
      classes=HEAD_1K["classes"],
      data=(I1K,),
      paper=_BASELINES,
      top1=top1,
      source="https://github.com/google-research/big_vision" if top1 else None,
      **shorter_side(224, 0.875),
    )
  for letter, size in (("S", "small"), ("B", "base"), ("L", "large")):
    for pixels in (224, 384):
      for data in ("1k", "21k"):
        file = f"zoo/deit3/bv_deit_3_{size}_{pixels}_{data}.npz"
        yield Entry(
          f"deit3_{letter}_{pixels}_{data}",
          (File(f"gs://big_vision/{file}"),),
          "vit",
          {
            **HEAD_1K["options"],
            "variant": f"{letter}/16",
            "pool_type": "tok",
            "gelu": "erf",
          },
          classes=HEAD_1K["classes"],
          loss="sigmoid_xent_mean" if data == "1k" else "softmax_xent",
          data=(I1K,) if data == "1k" else (I21K, I1K),
          paper=_DEIT3,
          **shorter_side(pixels, 1.0),
          **PYTORCH,
        )
