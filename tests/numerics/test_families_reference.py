"""Mixer, ConvNeXt, NFNet, BiT and hybrids against the published code.

Each case loads a file in the published layout, so that a case is a test of
the layout too. Every case is paired with a plausible mistake in parameters or
options that must be seen.
"""

import functools
import pathlib
import runpy

import jax
import numpy as np
import pytest

from vitjax import models, trees, weights

FOLDER = pathlib.Path(__file__).parents[1] / "golden" / "reference"
ref = runpy.run_path(str(FOLDER / "refweights.py"))

# Of the largest |logit|, in float32. Deep networks of standardised
# convolutions add up more rounding.
TOLERANCE = 2e-5
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
  raw = ref["weights"](case("timm_dm_nfnet_f0"))
  gain = raw["final_conv.gain"].reshape(-1)
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


@functools.cache
def case(name):
  return ref["load_case"](name, FOLDER)


def build(name, **options):
  num_classes = case(name)["model"]["num_classes"]
  return models.create(CASES[name][0], num_classes=num_classes, **options)


def distance(name, apply, params):
  """Largest |difference| of logits, relative to the largest |logit|."""
  logits = apply(params, ref["images"](case(name)))
  want = np.asarray(case(name)["outputs"]["logits"], np.float32)
  return float(np.abs(np.asarray(logits) - want).max() / np.abs(want).max())


def compiled(model):
  return jax.jit(
    lambda params, image: model.apply({"params": params}, image)[0]
  )


@pytest.mark.parametrize("name", NAMES)
def test_logits(name, tmp_path):
  _, tolerance, mistake = CASES[name]
  model = build(name)
  np.savez(tmp_path / "weights.npz", **ref["weights"](case(name)))
  size = case(name)["image_shape"][1]
  params = weights.load(tmp_path / "weights.npz", model, image_size=size)
  apply = compiled(model)
  right = distance(name, apply, params)
  if callable(mistake):
    params = trees.unflatten(mistake(trees.flatten(params)))
  else:
    apply = compiled(build(name, **mistake))
  wrong = distance(name, apply, params)
  print(f"{name}: {right:.1e}; with a mistake {wrong:.1e}")
  assert right < tolerance
  assert wrong > 2 * tolerance
