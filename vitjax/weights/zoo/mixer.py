"""MLP-Mixer, https://arxiv.org/abs/2105.01601; no other size fits a file."""

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

_PAPER = "https://arxiv.org/abs/2105.01601"
_SAM = "https://arxiv.org/abs/2106.01548"
_GSAM = "https://arxiv.org/abs/2203.08065"
_SIGMOID_1K: dict[str, Any] = {**HEAD_1K, "loss": "sigmoid_xent"}

# Folder, head, data, paper, files and the part of an image that is kept.
_ORIGINALS = (
  ("imagenet1k", _SIGMOID_1K, (I1K,), _PAPER, ("B_16", "L_16"), None),
  ("imagenet21k", HEAD_21K, (I21K,), _PAPER, ("B_16", "L_16"), None),
  ("sam", _SIGMOID_1K, (I1K,), _SAM, ("B_16", "B_32"), 0.875),
  ("gsam", _SIGMOID_1K, (I1K,), _GSAM, ("B_16", "B_32"), 0.875),
)

# timm's copies: tag, head, data, and top-1 of B/16 and L/16 as timm measured.
_TIMM = (
  (
    "goog_in21k_ft_in1k",
    HEAD_1K,
    (I21K, I1K),
    {"b16": 76.616, "l16": 72.084},
  ),
  ("goog_in21k", HEAD_21K, (I21K,), {"b16": None, "l16": None}),
)


def mixer() -> Iterator[Entry]:
  for folder, head, data, paper, sizes, crop in _ORIGINALS:
    for size in sizes:
      name = f"Mixer-{size}"
      yield Entry(
        f"{folder}/{name}",
        (File(f"gs://mixer_models/{folder}/{name}.npz"),),
        name,
        family="mixer",
        data=data,
        paper=paper,
        **(shorter_side(224, crop) if crop else {}),
        **head,
      )
  for tag, head, data, accuracy in _TIMM:
    for size, top1 in accuracy.items():
      model = f"mixer_{size}_224"
      name = f"{model}.{tag}"
      yield Entry(
        name,
        (timm(name),),
        model,
        family="mixer",
        data=data,
        paper=_PAPER,
        top1=top1,
        source=TIMM_RESULTS if top1 else None,
        **shorter_side(224, 0.875),
        **PYTORCH,
        **head,
      )
