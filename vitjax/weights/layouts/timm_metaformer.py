"""timm's `convformer_*` and `caformer_*`: a state dict.

Stages of convolutions have 1x1 convolutions where those of attention have
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
  Fused,
  Row,
)

NAME = "timm_metaformer"
facts = torch_tensors.timm_facts


def matches(names: Collection[str]) -> bool:
  """The token mixer of the first block."""
  return "stages.0.blocks.0.token_mixer.pwconv1.weight" in names


def _rows(model) -> Iterator[Row]:
  yield from torch_tensors.layer("stem.conv", "stem", CONV)
  yield "stem.norm.weight", "stem_norm/scale", SAME
  for s, depth in enumerate(model.depths):
    theirs, ours = f"stages.{s}.downsample", f"stage{s}/downsample"
    yield f"{theirs}.norm.weight", f"{ours}_norm/scale", SAME
    yield from torch_tensors.layer(f"{theirs}.conv", f"{ours}_conv", CONV)
    for b in range(depth):
      yield from _block(
        f"stages.{s}.blocks.{b}", f"stage{s}/block{b:02d}", model, s
      )
  yield from torch_tensors.norm("head.norm", "norm")
  yield from torch_tensors.layer("head.fc.fc1", "head_hidden", LINEAR)
  yield from torch_tensors.norm("head.fc.norm", "head_norm")
  yield from torch_tensors.layer("head.fc.fc2", "head", LINEAR)


def _block(theirs: str, ours: str, model, stage: int) -> Iterator[Row]:
  is_conv = model.mixers[stage] == "conv"
  linear = LINEAR_1X1 if is_conv else LINEAR
  for i in (1, 2):
    yield f"{theirs}.norm{i}.weight", f"{ours}/norm{i}/scale", SAME
    scale = f"{ours}/shortcut_scale{i}/gamma"
    yield f"{theirs}.res_scale{i}.scale", scale, SAME
    weight = f"{theirs}.mlp.fc{i}.weight"
    yield weight, f"{ours}/mlp/Dense_{i - 1}/kernel", linear
  for leaf in ("scale", "bias"):
    yield f"{theirs}.mlp.act.{leaf}", f"{ours}/mlp/act/{leaf}", SAME
  mixer = f"{theirs}.token_mixer"
  if is_conv:
    for name, kind in (
      ("pwconv1", linear),
      ("dwconv", CONV),
      ("pwconv2", linear),
    ):
      yield f"{mixer}.{name}.weight", f"{ours}/mixer/{name}/kernel", kind
    for leaf in ("scale", "bias"):
      yield f"{mixer}.act1.{leaf}", f"{ours}/mixer/act/{leaf}", SAME
  else:
    yield from torch_tensors.attention(
      _qkv(mixer),
      f"{mixer}.proj",
      f"{ours}/mixer/attention",
      model.widths[stage] // 32,
    )


def _qkv(mixer: str) -> list[str]:
  return [f"{mixer}.{part}" for part in "qkv"]


def _fused(model) -> Iterator[Fused]:
  for s, depth in enumerate(model.depths):
    for b in range(depth):
      mixer = f"stages.{s}.blocks.{b}.token_mixer"
      parts = dict.fromkeys(_qkv(mixer), model.widths[s])
      yield Fused(f"{mixer}.qkv", parts)


def to_vitjax(flat: Flat, model) -> Flat:
  """Splits the fused layers, renames and transposes."""
  torch_tensors.require(model, "metaformer", NAME)
  flat = torch_tensors.split_fused(flat, _fused(model))
  return torch_tensors.to_vitjax(flat, _rows(model))


def from_vitjax(flat: Flat, model) -> Flat:
  """Inverse of `to_vitjax`."""
  torch_tensors.require(model, "metaformer", NAME)
  flat = torch_tensors.from_vitjax(flat, _rows(model), NAME)
  return torch_tensors.join_fused(flat, _fused(model))
