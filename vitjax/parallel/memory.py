"""Compares the memory of a train step with the device's, before step 1."""

import contextlib
import dataclasses
from collections.abc import Generator

import jax
from absl import logging

_NEAR = 0.8  # share of the memory; batches and other programs need the rest
_ADVICE = (
  "Use a smaller --config.input.batch_size or a larger "
  "--config.accumulation_steps. python -m vitjax.plan tries which of them fit."
)


class OutOfMemoryError(RuntimeError):
  """Arrays do not fit the memory; the message says what to change."""


@dataclasses.dataclass(frozen=True)
class StepMemory:
  """Memory of a train step on one device, and the options to reduce it.

  Attributes:
    used_bytes: peak memory; None if the compiler does not say.
    limit_bytes: memory of the device; None if unknown.
    fixed_bytes: memory of state and gradients, for any batch.
    grad_bytes: memory of the gradients.
    batch_size: global examples per step.
    batch_parts: devices that a batch is split over.
    accumulation_steps: parts that the batch of each device is split into.
  """

  used_bytes: int | None
  limit_bytes: int | None
  fixed_bytes: int
  grad_bytes: int
  batch_size: int
  batch_parts: int
  accumulation_steps: int = 1

  def check(self) -> None:
    """Raises OutOfMemoryError if the step cannot fit; warns if it may not."""
    if self.used_bytes is None or self.limit_bytes is None:
      return
    needs = (
      f"the train step needs {_size(self.used_bytes)} of memory for a batch of "
      f"{self.batch_size:,}; {_place()} has {_size(self.limit_bytes)}."
    )
    if self.used_bytes > self.limit_bytes:
      raise OutOfMemoryError(f"{needs} {self.advice()}")
    if self.used_bytes > _NEAR * self.limit_bytes:
      logging.warning("Memory is tight: %s %s", needs, self.advice())

  def explained(self) -> contextlib.AbstractContextManager[None]:
    """Turns a failed allocation inside into an error with advice."""
    if self.used_bytes is None:
      return explained(self.advice())
    return explained(
      f"The train step needs {_size(self.used_bytes)} for a batch of "
      f"{self.batch_size:,}. {self.advice()}"
    )

  def advice(self) -> str:
    """The changes of the config that should fit, the smallest of each kind."""
    if self.used_bytes is None:
      return _ADVICE
    limit = _NEAR * min(self.used_bytes, self.limit_bytes or self.used_bytes)
    variable = max(0, self.used_bytes - self.fixed_bytes)
    ways = []
    free = limit - self.fixed_bytes - self.grad_bytes  # their sum as well
    rows = self.batch_size // self.batch_parts
    for steps in range(self.accumulation_steps + 1, rows + 1):
      if self.batch_size % (steps * self.batch_parts):
        continue
      if variable * self.accumulation_steps <= free * steps:
        ways.append(
          f"--config.accumulation_steps={steps} (the same batch in {steps} "
          "parts)"
        )
        break
    multiple = self.batch_parts * self.accumulation_steps
    share = (limit - self.fixed_bytes) / max(variable, 1)
    size = int(self.batch_size * share) // multiple * multiple
    if size > 0:
      ways.append(f"--config.input.batch_size={size}")
    if not ways:
      ways = ["a smaller model, smaller images, or more devices"]
    return (
      f"Use {' or '.join(ways)}. python -m vitjax.plan with the same config "
      "lists other ways."
    )


def compile_step(lowered: jax.stages.Lowered) -> jax.stages.Compiled:
  """Compiles a train step.

  Raises:
    OutOfMemoryError: if the compiler finds that it does not fit.
  """
  with explained(_ADVICE):
    return lowered.compile()


def used_bytes(compiled: jax.stages.Compiled) -> int | None:
  """Peak memory of a program on one device.

  None if the compiler does not say.
  """
  try:
    sizes = compiled.memory_analysis()
  except (jax.errors.JaxRuntimeError, NotImplementedError):
    return None
  return sizes and (
    sizes.argument_size_in_bytes
    + sizes.output_size_in_bytes
    - sizes.alias_size_in_bytes
    + sizes.temp_size_in_bytes
  )


@contextlib.contextmanager
def explained(advice: str) -> Generator[None]:
  """Turns a failed allocation inside into an error with advice."""
  try:
    yield
  except jax.errors.JaxRuntimeError as e:
    text = " ".join(str(e).split())
    if "RESOURCE_EXHAUSTED" not in text or "memory" not in text.lower():
      raise
    raise OutOfMemoryError(
      f"{_place()} is out of memory ({text[:200]}). {advice}"
    ) from e


def _place() -> str:
  device = jax.local_devices()[0]
  if device.platform != "cpu":
    return f"a device ({device.device_kind})"
  count = len(jax.local_devices())
  return (
    "this machine" if count == 1 else f"a share of 1/{count} of this machine"
  )


def _size(num_bytes: float) -> str:
  return f"{num_bytes / 2**30:.1f} GiB"
