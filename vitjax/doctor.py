r"""Says what is installed and whether it works, to paste into an issue.

  python -m vitjax.doctor
  python -m vitjax.doctor --noself_test

Prints Markdown: versions, devices, known conflicts, memory and disk, data sets
that are there, and a self-test of some ten seconds: a few training steps that
must lower the loss, a checkpoint, and the same steps from it with the same
numbers. Neither host names nor full paths are shown, and nothing stays behind.

Exit codes: 0 fine, also with warnings; 1 the self-test fails or does not run.
"""

import importlib.metadata
import os
import pathlib
import platform
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence

from absl import app, flags, logging

from vitjax import command_line

_SELF_TEST = flags.DEFINE_bool("self_test", True, "Run the self-test.")

PACKAGES = (
  "jax",
  "jaxlib",
  "jax-cuda12-plugin",
  "jax-cuda13-plugin",
  "libtpu",
  "flax",
  "optax",
  "orbax-checkpoint",
  "numpy",
  "ml_dtypes",
  "scipy",
  "tensorflow",
  "tensorflow-cpu",
  "tensorflow-datasets",
  "array-record",
  "opencv-python-headless",
  "clu",
  "ml_collections",
  "safetensors",
  "sentencepiece",
  "tokenizers",
)
# Several packages that bring the same module overwrite one another's files.
SAME_MODULE = (
  ("tensorflow", "tensorflow-cpu", "tf-nightly", "tf-nightly-cpu"),
  ("opencv-python", "opencv-python-headless", "opencv-contrib-python"),
  ("jax-cuda12-plugin", "jax-cuda13-plugin"),
)
# Of the environment, what changes how a run behaves and is no path.
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
_FASHION_MNIST = pathlib.Path("/usr/share/datasets/fashion-mnist")
_MIN_FREE_BYTES = 5e9


def installed(names: Sequence[str]) -> dict[str, str]:
  """The versions of those packages that are installed."""
  versions = {}
  for name in names:
    try:
      versions[name] = importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
      continue
  return versions


def conflicts(
  versions: Mapping[str, str],
  *,
  backend: str | None,
  gpus: Sequence[str] = (),
  has_tpu: bool = False,
) -> list[str]:
  """Known ways in which an installation does not fit together.

  Args:
    versions: of the packages that are installed.
    backend: "cpu", "gpu" or "tpu", that JAX computes on; None if it fails.
    gpus: models of the NVIDIA GPUs that the driver sees.
    has_tpu: whether this machine has TPU chips.
  """
  found = []
  for group in SAME_MODULE:
    here = [name for name in group if name in versions]
    if len(here) > 1:
      found.append(
        f"{' and '.join(here)} are both installed and overwrite each other: "
        f"pip uninstall {' '.join(here)}, then install one of them again."
      )
  jax, jaxlib = versions.get("jax"), versions.get("jaxlib")
  if jax and jaxlib and jax != jaxlib:
    found.append(
      f"jax {jax} and jaxlib {jaxlib} differ: pip install jaxlib=={jax}."
    )
  for name in ("jax-cuda12-plugin", "jax-cuda13-plugin"):
    if jaxlib and versions.get(name, jaxlib) != jaxlib:
      found.append(
        f"{name} {versions[name]} is not for jaxlib {jaxlib}: "
        f'pip install "jax[cuda{name[8:10]}]=={jax}".'
      )
  if gpus and backend != "gpu":
    found.append(
      f"There is a GPU ({gpus[0]}) that JAX does not use: "
      'pip install "jax[cuda13]", and see that JAX_PLATFORMS is not set.'
    )
  if has_tpu and backend != "tpu":
    found.append(
      "There is a TPU that JAX does not use: pip install -r "
      "requirements-tpu.txt, and see that no other process has the chips."
    )
  if versions.get("numpy", "2").partition(".")[0] < "2":
    found.append(
      f"numpy {versions['numpy']} is too old for ml_dtypes and jax: "
      'pip install "numpy>=2".'
    )
  return found


def nvidia_gpus() -> list[str]:
  """The models of the GPUs that the NVIDIA driver sees."""
  lines = _output(
    ["nvidia-smi", "--query-gpu=name,driver_version", "--format=csv,noheader"]
  )
  return [line.replace(", ", ", driver ") for line in lines]


def pip_check() -> list[str]:
  """What pip says of requirements that are not met."""
  command = [sys.executable, "-m", "pip", "check", "--no-color"]
  lines = _output(command, check=False)
  return [x for x in lines if " has requirement " in x or " requires " in x]


