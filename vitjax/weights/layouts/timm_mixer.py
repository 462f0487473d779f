"""timm's `mixer_*`: a state dict. Use a model with gelu="erf" for them."""

from collections.abc import Collection, Iterator

from vitjax.weights.layouts import torch_tensors
from vitjax.weights.layouts.torch_tensors import CONV, LINEAR, Flat, Row

NAME = "timm_mixer"
facts = torch_tensors.timm_facts_with_size


def matches(names: Collection[str]) -> bool:
  """The token MLP of the first block."""
  return "blocks.0.mlp_tokens.fc1.weight" in names


def _rows(model) -> Iterator[Row]:
  torch_tensors.require(model, "mixer", NAME)
  yield from torch_tensors.layer("stem.proj", "stem", CONV)
  for i in range(model.depth):
    for j, mlp in enumerate(("token", "channel")):
      theirs, ours = f"blocks.{i}", f"MixerBlock_{i}"
      yield from torch_tensors.norm(
        f"{theirs}.norm{j + 1}", f"{ours}/LayerNorm_{j}"
      )
      for k in (0, 1):
        yield from torch_tensors.layer(
          f"{theirs}.mlp_{mlp}s.fc{k + 1}",
          f"{ours}/{mlp}_mixing/Dense_{k}",
          LINEAR,
        )
  yield from torch_tensors.norm("norm", "pre_head_layer_norm")
  yield from torch_tensors.layer("head", "head", LINEAR)


def to_vitjax(flat: Flat, model) -> Flat:
  """Renames and transposes."""
  return torch_tensors.to_vitjax(flat, _rows(model))


def from_vitjax(flat: Flat, model) -> Flat:
  """Inverse of `to_vitjax`."""
  return torch_tensors.from_vitjax(flat, _rows(model), NAME)
