"""Small DINOv2, DINOv3 and EVA-02 whose files are reference cases."""

import numpy as np

from tests.numerics.reference import arrays

MINI = {"width": 32, "depth": 2, "num_heads": 2, "gelu": "erf"}
DINOV2 = {**MINI, "patch_size": 14, "pool_type": "tok", "layer_scale_init": 1.0}
REGISTERS = {"num_registers": 4, "swiglu": True, "mlp_dim": 88}
DINOV3 = {
  **MINI,
  "class_token": True,
  "posemb": "rope",
  "rope_grid": "centered",
  "rope_base": 100.0,
  "key_bias": False,
  "layer_norm_eps": 1e-5,
  "layer_scale_init": 1e-5,
}
GATED = {"num_registers": 3, "swiglu": True, "mlp_dim": 64, "pool_type": "tok"}
EVA02 = {
  **MINI,
  "patch_size": 14,
  "class_token": True,
  "posemb": "learn+rope",
  "posemb_prefix": True,
  "key_bias": False,
  "swiglu": True,
  "mlp_dim": 85,
  "fc_norm": True,
}
CASES = {
  "mini_dinov2": (
    "vit",
    {**DINOV2, "posemb_prefix": True, "posemb_resize": "bicubic"},
  ),
  "mini_dinov2_reg": (
    "vit",
    {**DINOV2, **REGISTERS, "posemb_resize": "antialias"},
  ),
  "mini_dinov3": ("vit", {**DINOV3, **GATED}),
  "mini_timm_dinov3": ("vit", {**DINOV3, "num_registers": 4}),
  "mini_eva02": ("vit", {**EVA02, "mlp_norm": True}),
  "mini_eva02_fused": ("vit", EVA02),
  "mini_hf_dinov2": ("vit", {**DINOV2, "posemb_prefix": True}),
  "mini_hf_dinov2_reg": (
    "vit",
    {**DINOV2, **REGISTERS, "pool_type": "tok+gap"},
  ),
  "mini_hf_dinov3": ("vit", {**DINOV3, **GATED}),
  "mini_hf_dinov3_convnext": (
    "convnext",
    {"depths": (1, 1, 2, 1), "widths": (8, 8, 16, 16)},
  ),
  "timm_vit_small_patch14_reg4_dinov2": ("vit_small_patch14_reg4_dinov2", {}),
  "timm_vit_small_plus_patch16_dinov3": ("vit_small_plus_patch16_dinov3", {}),
  "timm_eva02_tiny_patch14_336": ("eva02_tiny_patch14_336", {}),
}
LAYOUTS = {
  "mini_dinov2": "dinov2",
  "mini_dinov2_reg": "dinov2",
  "mini_dinov3": "dinov3",
  "mini_timm_dinov3": "timm_eva",
  "mini_eva02": "timm_eva",
  "mini_eva02_fused": "timm_eva",
  "mini_hf_dinov2": "hf_dinov2",
  "mini_hf_dinov2_reg": "hf_dinov2",
  "mini_hf_dinov3": "hf_dinov3",
  "mini_hf_dinov3_convnext": "hf_dinov3_convnext",
}


def published(name: str) -> dict[str, np.ndarray]:
  """The file of a case, with the buffers that DINOv3's code stores."""
  flat = arrays(name)
  if name == "mini_dinov3":
    flat["rope_embed.periods"] = np.full(4, np.nan, np.float32)
    for i in range(2):
      mask = np.repeat(np.array([1, 0, 1], np.float32), 32)
      flat[f"blocks.{i}.attn.qkv.bias_mask"] = mask
  return flat
