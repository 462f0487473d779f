"""Names under which Vision Transformers have been published.

`PUBLISHED` maps a name to the options of `vitjax.models.vit.Model`, the
resolution, and the number of parameters with 1000 classes. Files and how their
images are prepared are in `vitjax.weights.zoo`. GELU is what each name stands
for: timm runs Google's weights with the exact form although
they were trained with the tanh form, and so do timm's names here.

For weights of vision_transformer, timm and DeiT alike the position table of a
model with a class token has a row for it, except for DeiT III.
"""

from typing import Any

_TOKEN = {"pool_type": "tok", "posemb_prefix": True}
_TESTING = {
  "width": 10,
  "depth": 1,
  "mlp_dim": 10,
  "num_heads": 2,
  "dropout_rate": 0.1,
}

# An Image is Worth 16x16 Words, https://arxiv.org/abs/2010.11929; How to train
# your ViT?, https://arxiv.org/abs/2106.10270. (variant,
# parameters, other options)
_GOOGLE = {
  "ViT-Ti_16": ("Ti/16", 5_717_416, _TOKEN),
  "ViT-S_16": ("S/16", 22_050_664, _TOKEN),
  "ViT-S_32": ("S/32", 22_878_952, _TOKEN),
  "ViT-B_8": ("B/8", 86_576_872, _TOKEN),
  "ViT-B_16": ("B/16", 86_567_656, _TOKEN),
  "ViT-B_32": ("B/32", 88_224_232, _TOKEN),
  "ViT-L_16": (
    "L/16",
    304_326_632,
    {**_TOKEN, "dropout_rate": 0.1},
  ),
  "ViT-L_32": ("L/32", 306_535_400, _TOKEN),
  "ViT-H_14": ("H/14", 632_045_800, {**_TOKEN, "dropout_rate": 0.1}),
  "ViT-S_16-gap-norep": ("S/16", 22_049_896, {}),
  "ViT-S_32-gap-norep": ("S/32", 22_878_184, {}),
  "ViT-B_16-gap-norep": ("B/16", 86_566_120, {}),
  "ViT-B_32-gap-norep": ("B/32", 88_222_696, {}),
  "R+ViT-Ti_16": ("R+Ti/16", 6_337_704, _TOKEN),
  "R26+ViT-S_32": ("R26+S/32", 36_431_912, _TOKEN),
  "R26+ViT-B_32": ("R26+B/32", 101_383_976, _TOKEN),
  "R50+ViT-B_16": (
    "R50+B/16",
    98_659_112,
    {**_TOKEN, "dropout_rate": 0.1},
  ),
  "R50+ViT-L_32": (
    "R50+L/32",
    328_994_856,
    {**_TOKEN, "dropout_rate": 0.1},
  ),
  "testing": (None, 21_390, {**_TESTING, **_TOKEN}),
  "testing-unpooled": (None, 21_370, {**_TESTING, "pool_type": "none"}),
}

