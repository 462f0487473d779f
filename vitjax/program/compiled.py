"""The compiled train steps of a run, and the memory that they use."""

from collections.abc import Callable
from typing import Any

import jax
from absl import logging

from vitjax import program
from vitjax.data import device
from vitjax.parallel import devices, memory, sharding
from vitjax.program.variants import Variant


def compile_step(
  parts: program.Program,
) -> tuple[Callable, memory.StepMemory]:
  """The compiled train step, the largest of all, and the memory that it uses.

  Raises:
    OutOfMemoryError: if it cannot fit the memory that there is.
  """
  run, state, shardings = parts.run, parts.abstract, parts.shardings
  compiled = memory.compile_step(
    parts.train_step.lower(state, device.on_arrival(parts.batch))
  )
  grad_bytes = sharding.bytes_per_device(state.trained, shardings.trained)
  step = memory.StepMemory(
    used_bytes=memory.used_bytes(compiled),
    limit_bytes=devices.memory_of(jax.local_devices()[0]),
    fixed_bytes=grad_bytes + sharding.bytes_per_device(state, shardings),
    grad_bytes=grad_bytes,
    batch_size=run.input.batch_size,
    batch_parts=sharding.batch_parts(parts.mesh),
    accumulation_steps=run.accumulation_steps,
  )
  step.check()
  return compiled, step


class Steps:
  """The compiled train steps of a run, each compiled when it is first used."""

  def __init__(self, parts: program.Program):
    """Compiles nothing yet."""
    self._parts = parts
    self._compiled: dict[Variant, Any] = {}

  def keep(self, variant: Variant, compiled: Any) -> None:
    """Keeps the compiled train step of a variant."""
    self._compiled[variant] = compiled
    if (count := len(self._parts.variants.all)) > 1:
      logging.info(
        "Compiled train step %d of %d, for %s. Others compile when they are "
        "first used.",
        len(self._compiled),
        count,
        variant,
      )

  def at(self, step: int, paused: Callable[[str], Any]) -> Any:
    """The compiled train step of a step; compiles it if it is new.

    Args:
      step: number of the step.
      paused: context manager around a compilation, see `Progress.paused`.
    """
    parts = self._parts
    variant = parts.variants.at(step)
    if variant not in self._compiled:
      with paused("compile"):
        lowered = parts.step_of(variant).lower(
          parts.abstract, device.on_arrival(parts.batch)
        )
        self.keep(variant, memory.compile_step(lowered))
    return self._compiled[variant]
