"""timm's own ViTs: searched baselines, and before them those of `sw`.

Their sizes are between Google's. Most have registers and no class token.
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
  shorter_side,
  squeezed,
  timm,
)

_SOURCE = "https://github.com/huggingface/pytorch-image-models"
_HEAD_12K: dict[str, Any] = {
  "options": {"num_classes": 11_821},
  "loss": "sigmoid_xent",
}

# Model -> pixels, the part of an image that is kept, and for each tag the
# top-1 that timm measured.
_MODELS = {
  "vit_medium_patch16_gap_240": (240, 0.95, {"sw_in12k": None}),
  "vit_medium_patch16_gap_256": (256, 0.95, {"sw_in12k_ft_in1k": 84.442}),
  "vit_medium_patch16_gap_384": (384, 0.95, {"sw_in12k_ft_in1k": 85.556}),
  "vit_dwee_patch16_reg1_gap_256": (256, 0.95, {"sbb_nadamuon_in1k": None}),
  "vit_dpwee_patch16_reg1_gap_256": (256, 0.95, {"sbb_nadamuon_in1k": None}),
  "vit_dlittle_patch16_reg1_gap_256": (256, 0.95, {"sbb_nadamuon_in1k": None}),
  "vit_wee_patch16_reg1_gap_256": (256, 0.95, {"sbb_in1k": 80.262}),
  "vit_pwee_patch16_reg1_gap_256": (256, 0.95, {"sbb_in1k": 80.082}),
  "vit_little_patch16_reg1_gap_256": (
    256,
    0.95,
    {"sbb_in12k_ft_in1k": 83.800, "sbb_in12k": None},
  ),
  "vit_little_patch16_reg4_gap_256": (256, 0.95, {"sbb_in1k": 82.520}),
  "vit_medium_patch16_reg1_gap_256": (256, 0.95, {"sbb_in1k": 83.462}),
  "vit_medium_patch16_reg4_gap_256": (
    256,
    0.95,
    {"sbb_in12k_ft_in1k": 84.956, "sbb_in12k": None, "sbb_in1k": 83.466},
  ),
  "vit_mediumd_patch16_reg4_gap_256": (
    256,
    0.95,
    {
      "sbb2_e200_in12k_ft_in1k": 86.608,
      "sbb2_e200_in12k": None,
      "sbb_in12k_ft_in1k": 86.198,
      "sbb_in12k": None,
    },
  ),
  "vit_mediumd_patch16_reg4_gap_384": (
    384,
    1.0,
    {"sbb2_e200_in12k_ft_in1k": 87.438},
  ),
  "vit_betwixt_patch16_reg1_gap_256": (256, 0.95, {"sbb_in1k": 83.652}),
  "vit_betwixt_patch16_reg4_gap_256": (
    256,
    0.95,
    {
      "sbb2_e200_in12k_ft_in1k": 85.734,
      "sbb2_e200_in12k": None,
      "sbb_in12k_ft_in1k": 85.426,
      "sbb_in12k": None,
      "sbb_in1k": 83.710,
    },
  ),
  "vit_betwixt_patch16_reg4_gap_384": (
    384,
    1.0,
    {"sbb2_e200_in12k_ft_in1k": 86.618},
  ),
  "vit_so150m_patch16_reg4_gap_256": (
    256,
    0.95,
    {"sbb_e250_in12k_ft_in1k": 86.720, "sbb_e250_in12k": None},
  ),
  "vit_so150m_patch16_reg4_gap_384": (
    384,
    1.0,
    {"sbb_e250_in12k_ft_in1k": 87.370},
  ),
  "vit_so150m2_patch16_reg1_gap_256": (
    256,
    1.0,
    {"sbb_e200_in12k_ft_in1k": 87.318, "sbb_e200_in12k": None},
  ),
  "vit_so150m2_patch16_reg1_gap_384": (
    384,
    1.0,
    {"sbb_e200_in12k_ft_in1k": 87.932},
  ),
  "vit_so150m2_patch16_reg1_gap_448": (
    448,
    1.0,
    {"sbb_e200_in12k_ft_in1k": 88.074},
  ),
  "vit_medium_patch16_rope_reg1_gap_256": (256, 0.95, {"sbb_in1k": 83.810}),
  "vit_mediumd_patch16_rope_reg1_gap_256": (256, 0.95, {"sbb_in1k": 84.316}),
  "vit_betwixt_patch16_rope_reg4_gap_256": (256, 0.95, {"sbb_in1k": 83.906}),
  "vit_base_patch16_rope_reg1_gap_256": (256, 0.95, {"sbb_in1k": 83.872}),
}
_SQUEEZED = {"vit_medium_patch16_gap_384", "vit_so150m2_patch16_reg1_gap_448"}
_CLIP = {"vit_betwixt_patch16_rope_reg4_gap_256"}


def timm_vit() -> Iterator[Entry]:
  for model, (pixels, crop, tags) in _MODELS.items():
    resizing = squeezed if model in _SQUEEZED else shorter_side
    for tag, top1 in tags.items():
      name = f"{model}.{tag}"
      head = _HEAD_12K if tag.endswith("in12k") else HEAD_1K
      data = {"in12k_ft_in1k": (I12K, I1K), "in12k": (I12K,)}
      suffix = next((x for x in data if tag.endswith(x)), None)
      yield Entry(
        name,
        (timm(name),),
        model,
        normalisation="clip" if model in _CLIP else "inception",
        data=data[suffix] if suffix else (I1K,),
        paper=_SOURCE,
        top1=top1,
        source=TIMM_RESULTS if top1 else None,
        **resizing(pixels, crop),
        **PYTORCH,
        **head,
      )
