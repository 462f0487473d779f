"""Published files: one record for each, `Entry`.

The modules beside this one are the tables, one for each family. A name is
that of the file without its suffix ("ViT-B_16" has two, so those carry their
folder), of timm's hub ("vit_base_patch16_224.augreg_in21k_ft_in1k", with or
without "timm/"), or of big_vision ("i1k-s16-90ep", "deit3_S_224_1k"). Where
one set of weights has several homes they are mirrors of each other, in the
order in which they are tried; the oldest home comes last.

Most publishers give no checksums beside the files. What servers say about a
file's checksum is verified by `download`.
"""

import difflib
import functools

from vitjax.weights.zoo import (
  backbones,
  batch_norm_nets,
  bit,
  convnext,
  deit,
  efficientnet,
  flexivit,
  grid,
  maxxvit,
  metaformer,
  mixer,
  nfnet,
  swin,
  timm_towers,
  timm_vit,
  two_towers,
  vit,
)
from vitjax.weights.zoo.entry import (
  NORMALISATIONS,
  WHY_CLOSED,
  Entry,
  File,
)
from vitjax.weights.zoo.grid import recommended

__all__ = [
  "NORMALISATIONS",
  "WHY_CLOSED",
  "Entry",
  "File",
  "entries",
  "find",
  "of_model",
  "recommended",
]

_TABLES = (
  vit.originals,
  grid.listed,
  vit.sharpness_aware,
  mixer.mixer,
  vit.big_vision,
  flexivit.flexivit,
  two_towers.lit,
  two_towers.siglip,
  two_towers.clip,
  two_towers.hf_siglip,
  deit.deit,
  deit.deit3,
  convnext.convnext,
  efficientnet.efficientnet,
  nfnet.nfnet,
  bit.bit,
  bit.distilled,
  swin.swin,
  maxxvit.maxxvit,
  metaformer.metaformer,
  batch_norm_nets.batch_norm_nets,
  timm_vit.timm_vit,
  backbones.dinov2,
  backbones.dinov3,
  backbones.eva02,
  timm_towers.timm_clip,
  timm_towers.timm_siglip,
)


def find(name: str) -> Entry:
  """The entry of a published name.

  Raises:
    KeyError: if there is none; its argument says what is near.
  """
  name = name.removeprefix("timm/")
  if name in entries():
    return entries()[name]
  try:
    return grid.grid(name)
  except ValueError:
    near = difflib.get_close_matches(name, entries(), 3)
    hint = f"did you mean {' or '.join(map(repr, near))}? " if near else ""
    raise KeyError(
      f"{hint}`vitjax.weights.zoo.entries()` lists the names; any file name "
      "of AugReg's index.csv is one too."
    ) from None


@functools.cache
def entries() -> dict[str, Entry]:
  """All entries by name, without the tens of thousands of AugReg's grid."""
  found: dict[str, Entry] = {}
  for table in _TABLES:
    for entry in table():
      if entry.name in found:
        raise ValueError(f"{entry.name!r} is twice in the zoo.")
      found[entry.name] = entry
  return found


def of_model(model: str) -> Entry | None:
  """The first entry whose weights are those of `model`, if there is one.

  What all files of a model have in common can be read from it: the family,
  the conventions and the normalisation.

  Args:
    model: a name of `vitjax.models.list()`, such as "ViT-B_16".
  """
  return next((e for e in entries().values() if e.model == model), None)
