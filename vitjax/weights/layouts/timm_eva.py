"""timm's `vit_*_rope_*`, of its class `Eva`: a state dict.

Like `timm_vit` but for the names of LayerScale, and for biases of query and
value that stand beside the fused weight. There is no position table.
"""

import re
from collections.abc import Collection

from vitjax.weights.layouts import timm_vit, torch_tensors
from vitjax.weights.layouts.torch_tensors import Flat

NAME = "timm_eva"

_OURS = (
  (r"^(blocks\.\d+)\.gamma_([12])$", r"\1.ls\2.gamma"),
  (r"^(blocks\.\d+\.attn)\.([qv])_bias$", r"\1.\2.bias"),
)
_THEIRS = (
  (r"^(blocks\.\d+)\.ls([12])\.gamma$", r"\1.gamma_\2"),
  (r"^(blocks\.\d+\.attn)\.([qv])\.bias$", r"\1.\2_bias"),
)
facts = torch_tensors.timm_facts_with_size


def matches(names: Collection[str]) -> bool:
  """DeiT III's names without a position table."""
  return (
    "blocks.0.gamma_1" in names
    and "pos_embed" not in names
    and timm_vit.matches(names)
  )


def _rename(flat: Flat, rules: tuple[tuple[str, str], ...]) -> Flat:
  out = {}
  for name, x in flat.items():
    for old, new in rules:
      name = re.sub(old, new, name)
    out[name] = x
  return out


def to_vitjax(flat: Flat, model) -> Flat:
  """Like `timm_vit`."""
  return timm_vit.to_vitjax(_rename(flat, _OURS), model)


def from_vitjax(flat: Flat, model) -> Flat:
  """Inverse of `to_vitjax`.

  Raises:
    ValueError: for a model without rotary embeddings, or with a key's bias.
  """
  torch_tensors.require(model, "vit", NAME)
  if model.posemb != "rope" or (model.qkv_bias and model.key_bias):
    raise ValueError(
      f"layout {NAME!r} holds models with posemb='rope' and key_bias=False. "
      f"This one has posemb={model.posemb!r} and key_bias={model.key_bias}. "
      "Use layout='timm_vit' without rotary embeddings, or 'big_vision'."
    )
  return _rename(timm_vit.state_dict(flat, model), _THEIRS)