# timm's names of the same networks, and of DeiT (https://arxiv.org/abs/
# 2012.12877). (variant, {resolution: parameters})
_TIMM_VIT = {
  "vit_tiny_patch16": ("Ti/16", {224: 5_717_416, 384: 5_790_376}),
  "vit_small_patch16": ("S/16", {224: 22_050_664, 384: 22_196_584}),
  "vit_small_patch32": ("S/32", {224: 22_878_952, 384: 22_915_432}),
  "vit_base_patch8": ("B/8", {224: 86_576_872}),
  "vit_base_patch16": ("B/16", {224: 86_567_656, 384: 86_859_496}),
  "vit_base_patch32": ("B/32", {224: 88_224_232, 384: 88_297_192}),
  "vit_large_patch16": ("L/16", {224: 304_326_632, 384: 304_715_752}),
  "vit_large_patch32": ("L/32", {224: 306_535_400, 384: 306_632_680}),
  "vit_huge_patch14": ("H/14", {224: 632_045_800}),
  "vit_giant_patch14": ("g/14", {224: 1_012_611_432}),
  "vit_gigantic_patch14": ("G/14", {224: 1_844_440_680}),
  "vit_tiny_r_s16_p8": ("R+Ti/16", {224: 6_337_704, 384: 6_355_944}),
  "vit_small_r26_s32": ("R26+S/32", {224: 36_431_912, 384: 36_468_392}),
  "vit_base_r26_s32": ("R26+B/32", {224: 101_383_976}),
  "vit_base_r50_s16": ("R50+B/16", {224: 98_659_112, 384: 98_950_952}),
  "vit_large_r50_s32": ("R50+L/32", {224: 328_994_856, 384: 329_092_136}),
  "deit_tiny_patch16": ("Ti/16", {224: 5_717_416}),
  "deit_small_patch16": ("S/16", {224: 22_050_664}),
  "deit_base_patch16": ("B/16", {224: 86_567_656, 384: 86_859_496}),
}

# DeiT with its token of distillation and a second head.
_DEIT_DISTILLED = {
  "deit_tiny_distilled_patch16": ("Ti/16", {224: 5_910_800}),
  "deit_small_distilled_patch16": ("S/16", {224: 22_436_432}),
  "deit_base_distilled_patch16": (
    "B/16",
    {224: 87_338_192, 384: 87_630_032},
  ),
}

# DeiT III, https://arxiv.org/abs/2204.07118: the class token has no position,
# and every block the same rate of stochastic depth. LayerScale starts at 1e-4
# as in the paper's code; timm starts it at 1e-6.
_DEIT3 = {
  "deit3_small_patch16": ("S/16", {224: 22_059_496, 384: 22_205_416}),
  "deit3_medium_patch16": ("M/16", {224: 38_849_512}),
  "deit3_base_patch16": ("B/16", {224: 86_585_320, 384: 86_877_160}),
  "deit3_large_patch16": ("L/16", {224: 304_374_760, 384: 304_763_880}),
  "deit3_huge_patch14": ("H/14", {224: 632_126_440}),
}

# timm's copies of FlexiViT, at patches of 16 pixels. (variant, parameters)
_FLEXIVIT = {
  "flexivit_small": ("S/16", 22_061_416),
  "flexivit_base": ("B/16", 86_589_160),
  "flexivit_large": ("L/16", 304_355_304),
}

