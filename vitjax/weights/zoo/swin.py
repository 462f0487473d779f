"""Swin Transformers of both versions: timm's copies of Microsoft's files."""

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
  shorter_side,
  timm,
)

_COMMON: dict[str, Any] = {
  "family": "swin",
  "normalisation": "imagenet",
  "licence": "MIT",
  **PYTORCH,
}

# Model -> tag -> top-1 on ImageNet-1k, of those with its classes.
_FILES = {
  "swin_tiny_patch4_window7_224": {
    "ms_in1k": 81.388,
    "ms_in22k": None,
    "ms_in22k_ft_in1k": 80.966,
  },
  "swin_small_patch4_window7_224": {
    "ms_in1k": 83.228,
    "ms_in22k": None,
    "ms_in22k_ft_in1k": 83.330,
  },
  "swin_base_patch4_window7_224": {
    "ms_in1k": 83.604,
    "ms_in22k": None,
    "ms_in22k_ft_in1k": 85.276,
  },
  "swin_base_patch4_window12_384": {
    "ms_in1k": 84.478,
    "ms_in22k": None,
    "ms_in22k_ft_in1k": 86.442,
  },
  "swin_large_patch4_window7_224": {
    "ms_in22k": None,
    "ms_in22k_ft_in1k": 86.320,
  },
  "swin_large_patch4_window12_384": {
    "ms_in22k": None,
    "ms_in22k_ft_in1k": 87.142,
  },
  "swinv2_tiny_window8_256": {"ms_in1k": 81.824},
  "swinv2_tiny_window16_256": {"ms_in1k": 82.828},
  "swinv2_small_window8_256": {"ms_in1k": 83.844},
  "swinv2_small_window16_256": {"ms_in1k": 84.216},
  "swinv2_base_window8_256": {"ms_in1k": 84.246},
  "swinv2_base_window16_256": {"ms_in1k": 84.608},
  "swinv2_base_window12_192": {"ms_in22k": None},
  "swinv2_base_window12to16_192to256": {"ms_in22k_ft_in1k": 86.270},
  "swinv2_base_window12to24_192to384": {"ms_in22k_ft_in1k": 87.142},
  "swinv2_large_window12_192": {"ms_in22k": None},
  "swinv2_large_window12to16_192to256": {"ms_in22k_ft_in1k": 86.934},
  "swinv2_large_window12to24_192to384": {"ms_in22k_ft_in1k": 87.474},
}
_DATA = {
  "ms_in1k": (I1K,),
  "ms_in22k": (I22K,),
  "ms_in22k_ft_in1k": (I22K, I1K),
}


def swin() -> Iterator[Entry]:
  for model, tags in _FILES.items():
    size = int(model[-3:])
    version = "2111.09883" if model.startswith("swinv2") else "2103.14030"
    for tag, top1 in tags.items():
      name = f"{model}.{tag}"
      yield Entry(
        name,
        (timm(name),),
        model,
        data=_DATA[tag],
        paper=f"https://arxiv.org/abs/{version}",
        top1=top1,
        source=TIMM_RESULTS if top1 else None,
        **shorter_side(size, 1.0 if size == 384 else 0.9),
        **(HEAD_22K if tag == "ms_in22k" else HEAD_1K),
        **_COMMON,
      )
