"""TPU slices and GPUs that a step can be planned for without having them."""

import dataclasses

import jax

from vitjax.config import extras
from vitjax.config.schema import ConfigError
from vitjax.plan import gpus


@dataclasses.dataclass(frozen=True)
class Chip:
  """A TPU chip, by the devices that JAX makes of it.

  Attributes:
    devices: JAX devices of one chip: its cores, unless they work as one.
    hbm_gib: memory of a device in GiB. The compiler reserves some of it.
    tflops: bfloat16 peak of a device, in 1e12 operations a second.
    gb_per_s: bandwidth of a device's memory, in 1e9 bytes a second.
  """

  devices: int
  hbm_gib: float
  tflops: float
  gb_per_s: float


# The rates are from cloud.google.com/tpu/docs, from memory; only the estimate
# of a step's time depends on them. For the memory, the compiler's own limit is
# used if it gives one.
CHIPS = {
  "v2": Chip(2, 8, 22.5, 350),
  "v3": Chip(2, 16, 61.5, 450),
  "v4": Chip(1, 32, 275, 1228),
  "v5e": Chip(1, 16, 197, 819),
  "v5p": Chip(1, 95, 459, 2765),
  "v6e": Chip(1, 32, 918, 1640),
}


def gpu_of(name: str | None) -> gpus.Gpu | None:
  """The GPU of a topology; None if it is not one of GPUs."""
  return gpus.GPUS.get(name.partition(":")[0]) if name else None


def rates(name: str) -> Chip | gpus.Gpu:
  """The peak rates of a device of a topology."""
  kind = name.partition(":")[0]
  return CHIPS[kind] if kind in CHIPS else gpus.GPUS[kind]


def topology_devices(name: str) -> list[jax.Device]:
  """The devices of "v5e:4x4" or "a100:8", without having them.

  Without a compiler for GPUs, CPUs stand in for them.

  Raises:
    ConfigError: if there is no such slice or GPU.
    ImportError: if libtpu is not installed.
  """
  from jax.experimental import topologies

  if gpu_of(name):
    return gpus.topology_devices(name)
  chip = name.partition(":")[0]
  if chip not in CHIPS or ":" not in name:
    raise ConfigError(
      f"--topology={name} is not CHIP:SHAPE, such as v5e:4x4, v4:2x2x4 or "
      f"v3:2x2, with CHIP one of {', '.join(CHIPS)}; nor GPU:COUNT, such as "
      f"h100:1, with GPU one of {', '.join(gpus.GPUS)}."
    )
  with extras.needed("tpu", "plans for TPUs"):  # the compiler; no TPU
    import libtpu  # noqa: F401
  # As on Cloud TPU, where both cores of a chip are one device.
  options = {"chip_config_name": "megacore"} if chip == "v4" else {}
  try:
    topology = topologies.get_topology_desc(name, platform="tpu", **options)
  except (RuntimeError, ValueError) as e:
    message = str(e).strip().splitlines()[0]
    if "lockfile" in message:
      message = (
        "another process is using libtpu, and only one can at a time. Try "
        "again when it has ended."
      )
    raise ConfigError(f"--topology={name}: {message}") from e
  return list(topology.devices)
