"""Where arrays live: the device mesh and the shardings over it.

The batch is split over every mesh axis; parameters and optimizer state are
replicated except where a rule says otherwise. One `jax.jit` program then does
the same arithmetic on any number of devices.
"""

from collections.abc import Sequence
from typing import Any

import jax
from jax.experimental import multihost_utils
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from vitjax import trees

AXES = ("data", "fsdp")


def make_mesh(data: int = -1, fsdp: int = 1) -> Mesh:
  """A mesh over all devices; the axis given as -1 takes what is left.

  Raises:
    ValueError: if the axes do not multiply to the number of devices.
  """
  num_devices = jax.device_count()
  sizes = [data, fsdp]
  if sizes.count(-1) == 1:
    known = -data * fsdp  # the product of the axis that is known
    if known > 0 and num_devices % known == 0:
      sizes[sizes.index(-1)] = num_devices // known
  if -1 in sizes or sizes[0] * sizes[1] != num_devices:
    raise ValueError(
      f"config.mesh: data={data}, fsdp={fsdp} do not multiply to the "
      f"{num_devices} devices. Use -1 for one of them to take what is left."
    )
  return jax.make_mesh(sizes, AXES, axis_types=(AxisType.Auto,) * len(AXES))


def replicated(mesh: Mesh) -> NamedSharding:
  """The whole array on every device."""
  return NamedSharding(mesh, PartitionSpec())


def over_batch(mesh: Mesh) -> NamedSharding:
  """The first axis split over all devices."""
  return NamedSharding(mesh, PartitionSpec(AXES))


def to_host(tree: Any) -> Any:
  """Whole NumPy arrays, in every process; all processes call it."""
  if jax.process_count() == 1:
    return jax.device_get(tree)
  return multihost_utils.process_allgather(tree, tiled=True)


def of_state(
  state: Any, rules: Sequence[tuple[str, Sequence[str | None]]], mesh: Mesh
) -> Any:
  """A sharding for each leaf of a train state.

  Args:
    state: abstract arrays (`jax.eval_shape`).
    rules: (regex of whole parameter names, mesh axis or None of each
      dimension), the first match wins. Statistics of the optimizer that have
      the shape of a parameter follow it.
    mesh: from `make_mesh`.

  Raises:
    ValueError: if a rule matches no leaf, or does not fit a leaf's shape.
  """
  rules = [
    (f"(?:.*/)?(?:{regex})", PartitionSpec(*spec)) for regex, spec in rules
  ]
  specs = trees.match_rules(
    state, [*rules, (".*", PartitionSpec())], what="config.sharding"
  )

  def sharding(name, leaf, spec):
    if len(spec) != leaf.ndim:
      return replicated(mesh)
    for size, axis in zip(leaf.shape, spec):
      if axis is not None and size % mesh.shape[axis]:
        raise ValueError(
          f"config.sharding: dimension {size} of {name} {leaf.shape} does not "
          f"divide over mesh axis {axis!r} of {mesh.shape[axis]} devices."
        )
    return NamedSharding(mesh, spec)

  return trees.map_with_names(sharding, state, specs)
