"""Which devices compute an array of a program that is being traced."""

import jax
from jaxtyping import Array


def mesh_of(x: Array) -> jax.sharding.AbstractMesh:
  """The mesh that `x` is split over; empty if unknown."""
  mesh = jax.sharding.get_abstract_mesh()
  return jax.typeof(x).sharding.mesh if mesh.empty else mesh


def device_of(x: Array) -> tuple[str, str]:
  """Platform and kind of the devices that compute `x`."""
  mesh = mesh_of(x)
  device = jax.devices()[0] if mesh.empty else mesh.abstract_device
  return device.platform, device.device_kind
