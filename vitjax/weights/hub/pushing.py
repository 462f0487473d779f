"""Uploads a model to a repository of the hub."""

import json
import pathlib
import tempfile
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
from absl import logging

from vitjax.config import messages
from vitjax.weights import fitting, loading
from vitjax.weights.download import DownloadError
from vitjax.weights.hub import card, repository, timm
from vitjax.weights.hub.describing import OWN_FILE
from vitjax.weights.hub.repository import CONFIG, OWN, Repository

WEIGHTS = "model.safetensors"
README = "README.md"


def check_licence(licence: str | None) -> str:
  """The licence, if it is one that the hub knows.

  Raises:
    ValueError: if it is not, or none is given.
  """
  if licence in card.LICENCES:
    return licence
  hint = messages.did_you_mean(licence, card.LICENCES) if licence else ""
  given = "no licence is given" if licence is None else f"{licence!r} is none"
  raise ValueError(
    f"{given}: say under which one others may use the model, with "
    f"--license=ID.{hint} Known: {', '.join(card.LICENCES)}."
  )


def write(
  folder: pathlib.Path,
  repo: str,
  params: Mapping[str, Any],
  model,
  metadata: Mapping[str, Any],
  *,
  licence: str,
  version: str,
  metrics: Sequence[card.Metric] = (),
) -> None:
  """Writes the files of a repository into a folder.

  These are the weights with our description, config.json and the card. Where
  timm has the architecture, weights and config.json are in its form.
  """
  config, remark = timm.config_of(model, metadata)
  loading.save(
    folder / WEIGHTS,
    params,
    model,
    layout=None if config else "big_vision",
    metadata=metadata,
  )
  content = {**(config or {"library_name": "vitjax"}), OWN: OWN_FILE}
  (folder / CONFIG).write_text(json.dumps(content, indent=2) + "\n")
  text = card.write(
    repo,
    metadata,
    family=fitting.family(model),
    parameters=sum(x.size for x in jax.tree.leaves(params)),
    licence=licence,
    version=version,
    metrics=metrics,
    is_timm=config is not None,
    remark=remark,
  )
  (folder / README).write_text(text)
  if remark:
    logging.warning("%s%s", repository.PREFIX, f"{repo}: {remark}")


def push(
  name: str,
  params: Mapping[str, Any],
  model,
  metadata: Mapping[str, Any],
  *,
  licence: str | None,
  private: bool = True,
  message: str = "Upload a model of vitjax",
  version: str,
  metrics: Sequence[card.Metric] = (),
) -> Repository:
  """Uploads a model in one commit, and creates the repository if need be.

  Args:
    name: "hf:OWNER/REPO".
    params: nested dicts of arrays, as `loading.load` returns them.
    model: the Linen module that they belong to.
    metadata: content of `model.json`.
    licence: one of `card.LICENCES`.
    private: whether a new repository is private; an old one stays as it is.
    message: of the commit.
    version: version of vitjax, for the card.
    metrics: results, for the card.

  Returns:
    The repository at the new commit.

  Raises:
    ValueError: if the licence is not known, or the repository holds another
      architecture.
    DownloadError: if the hub refuses or cannot be reached.
  """
  licence = check_licence(licence)
  repo = repository.parse(name)
  if repo.subtree or repo.revision != "main":
    raise ValueError(f"--push={name}: give hf:OWNER/REPO without a revision.")
  hub = repository.library()
  with tempfile.TemporaryDirectory() as temporary:
    folder = pathlib.Path(temporary)
    write(
      folder,
      repo.id,
      params,
      model,
      metadata,
      licence=licence,
      version=version,
      metrics=metrics,
    )
    _check_same(repo, folder)
    api = hub.HfApi(library_name="vitjax", library_version=version)
    with repository.explained(repo, "the model"):
      api.create_repo(repo.id, private=private, exist_ok=True)
      commit = api.create_commit(
        repo.id,
        [
          hub.CommitOperationAdd(path.name, path)
          for path in sorted(folder.iterdir())
        ],
        commit_message=message,
      )
  return repo._replace(revision=commit.oid)


def _check_same(repo: Repository, folder: pathlib.Path) -> None:
  """Raises ValueError if the repository holds another architecture."""

  def read(file: str) -> dict[str, Any]:
    return json.loads((folder / file).read_text())

  try:
    file, config = repository.read_config(repo)
    held = "two towers of OpenCLIP"
    if file == CONFIG:
      held = _identity(config, lambda: repository.read_json(repo, OWN_FILE))
  except repository.MissingFileError:
    with repository.explained(repo, WEIGHTS):
      if not repository.library().HfApi().file_exists(repo.id, WEIGHTS):
        return
    held = "weights of an unknown model"
  except DownloadError:
    return  # it does not exist yet; if it cannot be read, pushing says so
  own = _identity(read(CONFIG), lambda: read(OWN_FILE))
  if held != own:
    raise ValueError(
      f"{repo} holds {held}, and this is {own}. It is not overwritten: push to "
      "another repository, or delete that one first."
    )


def _identity(
  config: Mapping[str, Any], own: Callable[[], Mapping[str, Any]]
) -> str:
  """What a config.json describes; `own` reads our own description."""
  if "architecture" in config:
    arguments = json.dumps(config.get("model_args", {}), sort_keys=True)
    return (
      f"timm's {config['architecture']} with {config.get('num_classes')} "
      f"classes and {arguments}"
    )
  if OWN in config:
    return f"the model {json.dumps(own().get('model'), sort_keys=True)}"
  return f"a model of type {config.get('model_type')!r}"
