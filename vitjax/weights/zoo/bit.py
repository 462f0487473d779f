"""Big Transfer: S and M as pre-trained, M also fine-tuned."""

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
  shorter_side,
  timm,
)

_PAPER = "https://arxiv.org/abs/1912.11370"
_FOLDER = "https://storage.googleapis.com/bit_models"

# Size -> pixels of fine-tuning, and the top-1 that timm measured after it.
_SIZES = {
  "50x1": (448, 80.386),
  "50x3": (448, 83.982),
  "101x1": (448, 82.332),
  "101x3": (448, 84.430),
  "152x2": (448, 84.468),
  "152x4": (480, 84.936),
}


def bit() -> Iterator[Entry]:
  facts: dict[str, Any] = {"family": "resnet", "paper": _PAPER}
  pytorch: dict[str, Any] = {**PYTORCH, "interpolation": "bilinear"}
  for size, (pixels, top1) in _SIZES.items():
    small, medium = f"BiT-S-R{size}", f"BiT-M-R{size}"
    file = File(f"{_FOLDER}/{small}.npz")
    yield Entry(small, (file,), small, data=(I1K,), **HEAD_1K, **facts)

    model = f"resnetv2_{size}_bit"
    timm_name = f"{model}.goog_in21k"
    files = (timm(timm_name), File(f"{_FOLDER}/{medium}.npz"))
    common: dict[str, Any] = {"data": (I21K,), **HEAD_21K, **facts}
    yield Entry(medium, files, medium, **common)
    crop = shorter_side(224, 0.875)
    yield Entry(timm_name, files, model, **crop, **pytorch, **common)

    timm_name = f"{model}.goog_in21k_ft_in1k"
    name = f"{medium}-ILSVRC2012"
    files = (timm(timm_name), File(f"{_FOLDER}/{name}.npz"))
    common = {"data": (I21K, I1K), **HEAD_1K, **facts}
    yield Entry(name, files, medium, image_size=pixels, **common)
    yield Entry(
      timm_name,
      files,
      model,
      top1=top1,
      source=TIMM_RESULTS,
      **shorter_side(pixels, 1.0),
      **pytorch,
      **common,
    )
