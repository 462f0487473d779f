"""Flat dicts of arrays in files of any format, by their suffix.

`.npz`, `.safetensors`, and for reading PyTorch's pickles (`.pth`, `.pt`,
`.bin`), from which only tensors are ever unpickled.
"""

import importlib
import os
import pathlib
from collections.abc import Mapping

import ml_dtypes
import numpy as np

from vitjax.weights import npz

Flat = dict[str, np.ndarray]

_TYPES = {
  "F64": np.float64,
  "F32": np.float32,
  "F16": np.float16,
  "BF16": ml_dtypes.bfloat16,
  "I64": np.int64,
  "I32": np.int32,
  "U8": np.uint8,
  "BOOL": np.bool_,
}
# Where training programs put the parameters in what they save.
_STATES = ("model", "state_dict", "module")


def read(file: str | os.PathLike) -> Flat:
  """Reads arrays by their names in the file.

  Args:
    file: path, with ":NAME" behind it for only the sub-tree NAME.

  Raises:
    FileNotFoundError: if there is no such file.
    ValueError: if the file cannot be read, has no such sub-tree or a suffix
      that is not known.
    ImportError: if reading it needs a package that is not installed.
  """
  path, subtree = npz.split_subtree(file)
  npz.require_file(path)
  if path.suffix == ".npz":
    return npz.read(file)
  readers = {
    ".safetensors": _read_safetensors,
    ".pth": _read_torch,
    ".pt": _read_torch,
    ".bin": _read_torch,
  }
  if path.suffix not in readers:
    raise ValueError(
      f"weights {str(path)!r} have an unknown suffix. "
      f"Known: .npz, {', '.join(readers)}."
    )
  flat = readers[path.suffix](path)
  if not subtree:
    return flat
  prefix = subtree.replace("/", ".") + "."
  found = {
    name.removeprefix(prefix): x
    for name, x in flat.items()
    if name.startswith(prefix)
  }
  if not found:
    raise ValueError(f"weights {str(path)!r} have no sub-tree {subtree!r}.")
  return found


def write(
  file: str | os.PathLike, flat: Mapping[str, np.typing.ArrayLike]
) -> None:
  """Writes float32 arrays to an `.npz` or `.safetensors` file.

  Raises:
    ValueError: for another suffix.
    ImportError: if `.safetensors` needs its package.
  """
  suffix = pathlib.PurePath(file).suffix
  if suffix == ".npz":
    npz.write(file, flat)
  elif suffix == ".safetensors":
    numpy_format = _import("safetensors.numpy", file)
    arrays = {
      name: np.ascontiguousarray(x, np.float32).reshape(np.shape(x))
      for name, x in flat.items()
    }
    with npz.atomic(file) as path:
      numpy_format.save_file(arrays, path, metadata={"format": "pt"})
  else:
    raise ValueError(
      f"weights {str(file)!r} cannot be written: use the suffix .npz or "
      ".safetensors."
    )


def _import(name: str, file: str | os.PathLike):
  """Imports a package that only some files need."""
  try:
    return importlib.import_module(name)
  except ImportError as e:
    package = name.partition(".")[0]
    raise ImportError(
      f"weights {str(file)!r} need the package {package!r}: "
      f"pip install {package}. The same weights as .npz need none."
    ) from e


def _read_safetensors(path: pathlib.Path) -> Flat:
  # The package's own NumPy reader does not know bfloat16.
  safetensors = _import("safetensors", path)
  try:
    entries = safetensors.deserialize(path.read_bytes())
  except Exception as e:
    raise ValueError(
      f"weights {str(path)!r} cannot be read: {e}. This must be a complete "
      "safetensors file; download or export it again."
    ) from e
  flat = {}
  for name, entry in entries:
    if entry["dtype"] not in _TYPES:
      raise ValueError(
        f"weights {str(path)!r} have {name} of type {entry['dtype']}. "
        f"Known: {', '.join(_TYPES)}."
      )
    x = np.frombuffer(entry["data"], _TYPES[entry["dtype"]])
    flat[name] = x.reshape(entry["shape"])
  return flat


def _read_torch(path: pathlib.Path) -> Flat:
  torch = _import("torch", path)
  try:
    state = torch.load(path, map_location="cpu", weights_only=True)
  except Exception as e:
    raise ValueError(
      f"weights {str(path)!r} cannot be read: {e}. This must be a complete "
      "PyTorch file of tensors only."
    ) from e
  for name in _STATES:
    if isinstance(state, Mapping) and isinstance(state.get(name), Mapping):
      state = state[name]
  tensors = {
    name: x
    for name, x in (state.items() if isinstance(state, Mapping) else ())
    if isinstance(x, torch.Tensor)
  }
  if not tensors:
    raise ValueError(f"weights {str(path)!r} hold no tensors by name.")
  return {
    name: (x.float() if x.is_floating_point() else x).numpy()
    for name, x in tensors.items()
  }
