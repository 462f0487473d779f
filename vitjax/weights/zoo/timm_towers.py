"""Image towers of CLIP and SigLIP: timm's copies, and what timm fine-tuned.

timm runs the weights of OpenAI with the exact GELU, and so do the names here;
names with `quickgelu` have the form that they were trained with. Without
"_ft_" the head is the projection of the embedding, or there is none (SigLIP).
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

_CLIP_PAPER = "https://arxiv.org/abs/2103.00020"
_LAION_PAPER = "https://arxiv.org/abs/2212.07143"
_DATACOMP_PAPER = "https://arxiv.org/abs/2304.14108"
_SIGLIP_PAPER = "https://arxiv.org/abs/2303.15343"
_SIGLIP2_PAPER = "https://arxiv.org/abs/2502.14786"

# Start of a tag -> data and paper.
_TRAINED_ON = {
  "openai": ("WebImageText", _CLIP_PAPER),
  "laion2b": ("LAION-2B", _LAION_PAPER),
  "datacompxl": ("DataComp-1B", _DATACOMP_PAPER),
  "webli": ("WebLI", _SIGLIP_PAPER),
  "v2_webli": ("WebLI", _SIGLIP2_PAPER),
}

# Model and tag -> part of an image that is kept, and top-1 on ImageNet-1k.
_CLIP = {
  "vit_base_patch32_clip_224": {
    "openai": (0.9, None),
    "openai_ft_in1k": (0.9, 81.944),
    "laion2b": (0.9, None),
    "laion2b_ft_in1k": (0.9, 82.614),
    "laion2b_ft_in12k_in1k": (0.9, 83.304),
    "datacompxl": (1.0, None),
  },
  "vit_base_patch32_clip_256": {"datacompxl": (1.0, None)},
  "vit_base_patch32_clip_384": {
    "openai_ft_in12k_in1k": (0.95, 85.218),
    "laion2b_ft_in12k_in1k": (1.0, 85.398),
  },
  "vit_base_patch32_clip_448": {"laion2b_ft_in12k_in1k": (1.0, 85.792)},
  "vit_base_patch16_clip_224": {
    "openai": (0.9, None),
    "openai_ft_in1k": (0.9, 85.282),
    "openai_ft_in12k": (0.9, None),
    "openai_ft_in12k_in1k": (0.95, 85.954),
    "laion2b": (1.0, None),
    "laion2b_ft_in1k": (1.0, 85.488),
    "laion2b_ft_in12k": (0.9, None),
    "laion2b_ft_in12k_in1k": (0.95, 86.204),
    "datacompxl": (1.0, None),
  },
  "vit_base_patch16_clip_384": {
    "openai_ft_in1k": (1.0, 86.210),
    "openai_ft_in12k_in1k": (0.95, 87.030),
    "laion2b_ft_in1k": (1.0, 86.638),
    "laion2b_ft_in12k_in1k": (1.0, 87.210),
  },
  "vit_large_patch14_clip_224": {
    "openai": (1.0, None),
    "openai_ft_in1k": (1.0, 87.858),
    "openai_ft_in12k": (1.0, None),
    "openai_ft_in12k_in1k": (1.0, 88.162),
    "laion2b": (1.0, None),
    "laion2b_ft_in1k": (1.0, 87.288),
    "laion2b_ft_in12k": (1.0, None),
    "laion2b_ft_in12k_in1k": (1.0, 87.900),
    "datacompxl": (1.0, None),
  },
  "vit_large_patch14_clip_336": {
    "openai": (1.0, None),
    "openai_ft_in12k_in1k": (1.0, 88.260),
    "laion2b_ft_in1k": (1.0, 87.870),
    "laion2b_ft_in12k_in1k": (1.0, 88.190),
  },
  "vit_base_patch32_clip_quickgelu_224": {"openai": (0.9, None)},
  "vit_base_patch16_clip_quickgelu_224": {"openai": (0.9, None)},
  "vit_large_patch14_clip_quickgelu_224": {"openai": (1.0, None)},
  "vit_large_patch14_clip_quickgelu_336": {"openai": (1.0, None)},
}
# Larger than 224 px and fine-tuned, and yet not squeezed.
_CROPPED = {
  ("vit_base_patch32_clip_384", "laion2b_ft_in12k_in1k"),
  ("vit_base_patch32_clip_448", "laion2b_ft_in12k_in1k"),
}

# Model -> tags; one was fine-tuned.
_SIGLIP = {
  "vit_base_patch16_siglip_224": ("webli", "v2_webli"),
  "vit_base_patch16_siglip_256": ("webli", "v2_webli", "webli_i18n"),
  "vit_base_patch16_siglip_384": ("webli", "v2_webli"),
  "vit_base_patch16_siglip_512": ("webli", "v2_webli"),
  "vit_base_patch32_siglip_256": ("v2_webli",),
  "vit_large_patch16_siglip_256": ("webli", "v2_webli"),
  "vit_large_patch16_siglip_384": ("webli", "v2_webli"),
  "vit_large_patch16_siglip_512": ("v2_webli",),
  "vit_so400m_patch14_siglip_224": ("webli", "v2_webli"),
  "vit_so400m_patch14_siglip_378": ("webli", "v2_webli", "webli_ft_in1k"),
  "vit_so400m_patch14_siglip_384": ("webli",),
  "vit_so400m_patch16_siglip_256": ("webli_i18n", "v2_webli"),
  "vit_so400m_patch16_siglip_384": ("v2_webli",),
  "vit_so400m_patch16_siglip_512": ("v2_webli",),
}


def timm_clip() -> Iterator[Entry]:
  for model, tags in _CLIP.items():
    pixels = int(model[-3:])
    for tag, (crop, top1) in tags.items():
      corpus, paper = _TRAINED_ON[tag.partition("_")[0]]
      tuned = "_ft_" in tag
      squeeze = pixels > 256 and tuned and (model, tag) not in _CROPPED
      inception = "large" in model and tag.startswith("laion2b")
      head: dict[str, Any] = {
        "options": {"num_classes": 768 if "large" in model else 512}
      }
      if tag.endswith("in1k"):
        head = HEAD_1K
      elif tuned:
        head: dict[str, Any] = {"options": {"num_classes": 11_821}}
      yield Entry(
        f"{model}.{tag}",
        (timm(f"{model.replace('quickgelu_', '')}.{tag}"),),
        model,
        normalisation="inception" if inception else "clip",
        data=(
          corpus,
          *((I12K,) if "in12k" in tag else ()),
          *((I1K,) if tag.endswith("in1k") else ()),
        ),
        paper=paper,
        top1=top1,
        source=TIMM_RESULTS if top1 else None,
        **(squeezed if squeeze else shorter_side)(pixels, crop),
        **PYTORCH,
        **head,
      )


def timm_siglip() -> Iterator[Entry]:
  for model, tags in _SIGLIP.items():
    pixels = int(model[-3:])
    for tag in tags:
      tuned = "_ft_" in tag
      corpus, paper = _TRAINED_ON["v2_webli" if tag[:2] == "v2" else "webli"]
      yield Entry(
        f"{model}.{tag}",
        (timm(f"{model}.{tag}"),),
        model,
        data=(corpus, I1K) if tuned else (corpus,),
        paper=paper,
        top1=89.410 if tuned else None,
        source=TIMM_RESULTS if tuned else None,
        **(squeezed(pixels) if tuned else shorter_side(pixels, 0.9)),
        **PYTORCH,
        **(HEAD_1K if tuned else {"options": {}}),
      )
