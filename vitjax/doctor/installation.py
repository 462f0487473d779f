"""Facts about this installation: packages, conflicts, devices, memory, disk."""

import importlib.metadata
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Mapping, Sequence

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
  "ftfy",
  "sentencepiece",
  "tokenizers",
)
# Several packages that bring the same module overwrite one another's files.
SAME_MODULE = (
  ("tensorflow", "tensorflow-cpu", "tf-nightly", "tf-nightly-cpu"),
  ("opencv-python", "opencv-python-headless", "opencv-contrib-python"),
  ("jax-cuda12-plugin", "jax-cuda13-plugin"),
)
_FASHION_MNIST = pathlib.Path("/usr/share/datasets/fashion-mnist")


def installed(names: Iterable[str]) -> dict[str, str]:
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
  """Known conflicts of an installation, one sentence each.

  Args:
    versions: versions of the installed packages.
    backend: JAX's backend: "cpu", "gpu" or "tpu"; None if it fails.
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
      'pip install "vitjax[gpu]", and see that JAX_PLATFORMS is not set.'
    )
  if has_tpu and backend != "tpu":
    found.append(
      'There is a TPU that JAX does not use: pip install "vitjax[tpu]", and '
      "see that no other process has the chips."
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
  """Pip's lines about requirements that are not met."""
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
  """Memory of this machine, or of its container."""
  from vitjax.parallel import devices

  total = devices.host_memory()
  if total is None:
    return "unknown"
  free = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_AVPHYS_PAGES")
  return f"{total / 1e9:.1f} GB, of which {min(free, total) / 1e9:.1f} unused"


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


def devices() -> tuple[str | None, str]:
  """JAX's backend, and its devices in words."""
  import jax

  from vitjax.parallel import devices

  try:
    found = devices.find()
  except RuntimeError as e:
    return None, str(e)
  kind = found[0].device_kind
  return jax.default_backend(), f"{len(found)} x {kind}"


def without_home(text: str) -> str:
  return text.replace(str(pathlib.Path.home()), "~")


def has_tpu() -> bool:
  return any(pathlib.Path("/dev").glob("accel[0-9]*"))
