r"""Trains the model that a config file describes, or resumes a run.

  vitjax train --config=plain_vit.py:s16 --workdir=runs/mine
  python -m vitjax.main --config=configs/plain_vit.py:s16 \
    --config.input.batch_size=512 --workdir=runs/mine

`vitjax configs` lists the config files that come with vitjax.

Exit codes: 0 done, 1 an error (one message on the screen, the traceback in
WORKDIR/error.txt), 75 stopped by SIGTERM or Ctrl-C with everything saved (run
the same command again to resume; scripts/run_until_done.sh does), 130 stopped
by Ctrl-C at once.

Several processes can share one run. On Cloud TPU, SLURM, OpenMPI and Kubernetes
they find each other; elsewhere pass --coordinator_address, --num_processes and
--process_id. See `vitjax.parallel.processes`.
"""

import contextlib
import hashlib
import pathlib
import re
import sys
import tempfile
import traceback
import uuid
from collections.abc import Generator

from absl import flags, logging
from ml_collections import config_flags

from vitjax.config import command_line, flag, places, plain, resolving, schema

FLAGS = flags.FLAGS

EXIT_PREEMPTED = 75
EXIT_INTERRUPTED = 130


def define_flags() -> None:
  """Defines the flags of the command."""
  flag.define()
  flags.DEFINE_string(
    "workdir",
    None,
    "Folder of the run; a run that is there already is resumed. Default: "
    "runs/NAME-OF-CONFIG, with a hash of the overrides, if any.",
  )
  flags.DEFINE_string(
    "coordinator_address",
    None,
    "host:port of process 0, if no known launcher started the processes.",
  )
  flags.DEFINE_integer(
    "num_processes", None, "Number of processes of the run.", lower_bound=1
  )
  flags.DEFINE_integer(
    "process_id", None, "Index of this process, from 0.", lower_bound=0
  )


def default_workdir(config_path: str, overrides: dict) -> pathlib.Path:
  """A folder that is the same for the same config file, options, overrides."""
  # The option may hold colons and slashes, and so may a Windows drive.
  path, extension, arg = config_path.partition(".py")
  if extension:
    path, arg = path + extension, arg.removeprefix(":")
  else:
    path, _, arg = config_path.partition(":")
  name = pathlib.PurePath(path).stem
  if arg:
    name += "-" + re.sub(r"[^\w.=+-]+", "_", arg)
  if overrides:
    text = repr(sorted((k, str(v)) for k, v in overrides.items()))
    name += "-" + hashlib.sha256(text.encode()).hexdigest()[:8]
  return pathlib.Path("runs") / name


def main(argv: list[str]) -> None:
  """Resolves the config, names the run folder, and trains."""
  del argv
  command_line.set_up_logging()
  overrides = config_flags.get_override_values(FLAGS["config"])
  config_path = config_flags.get_config_filename(FLAGS["config"])
  try:
    workdir = places.of(
      FLAGS.workdir or default_workdir(config_path, overrides)
    )
    if not places.is_remote(workdir):
      workdir = workdir.absolute()
    check_writable(workdir)
    config = flag.read()
    resolving.resolve(config)

    from vitjax import checks

    run = resolving.resolve(config, checks.problems)
  except (ValueError, OSError, ImportError) as e:
    sys.exit(f"vitjax.main: {type(e).__name__}: {e}")
  with exit_codes(workdir):
    process_id = start_processes(run, workdir)
    if process_id == 0:
      logging.info("Run folder: %s", workdir)
    set_up_jax(workdir)
    from vitjax import train

    train.train_and_evaluate(run, workdir)


@contextlib.contextmanager
def exit_codes(workdir: pathlib.Path) -> Generator[None]:
  """Turns errors inside into one message and the exit codes of the module."""
  try:
    yield
  except KeyboardInterrupt:
    print(
      f"{command_line.name_of(sys.argv)}: stopped by Ctrl-C. Run the same "
      "command again to resume from the last checkpoint, if any.",
      file=sys.stderr,
    )
    sys.exit(EXIT_INTERRUPTED)
  except (
    ValueError,
    OSError,
    ArithmeticError,
    RuntimeError,
    KeyError,
    ImportError,
    MemoryError,
  ) as e:
    stop_with(e, workdir)