# timm's searched baselines: no class token, registers, LayerScale, and the
# norm after the pooling. (width, depth, heads, mlp_dim, registers, {resolution:
# parameters}, other options)
_LS5 = {"layer_scale_init": 1e-5}
_SBB = {**_LS5, "fc_norm": True}
_PARALLEL = {**_SBB, "parallel": True}
_DIFFERENTIAL = {**_SBB, "differential": True}
_PREFIX = {"posemb_prefix": True}
_PREFIX_NO_BIAS = {**_SBB, **_PREFIX, "qkv_bias": False}
_SW = {"layer_scale_init": 1e-6, "qkv_bias": False}
_TIMM_GAP = {
  "vit_wee_patch16_reg1_gap": (
    (256, 14, 4, 1280, 1),
    {256: 13_422_568},
    _SBB,
  ),
  "vit_pwee_patch16_reg1_gap": (
    (256, 16, 4, 1280, 1),
    {256: 15_253_480},
    _PARALLEL,
  ),
  "vit_dwee_patch16_reg1_gap": (
    (256, 14, 4, 1280, 1),
    {256: 13_425_256},
    _DIFFERENTIAL,
  ),
  "vit_dpwee_patch16_reg1_gap": (
    (256, 16, 4, 1280, 1),
    {256: 15_252_456},
    {**_PARALLEL, **_DIFFERENTIAL},
  ),
  "vit_dlittle_patch16_reg1_gap": (
    (320, 14, 5, 1792, 1),
    {256: 22_517_736},
    _DIFFERENTIAL,
  ),
  "vit_little_patch16_reg1_gap": (
    (320, 14, 5, 1792, 1),
    {256: 22_515_048},
    _SBB,
  ),
  "vit_little_patch16_reg4_gap": (
    (320, 14, 5, 1792, 4),
    {256: 22_516_008},
    _SBB,
  ),
  "vit_medium_patch16_reg1_gap": (
    (512, 12, 8, 2048, 1),
    {256: 38_880_232},
    _SBB,
  ),
  "vit_medium_patch16_reg4_gap": (
    (512, 12, 8, 2048, 4),
    {256: 38_881_768},
    _SBB,
  ),
  "vit_mediumd_patch16_reg4_gap": (
    (512, 20, 8, 2048, 4),
    {256: 64_109_032, 384: 64_272_872},
    _SBB,
  ),
  "vit_betwixt_patch16_reg1_gap": (
    (640, 12, 10, 2560, 1),
    {256: 60_396_520},
    _SBB,
  ),
  "vit_betwixt_patch16_reg4_gap": (
    (640, 12, 10, 2560, 4),
    {256: 60_398_440, 384: 60_603_240},
    _SBB,
  ),
  "vit_base_patch16_reg4_gap": (
    (768, 12, 12, 3072, 4),
    {256: 86_615_272},
    {"fc_norm": True},
  ),
  "vit_so150m_patch16_reg4_gap": (
    (896, 18, 14, 2304, 4),
    {256: 134_131_560, 384: 134_418_280},
    _PREFIX,
  ),
  "vit_so150m_patch16_reg4_map": (
    (896, 18, 14, 2304, 4),
    {256: 141_481_064},
    {**_PREFIX, "pool_type": "map"},
  ),
  "vit_so150m2_patch16_reg1_gap": (
    (832, 21, 13, 2176, 1),
    {256: 136_059_560, 384: 136_325_800, 448: 136_498_856},
    _PREFIX_NO_BIAS,
  ),
  "vit_medium_patch16_gap": (
    (512, 12, 8, 2048, 0),
    {240: 38_845_416, 256: 38_861_288, 384: 39_025_128},
    _SW,
  ),
  "vit_betwixt_patch16_gap": ((640, 12, 10, 2560, 0), {256: 60_372_840}, _SW),
}
# With rotary embeddings, which are timm's class `Eva`.
_ROPE = {**_SBB, "posemb": "rope", "key_bias": False}
_TIMM_GAP |= {
  "vit_medium_patch16_rope_reg1_gap": (
    (512, 12, 8, 2048, 1),
    {256: 38_743_016},
    _ROPE,
  ),
  "vit_mediumd_patch16_rope_reg1_gap": (
    (512, 20, 8, 2048, 1),
    {256: 63_945_704},
    {**_ROPE, "qkv_bias": False},
  ),
  "vit_betwixt_patch16_rope_reg4_gap": (
    (640, 12, 10, 2560, 4),
    {256: 60_226_920},
    _ROPE,
  ),
  "vit_base_patch16_rope_reg1_gap": (
    (768, 12, 12, 3072, 1),
    {256: 86_425_576},
    _ROPE,
  ),
}

# DINOv2, https://arxiv.org/abs/2304.07193: without registers, and with 4 of
# them, where neither they nor the class token have a position. LayerScale
# starts at 1e-5. (variant, options, parameters without and with registers)
_DINOV2 = {
  "small": ("S/14", {}, 22_441_192, 22_442_344),
  "base": ("B/14", {}, 87_348_712, 87_351_016),
  "large": ("L/14", {}, 305_392_616, 305_395_688),
  "giant": (
    "g-opt/14",
    {"mlp_dim": 4096, "num_heads": 24, "swiglu": True},
    1_138_016_232,
    1_138_020_840,
  ),
}

