r"""Trains what a config file describes; see `vitjax.train`.

  python -m vitjax.main --config=configs/plain_vit.py:s16 \
    --config.input.batch_size=512 --workdir=runs/mine

Exit codes: 0 done, 1 an error (one message on the screen, the traceback in
WORKDIR/error.txt), 75 stopped by SIGTERM or Ctrl-C with everything saved: run
the same command again to go on.
"""

import hashlib
import logging as std_logging
import pathlib
import re
import sys
import traceback

from absl import app, flags, logging
from ml_collections import config_flags

from vitjax import config, config_flag

_CONFIG = config_flag.define()
_WORKDIR = flags.DEFINE_string(
  "workdir",
  None,
  "Folder of the run. The same folder goes on with the same run. Default: "
  "runs/NAME-OF-CONFIG, with a hash of the overrides if there are any.",
)

EXIT_PREEMPTED = 75


def default_workdir(config_path: str, overrides: dict) -> pathlib.Path:
  """A folder that is the same for the same config file, options, overrides."""
  # The option may hold colons and slashes, and so may a Windows drive.
  path, _, arg = re.fullmatch(r"(.*?\.py|[^:]*)(:?)(.*)", config_path).groups()
  name = pathlib.PurePath(path).stem
  if arg:
    name += "-" + re.sub(r"[^\w.=+-]+", "_", arg)
  if overrides:
    text = repr(sorted((k, str(v)) for k, v in overrides.items()))
    name += "-" + hashlib.sha256(text.encode()).hexdigest()[:8]
  return pathlib.Path("runs") / name


def parse_flags(argv: list[str]) -> list[str]:
  """Parses the command line; what is wrong with it is said in one message."""
  return config_flag.parse_flags(argv, "vitjax.main")


def main(argv: list[str]) -> None:
  """Resolves the config, names the run folder, and trains."""
  del argv
  set_up_logging()
  overrides = config_flags.get_override_values(flags.FLAGS["config"])
  config_path = config_flags.get_config_filename(flags.FLAGS["config"])
  workdir = pathlib.Path(
    _WORKDIR.value or default_workdir(config_path, overrides)
  ).absolute()

  try:
    run = config.resolve(config_flag.read(_CONFIG))
    logging.info("Run folder: %s", workdir)
    from vitjax import train

    train.train_and_evaluate(run, workdir)
  except (ValueError, OSError, ArithmeticError, RuntimeError, KeyError) as e:
    stop_with(e, workdir)


def stop_with(error: Exception, workdir: pathlib.Path) -> None:
  """Exits with one message; the traceback goes into the run folder."""
  from vitjax import preemption

  if isinstance(error, preemption.Preempted):
    logging.info("%s", error)
    sys.exit(EXIT_PREEMPTED)
  where = ""
  try:
    if workdir.is_dir():
      file = workdir / "error.txt"
      file.write_text(
        "".join(traceback.format_exception(error)), encoding="utf-8"
      )
      where = f"\n(traceback: {file})"
  except OSError:
    pass  # a full disk is no reason to hide the error
  sys.exit(f"vitjax.main: {type(error).__name__}: {error}{where}")


def set_up_logging() -> None:
  """Plain lines of ours on stderr; other packages only when they warn."""
  logging.set_verbosity(logging.INFO)
  handler = logging.get_absl_handler()
  handler.setFormatter(std_logging.Formatter("%(message)s"))
  package = str(pathlib.Path(__file__).parent)
  handler.addFilter(
    lambda record: (
      record.levelno >= std_logging.WARNING
      or record.pathname.startswith(package)
    )
  )


if __name__ == "__main__":
  app.run(main, flags_parser=parse_flags)
