"""Tables of published models, for docs/choose.md.

This file chooses the models. Their facts are in `vitjax.weights.zoo`, their
numbers of parameters in `vitjax.models`.
"""

from scripts.update_docs import options
from vitjax import models
from vitjax.weights import zoo

CLASSIFIERS = (
  "deit_tiny_patch16_224.fb_in1k",
  "vit_tiny_patch16_384.augreg_in21k_ft_in1k",
  "vit_tiny_r_s16_p8_384.augreg_in21k_ft_in1k",
  "vit_wee_patch16_reg1_gap_256.sbb_in1k",
  "deit_small_patch16_224.fb_in1k",
  "caformer_s18.sail_in1k",
  "deit3_small_patch16_224.fb_in22k_ft_in1k",
  "vit_small_patch16_384.augreg_in21k_ft_in1k",
  "vit_little_patch16_reg1_gap_256.sbb_in12k_ft_in1k",
  "vit_small_patch32_384.augreg_in21k_ft_in1k",
  "resnet50.a1_in1k",
  "swin_tiny_patch4_window7_224.ms_in1k",
  "convnext_tiny.fb_in1k",
  "convnext_tiny.fb_in22k_ft_in1k",
  "vit_small_r26_s32_384.augreg_in21k_ft_in1k",
  "vit_medium_patch16_reg4_gap_256.sbb_in12k_ft_in1k",
  "caformer_s36.sail_in22k_ft_in1k",
  "convnext_small.fb_in22k_ft_in1k",
  "vit_betwixt_patch16_reg4_gap_256.sbb_in12k_ft_in1k",
  "vit_mediumd_patch16_reg4_gap_256.sbb_in12k_ft_in1k",
  "dm_nfnet_f0.dm_in1k",
  "deit_base_patch16_224.fb_in1k",
  "deit3_base_patch16_224.fb_in22k_ft_in1k",
  "vit_base_patch16_384.augreg_in21k_ft_in1k",
  "vit_base_patch32_384.augreg_in21k_ft_in1k",
  "regnety_160.sw_in12k_ft_in1k",
  "convnext_base.fb_in22k_ft_in1k",
  "swin_base_patch4_window7_224.ms_in22k_ft_in1k",
  "swinv2_base_window12to24_192to384.ms_in22k_ft_in1k",
  "seresnextaa101d_32x8d.sw_in12k_ft_in1k_288",
  "caformer_b36.sail_in22k_ft_in1k",
  "caformer_b36.sail_in22k_ft_in1k_384",
  "convnext_large.fb_in22k_ft_in1k",
  "dm_nfnet_f3.dm_in1k",
  "deit3_large_patch16_224.fb_in22k_ft_in1k",
  "vit_large_patch16_384.augreg_in21k_ft_in1k",
  "vit_large_r50_s32_384.augreg_in21k_ft_in1k",
  "convnext_xlarge.fb_in22k_ft_in1k",
  "swinv2_large_window12to24_192to384.ms_in22k_ft_in1k",
  "dm_nfnet_f6.dm_in1k",
  "deit3_huge_patch14_224.fb_in22k_ft_in1k",
)
TWO_TOWERS = (
  "openai/clip-vit-base-patch32",
  "openai/clip-vit-base-patch16",
  "openai/clip-vit-large-patch14-336",
  "laion/CLIP-ViT-B-16-DataComp.XL-s13B-b90K",
  "laion/CLIP-ViT-L-14-DataComp.XL-s13B-b90K",
  "google/siglip-so400m-patch14-384",
  "LiT-B16B_2",
  "LiT-L16L",
  "SigLIP B/16 224",
  "SigLIP So400m/14 224",
  "SigLIP2 B/32 256",
  "SigLIP2 B/16 224",
  "SigLIP2 L/16 256",
  "SigLIP2 So400m/14 224",
  "SigLIP2 g-opt/16 256",
)


def _source(entry: zoo.Entry) -> str:
  if entry.source is None:
    return ""
  site, _, name = entry.source.removeprefix("https://").split("/")[:3]
  name = f"arXiv:{name}" if site == "arxiv.org" else name
  return f"[{name}]({entry.source})"


def cells(entry: zoo.Entry) -> dict[str, str]:
  """Column -> cell of an entry; what is not published stays empty."""
  params = models.list()[entry.model].get("params")
  return {
    "name": f"`{entry.name}`",
    "million parameters": f"{params / 1e6:.1f}" if params else "",
    "pixels": f"{entry.image_size}",
    "trained on": ", ".join(entry.data),
    "top-1, %": "" if entry.top1 is None else f"{entry.top1:.1f}",
    "published by": _source(entry),
  }


def _models(names: tuple[str, ...]) -> str:
  """A table of entries, by their number of parameters."""
  rows = [cells(zoo.find(name)) for name in names]
  rows.sort(key=lambda row: float(row["million parameters"] or "inf"))
  return options.table(rows)


def parts() -> dict[str, str]:
  """Part of the page -> its text."""
  return {
    "classifiers": _models(CLASSIFIERS),
    "two towers": _models(TWO_TOWERS),
    "count": f"`vitjax.weights.zoo.entries()` has all {len(zoo.entries())} "
    "names.",
  }
