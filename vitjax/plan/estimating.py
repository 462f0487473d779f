"""Memory of a train step on a GPU, where no compiler for it is at hand."""

from vitjax.data import device
from vitjax.parallel import sharding
from vitjax.plan import liveness, memory
from vitjax.plan.compiling import Compiled
from vitjax.program import Program

_WORKSPACE = 32 * 2**20  # of NVIDIA's library for products


def estimate_step(
  parts: Program, alone: Program, limit_bytes: int | None
) -> Compiled:
  """An estimate by `liveness` in place of what a compiler reports.

  Args:
    parts: the program of a run.
    alone: the same on one device with the batch of one device.
    limit_bytes: memory of a device.
  """
  traced = alone.train_step.trace(
    alone.abstract, device.on_arrival(alone.batch)
  )
  whole, part = (
    sharding.bytes_per_device(x.abstract.trained, x.shardings.trained)
    for x in (alone, parts)
  )
  temp = liveness.temporary_bytes(traced.jaxpr, whole, "gpu")
  # Gradients and copies are split as the parameters are.
  temp = max(0, temp - 2 * (whole - part)) // parts.mesh.shape["model"]
  temp += _WORKSPACE
  state = sharding.bytes_per_device(parts.abstract, parts.shardings)
  used = state + memory.num_bytes(alone.batch) + temp
  return Compiled(
    compile_seconds=0.0,
    fits=limit_bytes is None or used <= limit_bytes,
    used_bytes=used,
    limit_bytes=limit_bytes,
    temp_bytes=temp,
    is_estimate=True,
  )