def check_writable(workdir: pathlib.Path) -> None:
  """Raises OSError if no run could be written to `workdir`."""
  if places.is_remote(workdir):
    probe = workdir / f".vitjax-{uuid.uuid4().hex}"
    try:
      probe.write_text("")
      probe.unlink()
    except Exception as e:  # stores raise errors of any class
      raise OSError(
        f"--workdir={workdir}: cannot write there ({type(e).__name__}: {e}). "
        "Check the name of the bucket and the access to it; "
        f"{places.STORES[str(workdir).partition('://')[0]]}."
      ) from None
    return
  nearest = next(x for x in (workdir, *workdir.parents) if x.exists())
  try:
    with tempfile.TemporaryDirectory(prefix=".vitjax-", dir=nearest):
      pass
  except OSError as e:
    raise OSError(
      f"--workdir={workdir}: cannot write into {nearest} ({e.strerror}). Name "
      "another folder with --workdir."
    ) from None


def start_processes(run: schema.RunConfig, workdir: pathlib.Path) -> int:
  """Finds the other processes of the run; returns the number of this one."""
  from vitjax.parallel import processes
  from vitjax.run_folder import files

  return processes.start(
    {
      **files.software(),
      "config": plain.to_dict(run),
      "workdir": str(workdir),
    },
    coordinator_address=FLAGS.coordinator_address,
    num_processes=FLAGS.num_processes,
    process_id=FLAGS.process_id,
  )


def set_up_jax(workdir: pathlib.Path) -> None:
  """Where a process that trains keeps programs, and that it keeps memory.

  Call it before any use of a device, and after `start_processes`.
  """
  from vitjax.parallel import allocator

  use_compilation_cache(workdir)
  allocator.keep_freed_memory()


def use_compilation_cache(workdir: pathlib.Path) -> None:
  """Keeps compiled programs in the run folder, or where the user says.

  JAX_COMPILATION_CACHE_DIR names another folder, which runs may share;
  JAX_ENABLE_COMPILATION_CACHE=0 switches it off.
  """
  import jax

  folder = jax.config.values["jax_compilation_cache_dir"]
  if folder and "://" not in folder:
    try:
      pathlib.Path(folder).mkdir(parents=True, exist_ok=True)
      with tempfile.TemporaryFile(dir=folder):
        pass
    except OSError as e:
      logging.warning(
        "JAX_COMPILATION_CACHE_DIR=%s cannot be written (%s). Compiled "
        "programs are kept in %s instead.",
        folder,
        e.strerror,
        workdir / "compiled",
      )
      folder = None
  if not folder:
    jax.config.update("jax_compilation_cache_dir", str(workdir / "compiled"))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.2)


def stop_with(error: Exception, workdir: pathlib.Path) -> None:
  """Exits with one message; the traceback goes into the run folder."""
  import jax

  from vitjax.parallel import preemption, processes
  from vitjax.run_folder import lock

  if isinstance(error, preemption.Preempted):
    logging.info("%s", error)
    sys.exit(EXIT_PREEMPTED)
  where = ""
  try:
    is_ours = not isinstance(error, lock.RunFolderInUseError)
    if workdir.is_dir() and is_ours:
      process_id = jax.distributed.is_initialized() and jax.process_index()
      file = workdir / (
        f"error-{process_id}.txt" if process_id else "error.txt"
      )
      file.write_text(
        "".join(traceback.format_exception(error)), encoding="utf-8"
      )
      where = f"\n(traceback: {file})"
  except Exception:
    pass  # a full disk or a lost store is no reason to hide the error
  reason = f"{type(error).__name__}: {error}"
  name = command_line.name_of(sys.argv)
  print(f"{name}: {reason}{where}", file=sys.stderr, flush=True)
  processes.end_all(reason, code=1)
  sys.exit(1)


if __name__ == "__main__":
  command_line.run(main, define_flags, flag.parse_flags)
