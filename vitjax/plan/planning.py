"""What a run needs, found out without running it; see `vitjax.plan`.

Shapes give the bytes of the state, XLA's cost analysis the operations, and a
compilation for devices that are not there whether the step fits their memory.
"""

import collections
import dataclasses
import math
import re
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import jax
import numpy as np

from vitjax import models, program
from vitjax.config import extras, schema
from vitjax.config.schema import ConfigError, RunConfig
from vitjax.data import device, pipeline, sources
from vitjax.data.sources.arrays import AbsentSource
from vitjax.data.sources.source import (
  DatasetNotPreparedError,
  Source,
  split_indices,
)
from vitjax.models import flops
from vitjax.parallel import sharding
from vitjax.plan import hlo

GIB = 2**30


@dataclasses.dataclass(frozen=True)
class Chip:
  """A TPU.

  Attributes:
    devices: that JAX sees of one chip: its cores, unless they work as one.
    hbm_gib: memory of one device, in GiB. The compiler keeps some of it.
    tflops: bfloat16 peak of one device, in 1e12 operations a second.
    gb_per_s: bandwidth of its memory, in 1e9 bytes a second.
  """

  devices: int
  hbm_gib: float
  tflops: float
  gb_per_s: float


# From memory of the tables of cloud.google.com/tpu/docs. Only the memory
# decides anything here, and the compiler's own limit comes before it.
CHIPS = {
  "v2": Chip(2, 8, 22.5, 350),
  "v3": Chip(2, 16, 61.5, 450),
  "v4": Chip(1, 32, 275, 1228),
  "v5e": Chip(1, 16, 197, 819),
  "v5p": Chip(1, 95, 459, 2765),
  "v6e": Chip(1, 32, 918, 1640),
}

# Examples of each split, classes, and the size of all images if they have one:
# what the data sets of the recipes are, where they are not there to be asked.
_IMAGENET = {"train": 1_281_167, "validation": 50_000}
_CIFAR = {"train": 50_000, "test": 10_000}
_MNIST = {"train": 60_000, "test": 10_000}
DATA: dict[str, tuple[Mapping[str, int], int, tuple[int, int, int] | None]] = {
  "imagenet2012": (_IMAGENET, 1000, None),
  "cifar10": (_CIFAR, 10, (32, 32, 3)),
  "cifar100": (_CIFAR, 100, (32, 32, 3)),
  "fashion_mnist": (_MNIST, 10, (28, 28, 1)),
  "mnist": (_MNIST, 10, (28, 28, 1)),
}


