"""NFNets: the originals are pickles; timm's copies are tried first."""

from collections.abc import Iterator
from typing import Any

from vitjax.weights.zoo.entry import (
  HEAD_1K,
  I1K,
  PYTORCH,
  Entry,
  File,
  squeezed,
  timm,
)

_PAPER = "https://arxiv.org/abs/2102.06171"
_FOLDER = "https://storage.googleapis.com/dm-nfnets"

# Pixels of evaluation and top-1 of the paper (F6 with SAM), and the part of an
# image that timm keeps.
_MODELS = (
  (256, 83.6, 0.9),
  (320, 84.7, 0.91),
  (352, 85.1, 0.92),
  (416, 85.7, 0.94),
  (512, 85.9, 0.951),
  (544, 86.0, 0.954),
  (576, 86.5, 0.956),
)


def nfnet() -> Iterator[Entry]:
  """The paper squeezes an image to 32 pixels more than it keeps."""
  for n, (pixels, top1, crop) in enumerate(_MODELS):
    size = 285_976_842 if n == 0 else None
    timm_name = f"dm_nfnet_f{n}.dm_in1k"
    files = (timm(timm_name), File(f"{_FOLDER}/F{n}_haiku.npz", size))
    paper: dict[str, Any] = {"image_size": pixels, "resize": pixels + 32}
    for name, model, resizing in (
      (f"NFNet-F{n}", f"NFNet-F{n}", paper),
      (timm_name, f"dm_nfnet_f{n}", squeezed(pixels, crop)),
    ):
      yield Entry(
        name,
        files,
        model,
        family="nfnet",
        normalisation="imagenet",
        data=(I1K,),
        paper=_PAPER,
        top1=top1,
        source=_PAPER,
        **resizing,
        **PYTORCH,
        **HEAD_1K,
      )
