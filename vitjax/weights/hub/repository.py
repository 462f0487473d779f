"""Files of repositories: names, the cache, checksums, and what can go wrong.

The library huggingface_hub does the transfers. Its settings hold here too: the
token (HF_TOKEN or `hf auth login`), HF_HOME, HF_HUB_CACHE, HF_ENDPOINT and
HF_HUB_OFFLINE. Files that other programs have fetched are found in its cache.
"""

import contextlib
import hashlib
import json
import os
import pathlib
import re
from collections.abc import Generator, Sequence
from typing import Any, NamedTuple

from absl import logging

from vitjax.config import extras
from vitjax.weights import files, integrity
from vitjax.weights.download import DownloadError, cache_folder

PREFIX = "hf:"
CONFIG, OPEN_CLIP = "config.json", "open_clip_config.json"
# Fields of config.json that say what the weights are of.
TIMM, TRANSFORMERS, OWN = "architecture", "model_type", "vitjax"
# In the order in which they are looked for; PyTorch reads the .bin files.
WEIGHTS = {
  CONFIG: (
    "model.safetensors",
    "model.safetensors.index.json",
    "pytorch_model.bin",
    "pytorch_model.bin.index.json",
  ),
  OPEN_CLIP: ("open_clip_model.safetensors", "open_clip_pytorch_model.bin"),
}

_NAME = re.compile(r"hf:([\w.-]+/[\w.-]+)(?:@([^@:]+))?(?::(.+))?")
_COMMIT = re.compile(r"[0-9a-f]{40}")
_SHA256 = re.compile(r"[0-9a-f]{64}")


class MissingFileError(DownloadError):
  """The repository has no such file, or only the cache may be used."""


class Repository(NamedTuple):
  """What a name says.

  Attributes:
    id: "OWNER/REPO".
    revision: branch, tag or commit.
    subtree: part of the weights, such as "img"; "" for all of them.
  """

  id: str
  revision: str = "main"
  subtree: str = ""

  def __str__(self) -> str:
    subtree = f":{self.subtree}" if self.subtree else ""
    return f"{PREFIX}{self.id}@{self.revision}{subtree}"


def is_name(name: str | os.PathLike) -> bool:
  """Whether a name is that of a repository."""
  return os.fspath(name).startswith(PREFIX)


def parse(name: str) -> Repository:
  """The repository that a name stands for.

  Raises:
    ValueError: if it is not of the form "hf:OWNER/REPO[@REVISION][:SUBTREE]".
  """
  match = _NAME.fullmatch(name)
  if not match:
    raise ValueError(
      f"{name!r} is not the name of a repository. Write hf:OWNER/REPO, or "
      "hf:OWNER/REPO@REVISION with a branch, a tag or a commit."
    )
  return Repository(match[1], match[2] or "main", match[3] or "")


def pin(repo: Repository, names: Sequence[str] = tuple(WEIGHTS)) -> Repository:
  """The repository at the commit of its revision.

  Args:
    repo: the repository.
    names: files of which it has one.

  Raises:
    MissingFileError: if it has none of them; otherwise as `fetch`.
  """
  if _COMMIT.fullmatch(repo.revision):
    return repo
  file = fetch_first(repo, names)
  return repo._replace(revision=file.parent.name)  # a snapshot's is its commit


def read_config(repo: Repository) -> tuple[str, dict[str, Any]]:
  """Name and content of the file that says what the weights are of.

  It is config.json, unless OpenCLIP's is there and config.json says nothing.

  Raises:
    MissingFileError: if there is neither; otherwise as `read_json`.
  """
  file = fetch_first(repo, tuple(WEIGHTS)).name
  content = read_json(repo, file)
  if file == CONFIG and {TIMM, TRANSFORMERS, OWN}.isdisjoint(content):
    with contextlib.suppress(MissingFileError):
      return OPEN_CLIP, read_json(repo, OPEN_CLIP)
  return file, content


def read_json(repo: Repository, file: str) -> dict[str, Any]:
  """The content of a JSON file of the repository; see `fetch` for Raises.

  Raises:
    ValueError: if it is not a JSON object.
  """
  path = fetch(repo, file)
  try:
    content = json.loads(path.read_text(encoding="utf-8"))
  except (ValueError, RecursionError) as e:
    raise ValueError(f"{repo}: {file} is not JSON: {e}.") from e
  if not isinstance(content, dict):
    raise ValueError(f"{repo}: {file} is not a JSON object.")
  return content


def fetch_weights(repo: Repository) -> pathlib.Path:
  """The local path of the weights, or of the index of their parts.

  Raises:
    MissingFileError: if the repository has none; otherwise as `fetch`.
    ValueError: if the index is damaged.
  """
  config, _ = read_config(repo)
  path = fetch_first(repo, WEIGHTS[config])
  if path.name.endswith(files.INDEX):
    for part in files.parts(path):
      fetch(repo, part.name)
  return path