@dataclasses.dataclass(frozen=True)
class Compiled:
  """What the compiler says of the train step, for one device.

  Attributes:
    compile_seconds: on the machine that plans.
    fits: whether it got the step into the memory.
    used_bytes: the most that is in use at a time: the state, the batch, and
      the temporaries; what would be used, if it does not fit.
    limit_bytes: that a program can use; None if the compiler did not say.
    temp_bytes: of the temporaries; None if it does not fit, as the following.
    bytes_accessed: read and written in a step, each loop once.
    flops: of a step, those that are done twice included, each loop once.
    collectives: kind -> how many a step makes, and the bytes of their results.
    error: what the compiler said if it does not fit.
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


@dataclasses.dataclass(frozen=True)
class Change:
  """Something to try where a step does not fit: overrides of the config."""

  name: str
  overrides: Mapping[str, Any]

  def __str__(self):
    flags = " ".join(f"--config.{k}={v}" for k, v in self.overrides.items())
    return f"{self.name}: {flags}"


@dataclasses.dataclass(frozen=True)
class Try:
  """What became of a change; `compiled` is None where it was not compiled."""

  change: str
  overrides: Mapping[str, Any]
  activation_bytes: int
  compiled: Compiled | None
  note: str = ""


@dataclasses.dataclass(frozen=True)
class Plan:
  """All that is known; bytes are those of one device, if not said otherwise.

  Attributes:
    devices: number and kind of the devices, and of the hosts.
    mesh: size of each axis.
    sharding: preset, or "rules".
    parameters: number of them.
    examples: of an epoch; None if it is not known.
    total_steps, epochs: of the run; None if they cannot be known.
    params_bytes, optimizer_bytes, ema_bytes, gradient_bytes, batch_bytes:
      under the sharding.
    activation_bytes: that the backward pass needs of the forward pass, by
      shapes, before the compiler saves any.
    checkpoint_bytes: of one checkpoint on disk; a run keeps at least two.
    host_bytes: of batches in the memory of one host.
    flops_formula: of a global step by `vitjax.models.flops`, without what is
      done twice; None if there is no formula for the model.
    flops_xla: likewise, as XLA counts it before optimisation.
    compiled: for the topology; None without one.
    tries: in order, if it does not fit.
  """

  devices: Mapping[str, Any]
  mesh: Mapping[str, int]
  sharding: str
  model: Mapping[str, Any]
  parameters: int
  batch_size: int
  examples: int | None
  total_steps: int | None
  epochs: float | None
  params_bytes: int
  optimizer_bytes: int
  ema_bytes: int
  gradient_bytes: int
  batch_bytes: int
  activation_bytes: int
  checkpoint_bytes: int
  host_bytes: int
  flops_formula: int | None
  flops_xla: int
  compiled: Compiled | None = None
  tries: Sequence[Try] = ()

  @property
  def fitting(self) -> Try | None:
    """The smallest change that was found to fit."""
    return next((t for t in self.tries if t.compiled and t.compiled.fits), None)


def find_source(
  run: RunConfig, num_examples: int | None
) -> tuple[Source, int | None]:
  """The training data, or what stands for it where it is not there.

  Args:
    run: a config.
    num_examples: of an epoch, where only the user can know.

  Returns:
    The source, and how many examples it has; None if that is not known.
  """
  data, split = run.input.data, run.input.split
  known = DATA.get(re.split("[/:]", data)[0])
  if known is not None:
    sizes, num_classes, image_shape = known
    parts = split_indices(data, split, sizes)
    total = num_examples or sum(len(indices) for _, indices in parts)
    source = AbsentSource(
      data,
      split,
      num_examples=total,
      num_classes=num_classes,
      image_shape=image_shape,
    )
    return source, total
  try:
    source = sources.open_source(data, split, data_dir=run.input.data_dir)
    return source, source.num_examples
  except (DatasetNotPreparedError, OSError, ValueError) as e:
    if run.num_classes is None and run.loss in ("softmax_xent", "sigmoid_xent"):
      raise ConfigError(
        f"The data are not here, so their classes cannot be counted: set "
        f"config.num_classes. ({e})"
      ) from e
    # Shapes do not depend on the number.
    source = AbsentSource(data, split, num_examples=num_examples or 1)
    return source, num_examples


def topology_devices(name: str) -> list[jax.Device]:
  """The devices of a TPU slice, such as "v5e:4x4", without having it.

  Raises:
    ConfigError: if there is no such slice.
    ImportError: if libtpu is not installed.
  """
  from jax.experimental import topologies

  chip = name.partition(":")[0]
  if chip not in CHIPS or ":" not in name:
    raise ConfigError(
      f"--topology={name} is not CHIP:SHAPE, such as v5e:4x4, v4:2x2x4 or "
      f"v3:2x2, with CHIP one of {', '.join(CHIPS)}."
    )
  with extras.needed("tpu", "plans for TPUs"):  # the compiler; no TPU
    import libtpu  # noqa: F401
  # As on Cloud TPU, where both cores of a chip are one device.
  options = {"chip_config_name": "megacore"} if chip == "v4" else {}
  try:
    topology = topologies.get_topology_desc(name, platform="tpu", **options)
  except (RuntimeError, ValueError, NotImplementedError) as e:
    message = str(e).strip().splitlines()[0]
    if "lockfile" in message:
      message = "another process uses libtpu now, which only one can. Wait."
    raise ConfigError(f"--topology={name}: {message}") from e
  return list(topology.devices)


def with_overrides(run: RunConfig, overrides: Mapping[str, Any]) -> RunConfig:
  """The run with other values at some dotted paths."""
  plain = schema.to_dict(run)
  for path, value in overrides.items():
    *sections, key = path.split(".")
    section = plain
    for name in sections:
      section = section.setdefault(name, {})
    section[key] = value
  return schema.resolve(plain)


def make_program(
  run: RunConfig, source: Source, devices: Sequence[jax.Device]
) -> program.Program:
  """The program of a run on these devices."""
  from vitjax import checks

  mesh = sharding.make_mesh(**vars(run.mesh), devices=devices)
  checks.check_batch_size(run, sharding.batch_parts(mesh))
  return program.assemble(run, source, mesh)


def activation_bytes(parts: program.Program) -> int:
  """What one device keeps of the forward pass for the backward pass.

  From shapes alone: arrays that the compiler computes again or keeps in another
  type count as JAX has them. Heads and hidden units that are split over `model`
  count as if all were.
  """
  run, mesh = parts.run, parts.mesh
  rows = run.input.batch_size // run.accumulation_steps
  rows = max(1, rows // sharding.batch_parts(mesh))
  batch = {
    name: jax.ShapeDtypeStruct((rows, *x.shape[1:]), x.dtype)
    for name, x in parts.spec.items()
  }
  key = jax.eval_shape(jax.random.key, 0)
  prepared = jax.eval_shape(parts.objective.prepare, batch, key)

  def residuals(params, batch, key):
    _, vjp = jax.vjp(lambda p: parts.objective.loss(p, batch, key), params)
    return jax.tree.leaves(vjp)

  one = mesh.abstract_mesh.update(axis_sizes=(1,) * len(sharding.AXES))
  with jax.sharding.use_abstract_mesh(one):
    kept = jax.eval_shape(residuals, parts.abstract.params, prepared, key)
  # Parameters are there anyway, also as the matrices of a product.
  free = collections.Counter()
  for x in jax.tree.leaves(parts.abstract.params):
    matrices = (
      (*x.shape[:i], x.shape[i] * x.shape[i + 1], *x.shape[i + 2 :])
      for i in range(x.ndim - 1)
    )
    free.update((shape, x.dtype) for shape in {x.shape, *matrices})
  total = 0
  for x in kept:
    if free[x.shape, x.dtype] > 0:
      free[x.shape, x.dtype] -= 1
    elif jax.dtypes.issubdtype(x.dtype, np.number):
      total += num_bytes(x)
  return total // mesh.shape["model"]


def num_bytes(tree: Any) -> int:
  """Bytes of a tree of (abstract) arrays."""
  return sum(
    math.prod(x.shape) * np.dtype(x.dtype).itemsize
    for x in jax.tree.leaves(tree)
  )


def count_flops(run: RunConfig, source: Source) -> int:
  """FLOPs of a global step as XLA counts them before it optimises.

  XLA counts a loop once, so this is of the step without loops, and without
  what memory would make it do twice.
  """
  plain = {"accumulation_steps": 1, "sharding": "replicated"}
  plain |= {f"mesh.{axis}": 1 for axis in sharding.AXES}
  known = models.options(run.model["name"])
  plain |= {
    f"model.{key}": value
    for key, value in {"scan_layers": False, "remat": "none"}.items()
    if key in known
  }
  parts = make_program(
    with_overrides(run, plain), source, jax.local_devices()[:1]
  )
  batch = device.on_arrival(parts.batch)
  lowered = jax.jit(parts.train_step).lower(parts.abstract, batch)
  return int(lowered.cost_analysis()["flops"])


def compile_step(parts: program.Program) -> Compiled:
  """Compiles the train step for the devices of its mesh."""
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
  memory, cost = compiled.memory_analysis(), compiled.cost_analysis()
  return Compiled(
    compile_seconds=seconds,
    fits=True,
    used_bytes=(
      memory.argument_size_in_bytes
      + memory.output_size_in_bytes
      - memory.alias_size_in_bytes
      + memory.temp_size_in_bytes
    ),
    temp_bytes=memory.temp_size_in_bytes,
    bytes_accessed=cost["bytes accessed"],
    flops=cost["flops"],
    collectives=hlo.collectives(compiled.as_text()),
  )


# What the compiler says, depending on when it notices.
_MEMORY = (
  r"Used ([\d.]+)([KMGT]?) of ([\d.]+)([KMGT]?) hbm",
  r"\(([\d.]+)([KMGT]?)\) exceeds available HBM \(([\d.]+)([KMGT]?)\)",
)


def read_out_of_memory(message: str) -> tuple[int, int]:
  """(bytes used, bytes there are) of the compiler's error.

  Raises:
    RuntimeError: with the message, if it is about something else.
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


