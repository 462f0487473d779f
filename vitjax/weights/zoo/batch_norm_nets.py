"""RegNetY, and ResNets with batch normalisation: timm's files."""

from collections.abc import Iterator
from typing import Any

from vitjax.weights.zoo.entry import (
  HEAD_1K,
  I1K,
  I12K,
  PYTORCH,
  TIMM_RESULTS,
  Entry,
  shorter_side,
  timm,
)

_REGNET = "https://arxiv.org/abs/2003.13678"
_RESNET = "https://arxiv.org/abs/1512.03385"
_HEAD_12K: dict[str, Any] = {"options": {"num_classes": 11_821}}

# Data and head, by the part of the tag that names the data.
_DATA: dict[str, tuple[tuple[str, ...], dict[str, Any]]] = {
  "in1k": ((I1K,), HEAD_1K),
  "in12k": ((I12K,), _HEAD_12K),
  "in12k_ft_in1k": ((I12K, I1K), HEAD_1K),
}

# Pixels, part kept, top-1 on ImageNet-1k of those with its classes.
_FILES: dict[str, tuple[int, float, float | None]] = {
  "regnety_032.ra_in1k": (224, 0.95, 81.948),
  "regnety_032.pycls_in1k": (224, 0.875, 78.902),
  "regnety_032.tv2_in1k": (224, 0.965, 81.788),
  "regnety_040.ra3_in1k": (224, 0.95, 82.308),
  "regnety_040.pycls_in1k": (224, 0.875, 79.246),
  "regnety_064.ra3_in1k": (224, 0.95, 83.006),
  "regnety_064.pycls_in1k": (224, 0.875, 79.734),
  "regnety_080.ra3_in1k": (224, 0.95, 83.166),
  "regnety_080.pycls_in1k": (224, 0.875, 79.874),
  "regnety_120.sw_in12k": (224, 0.95, None),
  "regnety_120.sw_in12k_ft_in1k": (224, 0.95, 84.994),
  "regnety_120.pycls_in1k": (224, 0.875, 80.382),
  "regnety_160.sw_in12k": (224, 0.95, None),
  "regnety_160.sw_in12k_ft_in1k": (224, 0.95, 85.596),
  "regnety_160.lion_in12k_ft_in1k": (224, 0.95, 85.602),
  "regnety_160.deit_in1k": (224, 0.95, 83.0),
  "regnety_160.pycls_in1k": (224, 0.875, 80.284),
  "regnety_160.tv2_in1k": (224, 0.965, 82.646),
  "regnety_320.pycls_in1k": (224, 0.875, 80.796),
  "regnety_320.tv2_in1k": (224, 0.965, 83.17),
  "resnet50.a1_in1k": (224, 0.95, 80.382),
  "resnet50.gluon_in1k": (224, 0.875, 77.58),
  "resnet50.tv_in1k": (224, 0.875, 76.156),
  "resnet101.a1_in1k": (224, 0.95, 81.494),
  "resnet101.gluon_in1k": (224, 0.875, 79.306),
  "resnet101.tv_in1k": (224, 0.875, 77.404),
  "resnet152.a1_in1k": (224, 0.95, 81.998),
  "resnet152.gluon_in1k": (224, 0.875, 79.712),
  "resnet152.tv_in1k": (224, 0.875, 78.33),
  "seresnext26d_32x4d.bt_in1k": (224, 0.875, 77.592),
  "resnetaa50d.d_in12k": (224, 0.95, None),
  "resnetaa50d.sw_in12k": (224, 0.95, None),
  "resnetaa50d.sw_in12k_ft_in1k": (224, 0.95, 81.782),
  "resnetaa101d.sw_in12k": (224, 0.95, None),
  "resnetaa101d.sw_in12k_ft_in1k": (224, 0.95, 83.544),
  "seresnextaa101d_32x8d.ah_in1k": (224, 0.95, 83.9),
  "seresnextaa101d_32x8d.sw_in12k": (224, 0.95, None),
  "seresnextaa101d_32x8d.sw_in12k_ft_in1k": (224, 0.875, 85.956),
  "seresnextaa101d_32x8d.sw_in12k_ft_in1k_288": (288, 0.95, 86.53),
  "seresnextaa201d_32x8d.sw_in12k": (320, 0.95, None),
  "seresnextaa201d_32x8d.sw_in12k_ft_in1k_384": (384, 1.0, 87.304),
}
_LICENCES = {"pycls": "MIT", "tv": "BSD-3-Clause", "tv2": "BSD-3-Clause"}


def batch_norm_nets() -> Iterator[Entry]:
  for name, (size, crop, top1) in _FILES.items():
    model, _, tag = name.partition(".")
    trainer, _, rest = tag.partition("_")
    data, head = _DATA[rest.removesuffix("_288").removesuffix("_384")]
    is_regnet = model.startswith("regnet")
    fields = {**PYTORCH}
    if trainer == "tv":
      fields["interpolation"] = "bilinear"
    yield Entry(
      name,
      (timm(name),),
      model,
      family="regnet" if is_regnet else "resnet_bn",
      normalisation="imagenet",
      paper=_REGNET if is_regnet else _RESNET,
      licence=_LICENCES.get(trainer, "Apache-2.0"),
      data=data,
      top1=top1,
      source=TIMM_RESULTS if top1 else None,
      **shorter_side(size, crop),
      **head,
      **fields,
    )
