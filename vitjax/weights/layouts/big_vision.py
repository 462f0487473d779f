"""google-research/big_vision, whose names are ours.

Files have the prefix `params/`, from older code `opt/target/` or none. The
position table belongs to the patches, `pos_embedding`; older files have it
elsewhere, with a row for the class token, and the attention pooling inlined
at the root. Blocks are single or stacked (`scan`) in the file and in the
model independently of each other.

We write `params/`. Parameters that big_vision's ViT does not have, such as
LayerScale or registers, are kept under our names; this is also how the other
families are written.
"""

import math
from collections.abc import Collection

from vitjax.weights import npz
from vitjax.weights.layouts import vit_names
from vitjax.weights.layouts.vit_names import Flat

NAME = "big_vision"


def matches(names: Collection[str]) -> bool:
  """Anything under `params/` or `opt/target/`, or the encoder of a ViT."""
  return any(
    name.startswith((*npz.PREFIXES, "Transformer/encoderblock"))
    for name in names
  )


def to_vitjax(flat: Flat, model) -> Flat:
  """Undoes what any version of big_vision has done differently."""
  # Since `params/` was introduced, tables have had no row for the class token.
  old = not any(name.startswith("params/") for name in flat)
  flat = vit_names.renumber(npz.strip_prefix(flat))
  old = old or "Transformer/pos_embedding" in flat
  flat = vit_names.move(flat)
  tokens = vit_names.num_prefix(model)
  flat = vit_names.set_prefix_rows(
    flat,
    tokens,
    old=old and _has_class_row(flat, model),
    new=getattr(model, "posemb_prefix", False),
  )
  flat = vit_names.drop_constants(flat, model)
  return vit_names.stack_blocks(flat, getattr(model, "scan_layers", False))


def _has_class_row(flat: Flat, model) -> bool:
  if "pos_embedding" not in flat or "cls" not in flat:
    return False
  rows = flat["pos_embedding"].shape[1]
  return math.isqrt(rows - 1) ** 2 == rows - 1


def from_vitjax(flat: Flat, model) -> Flat:
  """Our names under `params/`, the table without rows of other tokens."""
  flat = vit_names.set_prefix_rows(
    flat,
    vit_names.num_prefix(model),
    old=getattr(model, "posemb_prefix", False),
    new=False,
  )
  return {f"params/{name}": x for name, x in flat.items()}
