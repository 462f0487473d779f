"""Starts the processes of one run, as a launcher on several hosts does."""

import contextlib
import pathlib
import socket
from collections.abc import Iterator

from tests.e2e import launch

CONFIG = "tests/multiprocess/tiny.py"


def free_port() -> int:
  with socket.socket() as probe:
    probe.bind(("localhost", 0))
    return probe.getsockname()[1]


def command(
  workdir: pathlib.Path, *overrides: str, option: str = ""
) -> list[str]:
  """The command of `tiny.py`."""
  return [
    "vitjax.main",
    f"--config={CONFIG}{option and ':'}{option}",
    f"--workdir={workdir}",
    *(f"--config.{x}" for x in overrides),
  ]


@contextlib.contextmanager
def started(
  *commands: list[str], cache: pathlib.Path, devices: int = 1
) -> Iterator[list[launch.Process]]:
  """Each command as a process of one run; none of them outlives it."""
  port, count = free_port(), len(commands)
  with contextlib.ExitStack() as stack:
    yield [
      stack.enter_context(
        launch.Process(
          *arguments,
          f"--coordinator_address=localhost:{port}",
          f"--num_processes={count}",
          f"--process_id={rank}",
          cache=cache,
          devices=devices,
        )
      )
      for rank, arguments in enumerate(commands)
    ]


def run(arguments: list[str], count: int, **options) -> list[launch.Finished]:
  """Runs `count` processes with the same arguments to their end."""
  with started(*[arguments] * count, **options) as processes:
    return [process.finish() for process in processes]
