"""google-research/vision_transformer, and the oldest files of big_vision.

The position table is `Transformer/posembed_input/pos_embedding` and has a row
for the class token. The modules of a block have the numbers from before
Linen. Hybrids may store the parameters of GroupNorm as (1, 1, 1, c).

We write these names without a prefix, which is also how timm recognises them.
"""

import re
from collections.abc import Collection

from vitjax.weights import npz
from vitjax.weights.layouts import vit_names
from vitjax.weights.layouts.vit_names import Flat

NAME = "vision_transformer"
NEEDS_TABLE = True

_OURS = re.compile(
  r"(params/|opt/target/)?Transformer/"
  r"(posembed_input/.*|encoderblock_\d+/MlpBlock_3/.*)"
)
_GROUP_NORM = re.compile(r"(.*/)?gn(\d+|_root|_proj)/(scale|bias)")
_HOLDS = re.compile(
  r"cls|pos_embedding|(embedding|pre_logits|head)/.*"
  r"|Transformer/encoder_norm/.*"
  r"|Transformer/encoderblock_\d+/"
  r"(LayerNorm_[01]|MultiHeadDotProductAttention_0|MlpBlock_0)/.*"
  r"|conv_root/.*|gn_root/.*|block\d+/.*"
)


def matches(names: Collection[str]) -> bool:
  """The place of the position table, or a number from before Linen."""
  return any(_OURS.fullmatch(name) for name in names)


def to_vitjax(flat: Flat, model) -> Flat:
  """Reads both numberings; adds the class token's row to the token."""
  flat = vit_names.move(vit_names.renumber(npz.strip_prefix(flat)))
  flat = {
    name: x.reshape(-1) if _GROUP_NORM.fullmatch(name) else x
    for name, x in flat.items()
  }
  flat = vit_names.set_prefix_rows(
    flat,
    vit_names.num_prefix(model),
    old="cls" in flat,
    new=getattr(model, "posemb_prefix", False),
  )
  flat = vit_names.drop_constants(flat, model)
  return vit_names.stack_blocks(flat, getattr(model, "scan_layers", False))


def from_vitjax(flat: Flat, model) -> Flat:
  """Numbers from before Linen, a zero row for a class token without one.

  Raises:
    ValueError: for attention pooling, LayerScale, registers and what else
      this Vision Transformer does not have.
  """
  flat = vit_names.add_biases(vit_names.stack_blocks(flat, stacked=False))
  extra = [name for name in flat if not _HOLDS.fullmatch(name)]
  missing = sorted({"embedding/kernel", "pos_embedding"} - flat.keys())
  if extra or missing:
    cause = f"cannot hold {', '.join(extra[:4])}" if extra else ""
    cause += " and " if extra and missing else ""
    cause += f"needs {', '.join(missing)}" if missing else ""
    raise ValueError(
      f"layout 'vision_transformer' {cause}. Use layout='big_vision'."
    )
  flat = vit_names.set_prefix_rows(
    flat,
    vit_names.num_prefix(model),
    old=getattr(model, "posemb_prefix", False),
    new=True,
  )
  flat[vit_names.TABLE] = flat.pop("pos_embedding")
  return vit_names.renumber_legacy(flat)
