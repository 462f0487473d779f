"""Big Transfer: S and M as pre-trained, M also fine-tuned, and distilled."""

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


_DISTILLATION = "https://arxiv.org/abs/2106.05237"
_README = (
  "https://github.com/google-research/big_vision/blob/main/big_vision/configs/"
  "proj/distill/README.md"
)
# Data of fine-tuning -> classes.
_SMALL = {"flowers": 102, "pet": 37, "food": 101, "sun": 397}


def distilled() -> Iterator[Entry]:
  """The teachers of the paper on distillation, and its student."""
  facts: dict[str, Any] = {"family": "resnet", "paper": _DISTILLATION}
  on_1k: dict[str, Any] = {
    **facts,
    **HEAD_1K,
    **shorter_side(224, 0.875),
    "source": _README,
  }
  for name, model, data, top1 in (
    ("R152x2_T_224", "BiT-M-R152x2", (I21K, I1K), 83.0),
    ("R50x1_224", "BiT-S-R50x1", (I1K,), 82.8),
  ):
    file = File(f"{_FOLDER}/distill/{name}.npz")
    yield Entry(name, (file,), model, data=data, top1=top1, **on_1k)
  for data, num_classes in _SMALL.items():
    name = f"R152x2_T_{data}128"
    yield Entry(
      name,
      (File(f"{_FOLDER}/distill/{name}.npz"),),
      "BiT-M-R152x2",
      options={"num_classes": num_classes},
      data=(I21K, data),
      **shorter_side(128, 0.8),
      **facts,
    )
