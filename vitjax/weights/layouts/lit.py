"""LiT of google-research/vision_transformer: `img/`, `txt/` and `t`.

The image tower has the names of layout `vision_transformer`, the text tower
those of flaxformer's BERT or of a text transformer. Blocks have the numbers
from before Linen or Linen's; we write the former, without a prefix.
"""

from collections.abc import Collection

from vitjax.weights import npz
from vitjax.weights.layouts import tower_names, vision_transformer
from vitjax.weights.layouts.vit_names import Flat

NAME = "lit"


def matches(names: Collection[str]) -> bool:
  """Two towers, the first with vision_transformer's names."""
  if not tower_names.has_towers(names):
    return False
  names = npz.strip_prefix(dict.fromkeys(names))
  return vision_transformer.matches(
    [n.removeprefix("img/") for n in names if n.startswith("img/")]
  )


def to_vitjax(flat: Flat, model) -> Flat:
  """Each tower by its own layout."""
  image_model, text_model = tower_names.models(model)
  image, text, rest = tower_names.split(npz.strip_prefix(flat))
  return tower_names.join(
    vision_transformer.to_vitjax(image, image_model),
    tower_names.text_to_vitjax(text, text_model),
    rest,
  )


def from_vitjax(flat: Flat, model) -> Flat:
  """Inverse of `to_vitjax`.

  Raises:
    ValueError: for a bias `b` and for what `vision_transformer` cannot hold.
  """
  image, text, rest = tower_names.split(flat)
  if extra := sorted(rest.keys() - {"t"}):
    raise ValueError(
      f"layout 'lit' cannot hold {', '.join(extra)}. Use layout='siglip'."
    )
  image_model, _ = tower_names.models(model)
  try:
    image = vision_transformer.from_vitjax(image, image_model)
  except ValueError as e:
    raise ValueError(
      f"layout 'lit' cannot hold the image tower: {e} For two towers that is "
      "layout='siglip'."
    ) from e
  return tower_names.join(image, tower_names.text_to_legacy(text), rest)
