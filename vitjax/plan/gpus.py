"""GPUs that a step can be compiled for without having them.

XLA's plug-in for CUDA compiles for a description of a GPU. Kernels are not
timed then, so the choice among them is not that of a real GPU.
"""

import contextlib
import dataclasses
import importlib.util
import os

import jax

from vitjax.config.schema import ConfigError

# JAX takes this share of a GPU's memory at its start, if not told otherwise.
FRACTION = "XLA_PYTHON_CLIENT_MEM_FRACTION"
_DEFAULT_FRACTION = 0.75
MOST = 0.92  # the rest is for the driver and the kernels


@dataclasses.dataclass(frozen=True)
class Gpu:
  """A GPU.

  Attributes:
    name: as the driver has it.
    capability: CUDA's compute capability.
    cores: number of multiprocessors.
    lanes: float32 units of a multiprocessor.
    ghz: clock rate.
    memory_bytes: memory as the driver reports it.
    tflops: bfloat16 peak with float32 sums, in 1e12 operations a second.
    gb_per_s: bandwidth of the memory, in 1e9 bytes a second.
    l2_mib: second-level cache in MiB.
    shared_kib: shared memory of a multiprocessor in KiB.
    threads: threads of a multiprocessor.
  """

  name: str
  capability: tuple[int, int]
  cores: int
  lanes: int
  ghz: float
  memory_bytes: float
  tflops: float
  gb_per_s: float
  l2_mib: int
  shared_kib: int
  threads: int = 2048


# From NVIDIA's data sheets and CUDA's programming guide, from memory; the rates
# only bound the time of a step.
_A100 = Gpu(
  "NVIDIA A100-SXM4-40GB", (8, 0), 108, 64, 1.41, 42.4e9, 312, 1555, 40, 164
)
_H100 = Gpu(
  "NVIDIA H100 80GB HBM3", (9, 0), 132, 128, 1.98, 85e9, 989, 3352, 50, 228
)
_L4 = Gpu("NVIDIA L4", (8, 9), 58, 128, 2.04, 23.6e9, 121, 300, 48, 100, 1536)
GPUS = {
  "a100": _A100,
  "a100-80gb": dataclasses.replace(
    _A100, name="NVIDIA A100-SXM4-80GB", memory_bytes=85e9, gb_per_s=2039
  ),
  "h100": _H100,
  "h200": dataclasses.replace(
    _H100, name="NVIDIA H200", memory_bytes=150e9, gb_per_s=4800
  ),
  "l4": _L4,
  "rtx4090": dataclasses.replace(
    _L4,
    name="NVIDIA GeForce RTX 4090",
    cores=128,
    ghz=2.52,
    memory_bytes=25.2e9,
    tflops=165,
    gb_per_s=1008,
    l2_mib=72,
  ),
}


def memory_limit(gpu: Gpu) -> int:
  """Bytes that JAX takes of a GPU."""
  share = float(os.environ.get(FRACTION, _DEFAULT_FRACTION))
  return int(gpu.memory_bytes * share)


def is_installed() -> bool:
  """Whether there is a compiler for GPUs, which needs no GPU."""
  plugins = importlib.util.find_spec("jax_plugins")
  return plugins is not None and any(
    os.path.isdir(os.path.join(folder, f"xla_cuda{version}"))
    for folder in plugins.submodule_search_locations or ()
    for version in (12, 13)
  )


def topology_devices(name: str) -> list[jax.Device]:
  """The devices of GPU:COUNT of one host, such as "a100:8".

  CPUs stand in for them without a compiler for GPUs.

  Raises:
    ConfigError: if there is no such GPU, or the compiler refuses it.
  """
  from jax.experimental import topologies

  gpu, count = split(name)
  if not is_installed():
    with contextlib.suppress(RuntimeError):  # JAX has started
      jax.config.update("jax_num_cpu_devices", count)
    return jax.devices("cpu")[:count]
  try:
    topology = topologies.get_topology_desc(
      platform="cuda", target_config=_description(gpu), topology=f"1x1x{count}"
    )
  except (RuntimeError, ValueError) as e:
    message = str(e).strip().splitlines()[0]
    raise ConfigError(f"--topology={name}: {message}") from e
  return list(topology.devices)


def split(name: str) -> tuple[Gpu, int]:
  """The GPU and the number of GPUs of GPU:COUNT."""
  kind, _, count = name.partition(":")
  if kind not in GPUS or not count.isdecimal() or int(count) < 1:
    raise ConfigError(
      f"--topology={name} is not GPU:COUNT, such as h100:1 or a100:8, with GPU "
      f"one of {', '.join(GPUS)}."
    )
  return GPUS[kind], int(count)


def _description(gpu: Gpu) -> str:
  """XLA's description of a GPU, in the text form of its protocol buffer."""
  major, minor = gpu.capability
  shared = gpu.shared_kib * 1024
  return f"""
    gpu_device_info {{
      cuda_compute_capability {{ major: {major} minor: {minor} }}
      threads_per_block_limit: 1024
      threads_per_warp: 32
      shared_memory_per_block: 49152
      shared_memory_per_block_optin: {shared - 1024}
      shared_memory_per_core: {shared}
      threads_per_core_limit: {gpu.threads}
      core_count: {gpu.cores}
      fpus_per_core: {gpu.lanes}
      block_dim_limit_x: 2147483647
      block_dim_limit_y: 65535
      block_dim_limit_z: 65535
      registers_per_core_limit: 65536
      registers_per_block_limit: 65536
      memory_bandwidth: {gpu.gb_per_s * 1e9:.0f}
      l2_cache_size: {gpu.l2_mib * 2**20}
      clock_rate_ghz: {gpu.ghz}
      device_memory_size: {gpu.memory_bytes:.0f}
    }}
    platform_name: "CUDA"
    dnn_version_info {{ major: 9 minor: 7 }}
    runtime_version {{ major: 12 minor: 8 }}
    device_description_str: "{gpu.name}"
  """
