"""The memory allocator of a process whose CPU computes.

XLA allocates the temporaries of a program at once and frees them at its end.
glibc returns such a large block to the system, and the next step gets it back
page by page, which takes up to a third of the processor time of a step.
"""

import ctypes
import sys

import jax

# Parameters of glibc's `mallopt`.
_TRIM_THRESHOLD, _MMAP_MAX = -1, -4


def keep_freed_memory() -> None:
  """Lets programs on the CPU reuse the memory of the programs before them.

  Call it before any use of a device. Only the heap of the main thread can grow
  to gigabytes, so programs run in the thread that calls them. The process keeps
  its peak memory. Nothing changes if several processes compute. With an
  accelerator only programs on the CPU change their thread, as without glibc.
  """
  if jax.distributed.is_initialized():
    return
  jax.config.update("jax_cpu_enable_async_dispatch", False)
  if sys.platform != "linux" or jax.default_backend() != "cpu":
    return
  if mallopt := getattr(ctypes.CDLL(None), "mallopt", None):
    mallopt(_MMAP_MAX, 0)
    mallopt(_TRIM_THRESHOLD, -1)  # never