def _output(command: Sequence[str], check: bool = True) -> list[str]:
  """The lines that a command prints; none if there is no such command."""
  try:
    done = subprocess.run(
      command, capture_output=True, text=True, timeout=60, check=check
    )
  except (OSError, subprocess.SubprocessError):
    return []
  return done.stdout.strip().splitlines()


def data_sets() -> list[str]:
  """Prepared data sets of TFDS by name and version, and Fashion-MNIST."""
  root = pathlib.Path(
    os.environ.get("TFDS_DATA_DIR", "~/tensorflow_datasets")
  ).expanduser()
  found = {
    file.parent.relative_to(root).as_posix()
    for depth in ("*/*", "*/*/*")
    for file in root.glob(f"{depth}/dataset_info.json")
  }
  debian = ["Fashion-MNIST of Debian"] if _FASHION_MNIST.is_dir() else []
  return [*sorted(found), *debian]


def memory() -> str:
  """Physical memory of this machine."""
  try:
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    free = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_AVPHYS_PAGES")
  except (AttributeError, ValueError, OSError):
    return "unknown"
  return f"{total / 1e9:.1f} GB, of which {free / 1e9:.1f} unused"


def disks() -> dict[str, int]:
  """Free bytes where runs, temporary files and downloads go."""

  places = {
    "here": pathlib.Path.cwd(),
    "temporary files": pathlib.Path(tempfile.gettempdir()),
    "home": pathlib.Path.home(),
  }
  free = {}
  for name, path in places.items():
    try:
      free[name] = shutil.disk_usage(path).free
    except OSError:
      continue
  return free


def _devices() -> tuple[str | None, str]:
  """JAX's backend, and its devices in words."""
  import jax

  try:
    devices = jax.devices()
  except RuntimeError as e:
    return None, f"JAX finds no device: {str(e).splitlines()[0]}"
  kind = devices[0].device_kind
  return jax.default_backend(), f"{len(devices)} x {kind}"


def _without_home(text: str) -> str:
  return text.replace(str(pathlib.Path.home()), "~")


def _has_tpu() -> bool:
  return any(pathlib.Path("/dev").glob("accel[0-9]*"))


def report() -> tuple[list[str], bool]:
  """The lines of the report but the self-test; whether JAX has a device."""
  import vitjax
  from vitjax import run_folder

  every = [*PACKAGES, *(name for group in SAME_MODULE for name in group)]
  versions = installed(dict.fromkeys(every))
  backend, devices = _devices()
  gpus = nvidia_gpus()
  lines = [
    "## vitjax doctor",
    "",
    "| what | |",
    "|---|---|",
    f"| vitjax | {vitjax.__version__}, revision "
    f"{run_folder.git_revision() or 'unknown'} |",
    f"| Python | {platform.python_version()} |",
    f"| system | {platform.system()} {platform.release()}, "
    f"{platform.machine()}, {os.cpu_count()} CPUs |",
    f"| devices | {devices} |",
    *(f"| driver sees | {gpu} |" for gpu in gpus),
    f"| memory | {memory()} |",
  ]
  free = disks()
  shown = ", ".join(f"{n / 1e9:.1f} GB ({where})" for where, n in free.items())
  lines.append(f"| free disk | {shown} |")
  sets = data_sets()
  lines.append(f"| data sets | {', '.join(sets) or 'none'} |")
  lines += [
    f"| `{name}` | `{_without_home(os.environ[name])}` |"
    for name in VARIABLES
    if name in os.environ
  ]
  lines += ["", "| package | version |", "|---|---|"]
  lines += [f"| {name} | {version} |" for name, version in versions.items()]
  found = conflicts(versions, backend=backend, gpus=gpus, has_tpu=_has_tpu())
  found += [f"pip check: {line}" for line in pip_check()]
  found += [
    f"Only {n / 1e9:.1f} GB of disk are free ({where})."
    for where, n in free.items()
    if n < _MIN_FREE_BYTES
  ]
  lines += ["", "**Warnings:**" if found else "No known conflicts."]
  lines += [f"- {line}" for line in found]
  return lines, backend is not None


def self_test() -> tuple[list[str], bool]:
  """The lines of the self-test, and whether it went well."""
  start = time.perf_counter()
  try:
    from vitjax import self_test

    result = self_test.run()
  except Exception as e:  # whatever it is, it belongs into the report
    first = _without_home((str(e).strip().splitlines() or [""])[0])
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
  if _SELF_TEST.value:
    lines, passed = self_test()
    ok = ok and passed
    print("\n" + "\n".join(lines))
  sys.exit(not ok)


if __name__ == "__main__":
  app.run(main, flags_parser=command_line.parse_flags)
