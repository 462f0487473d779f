"""timm's `swin_*` and `swinv2_*`, and microsoft/Swin-Transformer's files.

State dicts. Microsoft's have the patch merging at the end of a stage, and other
names of the head; they are read, not written. Both may hold what follows from
the window, such as masks.
"""

import re
from collections.abc import Collection, Iterator

from vitjax.weights.layouts import torch_tensors
from vitjax.weights.layouts.torch_tensors import (
  CONV,
  LINEAR,
  OFFSETS,
  Flat,
  Fused,
  Kind,
  Row,
)

NAME = "timm_swin"
facts = torch_tensors.timm_facts_with_size

DERIVED = re.compile(
  r".*\.(relative_position_index|relative_coords_table|attn_mask|k_bias)"
)
SCALE = Kind(lambda x: x.reshape(-1), lambda x: x.reshape(-1, 1, 1))


def matches(names: Collection[str]) -> bool:
  """The attention of the first block."""
  return "layers.0.blocks.0.attn.qkv.weight" in names


def _rows(model) -> Iterator[Row]:
  yield from torch_tensors.layer("patch_embed.proj", "stem", CONV)
  yield from torch_tensors.norm("patch_embed.norm", "stem_norm")
  for s, (depth, heads) in enumerate(zip(model.depths, model.num_heads)):
    if s > 0:
      theirs, ours = f"layers.{s}.downsample", f"stage{s}/downsample"
      yield from torch_tensors.norm(f"{theirs}.norm", f"{ours}/norm")
      yield f"{theirs}.reduction.weight", f"{ours}/reduction/kernel", LINEAR
    for b in range(depth):
      theirs, ours = f"layers.{s}.blocks.{b}", f"stage{s}/block{b:02d}"
      for i in (1, 2):
        yield from torch_tensors.norm(f"{theirs}.norm{i}", f"{ours}/norm{i}")
        yield from torch_tensors.layer(
          f"{theirs}.mlp.fc{i}", f"{ours}/mlp/Dense_{i - 1}", LINEAR
        )
      theirs, ours = f"{theirs}.attn", f"{ours}/attention"
      yield from torch_tensors.attention(
        _qkv(theirs), f"{theirs}.proj", ours, heads
      )
      bias = f"{ours}/position_bias"
      yield f"{theirs}.relative_position_bias_table", f"{bias}/table", OFFSETS
      yield f"{theirs}.logit_scale", f"{ours}/logit_scale", SCALE
      yield from torch_tensors.layer(
        f"{theirs}.cpb_mlp.0", f"{bias}/Dense_0", LINEAR
      )
      yield f"{theirs}.cpb_mlp.2.weight", f"{bias}/Dense_1/kernel", LINEAR
  yield from torch_tensors.norm("norm", "norm")
  yield from torch_tensors.layer("head.fc", "head", LINEAR)


def _qkv(attention: str) -> list[str]:
  return [f"{attention}.{part}" for part in "qkv"]


def _fused(model) -> Iterator[Fused]:
  for s, depth in enumerate(model.depths):
    for b in range(depth):
      attention = f"layers.{s}.blocks.{b}.attn"
      width = model.width * 2**s
      yield Fused(f"{attention}.qkv", dict.fromkeys(_qkv(attention), width))


def _as_timm(name: str) -> str:
  """A name of Microsoft's files as timm has it."""
  merging = re.fullmatch(r"layers\.(\d+)\.downsample\.(.*)", name)
  if merging:
    return f"layers.{int(merging[1]) + 1}.downsample.{merging[2]}"
  return re.sub(r"^head\.(?=weight|bias)", "head.fc.", name)


def to_vitjax(flat: Flat, model) -> Flat:
  """Splits the fused layers, renames and transposes."""
  torch_tensors.require(model, "swin", NAME)
  if any(name.startswith("layers.0.downsample.") for name in flat):
    flat = {_as_timm(name): x for name, x in flat.items()}
  flat = {
    re.sub(r"\.([qv])_bias$", r".\1.bias", name): x
    for name, x in flat.items()
    if not DERIVED.fullmatch(name)
  }
  flat = torch_tensors.split_fused(flat, _fused(model))
  return torch_tensors.to_vitjax(flat, _rows(model))


def from_vitjax(flat: Flat, model) -> Flat:
  """Inverse of `to_vitjax`."""
  torch_tensors.require(model, "swin", NAME)
  flat = torch_tensors.from_vitjax(flat, _rows(model), NAME)
  flat = torch_tensors.join_fused(flat, _fused(model))
  return {
    re.sub(r"\.([qv])\.bias$", r".\1_bias", name): x for name, x in flat.items()
  }
