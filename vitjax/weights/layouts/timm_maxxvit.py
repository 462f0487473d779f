"""timm's `maxxvitv2_*`: a state dict.

Queries, keys and values are next to each other for each head, not for all.
"""

from collections.abc import Collection, Iterator, Sequence

import numpy as np

from vitjax.weights.layouts import torch_tensors
from vitjax.weights.layouts.torch_tensors import (
  CONV,
  LINEAR,
  LINEAR_1X1,
  OFFSETS,
  SAME,
  Flat,
  Fused,
  Kind,
  Row,
)

NAME = "timm_maxxvit"
facts = torch_tensors.timm_facts_with_size

_HEAD_WIDTH = 32


def matches(names: Collection[str]) -> bool:
  """The grid attention of the first block."""
  return "stages.0.blocks.0.attn_grid.attn.qkv.weight" in names


def _rows(model) -> Iterator[Row]:
  yield from stem(torch_tensors.norm)
  for s, depth in enumerate(model.depths):
    for b in range(depth):
      theirs, ours = f"stages.{s}.blocks.{b}", f"stage{s}/block{b:02d}"
      yield from _conv(f"{theirs}.conv", f"{ours}_conv")
      yield from attention(
        f"{theirs}.attn_grid",
        f"{ours}_attention",
        model.widths[s] // _HEAD_WIDTH,
        LINEAR,
      )
  yield from head()


def stem(norm) -> Iterator[Row]:
  """Rows of the stem, whose norm has rows of this kind."""
  for i in (1, 2):
    yield f"stem.conv{i}.weight", f"stem_conv{i}/kernel", CONV
  yield from norm("stem.norm1", "stem_norm")


def head() -> Iterator[Row]:
  """Rows behind the stages."""
  yield from torch_tensors.norm("norm", "norm")
  yield from torch_tensors.layer("head.fc", "head", LINEAR)


def _conv(theirs: str, ours: str) -> Iterator[Row]:
  expand = f"{theirs}.shortcut.expand"
  yield from torch_tensors.layer(expand, f"{ours}/expand", LINEAR_1X1)
  yield from torch_tensors.layer(f"{theirs}.conv_dw", f"{ours}/dwconv", CONV)
  yield from torch_tensors.norm(f"{theirs}.norm", f"{ours}/norm")
  yield from _mlp(theirs, ours, LINEAR_1X1)
  yield f"{theirs}.ls.gamma", f"{ours}/layer_scale/gamma", SAME


def _mlp(theirs: str, ours: str, linear: Kind) -> Iterator[Row]:
  for i in (1, 2):
    yield from torch_tensors.layer(
      f"{theirs}.mlp.fc{i}", f"{ours}/mlp/Dense_{i - 1}", linear
    )


def attention(
  theirs: str, ours: str, num_heads: int, linear: Kind, norm1: str = "norm1"
) -> Iterator[Row]:
  """Rows of a block of attention.

  `linear` is the kind of its MLP, `norm1` the name of its first norm.
  """
  for i, norm in enumerate((norm1, "norm2"), 1):
    yield from torch_tensors.norm(f"{theirs}.{norm}", f"{ours}/norm{i}")
    scale = f"{ours}/layer_scale{i}/gamma"
    yield f"{theirs}.ls{i}.gamma", scale, SAME
  expand = f"{theirs}.shortcut.expand"
  yield from torch_tensors.layer(expand, f"{ours}/expand", LINEAR_1X1)
  yield from _mlp(theirs, ours, linear)
  theirs, ours = f"{theirs}.attn", f"{ours}/attention"
  yield from torch_tensors.attention(
    [f"{theirs}.{part}" for part in "qkv"], f"{theirs}.proj", ours, num_heads
  )
  theirs, ours = f"{theirs}.rel_pos", f"{ours}/position_bias"
  yield f"{theirs}.relative_position_bias_table", f"{ours}/table", OFFSETS
  for i in (1, 2):
    yield from torch_tensors.layer(
      f"{theirs}.mlp.fc{i}", f"{ours}/Dense_{i - 1}", LINEAR
    )


def split_heads(flat: Flat, layers: Sequence[Fused]) -> Flat:
  """Takes the fused layers apart; 1x1 convolutions become matrices."""
  flat = dict(flat)
  for name, parts in _weights(layers):
    if name in flat:
      x = np.asarray(flat[name])
      x = x.reshape(-1, parts, _HEAD_WIDTH, *x.shape[1:2]).swapaxes(0, 1)
      flat[name] = x.reshape(-1, *x.shape[3:])
  return torch_tensors.split_fused(flat, layers)


def join_heads(flat: Flat, layers: Sequence[Fused], ndim: int) -> Flat:
  """Inverse of `split_heads`; weights get `ndim` dimensions."""
  flat = torch_tensors.join_fused(flat, layers)
  for name, parts in _weights(layers):
    if name in flat:
      x = flat[name]
      x = x.reshape(parts, -1, _HEAD_WIDTH, *x.shape[1:]).swapaxes(0, 1)
      x = x.reshape(-1, *x.shape[3:])
      ones = ndim - x.ndim if name.endswith("weight") else 0
      flat[name] = x.reshape(x.shape + (1,) * ones)
  return flat


def _weights(layers: Sequence[Fused]) -> Iterator[tuple[str, int]]:
  """Names of the arrays of attention, and how many parts each head has."""
  for layer in layers:
    yield f"{layer.name}.weight", 3
    yield f"{layer.name}.bias", 3
    yield f"{layer.name.removesuffix('qkv')}proj.weight", 1


def fused(theirs: str, width: int) -> Fused:
  """The fused queries, keys and values of a block of attention."""
  parts = [f"{theirs}.attn.{part}" for part in "qkv"]
  return Fused(f"{theirs}.attn.qkv", dict.fromkeys(parts, width))


def _fused(model) -> list[Fused]:
  return [
    fused(f"stages.{s}.blocks.{b}.attn_grid", model.widths[s])
    for s, depth in enumerate(model.depths)
    for b in range(depth)
  ]


def to_vitjax(flat: Flat, model) -> Flat:
  """Splits the fused layers, renames and transposes."""
  torch_tensors.require(model, "maxxvit", NAME)
  return torch_tensors.to_vitjax(split_heads(flat, _fused(model)), _rows(model))


def from_vitjax(flat: Flat, model) -> Flat:
  """Inverse of `to_vitjax`."""
  torch_tensors.require(model, "maxxvit", NAME)
  flat = torch_tensors.from_vitjax(flat, _rows(model), NAME)
  return join_heads(flat, _fused(model), ndim=2)
