"""Flat dicts of arrays in `.npz` files.

Names are "/"-joined parameter paths, as in every `.npz` that Google has
published. Nothing is ever unpickled. The format has no name for bfloat16: NumPy
stores it as two-byte void, and two-byte void is read as bfloat16.
"""

import contextlib
import os
import pathlib
import tempfile
import zipfile
import zlib
from collections.abc import Generator, Iterable, Mapping
from typing import Any

import ml_dtypes
import numpy as np

# Prefixes of parameters in a training state: optax era, flax.optim era.
PREFIXES = ("params/", "opt/target/")


def split_subtree(file: str | os.PathLike) -> tuple[pathlib.Path, str]:
  """Splits "two_towers.npz:img" into the path and the name of the sub-tree."""
  text = os.fspath(file)
  head, colon, subtree = text.rpartition(":")
  if colon and pathlib.PurePath(head).suffix and "\\" not in subtree:
    return pathlib.Path(head), subtree.strip("/")
  return pathlib.Path(text), ""


def parameter_prefix(names: Iterable[str]) -> str:
  """The prefix of the names of parameters in a file; "" if they have none."""
  names = list(names)
  return next(
    (p for p in PREFIXES if any(name.startswith(p) for name in names)), ""
  )


def strip_prefix(flat: Mapping[str, Any]) -> dict[str, Any]:
  """Leaves only the parameters, without the prefix they have in the file."""
  prefix = parameter_prefix(flat)
  return {
    name.removeprefix(prefix): value
    for name, value in flat.items()
    if name.startswith(prefix)
  }


def subtree_of(flat: Mapping[str, Any], subtree: str) -> dict[str, Any]:
  """The values below `subtree`, by the rest of their names.

  Parts of names are separated by "/" as in JAX, or by "." as in PyTorch.
  """
  starts = (f"{subtree}/", f"{subtree.replace('/', '.')}.")
  return {
    name[len(starts[0]) :]: value
    for name, value in strip_prefix(flat).items()
    if name.startswith(starts)
  }


def read(file: str | os.PathLike) -> dict[str, np.ndarray]:
  """Reads the parameters in an `.npz` file by their names in the file.

  Other arrays, such as the state of an optimizer, are not decompressed.

  Args:
    file: path, followed by ":NAME" for only the sub-tree NAME, such as
      "two_towers.npz:img". A sub-tree loses its prefix, `params/` included.

  Returns:
    Name to array. bfloat16 arrays are `ml_dtypes.bfloat16`.

  Raises:
    FileNotFoundError: if there is no such file.
    ValueError: if the file is truncated, not an npz archive or pickled, or
      has no such sub-tree.
  """
  path, subtree = split_subtree(file)
  require_file(path)
  known = []
  _refuse_pickle(path)
  try:
    # NumPy does not close a path that it cannot read, hence the open file.
    with open(path, "rb") as f, np.load(f, allow_pickle=False) as archive:
      prefix = parameter_prefix(archive.files)
      names = {name: name for name in archive.files if name.startswith(prefix)}
      if subtree:
        known = sorted({n.removeprefix(prefix).split("/")[0] for n in names})
        names = subtree_of(names, subtree)
      flat = {
        name: _recover_dtype(archive[member]) for name, member in names.items()
      }
  except (
    ValueError,
    TypeError,  # a bare .npy array is no context manager
    AttributeError,
    EOFError,
    OSError,
    KeyError,
    MemoryError,  # a header of impossible size
    OverflowError,
    NotImplementedError,
    zipfile.BadZipFile,
    zlib.error,
  ) as e:
    raise ValueError(
      f"weights {str(path)!r} cannot be read: {e}. This must be a complete "
      "npz archive of plain arrays; download or export it again."
    ) from e
  if subtree and not flat:
    raise ValueError(
      f"weights {str(path)!r} have no sub-tree {subtree!r}. "
      f"Known: {', '.join(known[:20])}."
    )
  return flat


def require_file(path: pathlib.Path) -> None:
  """Says how to get a file that is not here.

  Raises:
    FileNotFoundError: if `path` does not exist.
  """
  if not path.exists():
    raise FileNotFoundError(
      f"weights {str(path)!r} do not exist here. For a published name, a URL "
      "or gs://, pass the path that vitjax.weights.fetch(...) returns."
    )


def _refuse_pickle(path: pathlib.Path) -> None:
  """Explains how to convert a pickle that is called `.npz`, as NFNet's are.

  Raises:
    ValueError: if the file is one.
  """
  with open(path, "rb") as f:
    if f.read(1) != b"\x80":
      return
  raise ValueError(
    f"weights {str(path)!r} are a pickle, whatever their suffix. Reading a "
    "pickle runs any code in it, so vitjax does not. If you trust it, convert "
    "it once, in another process: p = dill.load(open(path, 'rb'))"
    "; numpy.savez('new.npz', **{f'{m}/{n}': x for m, d in p.items() for n, x "
    "in d.items()})."
  )


def _recover_dtype(x: Any) -> np.ndarray:
  if not isinstance(x, np.ndarray):
    raise ValueError("an entry is not an array")
  if x.dtype.kind != "V":
    return x
  if x.dtype.itemsize != 2:
    raise ValueError(f"an array has the unknown type {x.dtype}")
  return x.view(ml_dtypes.bfloat16)


def write(
  file: str | os.PathLike, flat: Mapping[str, np.typing.ArrayLike]
) -> None:
  """Writes float32 arrays; the file appears complete or not at all."""
  arrays: dict[str, Any] = {
    name: np.asarray(x, np.float32) for name, x in flat.items()
  }
  with atomic(file) as path, open(path, "wb") as f:
    np.savez(f, **arrays)


@contextlib.contextmanager
def atomic(file: str | os.PathLike) -> Generator[str]:
  """`with atomic(file) as path`: write to `path`, which then becomes `file`.

  A reader sees the old file or the whole new one, also when the writer is
  killed.
  """
  file = pathlib.Path(file)
  file.parent.mkdir(parents=True, exist_ok=True)
  handle, path = tempfile.mkstemp(
    dir=file.parent, prefix=f".{file.name}.", suffix=".tmp"
  )
  os.close(handle)
  try:
    yield path
    os.chmod(path, 0o644)
    os.replace(path, file)
  except BaseException:
    os.unlink(path)
    raise
