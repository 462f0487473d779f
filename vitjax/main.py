r"""Trains what a config file describes; see `vitjax.train`.

  python -m vitjax.main --config=configs/plain_vit.py:s16 \
    --config.input.batch_size=512 --workdir=runs/mine

Exit codes: 0 done, 1 an error (one message on the screen, the traceback in
WORKDIR/error.txt), 75 stopped by SIGTERM or Ctrl-C with everything saved: run
the same command again to go on. scripts/run_until_done.sh does.

Several processes are one run: on Cloud TPU, SLURM, OpenMPI and Kubernetes
they find each other, elsewhere by --coordinator_address, --num_processes and
--process_id. See `vitjax.distributed`.
"""

import dataclasses
import hashlib
import logging as std_logging
import pathlib
import re
import sys
import traceback

import ml_collections
from absl import app, flags, logging
from ml_collections import config_flags

from vitjax import command_line, config

_CONFIG = config_flags.DEFINE_config_file(
  "config",
  None,
  "Config file and its options, such as configs/plain_vit.py:s16,res=256. "
  "Any key can be set with --config.section.key=value.",
  lock_config=False,  # what is not in the schema is refused by it
  accept_new_attributes=True,
)
_WORKDIR = flags.DEFINE_string(
  "workdir",
  None,
  "Folder of the run. The same folder goes on with the same run. Default: "
  "runs/NAME-OF-CONFIG, with a hash of the overrides if there are any.",
)
_COORDINATOR = flags.DEFINE_string(
  "coordinator_address",
  None,
  "host:port of process 0 of several, if no known launcher started them.",
)
_NUM_PROCESSES = flags.DEFINE_integer(
  "num_processes", None, "How many processes there are.", lower_bound=1
)
_PROCESS_ID = flags.DEFINE_integer(
  "process_id", None, "Which of them this one is, from 0.", lower_bound=0
)

EXIT_PREEMPTED = 75


class _WholeConfig(flags.ArgumentParser):
  """Reads a config file; sections that it leaves out can be overridden too."""

  def __init__(self, parser: flags.ArgumentParser):
    self._parser = parser

  def parse(self, argument):
    read = self._parser.parse(argument)
    for field in dataclasses.fields(config.RunConfig):
      is_section = dataclasses.is_dataclass(field.type)
      if is_section and field.type is not config.Duration:
        if field.name not in read:
          read[field.name] = ml_collections.ConfigDict()
    return read


flags.FLAGS["config"].parser = _WholeConfig(flags.FLAGS["config"].parser)


def default_workdir(config_flag: str, overrides: dict) -> pathlib.Path:
  """A folder that is the same for the same config file, options, overrides."""
  # The option may hold colons and slashes, and so may a Windows drive.
  path, _, arg = re.fullmatch(r"(.*?\.py|[^:]*)(:?)(.*)", config_flag).groups()
  name = pathlib.PurePath(path).stem
  if arg:
    name += "-" + re.sub(r"[^\w.=+-]+", "_", arg)
  if overrides:
    text = repr(sorted((k, str(v)) for k, v in overrides.items()))
    name += "-" + hashlib.sha256(text.encode()).hexdigest()[:8]
  return pathlib.Path("runs") / name


def replace_units(read: ml_collections.ConfigDict, overrides: dict) -> None:
  """`--config.total_steps=9` replaces the file's `total_epochs`."""
  for path in overrides:
    *sections, key = path.split(".")
    name, _, unit = key.rpartition("_")
    if unit not in config.UNITS:
      continue
    section = read
    for part in sections:
      section = section[part]
    for other in (f"{name}_{unit}" for unit in config.UNITS):
      if other in section and ".".join([*sections, other]) not in overrides:
        del section[other]


def parse_flags(argv: list[str]) -> list[str]:
  """Parses the command line; what is wrong with it is said in one message."""
  command_line.show_help(argv)
  try:
    rest = flags.FLAGS(argv)
    if len(rest) > 1:
      raise flags.Error(f"{rest[1]!r} is not a flag; flags begin with --.")
    if _CONFIG.value is None:
      raise flags.Error(
        "--config is missing, such as --config=configs/quickstart.py."
      )
    dict(_CONFIG.value)  # a file that cannot be read raises on first use
    return rest
  except (flags.Error, KeyError, AttributeError, OSError, ValueError) as e:
    sys.exit(f"vitjax.main: {reason(e)}")


def reason(error: BaseException) -> str:
  """What is wrong with the command line, without what is wrapped around it."""
  if isinstance(error, OSError):
    lines = str(error.__cause__ or error).strip().splitlines()
    return f"the config file cannot be read: {lines[-1].strip()}"
  if isinstance(error, KeyError):  # of an override: 'modle'\nDid you mean ...
    lacking = str(error.args[0]).replace("\n", ". ")
    return f"an override is of a key that the config lacks: {lacking}"
  while error.__context__ is not None and "config file" in str(error):
    error = error.__context__  # the config's own error, not its traceback
  return str(error)


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
    from vitjax import build

    replace_units(_CONFIG.value, overrides)
    run = config.resolve(_CONFIG.value, build.problems)
    process_id = start_processes(run, workdir)
    if process_id == 0:
      logging.info("Run folder: %s", workdir)
    use_compilation_cache(workdir)
    from vitjax import train

    train.train_and_evaluate(run, workdir)
  except (ValueError, OSError, ArithmeticError, RuntimeError, KeyError) as e:
    stop_with(e, workdir)


def start_processes(run: config.RunConfig, workdir: pathlib.Path) -> int:
  """Finds the other processes of the run; returns the number of this one."""
  from vitjax import distributed, run_folder

  return distributed.start(
    {
      **run_folder.software(),
      "config": config.to_dict(run),
      "workdir": str(workdir),
    },
    coordinator_address=_COORDINATOR.value,
    num_processes=_NUM_PROCESSES.value,
    process_id=_PROCESS_ID.value,
  )


def use_compilation_cache(workdir: pathlib.Path) -> None:
  """Keeps compiled programs in the run folder, if not elsewhere already.

  JAX_COMPILATION_CACHE_DIR names another folder, which runs may share;
  JAX_ENABLE_COMPILATION_CACHE=0 switches it off.
  """
  import jax

  if not jax.config.jax_compilation_cache_dir:
    jax.config.update("jax_compilation_cache_dir", str(workdir / "compiled"))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.2)


def stop_with(error: Exception, workdir: pathlib.Path) -> None:
  """Exits with one message; the traceback goes into the run folder."""
  import jax

  from vitjax import distributed, preemption

  if isinstance(error, preemption.Preempted):
    logging.info("%s", error)
    sys.exit(EXIT_PREEMPTED)
  where = ""
  try:
    if workdir.is_dir():
      process_id = jax.distributed.is_initialized() and jax.process_index()
      file = workdir / (
        f"error-{process_id}.txt" if process_id else "error.txt"
      )
      file.write_text(
        "".join(traceback.format_exception(error)), encoding="utf-8"
      )
      where = f"\n(traceback: {file})"
  except OSError:
    pass  # a full disk is no reason to hide the error
  reason = f"{type(error).__name__}: {error}"
  print(f"vitjax.main: {reason}{where}", file=sys.stderr, flush=True)
  distributed.end_all(reason, code=1)
  sys.exit(1)


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
