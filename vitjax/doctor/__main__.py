r"""Checks the installation and the devices; prints a report for an issue.

  python -m vitjax.doctor
  python -m vitjax.doctor --noself_test

Prints Markdown: versions, devices, known conflicts, memory and disk, prepared
data sets, and a self-test of some ten seconds: a few training steps, which must
lower the loss, a checkpoint, and the same steps from it, which must give the
same numbers. Host names and full paths are not shown, and no file is left
behind.

Exit codes: 0 fine, perhaps with warnings; 1 the self-test fails or cannot run.
"""

import os
import platform
import sys
import time

from absl import flags, logging

from vitjax.config import command_line
from vitjax.doctor import installation

FLAGS = flags.FLAGS

# Environment variables that change a run and contain no path.
VARIABLES = (
  "CUDA_VISIBLE_DEVICES",
  "JAX_DEFAULT_MATMUL_PRECISION",
  "JAX_ENABLE_X64",
  "JAX_PLATFORMS",
  "LIBTPU_INIT_ARGS",
  "OMP_NUM_THREADS",
  "XLA_FLAGS",
  "XLA_PYTHON_CLIENT_MEM_FRACTION",
  "XLA_PYTHON_CLIENT_PREALLOCATE",
)
_MIN_FREE_BYTES = 5e9


def define_flags() -> None:
  """Defines the flags of the command."""
  flags.DEFINE_bool("self_test", True, "Run the self-test.")


def report() -> tuple[list[str], bool]:
  """The report without the self-test, and whether JAX has a device."""
  import vitjax
  from vitjax.run_folder import files

  every = [
    *installation.PACKAGES,
    *(name for group in installation.SAME_MODULE for name in group),
  ]
  versions = installation.installed(dict.fromkeys(every))
  backend, devices = installation.devices()
  gpus = installation.nvidia_gpus()
  lines = [
    "## vitjax doctor",
    "",
    "| what | |",
    "|---|---|",
    f"| vitjax | {vitjax.__version__}, revision "
    f"{files.git_revision() or 'unknown'} |",
    f"| Python | {platform.python_version()} |",
    f"| system | {platform.system()} {platform.release()}, "
    f"{platform.machine()}, {os.cpu_count()} CPUs |",
    f"| devices | {devices} |",
    *(f"| driver sees | {gpu} |" for gpu in gpus),
    f"| memory | {installation.memory()} |",
  ]
  free = installation.disks()
  shown = ", ".join(f"{n / 1e9:.1f} GB ({where})" for where, n in free.items())
  lines.append(f"| free disk | {shown} |")
  sets = installation.data_sets()
  lines.append(f"| data sets | {', '.join(sets) or 'none'} |")
  lines += [
    f"| `{name}` | `{installation.without_home(os.environ[name])}` |"
    for name in VARIABLES
    if name in os.environ
  ]
  lines += ["", "| package | version |", "|---|---|"]
  lines += [f"| {name} | {version} |" for name, version in versions.items()]
  found = installation.conflicts(
    versions, backend=backend, gpus=gpus, has_tpu=installation.has_tpu()
  )
  found += [f"pip check: {line}" for line in installation.pip_check()]
  found += [
    f"Only {n / 1e9:.1f} GB of disk are free ({where})."
    for where, n in free.items()
    if n < _MIN_FREE_BYTES
  ]
  lines += ["", "**Warnings:**" if found else "No known conflicts."]
  lines += [f"- {line}" for line in found]
  return lines, backend is not None


def self_test() -> tuple[list[str], bool]:
  """The lines of the self-test, and whether it passed."""
  start = time.perf_counter()
  try:
    from vitjax.doctor import self_test

    result = self_test.run()
  except Exception as e:  # the report shows it
    first = installation.without_home((str(e).strip().splitlines() or [""])[0])
    return [f"**Self-test failed:** {type(e).__name__}: {first}"], False
  seconds = time.perf_counter() - start
  if result.problems:
    return [
      "**Self-test failed:**",
      *(f"- {line}" for line in result.problems),
    ], False
  same = (
    "to the bit" if not result.difference else f"but for {result.difference:g}"
  )
  return [
    f"Self-test passed in {seconds:.0f} s: loss {result.losses[0]:.3f} -> "
    f"{result.losses[-1]:.3f}; checkpoint restored to the bit; the same steps "
    f"again gave the same parameters {same}."
  ], True


def main(argv: list[str]) -> None:
  """Prints the report."""
  if len(argv) > 1:
    raise SystemExit(f"vitjax.doctor: {argv[1]!r} is not a flag.")
  os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
  logging.set_verbosity(logging.ERROR)
  lines, ok = report()
  print("\n".join(lines), flush=True)
  if FLAGS.self_test:
    lines, passed = self_test()
    ok = ok and passed
    print("\n" + "\n".join(lines))
  sys.exit(not ok)


if __name__ == "__main__":
  command_line.run(main, define_flags)
