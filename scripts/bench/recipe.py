"""What several benchmarks measure: the train step of configs/vit_s16_i1k.py."""

from typing import Any

import jax

from configs import vit_s16_i1k


def make(batch_size: int) -> tuple[Any, Any]:
  """The parts of the program, see `vitjax.program`, and the first state."""
  from vitjax import build, config, planning

  c = vit_s16_i1k.get_config(f"batch={batch_size}")
  run = config.resolve(c, build.problems)
  source, _ = planning.find_source(run, None)
  parts = planning.make_program(run, source, jax.devices())
  state = jax.jit(
    lambda key: parts.make_state(parts.init_params(key)),
    out_shardings=parts.shardings,
  )(jax.random.key(0))
  return parts, state
