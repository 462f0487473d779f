"""A text tower alone, such as "lit.npz:txt", of either code base.

Blocks have the numbers from before Linen or Linen's, single or stacked. We
write Linen's under `params/`.
"""

from collections.abc import Collection

from vitjax.weights import npz
from vitjax.weights.layouts import tower_names
from vitjax.weights.layouts.vit_names import Flat

NAME = "text_tower"


def matches(names: Collection[str]) -> bool:
  """The embedding of tokens at the root, or BERT's encoder."""
  roots = ("Embed_0/", "BertEncoder_0/")
  return any(
    name.startswith(roots) for name in npz.strip_prefix(dict.fromkeys(names))
  )


def to_vitjax(flat: Flat, model) -> Flat:
  """As in a file with two towers."""
  return tower_names.text_to_vitjax(npz.strip_prefix(flat), model)


def from_vitjax(flat: Flat, model) -> Flat:
  """Our names under `params/`."""
  return {f"params/{name}": x for name, x in flat.items()}
