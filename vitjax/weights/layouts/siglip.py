"""Two towers of google-research/big_vision: SigLIP, SigLIP 2 and its LiT.

Our names under `params/`: `img/` with those of layout `big_vision`, `txt/`,
`t` and `b`. SigLIP 2 stacks the blocks of both towers; the file and the model
may stack them independently of each other.
"""

from collections.abc import Collection

from vitjax.weights import npz
from vitjax.weights.layouts import big_vision, tower_names
from vitjax.weights.layouts.vit_names import Flat

NAME = "siglip"


def matches(names: Collection[str]) -> bool:
  """An image tower or a text tower."""
  return tower_names.has_towers(names)


def to_vitjax(flat: Flat, model) -> Flat:
  """Each tower by its own layout."""
  image_model, text_model = tower_names.models(model)
  image, text, rest = tower_names.split(npz.strip_prefix(flat))
  if any(name.startswith("params/") for name in flat):
    image = {f"params/{name}": x for name, x in image.items()}
  return tower_names.join(
    big_vision.to_vitjax(image, image_model),
    tower_names.text_to_vitjax(text, text_model),
    rest,
  )


def from_vitjax(flat: Flat, model) -> Flat:
  """Our names under `params/`."""
  image_model, _ = tower_names.models(model)
  image, text, rest = tower_names.split(flat)
  image = npz.strip_prefix(big_vision.from_vitjax(image, image_model))
  flat = tower_names.join(image, text, rest)
  return {f"params/{name}": x for name, x in flat.items()}
