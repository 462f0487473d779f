"""ConvNeXt: the originals, which are PyTorch's, and timm's copies and own."""

from collections.abc import Iterator
from typing import Any

from vitjax.weights.zoo.entry import (
  HEAD_1K,
  HEAD_22K,
  I1K,
  I22K,
  PYTORCH,
  TIMM_RESULTS,
  Entry,
  File,
  shorter_side,
  squeezed,
  timm,
)

_PAPER = "https://arxiv.org/abs/2201.03545"
_FOLDER = "https://dl.fbaipublicfiles.com/convnext"
_README = "https://github.com/facebookresearch/ConvNeXt"
_COMMON: dict[str, Any] = {
  "family": "convnext",
  "normalisation": "imagenet",
  "paper": _PAPER,
  **PYTORCH,
}

# File of a size -> timm's tag (None where timm has no copy), data, head.
_FILES = {
  "1k_224": ("fb_in1k", (I1K,), HEAD_1K),
  "1k_384": (None, (I1K,), HEAD_1K),
  "22k_224": ("fb_in22k", (I22K,), HEAD_22K),
  "22k_1k_224": ("fb_in22k_ft_in1k", (I22K, I1K), HEAD_1K),
  "22k_1k_384": ("fb_in22k_ft_in1k_384", (I22K, I1K), HEAD_1K),
}

# Top-1 of the authors, by size and file.
_TOP1 = {
  "tiny": {"1k_224": 82.1, "22k_1k_224": 82.9, "22k_1k_384": 84.1},
  "small": {"1k_224": 83.1, "22k_1k_224": 84.6, "22k_1k_384": 85.8},
  "base": {
    "1k_224": 83.8,
    "1k_384": 85.1,
    "22k_1k_224": 85.8,
    "22k_1k_384": 86.8,
  },
  "large": {
    "1k_224": 84.3,
    "1k_384": 85.5,
    "22k_1k_224": 86.6,
    "22k_1k_384": 87.5,
  },
  "xlarge": {"22k_1k_224": 87.0, "22k_1k_384": 87.8},
}
_ISOTROPIC = {"small": 78.7, "base": 82.0, "large": 82.6}

# timm's own, smaller than the paper's: tag, part kept, and top-1.
_SMALLER = {
  "atto": ("d2_in1k", 0.875, 75.672),
  "femto": ("d1_in1k", 0.875, 77.498),
  "pico": ("d1_in1k", 0.875, 79.516),
  "nano": ("d1h_in1k", 0.95, 80.762),
}


def _crop(pixels: int) -> dict:
  """At 384 pixels and more the authors squeeze the whole image."""
  return squeezed(pixels) if pixels >= 384 else shorter_side(pixels, 0.875)


def convnext() -> Iterator[Entry]:
  for size, accuracy in _TOP1.items():
    for data, (tag, names, head) in _FILES.items():
      if data != "22k_224" and data not in accuracy:
        continue
      name = f"convnext_{size}_{data}"
      averaged = data == "1k_224" or (size == "xlarge" and "22k_1k" in data)
      files = (File(f"{_FOLDER}/{name}{'_ema' if averaged else ''}.pth"),)
      facts: dict[str, Any] = {
        **_COMMON,
        **_crop(int(data[-3:])),
        "data": names,
        "top1": accuracy.get(data),
        "source": _README if data in accuracy else None,
        **head,
      }
      if tag:
        timm_name = f"convnext_{size}.{tag}"
        files = (timm(timm_name), *files)
        yield Entry(timm_name, files, f"convnext_{size}", **facts)
      yield Entry(name, files, name, licence="MIT", **facts)
  for size, top1 in _ISOTROPIC.items():
    name = f"convnext_iso_{size}_1k_224"
    yield Entry(
      name,
      (File(f"{_FOLDER}/{name}_ema.pth"),),
      name,
      licence="MIT",
      data=(I1K,),
      top1=top1,
      source=_README,
      **_crop(224),
      **_COMMON,
      **HEAD_1K,
    )
  for size, (tag, crop, top1) in _SMALLER.items():
    model = f"convnext_{size}"
    name = f"{model}.{tag}"
    yield Entry(
      name,
      (timm(name),),
      model,
      data=(I1K,),
      top1=top1,
      source=TIMM_RESULTS,
      **shorter_side(224, crop),
      **_COMMON,
      **HEAD_1K,
    )
