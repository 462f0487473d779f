"""The `.npz` files that timm's `load_pretrained` reads without a loss.

timm takes the names of vision_transformer without prefix and those of
big_vision under `params/`. It silently ignores arrays that it does not know,
and its outputs are then wrong; so this layout refuses such models. The position
table must have the target's size, because timm resizes it in another way. Only
for writing: reading recognises the two layouts that it consists of.
"""

from collections.abc import Collection, Mapping
from typing import Any

from vitjax.weights.layouts import (
  big_vision,
  timm_vit,
  torch_tensors,
  vision_transformer,
  vit_names,
)
from vitjax.weights.layouts.vit_names import Flat

NAME = "timm_npz"
NEEDS_TABLE = True

# Option, the value that timm supports, and what timm does with others.
_READ = (
  ("rep_size", False, "drops the layer before the head"),
  ("layer_scale_init", None, "does not read LayerScale"),
  ("num_registers", 0, "does not read registers"),
  ("pre_norm", False, "does not read the norm before the blocks"),
  ("head_bias", True, "needs a bias of the head"),
  ("fc_norm", False, "looks for the norm before the pooling"),
  ("parallel", False, "does not know parallel blocks"),
  ("differential", False, "does not know differential attention"),
  ("stem", None, "standardises the kernels of hybrids in another way"),
)


def matches(names: Collection[str]) -> bool:
  """Never: see the module's docstring."""
  return False


def to_vitjax(flat: Flat, model) -> Flat:
  """Reads what `from_vitjax` wrote."""
  if vision_transformer.matches(flat):
    return vision_transformer.to_vitjax(flat, model)
  return big_vision.to_vitjax(flat, model)


def from_vitjax(flat: Flat, model) -> Flat:
  """Like vision_transformer, or big_vision for attention pooling.

  Raises:
    ValueError: for a model of which timm would lose a part.
  """
  torch_tensors.require(model, "vit", NAME)
  for option, value, why in _READ:
    if getattr(model, option) != value:
      raise ValueError(
        f"layout {NAME!r} cannot hold a model with {option}="
        f"{getattr(model, option)!r}: timm {why}. "
        "Use layout='timm_vit', or 'big_vision'."
      )
  vit_names.require_table(flat, model, NAME)
  if model.pool_type == "map":
    flat = vit_names.add_biases(vit_names.stack_blocks(flat, stacked=False))
    return big_vision.from_vitjax(flat, model)
  return vision_transformer.from_vitjax(flat, model)


def facts(model, metadata: Mapping[str, Any]) -> dict:
  """Arguments for `timm.create_model` with which the outputs are the same."""
  arguments = timm_vit.timm_arguments(model, metadata)
  arguments["qkv_bias"] = True
  arguments["no_embed_class"] = model.pool_type == "map"
  return {"timm": arguments}
