"""timm's `convnext_*`: a state dict.

The models smaller than tiny have 1x1 convolutions where the others have
linear layers; the arrays are the same.
"""

from collections.abc import Collection, Iterator

from vitjax.weights.layouts import torch_tensors
from vitjax.weights.layouts.torch_tensors import (
  CONV,
  LINEAR,
  LINEAR_1X1,
  SAME,
  Flat,
  Row,
)

NAME = "timm_convnext"

_WIDTH_OF_TINY = 96
facts = torch_tensors.timm_facts


def matches(names: Collection[str]) -> bool:
  """The depth-wise convolution of the first block."""
  return "stages.0.blocks.0.conv_dw.weight" in names


def _rows(model) -> Iterator[Row]:
  torch_tensors.require(model, "convnext", NAME)
  if not model.stem_norm or model.patch_size != 4:
    raise ValueError(
      f"layout {NAME!r} has stems with patch_size=4 and stem_norm=True only, "
      f"and this model has {model.patch_size} and {model.stem_norm}. Use the "
      "layout 'convnext' for isotropic models."
    )
  mlp = LINEAR_1X1 if model.widths[0] < _WIDTH_OF_TINY else LINEAR
  yield from torch_tensors.layer("stem.0", "stem/conv", CONV)
  yield from torch_tensors.norm("stem.1", "stem/norm")
  for s, depth in enumerate(model.depths):
    if s > 0:
      theirs, ours = f"stages.{s}.downsample", f"stage{s}/downsample"
      yield from torch_tensors.norm(f"{theirs}.0", f"{ours}/norm")
      yield from torch_tensors.layer(f"{theirs}.1", f"{ours}/conv", CONV)
    for i in range(depth):
      theirs, ours = f"stages.{s}.blocks.{i}", f"stage{s}/block{i:02d}"
      yield from torch_tensors.layer(
        f"{theirs}.conv_dw", f"{ours}/dwconv", CONV
      )
      yield from torch_tensors.norm(f"{theirs}.norm", f"{ours}/norm")
      for j in (1, 2):
        yield from torch_tensors.layer(
          f"{theirs}.mlp.fc{j}", f"{ours}/pwconv{j}", mlp
        )
      yield f"{theirs}.gamma", f"{ours}/layer_scale/gamma", SAME
  yield from torch_tensors.norm("head.norm", "norm")
  yield from torch_tensors.layer("head.fc", "head", LINEAR)


def to_vitjax(flat: Flat, model) -> Flat:
  """Renames and transposes."""
  return torch_tensors.to_vitjax(flat, _rows(model))


def from_vitjax(flat: Flat, model) -> Flat:
  """Inverse of `to_vitjax`."""
  return torch_tensors.from_vitjax(flat, _rows(model), NAME)
