"""Mixer, ConvNeXt, NFNet, BiT and hybrids against the published code.

Each case loads a file in the published layout, so that a case is a test of
the layout too. Every case is paired with a plausible mistake in parameters or
options that must be seen.
"""

import pytest

from tests.numerics import reference
from tests.numerics.reference import TOLERANCE, arrays, distance, load
from vitjax import trees

# Deep networks of standardised convolutions add up more rounding.
TOLERANCE_STD = 1e-4


def swap(a, b):
  """Exchanges two parameters of one shape."""

  def mutate(flat):
    return {**flat, a: flat[b], b: flat[a]}

  return mutate


def transpose(name):
  """Exchanges height and width of a convolution."""

  def mutate(flat):
    return {**flat, name: flat[name].swapaxes(0, 1)}

  return mutate


def timm_gains(flat):
  """timm's gains as they are in the file, without the correction."""
  gain = arrays("timm_dm_nfnet_f0")["final_conv.gain"].reshape(-1)
  return {**flat, "final_conv/gain": gain}


# Case -> published name, tolerance, mistake in the parameters or
# options that are wrong.
CASES = {
  "vt_Mixer-B_32": ("Mixer-B_32", TOLERANCE, {"gelu": "erf"}),
  "timm_mixer_s32_224": (
    "mixer_s32_224",
    TOLERANCE,
    swap("MixerBlock_3/LayerNorm_0/scale", "MixerBlock_3/LayerNorm_1/scale"),
  ),
  "timm_convnext_atto": (
    "convnext_atto",
    TOLERANCE,
    {"gelu": "tanh"},
  ),
  "timm_convnext_tiny": (
    "convnext_tiny",
    TOLERANCE,
    transpose("stage3/block02/dwconv/kernel"),
  ),
  "timm_dm_nfnet_f0": ("dm_nfnet_f0", TOLERANCE_STD, timm_gains),
  "timm_resnetv2_50x1_bit": (
    "resnetv2_50x1_bit",
    TOLERANCE_STD,
    swap("block4/unit02/gn1/bias", "block4/unit03/gn1/bias"),
  ),
  "vt_R+ViT-Ti_16": (
    "R+ViT-Ti_16",
    TOLERANCE_STD,
    transpose("conv_root/kernel"),
  ),
  "vt_R26+ViT-S_32": (
    "R26+ViT-S_32",
    TOLERANCE_STD,
    swap("block4/unit1/gn3/scale", "block4/unit1/gn_proj/scale"),
  ),
}
SLOW = {
  "vt_Mixer-B_32",
  "timm_convnext_tiny",
  "timm_dm_nfnet_f0",
  "timm_resnetv2_50x1_bit",
  "vt_R26+ViT-S_32",
}
NAMES = [
  pytest.param(name, marks=pytest.mark.slow if name in SLOW else ())
  for name in CASES
]


def build(name, **options):
  return reference.create(name, CASES[name][0], **options)


@pytest.mark.parametrize("name", NAMES)
def test_logits(name, tmp_path):
  _, tolerance, _ = CASES[name]
  model = build(name)
  assert distance(name, model, load(name, model, tmp_path)) < tolerance


@pytest.mark.slow
@pytest.mark.parametrize("name", CASES)
def test_a_mistake_is_seen(name, tmp_path):
  _, tolerance, mistake = CASES[name]
  model = build(name)
  params = load(name, model, tmp_path)
  if callable(mistake):
    params = trees.unflatten(mistake(trees.flatten(params)))
  else:
    model = build(name, **mistake)
  assert distance(name, model, params) > 2 * tolerance
