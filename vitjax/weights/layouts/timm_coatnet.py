"""timm's `coatnet_*_rw_*`: a state dict.

All linear layers of the stages are 1x1 convolutions. The names of attention are
those of `timm_maxxvit`.
"""

from collections.abc import Collection, Iterator

from vitjax.weights.layouts import timm_maxxvit, torch_tensors
from vitjax.weights.layouts.torch_tensors import (
  CONV,
  LINEAR_1X1,
  Flat,
  Fused,
  Row,
)

NAME = "timm_coatnet"
facts = torch_tensors.timm_facts_with_size


def matches(names: Collection[str]) -> bool:
  """The convolutions of the first block, the attention of the third stage."""
  return {
    "stages.0.blocks.0.conv2_kxk.weight",
    "stages.2.blocks.0.attn.qkv.weight",
  } <= set(names)


def _input_widths(model) -> Iterator[tuple[int, int, int]]:
  """(stage, block, width of the input) of all blocks."""
  width = model.stem_widths[1]
  for s, depth in enumerate(model.depths):
    for b in range(depth):
      yield s, b, width
      width = model.widths[s]


def _rows(model) -> Iterator[Row]:
  yield from timm_maxxvit.stem(torch_tensors.batch_norm)
  for s, b, width in _input_widths(model):
    theirs, ours = f"stages.{s}.blocks.{b}", f"stage{s}/block{b:02d}"
    if s < 2:
      yield from _conv(theirs, ours, model.se_place)
    else:
      yield from timm_maxxvit.attention(
        theirs, ours, width // 32, LINEAR_1X1, "norm1" if b else "norm1.norm"
      )
  yield from timm_maxxvit.head()


def _conv(theirs: str, ours: str, se_place: str) -> Iterator[Row]:
  for name in ("pre_norm", "norm1", "norm2"):
    yield from torch_tensors.batch_norm(f"{theirs}.{name}", f"{ours}/{name}")
  for name, conv in (
    ("conv1", "conv1_1x1"),
    ("conv2", "conv2_kxk"),
    ("conv3", "conv3_1x1"),
    ("expand", "shortcut.expand"),
  ):
    yield f"{theirs}.{conv}.weight", f"{ours}/{name}/kernel", CONV
  se = "se_early" if se_place == "early" else "se"
  for name, fc in (("reduce", "fc1"), ("expand", "fc2")):
    yield from torch_tensors.layer(
      f"{theirs}.{se}.{fc}", f"{ours}/se/{name}", LINEAR_1X1
    )


def _fused(model) -> list[Fused]:
  return [
    timm_maxxvit.fused(f"stages.{s}.blocks.{b}", width)
    for s, b, width in _input_widths(model)
    if s > 1
  ]


def to_vitjax(flat: Flat, model) -> Flat:
  """Splits the fused layers, renames and transposes."""
  torch_tensors.require(model, "coatnet", NAME)
  flat = timm_maxxvit.split_heads(flat, _fused(model))
  return torch_tensors.to_vitjax(flat, _rows(model))


def from_vitjax(flat: Flat, model) -> Flat:
  """Inverse of `to_vitjax`."""
  torch_tensors.require(model, "coatnet", NAME)
  flat = torch_tensors.from_vitjax(flat, _rows(model), NAME)
  return timm_maxxvit.join_heads(flat, _fused(model), ndim=4)
