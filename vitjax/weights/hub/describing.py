"""What the weights of a repository are of, and how images are prepared."""

import os
from collections.abc import Collection
from typing import Any

from vitjax.weights import description
from vitjax.weights.hub import (
  open_clip,
  repository,
  timm,
  towers,
  transformers,
)
from vitjax.weights.hub.fields import Fields
from vitjax.weights.hub.repository import OPEN_CLIP, OWN, Repository

# The description in a repository that vitjax has written.
OWN_FILE = "model.json"


def describe(
  repo: Repository, names: Collection[str] | None = None
) -> dict[str, Any]:
  """The content of `model.json` for a repository, by its config file.

  Args:
    repo: the repository; its commit becomes the field "origin".
    names: names of the arrays of its weights, if they have been read.

  Raises:
    DownloadError: if a file cannot be had.
    ValueError: if vitjax does not have such a model; names what was found.
  """
  repo = repository.pin(repo)
  file, content = repository.read_config(repo)
  fields = Fields(content, f"{repo}: {file}")
  if file == OPEN_CLIP:
    metadata = open_clip.describe(fields, repo)
  elif OWN in content:
    metadata = _own(repo)
  elif repository.TIMM in content:
    metadata = timm.describe(fields)
  elif repository.TRANSFORMERS in content:

    def processor() -> Fields:
      file = transformers.PROCESSOR
      return Fields(repository.read_json(repo, file), f"{repo}: {file}")

    if content[repository.TRANSFORMERS] in towers.FAMILIES:
      metadata = towers.describe(fields, processor, repo)
    else:
      metadata = transformers.describe(fields, processor, names)
  else:
    raise ValueError(
      f"{fields.where} has neither timm's field 'architecture' nor "
      f"transformers' 'model_type', and there is no {OPEN_CLIP}, so nothing "
      "says what the weights are of. Create the model yourself and load its "
      "file with vitjax.weights.load."
    )
  return {**metadata, "origin": str(repo._replace(subtree=""))}


def _own(repo: Repository) -> dict[str, Any]:
  """The description that vitjax wrote, with the path of its vocabulary."""
  metadata = description.parse(repository.fetch(repo, OWN_FILE))
  if missing := sorted({"model", "image_size", "preprocess"} - metadata.keys()):
    raise ValueError(f"{repo}: {OWN_FILE} does not say {', '.join(missing)}.")
  description.check_listed(metadata, f"{repo}: {OWN_FILE}")
  if "tokenizer" in metadata:
    facts = metadata["tokenizer"]
    vocab = os.fspath(repository.fetch(repo, facts["vocab"]))
    metadata["tokenizer"] = {**facts, "vocab": vocab}
  return metadata