def changes(run: RunConfig, num_devices: int) -> Iterator[Change]:
  """What to try where a step does not fit, the smallest change first.

  All but the last kind leave what is computed as it is, to rounding.
  """
  known = models.options(run.model["name"])
  splits = run.loss not in ("softmax", "sigmoid")

  def accumulate(times):
    steps = run.accumulation_steps * times
    if splits and run.input.batch_size % (steps * num_devices) == 0:
      yield Change(f"accumulation x{times}", {"accumulation_steps": steps})

  def remat(policy):
    if "remat" in known and run.model.get("remat", "none") == "none":
      yield Change(f"remat {policy}", {"model.remat": policy})

  yield from accumulate(2)
  yield from remat("dots")
  yield from accumulate(4)
  yield from remat("full")
  yield from accumulate(8)
  if known.get("scan_layers") and not run.model.get("scan_layers"):
    yield Change("scan over layers", {"model.scan_layers": True})
  if run.sharding in ("replicated", ()) and num_devices > 1:
    fsdp = {"sharding": "fsdp", "mesh.data": 1, "mesh.fsdp": -1}
    yield Change("sharding fsdp", fsdp)
    if "remat" in known:
      both = {**fsdp, "model.remat": "full"}
      yield Change("sharding fsdp, remat full", both)
    heads = _num_heads(run)
    for parts in (2, 4, 8):
      if heads and heads % parts == 0 and num_devices % parts == 0:
        tensor = {"sharding": "tensor", "mesh.model": parts}
        yield Change(f"sharding tensor over {parts}", tensor)
  for parts in (2, 4):
    size = run.input.batch_size // parts
    if size % (num_devices * run.accumulation_steps) == 0:
      yield Change(f"batch of {size}", {"input.batch_size": size})


