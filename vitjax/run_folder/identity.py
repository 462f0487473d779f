"""The id of a run, and whether its checkpoints belong to it.

A run gets an id when its folder is made, in `run.json`. Each checkpoint
carries the id, the config and the fingerprint of the training data, so a
checkpoint of another run is refused wherever it lies. Folders that began
before there were ids have none, and neither have their checkpoints.
"""

import json
import pathlib
import uuid
from collections.abc import Mapping
from typing import Any

from vitjax.config import plain, schema
from vitjax.run_folder import reader

RUN = "run.json"
CONFIG = "config.json"


class ForeignCheckpointError(ValueError):
  """A checkpoint lies in the folder of another run."""


def check_config(workdir: pathlib.Path, run: schema.RunConfig) -> None:
  """Raises ConfigError if the folder holds a run with another config.

  A run that has saved nothing yet may change its config.
  """
  file = workdir / CONFIG
  if not file.exists() or not any((workdir / "checkpoints").glob("*")):
    return
  try:
    saved = reader.read_config(file)
  except ValueError as e:
    raise ValueError(
      f"{e} Or delete it to resume: checkpoints hold the config, too."
    ) from e
  _check_same(f"{workdir} is a run", saved, run)


def run_id(workdir: pathlib.Path, info: Mapping[str, Any] | None) -> str | None:
  """The id of the run in a folder; None if it began before there were ids.

  Args:
    workdir: the run folder.
    info: info of the checkpoint that the run resumes from; None at its start.
  """
  file = workdir / RUN
  if file.exists():
    try:
      found = reader.read_json(file).get("id")
    except ValueError:
      found = None
    if not isinstance(found, str):
      raise ValueError(
        f"{file} is damaged: it has no id. Delete the file: the run takes its "
        "id from its newest checkpoint."
      )
    return found
  return uuid.uuid4().hex if info is None else info.get("run")


def describe(
  workdir: pathlib.Path,
  run: schema.RunConfig,
  fingerprint: str,
  info: Mapping[str, Any] | None,
) -> dict[str, Any]:
  """Facts about the run that each checkpoint carries, see `run_id`."""
  return {
    "run": run_id(workdir, info),
    "config": plain.to_json(run),
    "fingerprint": fingerprint,
  }


def check_checkpoint(
  workdir: pathlib.Path,
  step: int,
  info: Mapping[str, Any],
  run: schema.RunConfig,
) -> None:
  """Raises if a checkpoint is of another run or another config.

  Raises:
    ForeignCheckpointError: if its id is not that of the folder.
    ConfigError: if its config differs.
  """
  check_run(workdir, step, info)
  if "config" in info:
    file = workdir / "checkpoints" / str(step)
    _check_same(f"{file} was saved by a run", json.loads(info["config"]), run)


def check_run(
  workdir: pathlib.Path, step: int, info: Mapping[str, Any]
) -> None:
  """Raises ForeignCheckpointError if a checkpoint is of another run."""
  own, theirs = run_id(workdir, info), info.get("run")
  if own != theirs:
    raise ForeignCheckpointError(
      f"{workdir / 'checkpoints' / str(step)} is a checkpoint of "
      f"{_name(theirs)}, but {workdir} is {_name(own)}. Move it out of the "
      "folder. To train from its weights, start a run in another --workdir "
      "with config.init.weights."
    )


def _name(run_id: str | None) -> str:
  return f"run {run_id}" if run_id else "a run without an id (older vitjax)"


def _check_same(
  what: str, saved: Mapping[str, Any], run: schema.RunConfig
) -> None:
  # Keys added since then take their defaults.
  saved = json.loads(json.dumps(plain.with_defaults(saved)))
  changes = plain.differences(saved, json.loads(plain.to_json(run)))
  if changes:
    raise schema.ConfigError(
      f"{what} with another config:\n  "
      + "\n  ".join(changes)
      + "\nResume with the old config, or start a new run with another "
      "--workdir."
    )
