"""Hugging Face transformers' `DeiTForImageClassification` and `DeiTModel`.

As `hf_vit`, and a token of distillation behind the class token, which is our
only register: these models classify by the class token alone.
"""

import re
from collections.abc import Collection

from vitjax.weights.layouts import hf_vit, torch_tensors, vit_names
from vitjax.weights.layouts.torch_tensors import Flat

NAME = "hf_deit"
NEEDS_TABLE = True

_TOKEN = "embeddings.distillation_token"


def matches(names: Collection[str]) -> bool:
  """The token of distillation, also in a bare `DeiTModel`."""
  return f"deit.{_TOKEN}" in names or _TOKEN in names


def to_vitjax(flat: Flat, model) -> Flat:
  """Renames and transposes."""
  flat = torch_tensors.with_prefix(flat, "deit.", _TOKEN)
  flat = {re.sub(r"^deit\.", "vit.", name): x for name, x in flat.items()}
  flat["registers"] = flat.pop(f"vit.{_TOKEN}")
  return hf_vit.to_vitjax(flat, model)


def from_vitjax(flat: Flat, model) -> Flat:
  """Inverse of `to_vitjax`.

  Raises:
    ValueError: as in `hf_vit`, and without a single register.
  """
  if getattr(model, "num_registers", None) != 1:
    raise ValueError(
      f"layout {NAME!r} needs a model with num_registers=1, the token of "
      "distillation. Use layout='hf_vit' or 'big_vision'."
    )
  # The table's rows are added before the register is taken out.
  flat = vit_names.set_prefix_rows(
    dict(flat),
    vit_names.num_prefix(model),
    old=model.posemb_prefix,
    new=True,
  )
  token = flat.pop("registers")
  out = hf_vit.from_vitjax(flat, model.clone(posemb_prefix=True))
  out = {re.sub(r"^vit\.", "deit.", name): x for name, x in out.items()}
  return {**out, f"deit.{_TOKEN}": token}
