"""Runs the parts that have no row yet, each with a time limit.

`accelerator_check.sh` calls this and says more.

Exit codes: 0 all parts have a row and none failed; 1 a part failed; 2 the time
is over and a second call does the rest.
"""

import argparse
import dataclasses
import json
import os
import pathlib
import signal
import subprocess
import sys
import time

from scripts.accelerator_check import child, parts, table

EXIT_FAILED, EXIT_CALL_AGAIN = 1, 2
_ROOT = pathlib.Path(__file__).parents[2]
_SECONDS = 560
# Started with less time than this, no part would end.
_LEAST_SECONDS = 15


def parse() -> argparse.Namespace:
  parser = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawTextHelpFormatter
  )
  parser.add_argument("--out", default="runs/accelerator", help="folder")
  parser.add_argument("--seconds", type=float, default=_SECONDS)
  parser.add_argument(
    "--tiny",
    action=argparse.BooleanOptionalAction,
    help="tiny sizes; the default without an accelerator",
  )
  parser.add_argument(
    "--retry", action="store_true", help="run failed and skipped parts again"
  )
  parser.add_argument(
    "--patience",
    type=float,
    default=1.0,
    help="factor of the parts' time limits, for a busy machine",
  )
  parser.add_argument(
    "--only", default="", help="parts whose names start with this"
  )
  return parser.parse_args()


def environment(tiny: bool = False) -> dict[str, str]:
  """The environment of the parts, which also compute on the CPU."""
  env = dict(os.environ)
  if tiny:  # most of the time would go into compiling
    env.setdefault("XLA_FLAGS", "--xla_backend_optimization_level=0")
  platforms = env.get("JAX_PLATFORMS", "")
  if platforms and "cpu" not in platforms.split(","):
    env["JAX_PLATFORMS"] = f"{platforms},cpu"
  return env


def backend() -> str:
  """JAX's default backend, asked in a process that ends."""
  done = subprocess.run(
    [sys.executable, "-c", "import jax; print(jax.default_backend())"],
    capture_output=True,
    text=True,
    timeout=120,
    cwd=_ROOT,
    env=environment(),
  )
  if done.returncode:
    sys.exit(f"JAX finds no device:\n{done.stderr[-2000:]}")
  return done.stdout.split()[-1]


def read(file: pathlib.Path) -> list[dict]:
  if not file.exists():
    return []
  return [json.loads(x) for x in file.read_text(encoding="utf-8").splitlines()]


def group(todo: list[parts.Part], tiny: bool = False) -> list[parts.Part]:
  """The next parts that share a process; tiny ones of a kind always do."""
  first = todo[0]
  if first.alone and not tiny:
    return [first]
  return [x for x in todo if x.kind == first.kind]


def command_of(
  now: list[parts.Part], file: pathlib.Path, tiny: bool
) -> list[str]:
  """The command of a process that runs parts and adds their rows."""
  command = [sys.executable, "-m", "scripts.accelerator_check.child"]
  size = "tiny" if tiny else "full"
  return [*command, str(file), size, *(x.name for x in now)]


def run(
  now: list[parts.Part],
  command: list[str],
  file: pathlib.Path,
  *,
  tiny: bool,
  end: float,
) -> None:
  """Runs parts in one process; a part that ends it gets a failed row.

  Those that come after it have no row then. At `end` the process is stopped,
  and the part that runs has none either.
  """
  log = file.parent / f"{now[0].name.replace(' ', '_').replace('/', '')}.log"
  before = len(read(file))
  with log.open("w") as output:
    process = subprocess.Popen(
      command,
      stdout=output,
      stderr=output,
      cwd=_ROOT,
      env=environment(tiny),
      start_new_session=True,
    )
    done, since = 0, time.monotonic()
    reason = stopped = None
    while process.poll() is None:
      time.sleep(0.1)
      rows = read(file)[before:]
      if len(rows) > done:
        for row in rows[done:]:
          table.say(row)
        done, since = len(rows), time.monotonic()
      late = time.monotonic() - since
      if done < len(now) and late > now[done].seconds:
        reason = f"stopped after its limit of {now[done].seconds} s"
      stopped = time.monotonic() > end
      if reason or stopped:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
  rows = read(file)[before:]
  for row in rows[done:]:
    table.say(row)
  if len(rows) == len(now) or (stopped and not reason):
    return
  if reason is None:
    reason = f"its process ended with {process.returncode}; see {log.name}"
  failed = now[len(rows)]
  row = {"part": failed.name, "tiny": tiny, "status": "failed"}
  row |= {"seconds": round(time.monotonic() - since, 1), "reason": reason}
  child.add(file, row)
  table.say(row)


def main() -> None:
  flags = parse()
  end = time.monotonic() + flags.seconds
  folder = pathlib.Path(flags.out).absolute()
  folder.mkdir(parents=True, exist_ok=True)
  file = folder / "results.jsonl"
  tiny = backend() == "cpu" if flags.tiny is None else flags.tiny
  rows = [x for x in read(file) if x["tiny"] == tiny]
  if flags.retry:
    rows = [x for x in rows if x["status"] == "ok"]
  file.write_text("".join(json.dumps(x) + "\n" for x in rows))
  every = [
    dataclasses.replace(x, seconds=int(x.seconds * flags.patience))
    for x in parts.every()
    if x.name.startswith(flags.only)
  ]

  def todo():
    done = {x["part"] for x in read(file)}
    return [x for x in every if x.name not in done]

  while (left := todo()) and end - time.monotonic() > _LEAST_SECONDS:
    now = group(left, tiny)
    run(now, command_of(now, file, tiny), file, tiny=tiny, end=end)
  rows = read(file)
  text = table.markdown(rows)
  (folder / "table.md").write_text(text + "\n", encoding="utf-8")
  print(f"\n{text}\n\nRows and table: {folder}")
  if left := todo():
    print(f"The time is over: call again for {len(left)} more parts.")
    sys.exit(EXIT_CALL_AGAIN)
  if any(x["status"] == "failed" for x in rows):
    sys.exit(EXIT_FAILED)


if __name__ == "__main__":
  main()