# DINOv3, https://arxiv.org/abs/2508.10104, and its code's `hub`. The biases of
# query and value are zeros in the files; models called "qkvb" have them.
# Pooling is timm's, the mean of the patches; the authors' is the class token.
# (shape, options, parameters without and with biases)
_DINOV3 = {
  "small": ((384, 12, 6, 1536), {}, 21_971_944, 21_981_160),
  "small_plus": (
    (384, 12, 6, 1536),
    {"swiglu": True},
    29_068_264,
    29_077_480,
  ),
  "base": ((768, 12, 12, 3072), {}, 86_410_216, 86_428_648),
  "large": ((1024, 24, 16, 4096), {}, 304_104_424, 304_153_576),
  "huge_plus": (
    (1280, 32, 20, 5120),
    {"swiglu": True},
    841_790_440,
    841_872_360,
  ),
  "7b": ((4096, 40, 32, 8192), {"swiglu": True}, 6_720_127_976, None),
}

# EVA-02, https://arxiv.org/abs/2303.11331. (shape, whether there is a
# norm in the MLP, {resolution: parameters})
_EVA02 = {
  "tiny": ((192, 12, 3, 512), False, {224: 5_695_144, 336: 5_756_584}),
  "small": ((384, 12, 6, 1024), False, {224: 22_006_120, 336: 22_129_000}),
  "base": ((768, 12, 12, 2048), True, {224: 86_527_720, 448: 87_117_544}),
  "large": ((1024, 24, 16, 2730), True, {224: 304_293_800, 448: 305_080_232}),
}
_SHAPE = ("width", "depth", "num_heads", "mlp_dim")

# Image towers of CLIP and SigLIP, https://arxiv.org/abs/2103.00020 and
# https://arxiv.org/abs/2303.15343, as timm runs them. (variant, GELU,
# {resolution: parameters})
_CLIP = {
  "pool_type": "tok",
  "posemb_prefix": True,
  "pre_norm": True,
  "layer_norm_eps": 1e-5,
}
_TIMM_CLIP = {
  "vit_base_patch32_clip": (
    "B/32",
    "erf",
    {224: 88_225_000, 256: 88_236_520, 384: 88_297_960, 448: 88_337_896},
  ),
  "vit_base_patch16_clip": ("B/16", "erf", {224: 86_568_424, 384: 86_860_264}),
  "vit_large_patch14_clip": (
    "L/14",
    "erf",
    {224: 304_204_776, 336: 304_532_456},
  ),
  "vit_base_patch32_clip_quickgelu": ("B/32", "quick", {224: 88_225_000}),
  "vit_base_patch16_clip_quickgelu": ("B/16", "quick", {224: 86_568_424}),
  "vit_large_patch14_clip_quickgelu": (
    "L/14",
    "quick",
    {224: 304_204_776, 336: 304_532_456},
  ),
}
_TIMM_SIGLIP = {
  "vit_base_patch16_siglip": (
    "B/16",
    "erf",
    {224: 93_653_224, 256: 93_699_304, 384: 93_945_064, 512: 94_289_128},
  ),
  "vit_base_patch32_siglip": ("B/32", "tanh", {256: 95_321_320}),
  "vit_large_patch16_siglip": (
    "L/16",
    "erf",
    {256: 316_981_224, 384: 317_308_904},
  ),
  "vit_so400m_patch14_siglip": (
    "So400m/14",
    "erf",
    {224: 428_833_704, 378: 429_378_600, 384: 429_378_600},
  ),
  "vit_so400m_patch16_siglip": (
    "So400m/16",
    "tanh",
    {256: 429_041_064, 384: 429_409_704, 512: 429_925_800},
  ),
}


