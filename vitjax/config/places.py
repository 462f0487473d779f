"""Places of files: local paths, and URLs of object stores such as gs://."""

import contextlib
import importlib.util
import os
import pathlib
import tempfile
from collections.abc import Generator
from typing import Any

from vitjax.config import extras

# epath prefers TensorFlow's file system, which cannot create a file only if it
# is absent, as the lock must. It looks at this once, at its first use.
if importlib.util.find_spec("gcsfs"):
  os.environ.setdefault("EPATH_USE_TF", "0")
# Otherwise gcsfs asks for the kind of the bucket, at each call if it may not.
os.environ.setdefault("GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT", "false")

# Scheme -> how to log in.
STORES = {
  "gs": "`gcloud auth application-default login` logs this machine in",
  "s3": "`aws configure` or AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY log "
  "this machine in",
}
_CONNECT_SECONDS, _READ_SECONDS = 10, 60


def is_remote(path: str | os.PathLike) -> bool:
  """Whether a path is the URL of an object store, or of anything else."""
  return "://" in os.fspath(path)


def of(path: str | os.PathLike) -> Any:
  """A path with the methods of `pathlib.Path`: a local one, or one of a store.

  Objects appear whole or not at all, and are replaced by writing them again.
  There are no folders: `mkdir` does nothing, and a folder is there if anything
  is in it.

  Raises:
    ValueError: if it is a URL of something else.
    ImportError: if the packages for the store are not installed.
  """
  if not is_remote(path):
    return pathlib.Path(path)
  from etils import epath

  store(path)
  return epath.Path(path)


def local(path: Any) -> Any:
  """The path of a local file with the content of a file: itself, or a copy."""
  if not is_remote(path):
    return path
  copy = pathlib.Path(tempfile.mkdtemp(prefix="vitjax-"), path.name)
  copy.write_bytes(path.read_bytes())
  return copy


def store(path: str | os.PathLike) -> Any:
  """The file system of fsspec that holds a URL.

  Raises:
    ValueError: if the URL is not one of `STORES`.
    ImportError: if the package for it is not installed.
  """
  scheme = os.fspath(path).partition("://")[0]
  if scheme not in STORES:
    raise ValueError(
      f"{os.fspath(path)}: files may be local, mounted, or at "
      f"{' or '.join(f'{x}://' for x in STORES)}. Mount the store, or copy the "
      "files."
    )
  import fsspec
  from fsspec.config import conf

  options = conf.setdefault(scheme, {})
  # Other processes write to the same folders.
  options["use_listings_cache"] = False
  if scheme == "gs":
    with extras.needed("gcs", "paths that begin with gs://"):
      import gcsfs  # noqa: F401, fsspec finds it by the scheme
  else:
    with extras.needed("s3", "paths that begin with s3://"):
      import s3fs  # noqa: F401
    options.setdefault(
      "config_kwargs",
      {"connect_timeout": _CONNECT_SECONDS, "read_timeout": _READ_SECONDS},
    )
  return fsspec.filesystem(scheme)


@contextlib.contextmanager
def errors(path: str | os.PathLike, what: str = "read") -> Generator[None]:
  """Turns what a store raises, errors of any class, into OSError in one line.

  A file that does not exist stays FileNotFoundError, and one that does
  FileExistsError.
  """
  try:
    yield
  except (FileNotFoundError, FileExistsError, ImportError, ValueError):
    raise
  except Exception as e:
    reason = " ".join(str(e).split())[:300].rstrip(".")
    kind = type(e).__name__
    url = os.fspath(path)
    raise OSError(
      f"{url} cannot be {what} ({kind}{': ' * bool(reason)}{reason}). Check "
      "the name of the bucket, the network and the access to it; "
      f"{STORES[url.partition('://')[0]]}."
    ) from e
