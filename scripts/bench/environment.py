"""Facts that a measured figure depends on."""

import os
import pathlib
import subprocess
from importlib import metadata

_PACKAGES = (
  "jax",
  "flax",
  "optax",
  "onnxruntime",
  "tensorflow-cpu",
  "torch",
  "timm",
  "pillow",
)


def facts() -> dict:
  """Revision, device, cores, load and versions."""
  import jax

  git = ["git", "rev-parse", "--short", "HEAD"]
  root = pathlib.Path(__file__).parents[2]
  try:
    done = subprocess.run(git, cwd=root, capture_output=True, text=True)
    revision = done.stdout.strip() or None
  except OSError:  # no git
    revision = None
  versions = {}
  for name in _PACKAGES:
    try:
      versions[name] = metadata.version(name)
    except metadata.PackageNotFoundError:
      pass
  return {
    "revision": revision,
    "device": jax.devices()[0].device_kind,
    "devices": jax.device_count(),
    "cores": len(os.sched_getaffinity(0)),
    "load": round(os.getloadavg()[0], 2),
    "versions": versions,
  }
