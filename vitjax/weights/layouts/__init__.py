"""Published layouts of weights, one module each.

A layout knows how arrays are named and laid out in the files of one code
base. It consists of

  NAME: str
  matches(names) -> bool: recognises a file by the names in it alone
  to_vitjax(flat, model) -> flat: the file's arrays under our "/"-joined
    names. What it does not know passes through, so that the comparison with
    the model reports it.
  from_vitjax(flat, model) -> flat: the inverse. Raises ValueError for what
    the layout cannot hold.
  facts(model, metadata) -> dict: optional, what `save` adds to `metadata`.
  NEEDS_TABLE = True: optional, for a layout in which a fixed position table is
    an array as well; `save` computes it.

`model` is the Linen module, of which only the fields are read.
"""

import importlib
from collections.abc import Collection
from types import ModuleType

# In the order of recognition: hybrids and DINOs also have what timm_vit looks
# for, and big_vision takes every file of the form that we write ourselves.
LAYOUTS = (
  "lit",
  "siglip",
  "text_tower",
  "open_clip",
  "hf_towers",
  "vision_transformer",
  "dinov2",
  "dinov3",
  "timm_eva",
  "deit",
  "timm_hybrid",
  "timm_vit",
  "timm_npz",
  "hf_dinov2",
  "hf_dinov3",
  "hf_deit",
  "hf_vit",
  "hf_convnext",
  "hf_swin",
  "hf_resnet",
  "mixer",
  "timm_mixer",
  "convnext",
  "hf_dinov3_convnext",
  "timm_convnext",
  "timm_swin",
  "timm_coatnet",
  "timm_maxxvit",
  "timm_metaformer",
  "efficientnet_pytorch",
  "timm_efficientnet",
  "haiku_nfnet",
  "timm_nfnet",
  "timm_regnet",
  "timm_resnet",
  "tf_bit",
  "timm_bit",
  "bit",
  "big_vision",
)


# Layout of each family in .safetensors: timm's, or OpenCLIP's.
_PYTORCH = {
  "coatnet": "timm_coatnet",
  "convnext": "timm_convnext",
  "maxxvit": "timm_maxxvit",
  "metaformer": "timm_metaformer",
  "efficientnet": "timm_efficientnet",
  "mixer": "timm_mixer",
  "nfnet": "timm_nfnet",
  "regnet": "timm_regnet",
  "resnet": "timm_bit",
  "resnet_bn": "timm_resnet",
  "swin": "timm_swin",
  "text": "open_clip",
  "two_tower": "open_clip",
  "vit": "timm_vit",
}


def get(name: str) -> ModuleType:
  """The layout of that name.

  Raises:
    ValueError: if there is none.
  """
  if name not in LAYOUTS:
    raise ValueError(
      f"layout={name!r} is not known. Known: {', '.join(LAYOUTS)}."
    )
  return importlib.import_module(f"{__name__}.{name}")


# Layouts with our arrays, which are stored as they are.
OWN = ("big_vision", "siglip")


def default(model, suffix: str) -> str:
  """The layout in which `model` is written unless one is named.

  `.safetensors` are read by timm, and two towers by OpenCLIP, so they get
  their names; `.npz` get ours, which are big_vision's.

  Raises:
    ValueError: if that is timm's and timm has no such model.
  """
  family = type(model).__module__.rpartition(".")[2]
  if suffix != ".safetensors":
    return "siglip" if family == "two_tower" else "big_vision"
  if family in ("mae", "captioner"):
    raise ValueError(
      f"timm has no model with the decoder of a {family}. Fine-tune its "
      "encoder first, which is a vit, or name another layout, such as "
      "layout='big_vision'."
    )
  if family not in _PYTORCH:
    raise ValueError(
      f"timm has no model of family {family!r}, whose layout {suffix} files "
      "have by default. Name another layout, such as layout='big_vision'."
    )
  if family == "vit" and model.stem is not None:
    return "timm_hybrid"
  if family == "vit" and "rope" in model.posemb:
    return "timm_eva"
  return _PYTORCH[family]


def recognise(names: Collection[str]) -> ModuleType | None:
  """The first layout whose files have such names, or None."""
  return next((x for x in map(get, LAYOUTS) if x.matches(names)), None)
