"""CoAtNet and MaxxViT-V2 of timm, which trained them."""

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
  squeezed,
  timm,
)

_PAPERS = {
  "coatnet": "https://arxiv.org/abs/2106.04803",
  "maxxvit": "https://arxiv.org/abs/2204.01697",  # MaxViT's
}
_DATA = {
  "sw_in1k": (I1K,),
  "sw_in12k": (I12K,),
  "sw_in12k_ft_in1k": (I12K, I1K),
}
_HEAD_12K: dict[str, Any] = {"options": {"num_classes": 11_821}}

# Top-1; files on ImageNet-12k alone have none.
_FILES = {
  "coatnet_0_rw_224.sw_in1k": 82.396,
  "coatnet_1_rw_224.sw_in1k": 83.620,
  "coatnet_2_rw_224.sw_in12k": None,
  "coatnet_2_rw_224.sw_in12k_ft_in1k": 86.582,
  "coatnet_3_rw_224.sw_in12k": None,
  "coatnet_rmlp_1_rw_224.sw_in1k": 83.350,
  "coatnet_rmlp_1_rw2_224.sw_in12k": None,
  "coatnet_rmlp_1_rw2_224.sw_in12k_ft_in1k": 84.940,
  "coatnet_rmlp_2_rw_224.sw_in1k": 84.608,
  "coatnet_rmlp_2_rw_224.sw_in12k": None,
  "coatnet_rmlp_2_rw_224.sw_in12k_ft_in1k": 86.538,
  "coatnet_rmlp_2_rw_384.sw_in12k_ft_in1k": 87.388,
  "maxxvitv2_nano_rw_256.sw_in1k": 83.108,
  "maxxvitv2_rmlp_base_rw_224.sw_in12k": None,
  "maxxvitv2_rmlp_base_rw_224.sw_in12k_ft_in1k": 86.640,
  "maxxvitv2_rmlp_base_rw_384.sw_in12k_ft_in1k": 87.480,
}


def maxxvit() -> Iterator[Entry]:
  for name, top1 in _FILES.items():
    model, _, tag = name.partition(".")
    family = model[:7]
    size = int(model[-3:])
    yield Entry(
      name,
      (timm(name),),
      model,
      family=family,
      data=_DATA[tag],
      paper=_PAPERS[family],
      top1=top1,
      source=TIMM_RESULTS if top1 else None,
      **(squeezed(384) if size == 384 else shorter_side(size, 0.95)),
      **(HEAD_1K if tag.endswith("in1k") else _HEAD_12K),
      **PYTORCH,
    )
