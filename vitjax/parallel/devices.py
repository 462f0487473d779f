"""The devices of this machine, and their memory."""

import os
import pathlib
from collections.abc import Iterator, Sequence

import jax

from vitjax.config import messages

_ROOT = pathlib.Path("/")


def find() -> Sequence[jax.Device]:
  """`jax.devices()`, with an error that says what to do.

  Raises:
    RuntimeError: if JAX finds none; one line with the reason and advice.
  """
  try:
    return jax.devices()
  except (RuntimeError, AssertionError) as e:
    raise RuntimeError(messages.no_device(e)) from e


def memory_of(device: jax.Device) -> int | None:
  """Memory of a device of this host, in bytes.

  Devices that compute in the memory of the host, as CPUs do, share it equally.

  Returns:
    The bytes, or None if unknown.
  """
  if device.platform == "cpu":
    total = host_memory()
    return total and total // len(jax.local_devices(backend="cpu"))
  return (device.memory_stats() or {}).get("bytes_limit")


def host_memory() -> int | None:
  """Bytes of memory of this host, or of its container if that has less."""
  try:
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
  except (AttributeError, ValueError, OSError):
    return None
  return min([total, *_container_limits(_ROOT)])


def _container_limits(root: pathlib.Path) -> Iterator[int]:
  """Memory limits of this process's control groups, of both versions."""
  try:
    groups = (root / "proc/self/cgroup").read_text().splitlines()
  except OSError:
    return
  for line in groups:
    _, controllers, path = line.split(":", 2)
    if controllers in ("", "memory"):
      top = root / "sys/fs/cgroup" / controllers
      file = "memory.limit_in_bytes" if controllers else "memory.max"
      # In a container, its own group is mounted at the top.
      group = top / path.lstrip("/")
      for folder in (group, *group.parents):
        if folder.is_relative_to(top):
          try:
            yield int((folder / file).read_text())
          except (OSError, ValueError):  # no such file, or "max"
            continue
