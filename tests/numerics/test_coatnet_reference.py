"""CoAtNet and MaxxViT-V2 against timm, and mistakes that must be seen."""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import pytest

from tests.numerics import reference
from tests.numerics.reference import TOLERANCE, distance, load
from vitjax.models import attention, coatnet

MINI = {
  "stem_widths": (8, 16),
  "widths": (16, 32, 64, 96),
  "depths": (1, 2, 2, 1),
}
CASES = {
  "mini_coatnet_rw": ("coatnet", {"variant": "2", **MINI}),
  "mini_coatnet_rmlp_rw": ("coatnet", {"variant": "rmlp-2", **MINI}),
  "mini_maxxvitv2_rmlp": (
    "maxxvit",
    {
      "variant": "rmlp-base",
      "stem_widths": (16, 32),
      "widths": (32, 64, 128, 256),
      "depths": (1, 1, 2, 1),
    },
  ),
  "timm_coatnet_0_rw_224": ("coatnet_0_rw_224", {}),
  "timm_coatnet_rmlp_1_rw_224": ("coatnet_rmlp_1_rw_224", {}),
  "timm_coatnet_rmlp_1_rw2_224": ("coatnet_rmlp_1_rw2_224", {}),
  "timm_maxxvitv2_nano_rw_256": ("maxxvitv2_nano_rw_256", {}),
}
build = functools.partial(reference.build, CASES)


@pytest.mark.parametrize("name", reference.names(CASES))
def test_logits(name, tmp_path):
  model = build(name)
  assert distance(name, model, load(name, model, tmp_path)) < TOLERANCE


@pytest.mark.slow
@pytest.mark.parametrize(
  ("name", "options"),
  [
    ("mini_coatnet_rw", {"batch_norm_eps": 1e-6}),
    ("mini_coatnet_rw", {"layer_norm_eps": 1e-5}),
    ("mini_coatnet_rw", {"se_act": "relu"}),
    ("mini_coatnet_rw", {"se_place": "early"}),
    ("mini_coatnet_rw", {"strided_by": "pool"}),
    ("mini_coatnet_rw", {"pool": "max"}),
    ("mini_maxxvitv2_rmlp", {"gelu": "tanh"}),
  ],
)
def test_a_wrong_option_is_seen(name, options, tmp_path):
  params = load(name, build(name), tmp_path)
  assert distance(name, build(name, **options), params) > 5 * TOLERANCE


def block_for_grid(monkeypatch):
  """Groups of neighbours in place of tokens that are spread."""

  for name in ("_split", "_join"):
    change = getattr(attention, name)
    monkeypatch.setattr(
      attention, name, lambda *args, change=change, spread: change(*args)
    )


def without_silu(monkeypatch):
  monkeypatch.setattr(coatnet.nn, "silu", nn.relu)


@pytest.mark.slow
@pytest.mark.parametrize(
  ("name", "mistake"),
  [
    ("mini_maxxvitv2_rmlp", block_for_grid),
    ("mini_coatnet_rw", without_silu),
  ],
)
def test_a_mistake_is_seen(name, mistake, tmp_path, monkeypatch):
  model = build(name)
  params = load(name, model, tmp_path)
  mistake(monkeypatch)
  assert distance(name, model, params) > 10 * TOLERANCE


@pytest.mark.parametrize("name", ["mini_coatnet_rw", "mini_maxxvitv2_rmlp"])
def test_images_must_fit(name):
  image = jax.ShapeDtypeStruct((1, 64, 90, 3), jnp.float32)
  with pytest.raises(ValueError, match="multiples of 32, such as 64x96"):
    jax.eval_shape(build(name).init, jax.random.key(0), image)
