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
  "timm_vit_small_patch16_224": {"name": "vit_small_patch16_224"},
  "timm_vit_wee_patch16_reg1_gap_256": {"name": "vit_wee_patch16_reg1_gap_256"},
  "timm_vit_little_patch16_reg4_gap_256": {
    "name": "vit_little_patch16_reg4_gap_256"
  },
  "timm_deit3_small_patch16_224": {"name": "deit3_small_patch16_224"},
}


@functools.cache
def case(name):
  return ref["load_case"](name, FOLDER)


def build(name, **options):
  # One block compiles much faster than twelve; bv_Ti_16_tok is the loop.
  scan = name not in ("bv_Ti_16_tok", "bv_mu_16_map")
  defaults = {"name": "vit", "num_classes": 1000, "scan_layers": scan}
  return models.create(**{**defaults, **CASES[name], **options})


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


# Seen in other cases too: by structure, not by size.
SLOW = (
  "vt_ViT-S_16-gap-norep",
  "vt_ViT-Ti_16_representation_size192",
  "timm_vit_small_patch16_224",
  "timm_vit_little_patch16_reg4_gap_256",
)


@pytest.mark.parametrize(
  "name",
  [
    pytest.param(name, marks=pytest.mark.slow if name in SLOW else ())
    for name in CASES
  ],
)
def test_logits(name, tmp_path):
  model = build(name)
  gap = distance(name, model, load(name, tmp_path, model))
  print(f"{name}: {gap:.1e}")
  assert gap < TOLERANCE


# Bugs that a conversion or a model may have, each in the smallest case that
# can show it: (case, options of the model, change of the parameters).
def transpose(*path):
  def change(params):
    flat = weights.npz.flatten(params)
    for name in flat:
      if name.endswith("/".join(path)):
        flat[name] = flat[name].swapaxes(-1, -2).reshape(flat[name].shape)
    return weights.npz.unflatten(flat)

  return change


def without_norm(params):
  flat = weights.npz.flatten(params)
  flat["Transformer/encoder_norm/scale"] = (
    0 * flat["Transformer/encoder_norm/scale"] + 1
  )
  return weights.npz.unflatten(flat)


MUTATIONS = {
  "erf": ("bv_mu_16_map", {"gelu": "erf"}, None),
  "epsilon": ("bv_mu_16_map", {"layer_norm_eps": 1e-3}, None),
  "heads": ("bv_mu_16_map", {}, transpose("query", "kernel")),
  "kernel": ("bv_mu_16_map", {}, transpose("embedding", "kernel")),
  "norm": ("bv_mu_16_map", {}, without_norm),
}


@pytest.mark.parametrize("mutation", MUTATIONS)
def test_bugs_are_seen(mutation, tmp_path):
  name, options, change = MUTATIONS[mutation]
  params = load(name, tmp_path, build(name))
  model = build(name, **options)
  gap = distance(name, model, change(params) if change else params)
  print(f"{mutation}: {gap:.1e}")
  assert gap > 3 * TOLERANCE


@pytest.mark.slow
@pytest.mark.parametrize(
  ("name", "options"),
  [
    ("vt_ViT-Ti_16", {"gelu": "erf"}),
    ("timm_vit_small_patch16_224", {"gelu": "tanh"}),
    ("timm_deit3_small_patch16_224", {"gelu": "tanh"}),
    ("timm_vit_wee_patch16_reg1_gap_256", {"gelu": "tanh"}),
  ],
)
def test_wrong_gelu_is_seen_in_full_models(name, options, tmp_path):
  params = load(name, tmp_path, build(name))
  assert distance(name, build(name, **options), params) > 3 * TOLERANCE


@pytest.mark.slow
def test_pooled_registers_are_seen(tmp_path):
  name = "timm_vit_little_patch16_reg4_gap_256"
  model = build(name)
  params = load(name, tmp_path, model)
  image = ref["images"](case(name))
  _, out = jax.jit(model.apply)({"params": params}, image)
  want = np.asarray(case(name)["outputs"]["logits"])
  for first, same in ((4, True), (0, False)):
    x = np.asarray(out["encoded"])[:, first:].mean(axis=1)
    x = (x - x.mean(-1, keepdims=True)) / np.sqrt(
      x.var(-1, keepdims=True) + 1e-6
    )
    x = x * params["fc_norm"]["scale"] + params["fc_norm"]["bias"]
    got = x @ params["head"]["kernel"] + params["head"]["bias"]
    gap = np.abs(got - want).max() / np.abs(want).max()
    assert (gap < TOLERANCE) == same
