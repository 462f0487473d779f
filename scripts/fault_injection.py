r"""Kills processes of a run at random until the run is done.

  python -m scripts.fault_injection --kills=30 --workdir=/tmp/faults

Trains once undisturbed and once under faults: each process in a loop of its
own (`run_until_done.sh`), as on several hosts, and at random moments kill -9
or, for one in five, SIGTERM to one of them. Some come while the processes
start. Both runs must end with the same parameters and the same record, to
the bit. Prints the faults, and a summary as JSON; exit code 1 if the runs
differ. Linux only.
"""

import collections
import json
import os
import pathlib
import random
import signal
import socket
import subprocess
import sys
import time

import numpy as np
from absl import app, flags

from vitjax.run_folder import reader

ROOT = pathlib.Path(__file__).parents[1]
_WORKDIR = flags.DEFINE_string("workdir", None, "Made; has both runs.")
_KILLS = flags.DEFINE_integer("kills", 30, "How many faults.")
_STEPS = flags.DEFINE_integer("steps", 300, "Length of the run.")
_SAVE_EVERY = flags.DEFINE_integer("save_every", 10, "Steps.")
_PROCESSES = flags.DEFINE_integer("processes", 2, "Of the run.")
_SEED = flags.DEFINE_integer("seed", None, "Of the moments; default: any.")


def command(workdir: pathlib.Path, port: int, rank: int) -> list[str]:
  return [
    sys.executable,
    "-m",
    "vitjax.main",
    "--config=configs/quickstart.py",
    "--config.model.width=16",
    "--config.model.depth=1",
    f"--config.total_steps={_STEPS.value}",
    f"--config.checkpoint.every_steps={_SAVE_EVERY.value}",
    f"--config.evals.test.every_steps={_STEPS.value // 3}",
    "--config.report.every_steps=1",
    f"--workdir={workdir}",
    f"--coordinator_address=localhost:{port}",
    f"--num_processes={_PROCESSES.value}",
    f"--process_id={rank}",
  ]


def start(workdir: pathlib.Path, loop: list[str]) -> list[subprocess.Popen]:
  """Starts the processes of a run, each with a log beside the run folder."""
  with socket.socket() as probe:
    probe.bind(("localhost", 0))
    port = probe.getsockname()[1]
  started = []
  for rank in range(_PROCESSES.value):
    with open(f"{workdir}-process-{rank}.log", "w") as log:
      started.append(
        subprocess.Popen(
          [*loop, *command(workdir, port, rank)],
          cwd=ROOT,
          env={"JAX_PLATFORMS": "cpu", **os.environ},
          stdout=log,
          stderr=subprocess.STDOUT,
        )
      )
  return started


def child_of(loop: subprocess.Popen) -> int | None:
  """The training process of a loop; None while there is none."""
  try:
    children = pathlib.Path(f"/proc/{loop.pid}/task/{loop.pid}/children")
    for pid in children.read_text().split():
      arguments = pathlib.Path(f"/proc/{pid}/cmdline").read_bytes()
      if b"vitjax.main" in arguments and b"run_until_done" not in arguments:
        return int(pid)
  except OSError:
    pass
  return None


def last_step(workdir: pathlib.Path) -> int:
  try:
    rows = reader.read_metrics(workdir)
    return rows[-1]["step"] if rows else 0
  except FileNotFoundError:
    return 0


def disturb(loops, workdir: pathlib.Path, moments: random.Random) -> list[dict]:
  """Kills one process after the other; returns what was done."""
  faults = []
  hit: set[int] = set()  # processes that have had their fault
  for i in range(_KILLS.value):
    target = round(_STEPS.value * (i + moments.random()) / (_KILLS.value + 1))
    delay = moments.uniform(0, 0.2)
    while None in (pids := [child_of(x) for x in loops]) or hit & {*pids}:
      if any(x.poll() is not None for x in loops):
        return faults
      time.sleep(0.01)
    if while_starting := moments.random() < 0.3:
      delay = moments.uniform(0, 10)
    else:
      while last_step(workdir) < target:
        if any(x.poll() is not None for x in loops):
          return faults
        time.sleep(0.02)
    time.sleep(delay)
    rank = moments.randrange(len(loops))
    number = signal.SIGTERM if moments.random() < 0.2 else signal.SIGKILL
    pid = child_of(loops[rank])
    if pid is None:
      pid = pids[rank]
    fault = {
      "number": i + 1,
      "process": rank,
      "signal": number.name,
      "while": "starting" if while_starting else "training",
      "step": last_step(workdir),
      "saved": max(saved_steps(workdir), default=0),
    }
    try:
      os.kill(pid, number)
    except ProcessLookupError:
      continue
    hit.add(pid)
    faults.append(fault)
    print(" ".join(f"{k}={v}" for k, v in fault.items()), flush=True)
  return faults


def saved_steps(workdir: pathlib.Path) -> list[int]:
  names = [path.name for path in (workdir / "checkpoints").glob("*")]
  return sorted(int(name) for name in names if name.isdigit())


def differences(workdir: pathlib.Path, expected: pathlib.Path) -> list[str]:
  """Differences, to the bit, of two finished runs."""
  found = []
  with (
    np.load(workdir / "params.npz") as given,
    np.load(expected / "params.npz") as wanted,
  ):
    if sorted(given.files) != sorted(wanted.files):
      found.append("names of the parameters")
    else:
      found += [
        name
        for name in wanted.files
        if given[name].tobytes() != wanted[name].tobytes()
      ]
  records = [
    (x / reader.METRICS_FILE).read_bytes() for x in (workdir, expected)
  ]
  if records[0] != records[1]:
    found.append(reader.METRICS_FILE)
  return found


def main(argv: list[str]) -> None:
  """Runs both, compares, and says so."""
  del argv
  folder = pathlib.Path(_WORKDIR.value).absolute()
  folder.mkdir(parents=True)
  seed = _SEED.value
  if seed is None:
    seed = random.SystemRandom().randrange(2**32)
  print(f"seed={seed}")

  began = time.monotonic()
  for process in start(folder / "undisturbed", []):
    if process.wait():
      sys.exit(f"The undisturbed run failed; see {folder}.")
  undisturbed = time.monotonic() - began

  began = time.monotonic()
  loop = [str(ROOT / "scripts" / "run_until_done.sh"), "-n", "12", "-w", "0"]
  loops = start(folder / "disturbed", loop)
  try:
    faults = disturb(loops, folder / "disturbed", random.Random(seed))
    codes = [x.wait() for x in loops]
  finally:
    for x in loops:
      x.terminate()
  if any(codes):
    sys.exit(f"The loops gave up with exit codes {codes}; see {folder}.")

  different = differences(folder / "disturbed", folder / "undisturbed")
  kinds = collections.Counter(f"{x['signal']} {x['while']}" for x in faults)
  timing = reader.read_metrics(folder / "disturbed" / reader.TIMING_FILE)[-1]
  summary = {
    "faults": len(faults),
    **kinds,
    "seconds_undisturbed": round(undisturbed, 1),
    "seconds_disturbed": round(time.monotonic() - began, 1),
    "goodput": timing["goodput"],
    "different": different,
  }
  print(json.dumps(summary))
  if different or len(faults) < _KILLS.value:
    sys.exit(1)


if __name__ == "__main__":
  flags.mark_flag_as_required("workdir")
  app.run(main)
