"""ConvFormer and CAFormer against timm, and mistakes that must be seen."""

import functools

import flax.linen as nn
import jax.numpy as jnp
import pytest

from tests.numerics import reference
from tests.numerics.reference import TOLERANCE, distance, load
from vitjax.models import common, metaformer

CASES = {
  "mini_caformer": (
    "metaformer",
    {"depths": (1, 1, 2, 1), "widths": (32, 64, 96, 128)},
  ),
  "timm_caformer_s36": ("caformer_s36", {}),
  "timm_convformer_s36": ("convformer_s36", {}),
}
build = functools.partial(reference.build, CASES)


@pytest.mark.parametrize("name", reference.names(CASES))
def test_logits(name, tmp_path):
  model = build(name)
  assert distance(name, model, load(name, model, tmp_path)) < TOLERANCE


def another_epsilon(monkeypatch):
  return {"layer_norm_eps": 1e-5}


def scale_of_the_branch(monkeypatch):
  """The factor is of the shortcut, so without it there is a difference."""
  monkeypatch.setattr(common.LayerScale, "__call__", lambda self, x: x)
  return {"scaled_stages": 2}


def relu_squared(monkeypatch):
  monkeypatch.setattr(
    metaformer.StarReLU,
    "__call__",
    lambda self, x: jnp.square(jnp.maximum(x, 0)),
  )
  return {}


def asymmetric_padding(monkeypatch):
  conv = nn.Conv
  monkeypatch.setattr(
    metaformer.nn,
    "Conv",
    lambda *args, **options: conv(*args, **options | {"padding": "SAME"}),
  )
  return {}


@pytest.mark.slow
@pytest.mark.parametrize(
  "mistake",
  [another_epsilon, scale_of_the_branch, relu_squared, asymmetric_padding],
)
def test_a_mistake_is_seen(mistake, tmp_path, monkeypatch):
  name = "mini_caformer"
  params = load(name, build(name), tmp_path)
  model = build(name, **mistake(monkeypatch))
  assert distance(name, model, params) > 10 * TOLERANCE
