"""What only a device can show; on a CPU these tests pass too."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from scripts.bench import network, recipe
from vitjax.doctor import self_test
from vitjax.parallel import devices, memory

pytestmark = pytest.mark.accelerator


def trained():
  """Parameters of a tiny model after three steps."""
  made = network.make(
    "vit",
    network.ADAM,
    image_size=32,
    width=32,
    depth=1,
    num_heads=2,
    mlp_dim=64,
  )
  state = made.init(jax.random.key(0))
  batch = jax.device_put(recipe.example_batch(8, 32))
  for _ in range(3):
    state, _ = made.train(state, batch)
  return jax.device_get(state.params)


def test_steps_again_are_the_same_to_the_bit():
  jax.tree.map(np.testing.assert_array_equal, trained(), trained())


def test_fused_attention_is_the_plain_one():
  assert self_test.attention_problems() == []


def test_the_memory_of_the_device_is_known():
  limit = devices.memory_of(jax.devices()[0])
  assert limit and limit > 2**30


def test_too_large_an_array_is_explained():
  with pytest.raises(memory.OutOfMemoryError, match="Use less"):
    with memory.explained("Use less."):
      jnp.zeros((2**22, 2**22)).block_until_ready()


def test_products_of_float32_are_exact_if_asked_for():
  random = np.random.default_rng(0)
  a, b = (random.standard_normal((256, 256), np.float32) for _ in range(2))
  got = jnp.matmul(a, b, precision="highest")
  exact = a.astype(np.float64) @ b.astype(np.float64)
  assert np.abs(got - exact).max() < 1e-4
