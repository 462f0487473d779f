"""What a run writes about itself beside checkpoints and metrics.

config.json       the resolved config
environment.json  versions, git revision, devices, command
model.json        what it takes to use the parameters: the model's options,
                  the shape of its input, preprocessing and class names
vocab.*           the vocabulary of a model that reads texts
divergence.json   if the loss was not finite: the step and its examples
"""

import contextlib
import hashlib
import importlib.metadata
import json
import os
import pathlib
import platform
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax

from vitjax.config import schema
from vitjax.data import tokenizers

CONFIG, ENVIRONMENT, MODEL = "config.json", "environment.json", "model.json"
DIVERGENCE = "divergence.json"

_PACKAGES = (
  "vitjax",
  "jax",
  "jaxlib",
  "flax",
  "optax",
  "orbax-checkpoint",
  "numpy",
  "opencv-python-headless",
  "tensorflow",
  "tensorflow-cpu",
  "tensorflow-datasets",
)


def write(
  workdir: pathlib.Path,
  run: schema.RunConfig,
  model: Mapping[str, Any],
  parameters: str,
) -> None:
  """Writes these files, or checks that the run is the one they describe.

  A run that has saved nothing yet may change its config.

  Raises:
    ConfigError: if the folder holds a run with another config.
  """
  workdir.mkdir(parents=True, exist_ok=True)
  file = workdir / CONFIG
  if file.exists() and any((workdir / "checkpoints").glob("*")):
    saved = json.loads(file.read_text(encoding="utf-8"))
    with contextlib.suppress(schema.ConfigError):
      # What the schema has got since then is as its default says.
      saved = json.loads(schema.to_json(schema.resolve(saved)))
    changes = schema.differences(saved, json.loads(schema.to_json(run)))
    if changes:
      raise schema.ConfigError(
        f"{workdir} is a run with another config:\n  "
        + "\n  ".join(changes)
        + "\nGo on with the old config, or start a new run with another "
        "--workdir."
      )
  write_json(workdir / ENVIRONMENT, environment())
  if "tokenizer" in model:
    kept = tokenizers.copy_vocab(model["tokenizer"], workdir / "vocab")
    model = {**model, "tokenizer": kept}
  write_json(workdir / MODEL, model)
  write_text(workdir / "parameters.txt", parameters)
  write_text(file, schema.to_json(run))


def environment() -> dict[str, Any]:
  """Versions, revision and devices of this process."""
  return {
    **software(),
    "command": sys.argv,
    "devices": [d.device_kind for d in jax.devices()],
    "platform": platform.platform(),
    "processes": jax.process_count(),
  }


def software() -> dict[str, Any]:
  """What has to be the same in all processes of a run; uses no device."""
  versions = {}
  for name in _PACKAGES:
    try:
      versions[name] = importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
      continue
  code = hashlib.sha256()
  package = pathlib.Path(__file__).parents[1]
  for file in sorted(package.rglob("*.py")):
    code.update(file.relative_to(package).as_posix().encode())
    code.update(file.read_bytes())
  return {
    "code_sha256": code.hexdigest(),  # also where there is no git
    "git_revision": git_revision(),
    "python": platform.python_version(),
    "versions": versions,
  }


def git_revision() -> str | None:
  """Revision of the code, with "+" behind it if there are changes in it."""
  folder = pathlib.Path(__file__).parents[1]

  def git(*args):
    return subprocess.run(
      ["git", "-C", folder, *args],
      capture_output=True,
      text=True,
      check=True,
      timeout=10,
    ).stdout.strip()

  try:
    return git("rev-parse", "HEAD") + "+" * bool(git("status", "--porcelain"))
  except (OSError, subprocess.SubprocessError):
    return None


def write_divergence(
  workdir: pathlib.Path,
  step: int,
  measured: Mapping[str, Any],
  saved_step: int | None,
  examples: Sequence[int],
  describe: Callable[[int], str],
) -> None:
  """Notes what there is to look into after a loss that is not finite.

  Args:
    workdir: the run folder.
    step: the first step that measured something that is not finite.
    measured: by that step.
    saved_step: of the newest checkpoint.
    examples: index in the data set of each row of the step's batch.
    describe: from an index to what a person can find.
  """
  content = {
    "step": step,
    "last_good_step": step - 1,
    "saved_step": saved_step,
    # JSON has no NaN and no infinity.
    "measured": {name: repr(float(x)) for name, x in measured.items()},
    "examples": {str(i): describe(i) for i in dict.fromkeys(examples)},
  }
  write_text(workdir / DIVERGENCE, json.dumps(content, indent=2))


def write_json(file: pathlib.Path, content: Any) -> None:
  """Writes JSON so that the file is always whole."""
  write_text(file, json.dumps(content, indent=2, sort_keys=True))


def write_text(file: pathlib.Path, text: str) -> None:
  """Writes a text file so that it is always whole."""
  temporary = file.with_name(f".{file.name}.{os.getpid()}")
  temporary.write_text(text + "\n", encoding="utf-8")
  os.replace(temporary, file)
