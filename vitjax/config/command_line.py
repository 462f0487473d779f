"""What the commands have in common: their flags and what they log."""

import logging as std_logging
import pathlib
import sys

from absl import app, flags, logging

flags.disclaim_key_flags()  # they are those of the command that calls


def parse_flags(argv: list[str]) -> list[str]:
  """Parses the flags of a command; for `app.run`.

  Asking for help is no error, and what is wrong is said in one line; absl
  ends both with code 1, the latter after all of the help.

  Returns:
    `argv` without the flags.
  """
  show_help(argv)
  try:
    return flags.FLAGS(argv)
  except flags.Error as e:
    path = pathlib.Path(argv[0])
    package = path.stem == "__main__"
    name = path.parent.name if package else path.stem
    sys.exit(f"vitjax.{name}: {e}")


class _StepParser(flags.ArgumentParser):
  """Reads "latest", "best" or the number of a step."""

  def parse(self, argument: str) -> int | str:
    if argument in ("latest", "best"):
      return argument
    if argument.isdecimal():
      return int(argument)
    raise ValueError("give latest, best or the number of a step")

  def flag_type(self) -> str:
    return "latest, best or a number"


def define_checkpoint() -> tuple[flags.FlagHolder, flags.FlagHolder]:
  """Defines --step and --ema: which parameters of a run folder to use."""
  step = flags.DEFINE(
    _StepParser(),
    "step",
    "latest",
    "Checkpoint of a run folder: latest, best or a number.",
  )
  ema = flags.DEFINE_bool(
    "ema", False, "The averaged parameters of a run with config.ema."
  )
  return step, ema


def show_help(argv: list[str]) -> None:
  """Prints what `--help` asks for, and ends with code 0."""
  if {"--help", "-h", "-help"} & {*argv[1:]}:
    app.usage(shorthelp=True, writeto_stdout=True, exitcode=0)


def set_up_logging() -> None:
  """Plain lines of ours on stderr; other packages only when they warn."""
  logging.set_verbosity(logging.INFO)
  handler = logging.get_absl_handler()
  handler.setFormatter(std_logging.Formatter("%(message)s"))
  package = str(pathlib.Path(__file__).parents[1])
  handler.addFilter(
    lambda record: (
      record.levelno >= std_logging.WARNING
      or record.pathname.startswith(package)
    )
  )
