"""From the command to the first step of configs/quickstart.py.

`cold` finds no compiled programs, `warm` those of the cold start; `import` is
`python -c "import vitjax"`, and `help` is `vitjax.main --help`. `peak` is the
largest memory of the process.
"""

import os
import pathlib
import re
import subprocess
import sys
import tempfile
import time

from scripts.bench import turns

_ROOT = pathlib.Path(__file__).parents[2]


def _first_step(workdir: pathlib.Path, cache: pathlib.Path):
  """Seconds until a step is in the record, and peak memory in MiB."""
  command = [
    sys.executable,
    "-m",
    "vitjax.main",
    "--config=configs/quickstart.py",
    "--config.report.every_steps=1",
    "--config.total_steps=2",
    f"--workdir={workdir}",
  ]
  env = os.environ | {
    "JAX_COMPILATION_CACHE_DIR": str(cache),
    "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0.2",
  }
  start = time.perf_counter()
  with subprocess.Popen(
    command, cwd=_ROOT, env=env, stderr=subprocess.PIPE, text=True
  ) as process:
    seconds, lines = None, []
    for line in process.stderr:
      lines.append(line)
      if seconds is None and re.match(r"step 1/", line):
        seconds = time.perf_counter() - start
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
  if process.returncode or seconds is None:
    raise RuntimeError(f"{' '.join(command)} failed:\n{''.join(lines)}")
  return seconds, usage.ru_maxrss / 1024


def _run(*arguments: str) -> float:
  start = time.perf_counter()
  subprocess.run(
    [sys.executable, *arguments], cwd=_ROOT, check=True, capture_output=True
  )
  return time.perf_counter() - start


def measure(repetitions: int) -> list[dict]:
  """Rows of seconds."""
  seconds: dict[str, list[float]] = {}
  peaks = []

  def add(name, value):
    seconds.setdefault(name, []).append(value)

  for _ in range(repetitions):
    with tempfile.TemporaryDirectory() as folder:
      folder = pathlib.Path(folder)
      for name in ("cold", "warm"):
        value, peak = _first_step(folder / name, folder / "cache")
        add(name, value)
        peaks.append(peak)
    add("import", _run("-c", "import vitjax"))
    add("help", _run("-m", "vitjax.main", "--help"))
  rows = [
    {
      "benchmark": "startup",
      "contestant": name,
      "seconds": turns.summary(values),
    }
    for name, values in seconds.items()
  ]
  rows.append(
    {
      "benchmark": "startup",
      "contestant": "peak",
      "mebibytes": turns.summary(peaks),
    }
  )
  return rows
