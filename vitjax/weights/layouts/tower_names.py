"""Renaming that the layouts of two-tower models share.

The image tower is under `img/`, the text tower under `txt/`, and `t` and `b`
are at the root. The encoder of a text transformer has the names of a ViT's,
under `Encoder_0` instead of `Transformer`.
"""

import re
from collections.abc import Collection, Mapping

import numpy as np

from vitjax.weights import npz
from vitjax.weights.layouts import vit_names
from vitjax.weights.layouts.vit_names import Flat


def has_towers(names: Collection[str]) -> bool:
  """Whether these are the names of a file with two towers."""
  towers = tuple(
    f"{p}{t}/" for p in ("", *npz.PREFIXES) for t in ("img", "txt")
  )
  return any(name.startswith(towers) for name in names)


def split(flat: Mapping[str, np.ndarray]) -> tuple[Flat, Flat, Flat]:
  """Image tower and text tower, without their prefixes, and the rest."""
  towers: dict[str, Flat] = {"img": {}, "txt": {}, "": {}}
  for name, x in flat.items():
    tower, _, rest = name.partition("/")
    if tower in ("img", "txt") and rest:
      towers[tower][rest] = x
    else:
      towers[""][name] = x
  return towers["img"], towers["txt"], towers[""]


def join(image: Flat, text: Flat, rest: Flat) -> Flat:
  """Inverse of `split`."""
  return {
    **{f"img/{name}": x for name, x in image.items()},
    **{f"txt/{name}": x for name, x in text.items()},
    **rest,
  }


def models(model):
  """The image tower and the text tower of `model`.

  Raises:
    ValueError: if it does not have two towers.
  """
  towers = model.towers()
  if not towers:
    raise ValueError(
      "the weights have an image tower and a text tower, the model has one. "
      "Load one of them with ':img' or ':txt' behind the file's name, or "
      "create the model 'two_tower'."
    )
  return towers["img"], towers["txt"]


def text_to_vitjax(flat: Flat, model) -> Flat:
  """Reads both numberings, blocks single or stacked.

  The oldest files have a second position table in the encoder, which was
  added to the first.
  """
  flat = vit_names.renumber(_as_vit(flat))
  if "Transformer/pos_embedding" in flat:
    second = flat.pop("Transformer/pos_embedding")
    flat["pos_embedding"] = flat["pos_embedding"] + second
  scan = getattr(model, "scan_layers", False)
  return _as_text(vit_names.stack_blocks(flat, scan))


def text_to_legacy(flat: Flat) -> Flat:
  """The numbers from before Linen, blocks one by one."""
  return _as_text(vit_names.renumber_legacy(_as_vit(text_as_loop(flat))))


def text_as_loop(flat: Flat) -> Flat:
  """The blocks one by one."""
  return _as_text(vit_names.stack_blocks(_as_vit(flat), stacked=False))


def _as_vit(flat: Flat) -> Flat:
  return {
    re.sub(r"^Encoder_\d+/", "Transformer/", n): x for n, x in flat.items()
  }


def _as_text(flat: Flat) -> Flat:
  return {re.sub("^Transformer/", "Encoder_0/", n): x for n, x in flat.items()}