def _published() -> dict[str, dict[str, Any]]:
  table = {}

  def add(name, fields, size, params):
    table[name] = {"fields": fields, "image_size": size, "params": params}

  for name, (variant, params, options) in _GOOGLE.items():
    fields = {"variant": variant, **options} if variant else options
    add(name, fields, 224, params)
  for name, (variant, sizes) in _TIMM_VIT.items():
    for size, params in sizes.items():
      fields = {"variant": variant, **_TOKEN, "gelu": "erf"}
      add(f"{name}_{size}", fields, size, params)
  for name, (variant, sizes) in _DEIT_DISTILLED.items():
    for size, params in sizes.items():
      fields = {"variant": variant, **_TOKEN, "gelu": "erf"}
      fields |= {"num_registers": 1, "distilled": True}
      add(f"{name}_{size}", fields, size, params)
  for name, (variant, sizes) in _DEIT3.items():
    for size, params in sizes.items():
      fields = {
        "variant": variant,
        "pool_type": "tok",
        "gelu": "erf",
        "layer_scale_init": 1e-4,
        "drop_path_schedule": "constant",
      }
      add(f"{name}_{size}", fields, size, params)
  for name, (variant, params) in _FLEXIVIT.items():
    fields = {
      "variant": variant,
      "pool_type": "tok",
      "patch_kernel": 16,
      "posemb_grid": 15,
      "posemb_resize": "antialias",
      "gelu": "erf",
    }
    add(name, fields, 240, params)
  for towers, options in (
    (_TIMM_CLIP, _CLIP),
    (_TIMM_SIGLIP, {"pool_type": "map"}),
  ):
    for name, (variant, gelu, sizes) in towers.items():
      for size, params in sizes.items():
        fields = {"variant": variant, "gelu": gelu, **options}
        add(f"{name}_{size}", fields, size, params)
  fields = {"variant": "L/16", "gelu": "tanh", "pool_type": "map"}
  add("vit_large_patch16_siglip_512", fields, 512, 317_767_656)
  for name, (shape, sizes, options) in _TIMM_GAP.items():
    columns = ("width", "depth", "num_heads", "mlp_dim", "num_registers")
    for size, params in sizes.items():
      fields = {**dict(zip(columns, shape)), "gelu": "erf", **options}
      add(f"{name}_{size}", fields, size, params)
  for size, (variant, options, plain, with_registers) in _DINOV2.items():
    fields = {
      "variant": variant,
      "pool_type": "tok",
      "gelu": "erf",
      **_LS5,
      **options,
    }
    resize = {"posemb_prefix": True, "posemb_resize": "bicubic"}
    add(f"vit_{size}_patch14_dinov2", {**fields, **resize}, 518, plain)
    resize = {"num_registers": 4, "posemb_resize": "antialias"}
    name = f"vit_{size}_patch14_reg4_dinov2"
    add(name, {**fields, **resize}, 518, with_registers)
  for size, (shape, options, plain, with_biases) in _DINOV3.items():
    fields = {
      **dict(zip(_SHAPE, shape)),
      "class_token": True,
      "num_registers": 4,
      "posemb": "rope",
      "rope_grid": "centered",
      "rope_base": 100.0,
      "rope_rescale": 2.0,
      "gelu": "erf",
      "layer_norm_eps": 1e-5,
      **_LS5,
      **options,
    }
    name = f"vit_{size}_patch16_dinov3"
    add(name, {**fields, "qkv_bias": False}, 256, plain)
    if with_biases is not None:
      add(f"{name}_qkvb", {**fields, "key_bias": False}, 256, with_biases)
  for size, (shape, mlp_norm, sizes) in _EVA02.items():
    for pixels, params in sizes.items():
      fields = {
        **dict(zip(_SHAPE, shape)),
        "patch_size": 14,
        "class_token": True,
        "posemb": "learn+rope",
        "posemb_prefix": True,
        "posemb_resize": "antialias",
        "key_bias": False,
        "swiglu": True,
        "mlp_norm": mlp_norm,
        "fc_norm": True,
      }
      add(f"eva02_{size}_patch14_{pixels}", fields, pixels, params)
  return table


PUBLISHED = _published()
