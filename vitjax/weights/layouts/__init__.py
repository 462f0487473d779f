"""Published layouts of weights, one module each.

A layout knows how arrays are named and laid out in the files of one code
base. It consists of

  NAME: str
  matches(names) -> bool: recognises a file by the names in it alone
  to_vitjax(flat, model) -> flat: the file's arrays under our "/"-joined
    names. What it does not know passes through, so that the comparison with
    the model reports it as left over.
  from_vitjax(flat, model) -> flat: the inverse. Raises ValueError for what
    the layout cannot hold.
  facts(model) -> dict: optional, what `save` writes about them to JSON.

`model` is the Linen module; only its fields are read.
"""

import importlib
from collections.abc import Collection
from types import ModuleType

# In the order of recognition: a hybrid also has what timm_vit looks for, and
# big_vision takes every file of the form that we write ourselves.
LAYOUTS = (
  "lit",
  "siglip",
  "vision_transformer",
  "timm_eva",
  "deit",
  "timm_hybrid",
  "timm_vit",
  "timm_npz",
  "hf_vit",
  "mixer",
  "timm_mixer",
  "convnext",
  "timm_convnext",
  "haiku_nfnet",
  "timm_nfnet",
  "tf_bit",
  "timm_bit",
  "bit",
  "big_vision",
)


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


def recognise(names: Collection[str]) -> ModuleType | None:
  """The first layout whose files have such names, or None."""
  return next((x for x in map(get, LAYOUTS) if x.matches(names)), None)
