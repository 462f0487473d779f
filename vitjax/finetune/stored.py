"""Keeps the choice in the run folder, so that the same command resumes."""

import dataclasses
import json
import pathlib

from vitjax.config.schema import ConfigError
from vitjax.finetune.choosing import Choice, Request
from vitjax.finetune.recipe import Recipe
from vitjax.run_folder import files, reader

FILE = "finetune.json"


def write(workdir: pathlib.Path, request: Request, choice: Choice) -> None:
  """Writes request and choice."""
  workdir.mkdir(parents=True, exist_ok=True)
  content = {
    "request": dataclasses.asdict(request),
    "choice": dataclasses.asdict(choice),
  }
  files.write_text(workdir / FILE, json.dumps(content, indent=2))


def load(workdir: pathlib.Path) -> tuple[Request, Choice]:
  """Request and choice of a run.

  Raises:
    FileNotFoundError: if the folder has none.
    ValueError: if the file is damaged.
  """
  file = workdir / FILE
  content = reader.read_json(file)
  try:
    request = Request(**content["request"])
    choice = dict(content["choice"])
    recipe = Recipe(**choice.pop("recipe"))
    return request, Choice(recipe, why=tuple(choice.pop("why")), **choice)
  except (KeyError, TypeError, ValueError) as e:
    raise ValueError(
      f"{file} is damaged: {type(e).__name__}: {e}. Delete it to choose anew."
    ) from e


def read(workdir: pathlib.Path, request: Request) -> Choice | None:
  """The choice of this run; None if the folder has none.

  Raises:
    ConfigError: if it was made for another request.
    ValueError: if the file is damaged.
  """
  if not (workdir / FILE).exists():
    return None
  before, choice = load(workdir)
  if before != request:
    changed = ", ".join(
      f"{field.name}: {old!r} -> {new!r}"
      for field in dataclasses.fields(request)
      if (old := getattr(before, field.name))
      != (new := getattr(request, field.name))
    )
    raise ConfigError(
      f"{workdir} has a run with other settings ({changed}). Resume it with "
      "the command that began it, or name another folder with --workdir."
    )
  return choice
