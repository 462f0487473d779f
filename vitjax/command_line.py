"""What the commands have in common: how their flags are parsed."""

import pathlib
import sys

from absl import app, flags


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


def show_help(argv: list[str]) -> None:
  """Prints what `--help` asks for, and ends with code 0."""
  if {"--help", "-h", "-help"} & {*argv[1:]}:
    app.usage(shorthelp=True, writeto_stdout=True, exitcode=0)
