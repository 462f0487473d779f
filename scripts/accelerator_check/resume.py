"""A run that is killed and resumed against one that is not."""

import os
import pathlib
import signal
import subprocess
import sys
import tempfile
import time

import numpy as np

from scripts.accelerator_check import skip

_STEPS, _KILLED_AFTER = 60, 25
# A device that sums in another order each time differs by rounding.
_TOLERANCE = 1e-3


def _command(workdir: pathlib.Path) -> list[str]:
  return [
    *(sys.executable, "-m", "vitjax.main", "--config=configs/quickstart.py"),
    *("--config.model.width=16", "--config.model.depth=1"),
    *(f"--config.total_steps={_STEPS}", "--config.checkpoint.every_steps=10"),
    *("--config.report.every_steps=1", f"--workdir={workdir}"),
  ]


def _killed(command: list[str], workdir: pathlib.Path, env) -> int:
  """Kills the run after some step with a checkpoint; returns the step."""
  record = workdir / "metrics.jsonl"
  with subprocess.Popen(command, env=env) as process:
    while process.poll() is None:
      steps = record.read_text().count("\n") if record.exists() else 0
      saved = list((workdir / "checkpoints").glob("[0-9]*"))
      if steps >= _KILLED_AFTER and saved:
        process.send_signal(signal.SIGKILL)
      time.sleep(0.02)
  if process.returncode != -signal.SIGKILL:
    raise RuntimeError(f"The run was to be killed: {process.returncode}.")
  return record.read_text().count("\n")


def run(case: str, tiny: bool) -> dict:
  del case, tiny
  for package in ("tensorflow", "ml_collections", "clu", "sklearn"):
    skip.without(package, "a whole run")
  with tempfile.TemporaryDirectory() as folder:
    straight, killed = pathlib.Path(folder, "a"), pathlib.Path(folder, "b")
    env = os.environ | {
      "JAX_COMPILATION_CACHE_DIR": f"{folder}/cache",
      "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
    }
    subprocess.run(_command(straight), env=env, check=True)
    step = _killed(_command(killed), killed, env)
    subprocess.run(_command(killed), env=env, check=True)
    a, b = (dict(np.load(x / "params.npz")) for x in (straight, killed))
  difference = max(float(np.abs(a[name] - b[name]).max()) for name in a)
  if not difference < _TOLERANCE:
    raise RuntimeError(f"Parameters differ by {difference:g}.")
  return {"killed_after": step, "difference": difference}
