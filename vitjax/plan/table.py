"""A plan as plain data and as a table."""

import dataclasses
from typing import Any

from vitjax.plan import gpus
from vitjax.plan.compiling import Compiled
from vitjax.plan.memory import size
from vitjax.plan.planning import Plan
from vitjax.plan.topology import gpu_of, rates


def to_json(plan: Plan) -> dict[str, Any]:
  """The plan as plain data: its fields, whether it fits, and what would."""
  result = dataclasses.asdict(plan)
  fitting = plan.fitting
  result["fits"] = plan.fits
  result["batch_that_fits"] = plan.batch_that_fits
  result["fitting"] = fitting and dict(fitting.overrides)
  return result


def to_table(plan: Plan) -> str:
  """The plan as lines of a name and a value."""

  def count(n):
    return "unknown" if n is None else f"{n:,.0f}"

  where = plan.devices["topology"] or "this machine"
  by_xla, formula = plan.flops_xla, plan.flops_formula
  ratio = (
    f" (above: {by_xla / formula:.3f} times this)" if by_xla and formula else ""
  )
  rows = [
    ("devices", f"{plan.devices['count']} x {plan.devices['kind']}, {where}"),
    ("hosts", plan.devices["hosts"]),
    ("mesh", ", ".join(f"{k}={v}" for k, v in plan.mesh.items())),
    ("sharding", plan.sharding),
    ("parameters", count(plan.parameters)),
    ("steps", count(plan.total_steps)),
    ("epochs", "unknown" if plan.epochs is None else f"{plan.epochs:.1f}"),
    ("examples of an epoch", count(plan.examples)),
    ("", "on each device:"),
    ("parameters", size(plan.params_bytes)),
    ("optimizer", size(plan.optimizer_bytes)),
    ("averaged parameters", size(plan.ema_bytes)),
    ("teacher", size(plan.teacher_bytes)),
    ("gradients", size(plan.gradient_bytes)),
    ("batch", size(plan.batch_bytes)),
    ("activations, by shapes", size(plan.activation_bytes)),
    ("", "in total:"),
    ("checkpoint", size(plan.checkpoint_bytes)),
    ("batches on a host", size(plan.host_bytes)),
    ("FLOPs of a step", "unknown" if by_xla is None else f"{by_xla:.4g}"),
    (
      "  by formula",
      "no formula for this model"
      if formula is None
      else f"{formula:.4g}{ratio}",
    ),
  ]
  if plan.compiled:
    how = "estimated" if plan.compiled.is_estimate else "compiled"
    rows += [("", f"{how}, on each device:")]
    rows += _compiled_rows(plan.compiled, plan.devices["topology"])
  elif plan.limit_bytes:
    need, limit = size(plan.shape_bytes), size(plan.limit_bytes)
    rows += [("memory", f"fits by shapes: {need} of {limit}")]
  for t in plan.tries:
    result = t.note
    if t.compiled:
      verdict = "fits" if t.compiled.fits else "does not fit"
      result = f"{verdict}, {size(t.compiled.used_bytes)}"
    rows.append((f"  {t.change}", result))
  if plan.fits is False:
    rows.append(("advice", advice(plan)))
  width = max(len(name) for name, _ in rows)
  return "\n".join(f"{name:<{width}}  {value}" for name, value in rows)


def advice(plan: Plan) -> str:
  """Advice: flags to add to the command so that the step fits."""
  choices = []
  if share := _share(plan):
    choices.append(f"{share} before the command")
  if plan.fitting:
    overrides = plan.fitting.overrides.items()
    choices.append(" ".join(f"--config.{k}={v}" for k, v in overrides))
  if plan.batch_that_fits:
    choices.append(
      f"--config.input.batch_size={plan.batch_that_fits}, which should fit"
    )
  return f"add {', or '.join(choices)}" if choices else "nothing tried fits"


def _share(plan: Plan) -> str | None:
  """The setting of JAX with which the step fits a GPU, if there is one."""
  gpu = gpu_of(plan.devices["topology"])
  if not (plan.compiled and gpu):
    return None
  if plan.compiled.used_bytes > gpus.MOST * gpu.memory_bytes:
    return None
  return f"{gpus.FRACTION}={gpus.MOST}"


def _compiled_rows(
  compiled: Compiled, topology: str | None
) -> list[tuple[str, Any]]:
  verdict = "fits" if compiled.fits else "does not fit"
  chip = rates(topology) if topology else None
  if compiled.limit_bytes:
    limit = size(compiled.limit_bytes)
  else:
    hbm = getattr(chip, "hbm_gib", None)
    limit = f"{hbm:.3f} GiB" if hbm else "an unknown amount"
  rows = [("memory", f"{verdict}: {size(compiled.used_bytes)} of {limit}")]
  if gpu := gpu_of(topology):
    share = f"that is what JAX takes of {size(gpu.memory_bytes)}"
    rows.append(("", f"{share}; {gpus.FRACTION} changes it"))
  if not compiled.is_estimate:
    rows.append(("compile time", f"{compiled.compile_seconds:.0f} s"))
  if compiled.temp_bytes is not None:
    rows.append(("temporaries", size(compiled.temp_bytes)))
  if compiled.bytes_accessed is None or compiled.flops is None:
    return rows
  rows += [
    (
      "bytes accessed (loops once)",
      f"{compiled.bytes_accessed / 1e9:.2f} GB",
    ),
    ("FLOPs (loops once)", f"{compiled.flops:.4g}"),
  ]
  if chip:
    by_flops = compiled.flops / (chip.tflops * 1e12)
    by_bytes = compiled.bytes_accessed / (chip.gb_per_s * 1e9)
    seconds = (
      f"{by_flops * 1e3:.1f} ms by FLOPs, {by_bytes * 1e3:.1f} ms by bytes"
    )
    rows.append(("a step takes at least", seconds))
  rows += [
    (kind, f"{x['count']} of {x['bytes'] / 1e6:.2f} MB in total")
    for kind, x in compiled.collectives.items()
  ]
  return rows
