"""Memory of a process that trains a ViT-S/16 for five steps, batch 16.

Each contestant of `step.py` gets processes of its own, as the largest memory
of a process is known at its end only.
"""

import os
import pathlib
import subprocess
import sys

import numpy as np

from scripts.bench import recipe, step, turns

_ROOT = pathlib.Path(__file__).parents[2]
_STEPS = 5


def _peak(name: str) -> float:
  """MiB, of a process that does nothing else."""
  command = [sys.executable, "-m", "scripts.bench.memory", name]
  with subprocess.Popen(command, cwd=_ROOT, stderr=subprocess.PIPE) as process:
    log = process.stderr.read()
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
  if process.returncode:
    raise RuntimeError(f"{' '.join(command)} failed:\n{log.decode()}")
  return usage.ru_maxrss / 1024


def measure(repetitions: int) -> list[dict]:
  """Rows of mebibytes, and how many times as little as plain Linen."""
  found: dict[str, list[float]] = {name: [] for name in step.makers()}
  for _ in range(repetitions):
    for name, peaks in found.items():
      peaks.append(_peak(name))
  return [
    {
      "benchmark": "memory",
      "contestant": name,
      "mebibytes": turns.summary(peaks),
      "times_less_than_linen": turns.summary(np.divide(found["linen"], peaks)),
    }
    for name, peaks in found.items()
  ]


if __name__ == "__main__":
  train, _ = step.makers()[sys.argv[1]](recipe.example_batch(step.BATCH))
  for _ in range(_STEPS):
    train()
