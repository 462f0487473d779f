"""The time of a train step on this device, and whether it fits the memory."""

import dataclasses
import time

import jax

from vitjax import program, start
from vitjax.config.schema import RunConfig
from vitjax.data import sources
from vitjax.parallel import memory, sharding

_WARM_STEPS = 3  # the first of them find batches that are ready
_STEPS = 30
_SECONDS = 15.0


@dataclasses.dataclass(frozen=True)
class Measured:
  """What a few steps on this device show.

  Attributes:
    step_seconds: seconds of a train step, with its input.
    compile_seconds: seconds from the config to the compiled step.
    memory: memory of the step.
    image_size: (height, width) of the images that the model gets.
    parameters: number of parameters.
    batch_size: images per step.
  """

  step_seconds: float
  compile_seconds: float
  memory: memory.StepMemory
  image_size: tuple[int, int]
  parameters: int
  batch_size: int


def measure(run: RunConfig) -> Measured:
  """Compiles the train step of a run, and times some steps of it.

  Args:
    run: a config of at least `_WARM_STEPS + _STEPS` steps. Weights to start
      from are not read.

  Raises:
    OutOfMemoryError: if the step cannot fit the memory of this device.
    ValueError: if the config or the data cannot be used.
  """
  began = time.monotonic()
  mesh = sharding.make_mesh(**vars(run.mesh))
  source = sources.open_source(
    run.input.data, run.input.split, data_dir=run.input.data_dir
  )
  parts = program.assemble(run, source, mesh)
  step, step_memory, state = start.compile_with_state(parts, None)
  compile_seconds = time.monotonic() - began
  with step_memory.explained(), start.make_feed(parts, 0) as feed:
    for _ in range(_WARM_STEPS):
      state, _ = step(state, next(feed))
    jax.block_until_ready(state)
    began, count = time.monotonic(), 0
    while count < _STEPS and time.monotonic() - began < _SECONDS:
      state, _ = step(state, next(feed))
      jax.block_until_ready(state)
      count += 1
    step_seconds = (time.monotonic() - began) / count
  return Measured(
    step_seconds=step_seconds,
    compile_seconds=compile_seconds,
    memory=step_memory,
    image_size=parts.spec["image"].shape[1:3],
    parameters=sum(x.size for x in jax.tree.leaves(state.params)),
    batch_size=run.input.batch_size,
  )
