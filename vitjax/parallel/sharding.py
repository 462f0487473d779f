"""The device mesh, and the shardings of arrays over it.

The batch is sharded over the axes `data` and `fsdp`. Parameters and optimizer
state are replicated unless a preset or a rule shards them. One `jax.jit`
program then does the same arithmetic on any number of devices.
"""

import math
import re
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
from jax.experimental import mesh_utils, multihost_utils
from jax.sharding import (
  AbstractMesh,
  AxisType,
  Mesh,
  NamedSharding,
  PartitionSpec,
)

from vitjax import trees

AXES = ("data", "fsdp", "model")
BATCH_AXES = ("data", "fsdp")

Rules = Sequence[tuple[str, Sequence[str | None]]]

# Megatron-LM, https://arxiv.org/abs/1909.08053, sec. 3: the heads of the
# attention and the hidden units of the MLP are split, so that each of the two
# ends in one sum over the devices.
_TENSOR: Rules = (
  (r".*/(query|key|value)/kernel", (None, "model", None)),
  (r".*/(query|key|value)/bias", ("model", None)),
  (r".*/out/kernel", ("model", None, None)),
  (r".*/MlpBlock_0/(Dense_0|gate)/kernel", (None, "model")),
  (r".*/MlpBlock_0/(Dense_0|gate)/bias", ("model",)),
  (r".*/MlpBlock_0/Dense_1/kernel", ("model", None)),
)

# Name -> the mesh axis over which it splits parameters.
PRESETS = {"replicated": None, "fsdp": "fsdp", "tensor": "model"}
# Smaller arrays cost more in messages than they take in memory.
_MIN_SPLIT_SIZE = 2**14


def make_mesh(
  data: int = -1,
  fsdp: int = 1,
  model: int = 1,
  *,
  devices: Sequence[jax.Device] | None = None,
) -> Mesh:
  """A mesh over all devices; one axis may be -1 for all remaining devices.

  Args:
    data: number of parts of the batch whose devices copy the parameters.
    fsdp: number of parts of the batch whose devices share the parameters.
    model: number of devices that work on the same part of the batch.
    devices: devices to use. None: all devices of the backend.

  Raises:
    ValueError: if the axes do not multiply to the number of devices.
  """
  num_devices = jax.device_count() if devices is None else len(devices)
  sizes = [data, fsdp, model]
  if sizes.count(-1) == 1:
    known = -math.prod(sizes)  # the product of the axes that are known
    if known > 0 and num_devices % known == 0:
      sizes[sizes.index(-1)] = num_devices // known
  if min(sizes) < 1 or math.prod(sizes) != num_devices:
    raise ValueError(
      f"config.mesh: data={data}, fsdp={fsdp}, model={model} do not multiply "
      f"to the {num_devices} devices. Use -1 for one of them to take what is "
      "left."
    )
  axis_types = (AxisType.Auto,) * len(AXES)
  try:
    return jax.make_mesh(sizes, AXES, axis_types=axis_types, devices=devices)
  except NotImplementedError:  # no axis of the torus has one of these sizes
    placed = mesh_utils.create_device_mesh(
      sizes, devices, allow_split_physical_axes=True
    )
    return Mesh(placed, AXES, axis_types=axis_types)


def batch_parts(mesh: Mesh | AbstractMesh) -> int:
  """Number of parts into which the mesh splits a batch."""
  return math.prod(mesh.shape[axis] for axis in BATCH_AXES)


def replicated(mesh: Mesh) -> NamedSharding:
  """The whole array on every device."""
  return NamedSharding(mesh, PartitionSpec())


def over_batch(mesh: Mesh) -> NamedSharding:
  """The first axis split over all axes of the batch."""
  return NamedSharding(mesh, PartitionSpec(BATCH_AXES))


def to_host(tree: Any) -> Any:
  """Whole NumPy arrays, in every process; all processes call it."""
  if jax.process_count() == 1:
    return jax.device_get(tree)
  return multihost_utils.process_allgather(tree, tiled=True)


def constrain_batch(x: jax.Array) -> jax.Array:
  """Shards the first axis like the batch, under `jax.set_mesh`.

  If parameters are sharded too, the compiler may prefer to shard the features
  of activations, and every device then computes the whole batch. Without a
  mesh the compiler decides.
  """
  if "fsdp" not in jax.sharding.get_abstract_mesh().axis_names:
    return x
  return jax.lax.with_sharding_constraint(x, PartitionSpec(BATCH_AXES))


