"""DeiT and DeiT III: the originals, which are PyTorch's, and timm's copies."""

from collections.abc import Iterator
from typing import Any

from vitjax.weights.zoo.entry import (
  HEAD_1K,
  I1K,
  I21K,
  PYTORCH,
  TIMM_RESULTS,
  Entry,
  File,
  shorter_side,
  timm,
)

_DEIT = "https://arxiv.org/abs/2012.12877"
_DEIT3 = "https://arxiv.org/abs/2204.07118"
_FOLDER = "https://dl.fbaipublicfiles.com/deit"
_README = "https://github.com/facebookresearch/deit"
_COMMON: dict[str, Any] = {"normalisation": "imagenet", **HEAD_1K, **PYTORCH}

# Model, pixels, start of the original file's sha256 (which ends its name, and
# which the authors' code checks), top-1 of the authors and of timm.
_DEIT_FILES = (
  ("deit_tiny_patch16_224", 224, "a1311bcf", 72.2, 72.190),
  ("deit_small_patch16_224", 224, "cd65a155", 79.9, 79.856),
  ("deit_base_patch16_224", 224, "b5f2ef4d", 81.8, 81.980),
  ("deit_base_patch16_384", 384, "8de9b5d1", 82.9, 83.108),
  ("deit_tiny_distilled_patch16_224", 224, "b40b3cf7", 74.5, 74.538),
  ("deit_small_distilled_patch16_224", 224, "649709d9", 81.2, 81.204),
  ("deit_base_distilled_patch16_224", 224, "df68dfff", 83.4, 83.384),
  ("deit_base_distilled_patch16_384", 384, "d0272ac0", 85.2, 85.438),
)

# Size and patch, pixels, top-1 of the authors and of timm: trained on
# ImageNet-1k alone, and first on ImageNet-21k.
_DEIT3_FILES = (
  ("small", 16, 224, (81.4, 81.382), (83.1, 83.082)),
  ("small", 16, 384, (83.4, 83.432), (84.8, 84.846)),
  ("medium", 16, 224, (83.0, 83.090), (84.5, 84.550)),
  ("base", 16, 224, (83.8, 83.800), (85.7, 85.728)),
  ("base", 16, 384, (85.0, 85.088), (86.7, 86.742)),
  ("large", 16, 224, (84.9, 84.772), (87.0, 86.990)),
  ("large", 16, 384, (85.8, 85.820), (87.7, 87.736)),
  ("huge", 14, 224, (85.2, 85.204), (87.2, 87.180)),
)


def deit() -> Iterator[Entry]:
  facts: dict[str, Any] = {"data": (I1K,), "paper": _DEIT, **_COMMON}
  for model, pixels, start, top1, timm_top1 in _DEIT_FILES:
    timm_name = f"{model}.fb_in1k"
    original = File(f"{_FOLDER}/{model}-{start}.pth", sha256=start)
    files = (timm(timm_name), original)
    yield Entry(
      model,
      files,
      model,
      top1=top1,
      source=_README,
      **shorter_side(pixels, 0.875),
      **facts,
    )
    yield Entry(
      timm_name,
      files,
      model,
      top1=timm_top1,
      source=TIMM_RESULTS,
      **shorter_side(pixels, 0.9 if pixels == 224 else 1.0),
      **facts,
    )


def deit3() -> Iterator[Entry]:
  """timm crops those of 224 pixels that saw ImageNet-1k alone."""
  for size, patch, pixels, on_1k, on_21k in _DEIT3_FILES:
    model = f"deit3_{size}_patch{patch}_{pixels}"
    for tag, timm_tag, data, accuracy, loss in (
      ("1k", "fb_in1k", (I1K,), on_1k, "sigmoid_xent_mean"),
      ("21k", "fb_in22k_ft_in1k", (I21K, I1K), on_21k, "softmax_xent"),
    ):
      name, timm_name = f"deit_3_{size}_{pixels}_{tag}", f"{model}.{timm_tag}"
      version = "_v1" if (size, tag) == ("huge", "21k") else ""
      files = (timm(timm_name), File(f"{_FOLDER}/{name}{version}.pth"))
      facts: dict[str, Any] = {
        **_COMMON,
        "data": data,
        "paper": _DEIT3,
        "loss": loss,
      }
      timm_crop = 0.9 if (pixels, tag) == (224, "1k") else 1.0
      for entry, crop, top1, source in (
        (name, 1.0, accuracy[0], _README),
        (timm_name, timm_crop, accuracy[1], TIMM_RESULTS),
      ):
        yield Entry(
          entry,
          files,
          model,
          top1=top1,
          source=source,
          **shorter_side(pixels, crop),
          **facts,
        )
