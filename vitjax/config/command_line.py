"""Shared by the commands: start-up, common flags and logging."""

import gc
import logging as std_logging
import os
import pathlib
import re
import signal
import sys
import traceback
from collections.abc import Callable, Sequence

from absl import app, flags, logging

from vitjax.config import messages

flags.disclaim_key_flags()  # --help shows them with the calling command


def parse_flags(argv: list[str]) -> list[str]:
  """Parses the flags of a command.

  Help is no error and ends with code 0. An error is one line; absl prints the
  whole help before it.

  Returns:
    `argv` without the flags.
  """
  show_help(argv)
  try:
    return flags.FLAGS(expand_home(argv))
  except flags.Error as e:
    sys.exit(f"{name_of(argv)}: {e}")


def run(
  main: Callable[[list[str]], int | None],
  define_flags: Callable[[], None] = lambda: None,
  parse: Callable[[list[str]], list[str]] = parse_flags,
) -> None:
  """Runs a command; the last line of its module calls this.

  Args:
    main: called with what `parse` returns; returns the exit code.
    define_flags: called first. Flags are global to a process, so a module
      defines none when it is imported.
    parse: returns `argv` without the flags.
  """

  def main_with_devices(argv):
    try:
      return main(argv)
    except AssertionError as e:
      if not _raised_in(e, "xla_bridge.py"):
        raise
      sys.exit(f"{name_of(sys.argv)}: {messages.no_device(e)}")

  # Imports and traces make many objects that stay. To look through them for
  # garbage as often as Python does by default takes an eighth of the start-up.
  gc.set_threshold(200_000, 20, 100)
  define_flags()
  app.run(main_with_devices, flags_parser=parse)


def name_of(argv: list[str]) -> str:
  """The module of the command that runs, such as vitjax.predict."""
  path = pathlib.Path(argv[0])
  return f"vitjax.{path.parent.name if path.stem == '__main__' else path.stem}"


def expand_home(argv: list[str]) -> list[str]:
  """Replaces the `~` of paths that begin with it, as in `--workdir=~/runs`.

  A shell expands `~` only at the start of an argument. `folder:~/images` is
  left to the data source, so that a run does not depend on the home folder.
  """
  begins = re.compile(r"(?:(?<![^=,])|(?<=\.py:))~(?=/|$)")
  home = os.path.expanduser("~")
  return [begins.sub(lambda _: home, argument) for argument in argv]


def _raised_in(error: BaseException, file: str) -> bool:
  last = traceback.extract_tb(error.__traceback__)[-1]
  return pathlib.Path(last.filename).name == file


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


def define_checkpoint() -> None:
  """Defines --step and --ema, which choose the parameters of a run folder."""
  flags.DEFINE(
    _StepParser(),
    "step",
    "latest",
    "Checkpoint of a run folder: latest, best or a number.",
  )
  flags.DEFINE_bool(
    "ema", False, "Use the averaged parameters of a run with config.ema."
  )


def define_allow_module() -> None:
  """Defines --allow_module: a module that the files of --model may import."""
  flags.DEFINE_string(
    "allow_module",
    None,
    "Dotted path of a module of your own that --model may name. Importing a "
    "module runs its code, so no other one is imported.",
  )


def define_answers() -> None:
  """Defines the flags of commands in which a model answers about images."""
  flags.DEFINE_string(
    "model",
    None,
    "Run folder, exported file, hf:OWNER/REPO or name of published weights.",
    required=True,
  )
  define_checkpoint()
  define_allow_module()
  flags.DEFINE_string(
    "pretrained_dir", None, "Folder or URL with the files of published names."
  )
  flags.DEFINE_integer(
    "top", 5, "Number of classes to show for each image.", lower_bound=1
  )
  flags.DEFINE_bool(
    "resize",
    False,
    "Resize images to the size that the model was trained on, if its own "
    "preprocessing does not.",
  )
  flags.DEFINE_multi_string(
    "texts",
    [],
    "Captions to choose from, for a model that reads texts: separated by "
    "commas, or one flag for each.",
  )


def captions(values: Sequence[str]) -> list[str]:
  """The captions of --texts.

  Raises:
    ValueError: if one is empty.
  """
  if len(values) == 1:
    values = values[0].split(",")
  texts = [text.strip() for text in values]
  if not all(texts):
    raise ValueError(f"--texts={','.join(texts)!r} has an empty caption.")
  return texts


def define_server(port: int | None, port_help: str) -> None:
  """Defines the flags of commands that take images from a network.

  Args:
    port: default of --port.
    port_help: text about the port.
  """
  flags.DEFINE_string(
    "host", "127.0.0.1", "Address to listen on; 0.0.0.0 admits other machines."
  )
  flags.DEFINE_integer(
    "port", port, port_help, lower_bound=0, upper_bound=65535
  )
  flags.DEFINE_float("max_mb", 10, "Largest file, in MB.", lower_bound=0.001)
  flags.DEFINE_float(
    "max_megapixels",
    50,
    "Largest image, in million pixels.",
    lower_bound=0.0001,
  )


def end_on_signals() -> None:
  """Makes SIGTERM and SIGHUP end the process as Ctrl-C does."""

  def end(number, frame):
    raise KeyboardInterrupt

  for name in ("SIGTERM", "SIGHUP"):
    number = getattr(signal, name, None)  # Windows has no SIGHUP
    # nohup ignores it.
    if number is not None and signal.getsignal(number) != signal.SIG_IGN:
      signal.signal(number, end)


def show_help(argv: list[str]) -> None:
  """Prints what `--help` asks for, and ends with code 0."""
  if {"--help", "-h", "-help"} & {*argv[1:]}:
    app.usage(shorthelp=True, writeto_stdout=True, exitcode=0)


def set_up_logging() -> None:
  """Logs plain lines to stderr; of other packages only warnings."""
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