def _num_heads(run: RunConfig) -> int | None:
  section = dict(run.model)
  return getattr(models.create(section.pop("name"), **section), "num_heads", 0)


def make_plan(
  run: RunConfig,
  *,
  topology: str | None = None,
  num_examples: int | None = None,
  try_all: bool = False,
  log=lambda line: None,
) -> Plan:
  """Finds out what a run needs.

  Args:
    run: a config that passes `checks.check`.
    topology: a TPU slice such as "v5e:4x4"; None for the devices that are here.
    num_examples: of an epoch, if the data cannot be asked.
    try_all: whether to go on trying after a change that fits.
    log: told what is under way.

  Raises:
    ConfigError: if the config cannot be run on these devices.
  """
  source, known_examples = find_source(run, num_examples)
  devices = topology_devices(topology) if topology else jax.devices()
  parts = make_program(run, source, devices)
  state, mesh = parts.abstract, parts.mesh
  on_device = sharding.bytes_per_device
  params_bytes = on_device(state.params, parts.shardings.params)
  total_steps = parts.total_steps
  if known_examples is None and run.total.unit == "epochs":
    total_steps = None
  epochs = (
    total_steps * run.input.batch_size / known_examples
    if total_steps and known_examples
    else None
  )
  num_hosts = len({d.process_index for d in devices})
  activations = activation_bytes(parts)
  log("counting FLOPs")
  plan = Plan(
    devices={
      "topology": topology,
      "kind": devices[0].device_kind,
      "count": len(devices),
      "hosts": num_hosts,
    },
    mesh=dict(mesh.shape),
    sharding=run.sharding if isinstance(run.sharding, str) else "rules",
    model=dict(run.model),
    parameters=sum(x.size for x in jax.tree.leaves(state.params)),
    batch_size=run.input.batch_size,
    examples=known_examples,
    total_steps=total_steps,
    epochs=epochs,
    params_bytes=params_bytes,
    optimizer_bytes=on_device(state.opt_state, parts.shardings.opt_state),
    ema_bytes=(
      on_device(state.ema_params, parts.shardings.ema_params)
      if state.ema_params is not None
      else 0
    ),
    gradient_bytes=params_bytes,
    batch_bytes=num_bytes(parts.batch) // sharding.batch_parts(mesh),
    activation_bytes=activations,
    checkpoint_bytes=num_bytes(state),
    host_bytes=pipeline.host_bytes(parts.batch, num_hosts, run.input.prefetch),
    flops_formula=flops.train(parts.model, parts.spec["image"].shape),
    flops_xla=count_flops(run, source),
  )
  if topology is None:
    return plan
  log(f"compiling for {topology}")
  compiled = compile_step(parts)
  plan = dataclasses.replace(plan, compiled=compiled)
  if compiled.fits:
    return plan
  tries = []
  for change in changes(run, len(devices)):
    tries.append(_try(run, source, devices, change, compiled, activations, log))
    if tries[-1].compiled and tries[-1].compiled.fits and not try_all:
      break
  return dataclasses.replace(plan, tries=tuple(tries))


def _try(run, source, devices, change, before, activations, log) -> Try:
  """Compiles a changed run, unless it is far from fitting by its shapes."""
  try:
    changed = make_program(
      with_overrides(run, change.overrides), source, devices
    )
  except ValueError as e:
    return Try(change.name, change.overrides, 0, None, str(e))
  need = activation_bytes(changed)
  # Shapes count what the compiler spares, about as much with the change.
  expected = before.used_bytes * need / activations
  if before.limit_bytes and expected > 1.5 * before.limit_bytes:
    note = f"not compiled: about {size(expected)} by its shapes"
    return Try(change.name, change.overrides, need, None, note)
  log(f"trying {change}")
  result = compile_step(changed)
  return Try(change.name, change.overrides, need, result)