def fetch_first(repo: Repository, names: Sequence[str]) -> pathlib.Path:
  """The local path of the first of these files that there is; see `fetch`.

  Raises:
    MissingFileError: if there is none of them; otherwise as `fetch`.
  """
  for name in names:
    with contextlib.suppress(MissingFileError):
      return fetch(repo, name)
  raise MissingFileError(
    f"{repo} has none of the files {', '.join(names)}{_where_offline()}. Give "
    "the path of a file that you have, or name another repository."
  )


def fetch(repo: Repository, file: str) -> pathlib.Path:
  """The local path of a verified file; downloads it if it is not cached.

  The cache names a file by its checksum: sha256 of a large file, Git's of a
  small one. A cached file that does not have it is downloaded again.

  Raises:
    MissingFileError: if there is no such file.
    DownloadError: if the repository cannot be read, or the file is damaged.
    ImportError: if huggingface_hub is not installed.
  """
  path = _download(repo, file)
  if problem := _problem(path):
    logging.warning("%s: %s %s; downloading it again.", repo, file, problem)
    path = _download(repo, file, force_download=True)
    problem = _problem(path)
  if problem:
    blob = path.resolve()
    raise DownloadError(
      f"{repo}: {file} {problem}. The file at {endpoint()} is damaged, or was "
      f"on its way. Delete {blob} and try again, or name another revision."
    )
  return path


def _problem(path: pathlib.Path) -> str | None:
  """The error of a cached file; None if it is what was published."""
  blob = path.resolve()
  if _SHA256.fullmatch(blob.name):
    return integrity.problem(blob, cache_folder(), size=None, sha256=blob.name)
  if _COMMIT.fullmatch(blob.name):
    content = blob.read_bytes()
    got = hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()
    if got != blob.name:
      return f"has Git's checksum {got} and should have {blob.name}"
    return None
  try:  # a system without symbolic links, whose cache has no checksums
    integrity.check(path)
  except ValueError as e:
    return str(e)
  return None


def library():
  """The module huggingface_hub.

  Raises:
    ImportError: with the command that installs it.
  """
  with extras.needed("hub", "repositories of the hub"):
    import huggingface_hub.constants
    import huggingface_hub.errors
  return huggingface_hub


def endpoint() -> str:
  """The address of the hub: HF_ENDPOINT, or huggingface.co."""
  return library().constants.ENDPOINT


def _where_offline() -> str:
  hub = library()
  if not hub.constants.HF_HUB_OFFLINE:
    return ""
  return f" in the cache {hub.constants.HF_HUB_CACHE} (HF_HUB_OFFLINE is set)"


def _download(repo: Repository, file: str, **options) -> pathlib.Path:
  hub = library()
  if options and hub.constants.HF_HUB_OFFLINE:
    options = {}
  with explained(repo, file):
    return pathlib.Path(
      hub.hf_hub_download(
        repo.id,
        file,
        revision=repo.revision,
        library_name="vitjax",
        **options,
      )
    )


@contextlib.contextmanager
def explained(repo: Repository, file: str) -> Generator[None]:
  """Turns what huggingface_hub raises into one sentence and the next step."""
  errors = library().errors
  log_in = "run `hf auth login`, or set HF_TOKEN to a token that may read it"
  try:
    yield
  except errors.GatedRepoError as e:
    raise DownloadError(
      f"{repo}: its owner must grant access first. Ask for it at "
      f"{endpoint()}/{repo.id}, then {log_in}."
    ) from e
  except errors.RepositoryNotFoundError as e:
    raise DownloadError(
      f"{repo}: {endpoint()} has no repository {repo.id!r}, or it is private. "
      f"Check the name; if it is private, {log_in}."
    ) from e
  except errors.RevisionNotFoundError as e:
    raise DownloadError(
      f"{repo}: the repository has no revision {repo.revision!r}. Name a "
      "branch, a tag or a commit."
    ) from e
  except errors.LocalEntryNotFoundError as e:
    if where := _where_offline():
      raise MissingFileError(
        f"{repo}: {file} is not{where}. Fetch it once with a connection."
      ) from e
    raise DownloadError(_failed(repo, file, e.__cause__ or e)) from e
  except errors.EntryNotFoundError as e:
    raise MissingFileError(f"{repo} has no file {file}.") from e
  except errors.HfHubHTTPError as e:
    if e.response.status_code not in (401, 403):
      raise DownloadError(_failed(repo, file, e)) from e
    raise DownloadError(
      f"{repo}: {endpoint()} does not allow this (HTTP "
      f"{e.response.status_code}): {log_in}, or write it."
    ) from e
  except Exception as e:  # the library and its transports raise many types
    raise DownloadError(_failed(repo, file, e.__cause__ or e)) from e


def _failed(repo: Repository, file: str, error: BaseException) -> str:
  reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
  return (
    f"{repo}: {file} could not be transferred: {reason.rstrip('.')}. Check the "
    f"connection to {endpoint()} and try again."
  )
