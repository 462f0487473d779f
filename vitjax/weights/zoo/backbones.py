"""DINOv2, DINOv3 and EVA-02: backbones to fine-tune, most without a head.

timm's names prepare images as timm does. The authors' names do so as their
code, and pool the class token. The authors give DINOv3's files to those who
fill in a form, so timm's copies are read, which are under the same licence.
"""

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
  File,
  shorter_side,
  squeezed,
  timm,
)

_NO_HEAD: dict[str, Any] = {"options": {}}

_DINOV2 = "https://arxiv.org/abs/2304.07193"
_REGISTERS = "https://arxiv.org/abs/2309.16588"
_DINOV2_FOLDER = "https://dl.fbaipublicfiles.com/dinov2"
_DINOV2_SIZES = {"small": "s", "base": "b", "large": "l", "giant": "g"}


def dinov2() -> Iterator[Entry]:
  for size, letter in _DINOV2_SIZES.items():
    for ours, theirs, paper in (
      ("", "", _DINOV2),
      ("_reg4", "_reg4", _REGISTERS),
    ):
      model = f"vit_{size}_patch14{ours}_dinov2"
      name = f"dinov2_vit{letter}14{theirs}_pretrain"
      original = File(f"{_DINOV2_FOLDER}/dinov2_vit{letter}14/{name}.pth")
      timm_name = f"{model}.lvd142m"
      for entry, crop in (
        (timm_name, shorter_side(518, 1.0)),
        (name, shorter_side(224, 0.875)),
      ):
        yield Entry(
          entry,
          (timm(timm_name), original),
          model,
          normalisation="imagenet",
          data=("LVD-142M",),
          paper=paper,
          **crop,
          **_NO_HEAD,
          **PYTORCH,
        )


# Size -> the authors' name, and the data sets of its files.
_WEB, _SATELLITE = "lvd1689m", "sat493m"
_DINOV3_SIZES = {
  "small": ("vits16", (_WEB,)),
  "small_plus": ("vits16plus", (_WEB,)),
  "base": ("vitb16", (_WEB,)),
  "large": ("vitl16", (_WEB, _SATELLITE)),
  "huge_plus": ("vith16plus", (_WEB,)),
  "7b": ("vit7b16", (_WEB, _SATELLITE)),
}
_DINOV3: dict[str, Any] = {
  "paper": "https://arxiv.org/abs/2508.10104",
  "licence": "LicenseRef-DINOv3",
}
_DATA = {_WEB: ("imagenet", "LVD-1689M"), _SATELLITE: (_SATELLITE, "SAT-493M")}


def dinov3() -> Iterator[Entry]:
  """The authors squeeze images bilinearly, see the README of their code."""
  authors: dict[str, Any] = {**PYTORCH, "interpolation": "bilinear"}
  for size, (theirs, tags) in _DINOV3_SIZES.items():
    model = f"vit_{size}_patch16_dinov3"
    for tag in tags:
      normalisation, data = _DATA[tag]
      facts: dict[str, Any] = {
        "normalisation": normalisation,
        "data": (data,),
        **_DINOV3,
      }
      name = f"{model}.{tag}"
      crop = shorter_side(256, 1.0)
      yield Entry(
        name, (timm(name),), model, **crop, **facts, **_NO_HEAD, **PYTORCH
      )
      if size != "7b":
        biased = f"{model}_qkvb"
        yield Entry(
          f"{biased}.{tag}",
          (timm(f"{biased}.{tag}"),),
          biased,
          **crop,
          **facts,
          **_NO_HEAD,
          **PYTORCH,
        )
      yield Entry(
        f"dinov3_{theirs}_pretrain_{tag}",
        (timm(name),),
        model,
        {"pool_type": "tok"},
        **squeezed(256),
        **facts,
        **authors,
      )
  for size in ("tiny", "small", "base", "large"):
    model = f"convnext_{size}"
    name = f"{model}.dinov3_{_WEB}"
    yield Entry(
      name,
      (timm(name),),
      model,
      family="convnext",
      normalisation="imagenet",
      data=("LVD-1689M",),
      **shorter_side(224, 1.0),
      **_DINOV3,
      **_NO_HEAD,
      **PYTORCH,
    )


# Size and pixels -> for each tag the top-1 that timm measured.
_EVA02 = {
  ("tiny", 224): {"mim_in22k": None},
  ("tiny", 336): {"mim_in22k_ft_in1k": 80.648},
  ("small", 224): {"mim_in22k": None},
  ("small", 336): {"mim_in22k_ft_in1k": 85.770},
  ("base", 224): {"mim_in22k": None},
  ("base", 448): {
    "mim_in22k_ft_in22k_in1k": 88.678,
    "mim_in22k_ft_in22k": None,
    "mim_in22k_ft_in1k": 88.262,
  },
  ("large", 224): {"mim_in22k": None, "mim_m38m": None},
  ("large", 448): {
    "mim_m38m_ft_in22k_in1k": 90.056,
    "mim_m38m_ft_in22k": None,
    "mim_m38m_ft_in1k": 89.550,
    "mim_in22k_ft_in22k_in1k": 89.956,
    "mim_in22k_ft_in22k": None,
    "mim_in22k_ft_in1k": 89.634,
  },
}


def eva02() -> Iterator[Entry]:
  """Files that saw the labels of ImageNet-22k squeeze the whole image."""
  for (size, pixels), tags in _EVA02.items():
    for tag, top1 in tags.items():
      _, _, tuned = tag.partition("_ft_")
      model = f"eva02_{size}_patch14_{pixels}"
      name = f"{model}.{tag}"
      first = "Merged-38M" if "m38m" in tag else I22K
      then = [{"in22k": I22K, "in1k": I1K}[x] for x in tuned.split("_") if x]
      head = _NO_HEAD
      if tuned:
        head = HEAD_1K if tuned.endswith("in1k") else HEAD_22K
      crop = shorter_side(pixels, 1.0 if tuned else 0.9)
      yield Entry(
        name,
        (timm(name),),
        model,
        normalisation="clip",
        data=tuple(dict.fromkeys([first, *then])),
        paper="https://arxiv.org/abs/2303.11331",
        licence="MIT",
        top1=top1,
        source=TIMM_RESULTS if top1 else None,
        **(squeezed(pixels) if "in22k" in tuned else crop),
        **head,
        **PYTORCH,
      )
