"""Vision Transformers against outputs of the published implementations."""

import functools
import pathlib
import runpy

import jax
import numpy as np
import pytest

from vitjax import models, weights

FOLDER = pathlib.Path(__file__).parents[1] / "golden" / "reference"
ref = runpy.run_path(str(FOLDER / "refweights.py"))

# Float32 against float32, both at the highest matmul precision. tanh against
# erf GELU differs by 2e-4 of the range.
TOLERANCE = 2e-5

CASES = {
  "bv_mu_16_map": {"variant": "mu/16", "pool_type": "map"},
  "bv_Ti_16_tok": {"variant": "Ti/16", "pool_type": "tok"},
  "bv_Ti_16_scan_map": {
    "variant": "Ti/16",
    "pool_type": "map",
    "scan_layers": True,
  },
  "bv_S_16_gap_sincos2d_rep": {
    "variant": "S/16",
    "posemb": "sincos2d",
    "rep_size": True,
  },
  "vt_ViT-Ti_16": {"variant": "Ti/16", "pool_type": "tok"},
  "vt_ViT-S_16-gap-norep": {"variant": "S/16"},
  "vt_ViT-Ti_16_representation_size192": {
    "variant": "Ti/16",
    "pool_type": "tok",
    "rep_size": 192,
    "num_classes": 21,
  },
}


@functools.cache
def case(name):
  return ref["load_case"](name, FOLDER)


def build(name, **options):
  return models.create("vit", **{"num_classes": 1000, **CASES[name], **options})


def load(name, folder, model):
  file = folder / "weights.npz"
  np.savez(file, **ref["weights"](case(name)))
  return weights.load(file, model)


def distance(name, model, params):
  """Largest |difference| of the outputs, relative to the largest |output|."""
  image = ref["images"](case(name))
  _, out = jax.jit(model.apply)({"params": params}, image)
  worst = 0.0
  for key, want in case(name)["outputs"].items():
    want = np.asarray(want, np.float32)
    gap = np.abs(np.asarray(out[key]) - want).max() / np.abs(want).max()
    worst = max(worst, float(gap))
  return worst


@pytest.mark.parametrize("name", CASES)
def test_logits(name, tmp_path):
  model = build(name)
  gap = distance(name, model, load(name, tmp_path, model))
  print(f"{name}: {gap:.1e}")
  assert gap < TOLERANCE
