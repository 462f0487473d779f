"""Plans a run without running it: memory, FLOPs, steps; see `vitjax.plan`.

Shapes give the bytes of the state, XLA's cost analysis the operations, and a
compilation tells whether the step fits the memory of its devices.
"""

import dataclasses
import functools
from collections.abc import Mapping, Sequence
from typing import Any

import jax

from vitjax import checks, models, program
from vitjax.config.schema import RunConfig
from vitjax.data import device, pipeline
from vitjax.data.sources.source import Source
from vitjax.models import flops, half_precision
from vitjax.parallel import devices as devices_lib
from vitjax.parallel import sharding
from vitjax.plan import gpus, memory
from vitjax.plan.changes import changes, with_overrides
from vitjax.plan.compiling import Compiled, compile_step
from vitjax.plan.estimating import estimate_step
from vitjax.plan.stand_in import find_source
from vitjax.plan.topology import gpu_of, topology_devices


@dataclasses.dataclass(frozen=True)
class Try:
  """The outcome of a change; `compiled` is None if it was not compiled."""

  change: str
  overrides: Mapping[str, Any]
  activation_bytes: int
  compiled: Compiled | None
  note: str = ""


@dataclasses.dataclass(frozen=True)
class Plan:
  """Needs of a run. Bytes are per device unless stated otherwise.

  Attributes:
    devices: number and kind of the devices, number of their hosts.
    mesh: size of each axis.
    sharding: preset, or "rules".
    model: section of the config.
    parameters: number of parameters.
    batch_size: examples of a global batch.
    batch_multiple: number that must divide the batch size.
    examples: examples of an epoch; None if not known.
    total_steps, epochs: length of the run; None if not known.
    params_bytes, optimizer_bytes, ema_bytes, teacher_bytes, gradient_bytes,
      batch_bytes: sizes under the sharding; running statistics count with the
      parameters.
    activation_bytes: what the backward pass needs of the forward pass, by
      shapes, before the compiler saves any.
    checkpoint_bytes: size of one checkpoint on disk; a run keeps at least two.
    host_bytes: batches in the memory of one host.
    flops_formula: FLOPs of a global step by `vitjax.models.flops`, without
      recomputation; None if there is no formula for the model.
    flops_xla: FLOPs of a global step as XLA counts them before it optimises,
      without recomputation; None if it does not.
    limit_bytes: memory of a device of this machine, or what JAX takes of a GPU;
      None for a TPU slice, or if the device does not say.
    compiled: what the compiler reports; None if shapes alone say that it fits.
    tries: changes that were tried in order, if it does not fit.
  """

  devices: Mapping[str, Any]
  mesh: Mapping[str, int]
  sharding: str
  model: Mapping[str, Any]
  parameters: int
  batch_size: int
  batch_multiple: int
  examples: int | None
  total_steps: int | None
  epochs: float | None
  params_bytes: int
  optimizer_bytes: int
  ema_bytes: int
  teacher_bytes: int
  gradient_bytes: int
  batch_bytes: int
  activation_bytes: int
  checkpoint_bytes: int
  host_bytes: int
  flops_formula: int | None
  flops_xla: int | None
  limit_bytes: int | None = None
  compiled: Compiled | None = None
  tries: Sequence[Try] = ()

  @property
  def fixed_bytes(self) -> int:
    """Memory that does not depend on the batch."""
    return (
      self.params_bytes
      + self.optimizer_bytes
      + self.ema_bytes
      + self.teacher_bytes
      + self.gradient_bytes
    )

  @property
  def shape_bytes(self) -> int:
    """Memory of the step by shapes."""
    return self.fixed_bytes + self.batch_bytes + self.activation_bytes

  @property
  def fits(self) -> bool | None:
    """Whether the step fits; None if the memory of the device is unknown."""
    if self.compiled:
      return self.compiled.fits
    if not self.limit_bytes:
      return None
    return self.shape_bytes <= self.limit_bytes

  @property
  def batch_that_fits(self) -> int | None:
    """The largest batch that should fit, if this one does not."""
    compiled = self.compiled
    if compiled is None or compiled.fits or not compiled.limit_bytes:
      return None
    free = compiled.limit_bytes - self.fixed_bytes
    used = compiled.used_bytes - self.fixed_bytes
    rows = int(self.batch_size * free / used)
    return max(0, rows // self.batch_multiple * self.batch_multiple) or None

  @property
  def fitting(self) -> Try | None:
    """The first change that was found to fit."""
    return next((t for t in self.tries if t.compiled and t.compiled.fits), None)


def make_program(
  run: RunConfig, source: Source, devices: Sequence[jax.Device]
) -> program.Program:
  """The program of a run on these devices."""
  mesh = sharding.make_mesh(**vars(run.mesh), devices=devices)
  checks.check_batch_size(run, sharding.batch_parts(mesh))
  return program.assemble(run, source, mesh)


def count_flops(run: RunConfig, source: Source) -> int | None:
  """FLOPs of a global step as XLA counts them before it optimises.

  XLA counts a loop once, so this step has no loops, and recomputes nothing.
  The plug-ins for GPUs and TPUs do not count, so it is lowered for the CPU;
  None if JAX_PLATFORMS leaves the CPU out.
  """
  try:
    cpu = jax.local_devices(backend="cpu")[:1]
  except RuntimeError:
    return None
  plain = {"accumulation_steps": 1, "sharding": "replicated"}
  plain |= {f"mesh.{axis}": 1 for axis in sharding.AXES}
  known = models.options(run.model["name"])
  plain |= {
    f"model.{key}": value
    for key, value in {"scan_layers": False, "remat": "none"}.items()
    if key in known
  }
  parts = make_program(with_overrides(run, plain), source, cpu)
  batch = device.on_arrival(parts.batch)
  lowered = jax.jit(parts.train_step).lower(parts.abstract, batch)
  cost = lowered.cost_analysis()
  return None if cost is None else int(cost["flops"])


def make_plan(
  run: RunConfig,
  *,
  topology: str | None = None,
  num_examples: int | None = None,
  try_all: bool = False,
  log=lambda line: None,
) -> Plan:
  """Plans a run.

  The step is compiled for a topology, and for the devices of this machine if
  by its shapes it does not fit them.

  Args:
    run: a config that passes `checks.check`.
    topology: a TPU slice such as "v5e:4x4", or GPUs such as "a100:8". None: the
      devices of this machine.
    num_examples: examples of an epoch, if the data is not on this machine.
    try_all: try every change, also after one that fits.
    log: called with a line before anything that takes long.

  Raises:
    ConfigError: if the config cannot run on these devices.
    RuntimeError: if there are no devices.
  """
  devices = topology_devices(topology) if topology else devices_lib.find()
  plan = functools.partial(
    _plan,
    devices=devices,
    topology=topology,
    num_examples=num_examples,
    try_all=try_all,
    log=log,
  )
  if gpu_of(topology) and devices[0].platform == "cpu":
    with half_precision.as_on_accelerators():
      return plan(_on_gpu(run), measure=_estimate)
  return plan(run, measure=compile_step)


def _plan(run, devices, topology, num_examples, try_all, log, measure) -> Plan:
  """See `make_plan`; `measure` finds the memory of a program."""
  source, known_examples = find_source(run, num_examples)
  gpu = gpu_of(topology)
  parts = make_program(run, source, devices)
  state, mesh = parts.abstract, parts.mesh
  on_device = sharding.bytes_per_device
  weights_bytes = sum(
    on_device(x, where)
    for x, where in (
      (state.weights, parts.shardings.weights),
      (state.loss_params, parts.shardings.loss_params),
    )
  )
  total_steps = parts.total_steps
  if known_examples is None and run.total.unit == "epochs":
    total_steps = None
  epochs = (
    total_steps * run.input.batch_size / known_examples
    if total_steps and known_examples
    else None
  )
  if gpu:
    limit = gpus.memory_limit(gpu)
  else:
    limit = None if topology else devices_lib.memory_of(devices[0])
  num_hosts = len({d.process_index for d in devices})
  activations = memory.activation_bytes(parts)
  log("counting FLOPs")
  plan = Plan(
    devices={
      "topology": topology,
      "kind": gpu.name if gpu else devices[0].device_kind,
      "count": len(devices),
      "hosts": num_hosts,
    },
    mesh=dict(mesh.shape),
    sharding=run.sharding if isinstance(run.sharding, str) else "rules",
    model=dict(run.model),
    parameters=sum(x.size for x in jax.tree.leaves(state.params)),
    batch_size=run.input.batch_size,
    batch_multiple=run.accumulation_steps * sharding.batch_parts(mesh),
    examples=known_examples,
    total_steps=total_steps,
    epochs=epochs,
    params_bytes=weights_bytes,
    optimizer_bytes=on_device(state.opt_state, parts.shardings.opt_state),
    ema_bytes=(
      on_device(state.ema_params, parts.shardings.ema_params)
      if state.ema_params is not None
      else 0
    ),
    teacher_bytes=(
      on_device(state.teacher, parts.shardings.teacher)
      if state.teacher is not None
      else 0
    ),
    gradient_bytes=on_device(state.trained, parts.shardings.trained),
    batch_bytes=memory.num_bytes(parts.batch) // sharding.batch_parts(mesh),
    activation_bytes=activations,
    checkpoint_bytes=memory.num_bytes(dataclasses.replace(state, teacher=None)),
    host_bytes=pipeline.host_bytes(parts.batch, num_hosts, run.input.prefetch),
    flops_formula=flops.train(
      parts.model_of(parts.variants.all[0]), parts.spec["image"].shape
    ),
    flops_xla=count_flops(run, source),
    limit_bytes=limit,
  )
  if topology is None and (plan.fits or limit is None):
    return plan
  log(f"compiling for {topology or 'the devices of this machine'}")
  compiled = measure(parts, limit)
  plan = dataclasses.replace(plan, compiled=compiled)
  if compiled.fits:
    return plan
  tries = []
  for change in changes(run, len(devices)):
    tries.append(_try(run, source, devices, change, plan, measure, log))
    if tries[-1].compiled and tries[-1].compiled.fits and not try_all:
      break
  return dataclasses.replace(plan, tries=tuple(tries))


def _try(run, source, devices, change, plan, measure, log) -> Try:
  """Compiles a changed run, unless it is far from fitting by its shapes."""
  try:
    changed = make_program(
      with_overrides(run, change.overrides), source, devices
    )
  except ValueError as e:
    return Try(change.name, change.overrides, 0, None, str(e))
  need = memory.activation_bytes(changed)
  # The compiler saves about the same share of the activations.
  expected = plan.compiled.used_bytes * need / plan.activation_bytes
  limit = plan.compiled.limit_bytes
  if limit and expected > 1.5 * limit:
    note = f"not compiled: about {memory.size(expected)} by its shapes"
    return Try(change.name, change.overrides, need, None, note)
  log(f"trying {change}")
  result = measure(changed, plan.limit_bytes)
  return Try(change.name, change.overrides, need, result)


def _on_gpu(run: RunConfig) -> RunConfig:
  """The run with the type of activations that it has on a GPU."""
  if "dtype" not in models.options(run.model["name"]):
    return run
  dtype = run.model.get("dtype", models.default_dtype("gpu"))
  return with_overrides(run, {"model.dtype": dtype})


def _estimate(parts: program.Program, limit_bytes: int | None) -> Compiled:
  """See `estimate_step`."""
  run, mesh = parts.run, parts.mesh
  alone = {"sharding": "replicated"}
  alone |= {f"mesh.{axis}": 1 for axis in sharding.AXES}
  rows = run.input.batch_size // sharding.batch_parts(mesh)
  alone["input.batch_size"] = max(rows, run.accumulation_steps)
  one = make_program(
    with_overrides(run, alone), parts.source, [mesh.devices.flat[0]]
  )
  return estimate_step(parts, one, limit_bytes)
