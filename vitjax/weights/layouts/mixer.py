"""MLP-Mixers of google-research/vision_transformer and big_vision.

The names are ours, with the prefix `params/`, `opt/target/` or none. A still
older form, which big_vision reads too, has other names and keeps kernels with
singleton axes. Numbers of norms may be those from before Linen.

We write no prefix, which both code bases read.
"""

import re
from collections.abc import Collection

from vitjax.weights import npz
from vitjax.weights.layouts import torch_tensors, vit_names
from vitjax.weights.layouts.torch_tensors import Flat

NAME = "mixer"

_BLOCK = re.compile(r"(?:^|/)(?:MixerBlock|Mixer/encoderblock)_\d+/")
_OLD = (
  (r"^Mixer/encoderblock_(\d+)/", r"MixerBlock_\1/"),
  (r"^Mixer/encoder_norm/", "pre_head_layer_norm/"),
  (r"^Mixer/", ""),
  (r"^embedding/", "stem/"),
  (r"/(token|channel)_mixing_phase_0/", r"/\1_mixing/"),
  (r"/(kernel|bias)([12])$", lambda m: f"/Dense_{int(m[2]) - 1}/{m[1]}"),
)


def matches(names: Collection[str]) -> bool:
  """Blocks of a Mixer, by either name."""
  return any(_BLOCK.search(name) for name in names)


def to_vitjax(flat: Flat, model) -> Flat:
  """Undoes what older versions have done differently."""
  torch_tensors.require(model, "mixer", NAME)
  out = {}
  for name, x in npz.strip_prefix(flat).items():
    new = name
    for old, replacement in _OLD:
      new = re.sub(old, replacement, new)
    out[new] = x.squeeze() if "_mixing_phase_0/" in name else x
  return vit_names.renumber(out)


def from_vitjax(flat: Flat, model) -> Flat:
  """The same names."""
  torch_tensors.require(model, "mixer", NAME)
  return dict(flat)
