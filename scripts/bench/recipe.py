"""The train step of configs/vit_s16_i1k.py, shared by several benchmarks."""

from typing import Any

import jax
import numpy as np

from configs import vit_s16_i1k


def make(
  batch_size: int,
  variant: str = "S/16",
  image_size: int = 224,
  dtype: str = "float32",
) -> tuple[Any, Any]:
  """The parts of the program, see `vitjax.program`, and the first state."""
  from vitjax import checks, start
  from vitjax.config import resolving
  from vitjax.plan import planning, stand_in

  c = vit_s16_i1k.get_config(f"batch={batch_size}")
  c.model.variant, c.model.dtype = variant, dtype
  c.input.pp = c.input.pp.replace("(224)", f"({image_size})")
  run = resolving.resolve(c, checks.problems)
  source, _ = stand_in.find_source(run, None)
  parts = planning.make_program(run, source, jax.devices())
  return parts, start.random_state(parts)


def example_batch(
  batch_size: int, image_size: int = 224
) -> dict[str, np.ndarray]:
  """Images and labels of no meaning."""
  random = np.random.default_rng(0)
  shape = (batch_size, image_size, image_size, 3)
  return {
    "image": random.integers(256, size=shape, dtype="uint8"),
    "label": random.integers(1000, size=batch_size, dtype="int32"),
  }
