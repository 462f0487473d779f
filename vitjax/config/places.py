"""Places of files: local paths, and URLs of object stores such as gs://."""

import importlib.util
import os
import pathlib
import tempfile
from typing import Any

from vitjax.config import extras

# epath prefers TensorFlow's file system, which cannot create a file only if it
# is absent, as the lock must. It looks at this once, at its first use.
if importlib.util.find_spec("gcsfs"):
  os.environ.setdefault("EPATH_USE_TF", "0")
# Otherwise gcsfs asks for the kind of the bucket, at each call if it may not.
os.environ.setdefault("GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT", "false")


def is_remote(path: str | os.PathLike) -> bool:
  """Whether a path is the URL of an object store, or of anything else."""
  return "://" in os.fspath(path)


def of(path: str | os.PathLike) -> Any:
  """A path with the methods of `pathlib.Path`: a local one, or one of a store.

  Objects appear whole or not at all, and are replaced by writing them again.
  There are no folders: `mkdir` does nothing, and a folder is there if anything
  is in it.

  Raises:
    ValueError: if no run folder can lie in such a store.
    ImportError: if the packages for the store are not installed.
  """
  if not is_remote(path):
    return pathlib.Path(path)
  scheme = os.fspath(path).partition("://")[0]
  if scheme != "gs":
    raise ValueError(
      f"{os.fspath(path)}: run folders may be local, mounted or at gs://, and "
      f"checkpoints cannot be written to {scheme}://. Mount the bucket "
      "(mountpoint-s3, for example), or copy the folder."
    )
  from etils import epath

  store()
  return epath.Path(path)


def local(path: Any) -> Any:
  """The path of a local file with the content of a file: itself, or a copy."""
  if not is_remote(path):
    return path
  copy = pathlib.Path(tempfile.mkdtemp(prefix="vitjax-"), path.name)
  copy.write_bytes(path.read_bytes())
  return copy


def store() -> Any:
  """The file system of fsspec for paths that begin with gs://."""
  import fsspec
  from fsspec.config import conf

  with extras.needed("gcs", "paths that begin with gs://"):
    import gcsfs  # noqa: F401, fsspec finds it by the scheme

  # Other processes write to the same folders.
  conf.setdefault("gs", {})["use_listings_cache"] = False
  return fsspec.filesystem("gs")
