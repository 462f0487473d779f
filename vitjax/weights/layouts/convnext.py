"""facebookresearch/ConvNeXt, isotropic models included: a state dict.

Also the ConvNeXts of DINOv3, which have their last norm under two names.
"""

from collections.abc import Collection, Iterator

from vitjax.weights.layouts import torch_tensors
from vitjax.weights.layouts.torch_tensors import CONV, LINEAR, SAME, Flat, Row

NAME = "convnext"


def matches(names: Collection[str]) -> bool:
  """The first block, of a staged or of an isotropic model."""
  return any(
    f"{block}.0.dwconv.weight" in names for block in ("stages.0", "blocks")
  )


def _rows(model) -> Iterator[Row]:
  torch_tensors.require(model, "convnext", NAME)
  stages = len(model.depths)
  if model.stem_norm:
    yield from torch_tensors.layer("downsample_layers.0.0", "stem/conv", CONV)
    yield from torch_tensors.norm("downsample_layers.0.1", "stem/norm")
  else:
    yield from torch_tensors.layer("stem", "stem/conv", CONV)
  for s, depth in enumerate(model.depths):
    if s > 0:
      theirs, ours = f"downsample_layers.{s}", f"stage{s}/downsample"
      yield from torch_tensors.norm(f"{theirs}.0", f"{ours}/norm")
      yield from torch_tensors.layer(f"{theirs}.1", f"{ours}/conv", CONV)
    for i in range(depth):
      theirs = f"stages.{s}.{i}" if stages > 1 else f"blocks.{i}"
      ours = f"stage{s}/block{i:02d}"
      for name, kind in (
        ("dwconv", CONV),
        ("pwconv1", LINEAR),
        ("pwconv2", LINEAR),
      ):
        yield from torch_tensors.layer(
          f"{theirs}.{name}", f"{ours}/{name}", kind
        )
      yield from torch_tensors.norm(f"{theirs}.norm", f"{ours}/norm")
      yield f"{theirs}.gamma", f"{ours}/layer_scale/gamma", SAME
  yield from torch_tensors.norm("norm", "norm")
  yield from torch_tensors.layer("head", "head", LINEAR)


def to_vitjax(flat: Flat, model) -> Flat:
  """Renames and transposes."""
  flat = {n: x for n, x in flat.items() if not n.startswith("norms.3.")}
  return torch_tensors.to_vitjax(flat, _rows(model))


def from_vitjax(flat: Flat, model) -> Flat:
  """Inverse of `to_vitjax`."""
  return torch_tensors.from_vitjax(flat, _rows(model), NAME)
