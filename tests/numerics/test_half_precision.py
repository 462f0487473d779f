"""Bfloat16 on CPUs, and the untouched programs of other devices."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vitjax import models
from vitjax.models import common, half_precision

DIMS = (((2,), (0,)), ((), ()))


def example(*shape, seed=0):
  x = np.random.default_rng(seed).standard_normal(shape)
  return jnp.asarray(x, jnp.bfloat16)


def in_float64(*arrays):
  return [np.asarray(x.astype(jnp.float32), np.float64) for x in arrays]


def test_a_product_is_rounded_once():
  x, kernel, gradient = example(2, 5, 64), example(64, 7), example(2, 5, 7)
  y, pull = jax.vjp(lambda x, k: half_precision.dense(x, k, DIMS), x, kernel)
  got = y, *pull(gradient)
  assert all(z.dtype == jnp.bfloat16 for z in got)
  x, kernel, gradient = in_float64(x, kernel, gradient)
  rows, of_rows = x.reshape(-1, 64), gradient.reshape(-1, 7)
  for value, want in zip(
    got, (x @ kernel, gradient @ kernel.T, rows.T @ of_rows)
  ):
    [value] = in_float64(value)
    # A bfloat16 has 8 bits: rounding changes it by a share of 2^-8 at most.
    bound = 2.0**-8 * np.abs(want) + 1e-5
    assert (np.abs(value - want) <= bound).all()


@pytest.mark.parametrize("kind", ["tanh", "erf", "quick"])
def test_a_gelu_is_rounded_once(kind):
  x = example(1000) * 4
  [want] = in_float64(common.GELU[kind](x.astype(jnp.float32)))
  [value] = in_float64(common.GELU[kind](x))
  assert (np.abs(value - want) <= 2.0**-8 * np.abs(want) + 1e-7).all()


def program(platform: str) -> str:
  """The program of a small ViT for a device of this platform."""
  device = jax.sharding.AbstractDevice(platform, None, platform)
  mesh = jax.sharding.AbstractMesh((1,), ("x",), abstract_device=device)
  model = models.create(
    "vit", patch_size=4, width=16, depth=1, num_heads=2, dtype="bfloat16"
  )
  image = jnp.zeros((1, 8, 8, 3))
  variables = model.init(jax.random.key(0), image)
  with jax.sharding.use_abstract_mesh(mesh):
    return str(jax.make_jaxpr(model.apply)(variables, image))


def test_other_devices_compute_what_they_are_told():
  rounded = "name=_matmul"
  assert rounded in program("cpu") and rounded not in program("tpu")
