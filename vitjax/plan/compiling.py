"""Compilation of a train step, and what the compiler reports about it."""

import dataclasses
import re
import time
from collections.abc import Mapping

import jax

from vitjax import program
from vitjax.data import device
from vitjax.plan import hlo


@dataclasses.dataclass(frozen=True)
class Compiled:
  """What the compiler reports about the train step of one device.

  Attributes:
    compile_seconds: time of the compilation on this machine.
    fits: whether the step fits the memory.
    used_bytes: the largest memory in use at a time: state, batch, temporaries;
      what the step would use, if it does not fit.
    limit_bytes: memory that a program can use; None if it is not known.
    temp_bytes: size of the temporaries; None, as all below, if the compiler
      gave up.
    bytes_accessed: bytes of the device's memory read and written in a step,
      each loop counted once; None also for a GPU that is not there.
    flops: FLOPs of a step with recomputation, each loop counted once; likewise.
    collectives: kind -> their number in a step, bytes of their results.
    error: the compiler's message if it gave up.
    is_estimate: whether no compiler was at hand, see `estimating`.
  """

  compile_seconds: float
  fits: bool
  used_bytes: int
  limit_bytes: int | None = None
  temp_bytes: int | None = None
  bytes_accessed: float | None = None
  flops: float | None = None
  collectives: Mapping[str, Mapping[str, int]] = dataclasses.field(
    default_factory=dict
  )
  error: str | None = None
  is_estimate: bool = False


def compile_step(
  parts: program.Program, limit_bytes: int | None = None
) -> Compiled:
  """Compiles the train step for the devices of its mesh.

  Args:
    parts: the program of a run.
    limit_bytes: memory of a device, where the compiler does not know it.
  """
  start = time.monotonic()
  batch = device.on_arrival(parts.batch)
  lowered = parts.train_step.lower(parts.abstract, batch)
  try:
    compiled = lowered.compile()
  except jax.errors.JaxRuntimeError as e:
    used, limit = read_out_of_memory(str(e))
    return Compiled(
      compile_seconds=time.monotonic() - start,
      fits=False,
      used_bytes=used,
      limit_bytes=limit,
      error=str(e).strip().splitlines()[0][:300],
    )
  seconds = time.monotonic() - start
  memory, cost = compiled.memory_analysis(), compiled.cost_analysis() or {}
  text = compiled.as_text()
  accessed = cost.get("bytes accessed")
  if accessed is not None:
    accessed *= hlo.memory_share(text)
  used = (
    memory.argument_size_in_bytes
    + memory.output_size_in_bytes
    - memory.alias_size_in_bytes
    + memory.temp_size_in_bytes
  )
  return Compiled(
    compile_seconds=seconds,
    fits=limit_bytes is None or used <= limit_bytes,
    used_bytes=used,
    limit_bytes=limit_bytes,
    temp_bytes=memory.temp_size_in_bytes,
    bytes_accessed=accessed,
    flops=cost.get("flops"),
    collectives=hlo.collectives(text),
  )


# Messages of the TPU compiler for a step that does not fit.
_MEMORY = (
  r"Used ([\d.]+)([KMGT]?) of ([\d.]+)([KMGT]?) hbm",
  r"\(([\d.]+)([KMGT]?)\) exceeds available HBM \(([\d.]+)([KMGT]?)\)",
)


def read_out_of_memory(message: str) -> tuple[int, int]:
  """(bytes needed, bytes of memory) in the compiler's message.

  Raises:
    RuntimeError: with the message, if it says something else.
  """
  match = next(filter(None, (re.search(p, message) for p in _MEMORY)), None)
  if not match:
    raise RuntimeError(f"The step does not compile: {message}")
  units = {"": 1, "K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40}
  used, used_unit, limit, limit_unit = match.groups()
  return (
    int(float(used) * units[used_unit]),
    int(float(limit) * units[limit_unit]),
  )
