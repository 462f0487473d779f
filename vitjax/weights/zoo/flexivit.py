"""FlexiViT: Vision Transformers for all patch sizes.

The files of big_vision store a kernel of 32 pixels and a position table of
7x7, also those of the two baselines of one patch size:
https://github.com/google-research/big_vision/issues/31. timm's copies are
those files at patches of 16 pixels.
"""

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

_PAPER = "https://arxiv.org/abs/2212.08013"
_STORED = {
  "pool_type": "tok",
  "patch_kernel": 32,
  "posemb_grid": 7,
  "posemb_resize": "linear",
}
_SIZES = {"s": "small", "b": "base", "l": "large"}

# Name in the bucket -> patch size, and timm's tag.
_I21K = {
  "flexivit_b_i21k_1000ep": (16, "1000ep_in21k"),
  "flexivit_b_i21k_300ep": (16, "300ep_in21k"),
  "flexivit_b_i21k_90ep": (16, None),
  "vit_b16_i21k_300ep": (16, "patch16_in21k"),
  "vit_b30_i21k_300ep": (30, "patch30_in21k"),
}
# Epochs of the files of ImageNet-1k, and the top-1 of S, B and L that timm
# measured at patches of 16 pixels.
_I1K = {
  1200: (82.576, 84.678, 85.646),
  600: (82.388, 84.564, 85.530),
  300: (82.170, 84.402, 85.284),
  90: (None, None, None),
}


def flexivit() -> Iterator[Entry]:
  facts: dict[str, Any] = {"data": (I1K,), "paper": _PAPER}
  for epochs, accuracies in _I1K.items():
    for letter, top1 in zip(_SIZES, accuracies, strict=True):
      suffix = "" if epochs == 1200 else f"_{epochs}ep"
      name = f"flexivit_{letter}_i1k{suffix}"
      tag = f"{epochs}ep_in1k" if top1 else None
      yield from _entries(name, letter, 16, tag, top1, facts, HEAD_1K)
  facts = {"data": (I21K,), "paper": _PAPER}
  for name, (patch, tag) in _I21K.items():
    yield from _entries(name, "b", patch, tag, None, facts, HEAD_21K)


def _entries(
  name: str,
  letter: str,
  patch: int,
  tag: str | None,
  top1: float | None,
  facts: dict[str, Any],
  head: dict[str, Any],
) -> Iterator[Entry]:
  """big_vision's file, and timm's copy if `tag` names one."""
  variant = {"variant": f"{letter.upper()}/{patch}"}
  stored: dict[str, Any] = {
    **head,
    "options": {**head["options"], **variant, **_STORED},
  }
  yield Entry(
    name,
    (File(f"gs://big_vision/flexivit/{name}.npz"),),
    "vit",
    **stored,
    image_size=240,
    resize=272,
    **facts,
  )
  if tag is None:
    return
  model = f"flexivit_{_SIZES[letter]}"
  yield Entry(
    f"{model}.{tag}",
    (timm(f"{model}.{tag}"),),
    model,
    top1=top1,
    source=TIMM_RESULTS if top1 else None,
    **shorter_side(240, 0.95),
    **PYTORCH,
    **facts,
    **head,
  )