def of_state(state: Any, rules: str | Rules, mesh: Mesh) -> Any:
  """A sharding for each leaf of a train state.

  Statistics of the optimizer and averages with the shape of a parameter are
  sharded like it.

  Args:
    state: abstract arrays (`jax.eval_shape`).
    rules: (regex of whole parameter names, mesh axis or None of each
      dimension), the first match wins; or a preset. "replicated" copies
      everything. "fsdp" splits each large array over the axis `fsdp`, along
      its largest dimension that divides. "tensor" splits heads and the hidden
      units of MLPs over `model`, and over `fsdp` as "fsdp" does.
    mesh: from `make_mesh`.

  Raises:
    ValueError: if there is no such preset, it does not fit the mesh, or a rule
      matches no leaf or does not fit a leaf's shape.
  """
  if isinstance(rules, str):
    return _of_preset(state, rules, mesh)
  for rule in rules:
    if not _is_rule(rule):
      raise ValueError(
        f"config.sharding: {rule!r} is not a rule. Write the regex of "
        "parameter names, and a mesh axis or None for each dimension: "
        "('head/kernel', (None, 'fsdp'))."
      )
  specs = trees.match_rules(
    state,
    [(rf"(?:.*/)?(?:{regex})", spec) for regex, spec in rules] + [(".*", ())],
    what="config.sharding",
  )

  def sharding(name, leaf, spec):
    if len(spec) != leaf.ndim:
      return replicated(mesh)
    return _sharding(name, leaf, spec, mesh)

  return trees.map_with_names(sharding, state, specs)


def _is_rule(rule: Any) -> bool:
  return (
    isinstance(rule, tuple | list)
    and len(rule) == 2
    and isinstance(rule[0], str)
    and isinstance(rule[1], tuple | list)
  )


def _of_preset(state: Any, preset: str, mesh: Mesh) -> Any:
  if preset not in PRESETS:
    raise ValueError(
      f"config.sharding={preset!r} is not one of {', '.join(PRESETS)}, nor "
      "rules such as [('head/kernel', (None, 'fsdp'))]."
    )
  axis = PRESETS[preset]
  if axis and mesh.shape[axis] == 1 and mesh.size > 1:
    raise ValueError(
      f"config.sharding={preset!r} splits over the mesh axis {axis!r}, which "
      f"has 1 of the {mesh.size} devices: set config.mesh.{axis}."
    )
  rules = [
    (re.compile(rf"(?:.*/)?(?:{regex})"), spec)
    for regex, spec in (_TENSOR if preset == "tensor" else ())
  ]

  def sharding(name, leaf):
    spec = next((s for pattern, s in rules if pattern.fullmatch(name)), ())
    if spec and trees.is_stacked(name):
      spec = (None, *spec)
    # The factors of a second moment have fewer axes than their parameter.
    spec = list(spec) if len(spec) == leaf.ndim else [None] * leaf.ndim
    if axis and math.prod(leaf.shape) >= _MIN_SPLIT_SIZE:
      parts = mesh.shape["fsdp"]
      free = [
        i
        for i, size in enumerate(leaf.shape)
        if spec[i] is None and size % parts == 0
      ]
      if free and parts > 1:
        spec[max(free, key=lambda i: leaf.shape[i])] = "fsdp"
    if not any(spec):
      return replicated(mesh)
    return _sharding(name, leaf, spec, mesh)

  shardings = trees.map_with_names(sharding, state)
  if mesh.size > 1 and axis:
    used = {a for s in jax.tree.leaves(shardings) for a in s.spec}
    if axis not in used:
      raise ValueError(
        f"config.sharding={preset!r} fits no parameter of this model."
      )
  return shardings


def _sharding(
  name: str, leaf: Any, spec: Sequence[str | None], mesh: Mesh
) -> NamedSharding:
  for size, axis in zip(leaf.shape, spec):
    if axis is None:
      continue
    if axis not in mesh.shape:
      raise ValueError(
        f"config.sharding: {axis!r} is not a mesh axis. Known: "
        f"{', '.join(AXES)}."
      )
    if size % mesh.shape[axis]:
      raise ValueError(
        f"config.sharding: dimension {size} of {name} {leaf.shape} does not "
        f"divide over mesh axis {axis!r} of {mesh.shape[axis]} devices."
      )
  return NamedSharding(mesh, PartitionSpec(*spec))


def bytes_per_device(tree: Any, shardings: Any) -> int:
  """Bytes that one device holds of a tree of (abstract) arrays."""
  sizes = jax.tree.map(
    lambda x, s: math.prod(s.shard_shape(x.shape)) * np.dtype(x.dtype).itemsize,
    tree,
    shardings,
  )
  return sum(jax.tree.leaves(sizes))
