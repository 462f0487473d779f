"""A CPU's programs reuse memory: in a process of its own, which it changes."""

import subprocess
import sys
import textwrap

import pytest

PROGRAM = textwrap.dedent("""
  import resource
  import jax
  import jax.numpy as jnp
  from vitjax.parallel import allocator

  allocator.keep_freed_memory()
  step = jax.jit(lambda x: jnp.outer(x, x))
  for _ in range(3):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    step(jnp.ones(5000)).block_until_ready()
  faults = resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
  print(faults * resource.getpagesize())
""")


@pytest.mark.skipif(sys.platform != "linux", reason="glibc's malloc")
def test_a_programs_memory_is_not_got_from_the_system_again():
  done = subprocess.run(
    [sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=True
  )
  result = 4 * 5000**2
  assert int(done.stdout) < result / 8