def to_json(plan: Plan) -> dict[str, Any]:
  """The plan as plain data, with whether it fits and what would."""
  result = dataclasses.asdict(plan)
  fitting = plan.fitting
  result["fits"] = plan.compiled and plan.compiled.fits
  result["fitting"] = fitting and dict(fitting.overrides)
  return result


def size(n: float) -> str:
  """Bytes for people."""
  for unit in ("B", "KiB", "MiB"):
    if n < 1024:
      return f"{n:.4g} {unit}"
    n /= 1024
  return f"{n:.3f} GiB"


def to_table(plan: Plan) -> str:
  """The plan for people."""

  def count(n):
    return "unknown" if n is None else f"{n:,.0f}"

  where = plan.devices["topology"] or "here"
  formula = plan.flops_formula
  rows = [
    ("devices", f"{plan.devices['count']} x {plan.devices['kind']}, {where}"),
    ("hosts", plan.devices["hosts"]),
    ("mesh", ", ".join(f"{k}={v}" for k, v in plan.mesh.items())),
    ("sharding", plan.sharding),
    ("parameters", count(plan.parameters)),
    ("steps", count(plan.total_steps)),
    ("epochs", "unknown" if plan.epochs is None else f"{plan.epochs:.1f}"),
    ("examples of an epoch", count(plan.examples)),
    ("", "of each device:"),
    ("parameters", size(plan.params_bytes)),
    ("optimizer", size(plan.optimizer_bytes)),
    ("average", size(plan.ema_bytes)),
    ("gradients", size(plan.gradient_bytes)),
    ("batch", size(plan.batch_bytes)),
    ("activations, by shapes", size(plan.activation_bytes)),
    ("", "in all:"),
    ("checkpoint", size(plan.checkpoint_bytes)),
    ("batches on a host", size(plan.host_bytes)),
    ("FLOPs of a step", f"{plan.flops_xla:.4g}"),
    (
      "  by formula",
      "none for this model"
      if formula is None
      else f"{formula:.4g} ({plan.flops_xla / formula:.3f} times as many)",
    ),
  ]
  if plan.compiled:
    rows += [("", "compiled, of each device:")]
    rows += _rows(plan.compiled, plan.devices["topology"])
  for t in plan.tries:
    result = t.note
    if t.compiled:
      verdict = "fits" if t.compiled.fits else "does not fit"
      result = f"{verdict}, {size(t.compiled.used_bytes)}"
    rows.append((f"  {t.change}", result))
  if plan.tries:
    fitting = plan.fitting
    rows.append(
      (
        "so",
        "nothing that was tried fits"
        if fitting is None
        else "add "
        + " ".join(f"--config.{k}={v}" for k, v in fitting.overrides.items()),
      )
    )
  width = max(len(name) for name, _ in rows)
  return "\n".join(f"{name:<{width}}  {value}" for name, value in rows)


def _rows(compiled: Compiled, topology: str) -> list[tuple[str, Any]]:
  chip = CHIPS[topology.partition(":")[0]]
  limit = compiled.limit_bytes or chip.hbm_gib * GIB
  verdict = "yes" if compiled.fits else "no"
  rows = [
    (
      "fits",
      f"{verdict}: {size(compiled.used_bytes)} of {size(limit)}",
    ),
    ("compile time", f"{compiled.compile_seconds:.0f} s"),
  ]
  if compiled.fits:
    by_flops = compiled.flops / (chip.tflops * 1e12)
    by_bytes = compiled.bytes_accessed / (chip.gb_per_s * 1e9)
    rows += [
      ("temporaries", size(compiled.temp_bytes)),
      (
        "bytes accessed, each loop once",
        f"{compiled.bytes_accessed / 1e9:.2f} GB",
      ),
      ("FLOPs, each loop once", f"{compiled.flops:.4g}"),
      (
        "a step takes at least",
        f"{by_flops * 1e3:.1f} ms by FLOPs, {by_bytes * 1e3:.1f} ms by bytes",
      ),
    ]
    rows += [
      (kind, f"{x['count']} of {x['bytes'] / 1e6:.2f} MB in all")
      for kind, x in compiled.collectives.items()
    ]
  return rows
