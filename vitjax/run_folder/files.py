"""Files of a run folder, except for checkpoints and metrics.

run.json          the id of the run, see `vitjax.run_folder.identity`
config.json       the resolved config
environment.json  versions, git revision, devices, command
model.json        what it takes to use the parameters: the model's options,
                  the shape of its input, preprocessing and class names
vocab.*           the vocabulary of a model that reads texts
divergence.json   if the loss was not finite: the step and its examples
ended.json        if the run ended early: the step and why
"""

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

from vitjax.config import places, plain, schema
from vitjax.data import tokenizers
from vitjax.run_folder.identity import CONFIG, RUN
from vitjax.run_folder.reader import EARLY_END

ENVIRONMENT, MODEL = "environment.json", "model.json"
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
  run_id: str | None = None,
) -> None:
  """Writes these files; replaces those of an earlier start."""
  workdir.mkdir(parents=True, exist_ok=True)
  if run_id is not None:
    write_json(workdir / RUN, {"id": run_id})
  write_json(workdir / ENVIRONMENT, environment())
  if "tokenizer" in model:
    kept = tokenizers.copy_vocab(model["tokenizer"], workdir / "vocab")
    model = {**model, "tokenizer": kept}
  write_json(workdir / MODEL, model)
  write_text(workdir / "parameters.txt", parameters)
  write_text(workdir / CONFIG, plain.to_json(run))
  if (workdir / EARLY_END).exists():
    (workdir / EARLY_END).unlink()


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
  """What must be the same in all processes of a run; uses no device."""
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
    "code_sha256": code.hexdigest(),  # identifies the code without git
    "git_revision": git_revision(),
    "python": platform.python_version(),
    "versions": versions,
  }


def git_revision() -> str | None:
  """Revision of the code; ends in "+" if there are uncommitted changes."""
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
  """Writes the examples to look at after a loss that is not finite.

  Args:
    workdir: the run folder.
    step: the first step whose metrics are not finite.
    measured: the metrics of that step.
    saved_step: step of the newest checkpoint, if there is one.
    examples: index in the data set of each row of the step's batch.
    describe: maps an index to a file or a place that a person can find.
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


def write_early_end(
  workdir: pathlib.Path, step: int, total_steps: int, why: str
) -> None:
  """Writes that a run ended before its last step.

  Args:
    workdir: the run folder.
    step: the last step that was taken.
    total_steps: length of the run in its config.
    why: the reason, in a sentence.
  """
  content = {"step": step, "total_steps": total_steps, "why": why}
  write_json(workdir / EARLY_END, content)


def write_json(file: pathlib.Path, content: Any) -> None:
  """Writes JSON so that the file is always whole."""
  write_text(file, json.dumps(content, indent=2, sort_keys=True))


def write_text(file: pathlib.Path, text: str) -> None:
  """Writes a text file so that it is always whole."""
  if places.is_remote(file):  # as objects always are
    file.write_text(text + "\n")
    return
  temporary = file.with_name(f".{file.name}.{os.getpid()}")
  temporary.write_text(text + "\n", encoding="utf-8")
  os.replace(temporary, file)
