"""ConvFormer and CAFormer: timm's copies of the authors' files."""

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
  "family": "metaformer",
  "normalisation": "imagenet",
  "paper": "https://arxiv.org/abs/2210.13452",
  **PYTORCH,
}

# Tag -> pixels, data, head.
_FILES: dict[str, tuple[int, tuple[str, ...], dict[str, Any]]] = {
  "sail_in1k": (224, (I1K,), HEAD_1K),
  "sail_in1k_384": (384, (I1K,), HEAD_1K),
  "sail_in22k": (224, (I22K,), HEAD_22K),
  "sail_in22k_ft_in1k": (224, (I22K, I1K), HEAD_1K),
  "sail_in22k_ft_in1k_384": (384, (I22K, I1K), HEAD_1K),
}
# Top-1 of the tags above; those of ImageNet-22k have none.
_TOP1 = {
  "caformer_s18": (83.664, 85.036, None, 84.092, 85.442),
  "caformer_s36": (84.528, 85.762, None, 85.780, 86.860),
  "caformer_m36": (85.242, 86.164, None, 86.606, 87.470),
  "caformer_b36": (85.502, 86.400, None, 87.450, 88.058),
  "convformer_s18": (82.968, 84.392, None, 83.768, 85.004),
  "convformer_s36": (84.068, 85.380, None, 85.420, 86.374),
  "convformer_m36": (84.486, 85.580, None, 86.152, 86.868),
  "convformer_b36": (84.826, 85.770, None, 86.992, 87.606),
}


def metaformer() -> Iterator[Entry]:
  for model, accuracies in _TOP1.items():
    for (tag, (size, data, head)), top1 in zip(_FILES.items(), accuracies):
      name = f"{model}.{tag}"
      yield Entry(
        name,
        (timm(name),),
        model,
        data=data,
        top1=top1,
        source=TIMM_RESULTS if top1 else None,
        **shorter_side(size, 1.0),
        **head,
        **_COMMON,
      )
