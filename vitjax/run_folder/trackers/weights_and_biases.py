"""The tracker "wandb": a run on Weights & Biases, or its offline files."""

import pathlib
import uuid
from collections.abc import Mapping, Sequence
from typing import Any, Literal

from absl import logging

from vitjax.config import extras
from vitjax.run_folder import files, reader

FILE = "wandb.json"
_FINISH_SECONDS = 45.0  # then the rest waits for `wandb sync`


class Tracker:
  """A run on Weights & Biases.

  Its id and the last step that it got are in `wandb.json`. A resumed run
  continues it, and steps that are computed again, with the same result, are
  not sent again.

  Args:
    folder: the run folder; offline files go to its `wandb/`.
    start_step: 0 begins a new run on Weights & Biases.
    project: its project.
    entity: its team or user. None: your default.
    name: its name. None: that of the run folder.
    group: the group that it belongs to.
    tags: its tags.
    mode: "offline" sends nothing; `wandb sync` does later. None: "online", or
      what WANDB_MODE says.
  """

  def __init__(
    self,
    folder: pathlib.Path,
    start_step: int,
    project: str = "vitjax",
    entity: str | None = None,
    name: str | None = None,
    group: str | None = None,
    tags: Sequence[str] = (),
    mode: Literal["online", "offline"] | None = None,
  ):
    with extras.needed("wandb", "runs on Weights & Biases"):
      import wandb

    self._file = folder / FILE
    self._state: dict[str, Any] = {"id": uuid.uuid4().hex[:12], "step": 0}
    if start_step and self._file.exists():
      self._state = reader.read_json(self._file)
    self._seen: int = self._state["step"]
    environment = reader.read_json(folder / files.ENVIRONMENT)
    self._run = wandb.init(
      dir=str(folder),
      id=self._state["id"],
      resume="allow",
      project=project,
      entity=entity,
      name=name or folder.name,
      group=group,
      tags=list(tags),
      mode=mode,
      config={
        **reader.read_config(folder / files.CONFIG),
        "environment": environment,
      },
      # It neither asks for a login nor captures what the run prints.
      settings=wandb.Settings(
        silent=True, console="off", finish_timeout=_FINISH_SECONDS
      ),
    )
    files.write_json(self._file, self._state)
    where = self._run.dir if self._run.offline else self._run.url
    logging.info("Weights & Biases: %s", where)

  def write(self, step: int, values: Mapping[str, int | float]) -> None:
    if step <= self._seen:
      return
    if step > self._state["step"]:
      # First noted, then sent: a kill in between must not send it twice.
      self._state["step"] = step
      files.write_json(self._file, self._state)
    self._run.log(dict(values), step=step)

  def flush(self) -> None:
    """Does nothing: a process of W&B's own has the rows, and outlives ours."""

  def close(self) -> None:
    self._run.finish()
