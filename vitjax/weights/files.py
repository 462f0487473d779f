"""Flat dicts of arrays in files of any format, by their suffix.

`.npz` and `.safetensors`; for reading also PyTorch's pickles (`.pth`, `.pt`,
`.bin`, `.ckpt`, `.pth.tar`), from which only tensors are ever unpickled, and
the index of several files (`.safetensors.index.json`, `.bin.index.json`).
"""

import argparse
import importlib
import json
import os
import pathlib
from collections.abc import Mapping
from typing import Any

import ml_dtypes
import numpy as np
from absl import logging

from vitjax.config import messages
from vitjax.weights import npz
from vitjax.weights.layouts import torch_towers

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
# Keys under which training programs save the parameters; and prefixes that
# DataParallel, torch.compile and Lightning add to all names.
_STATES = ("model", "state_dict", "module", "model_ema", "state_dict_ema")
_WRAPPERS = ("module.", "_orig_mod.", "model.")
TORCH = (".pth", ".pt", ".bin", ".ckpt", ".tar")  # .pth.tar
# The end of the name of a file that says which of several files an array is in.
INDEX = ".index.json"


def read(file: str | os.PathLike) -> Flat:
  """Reads arrays by their names in the file.

  Args:
    file: path, followed by ":NAME" for only the sub-tree NAME. In a PyTorch
      file NAME may also be one of several states, as in
      "last.pth:state_dict_ema", or a tower, "img" or "txt", whose arrays keep
      their names.

  Raises:
    FileNotFoundError: if there is no such file.
    ValueError: if the file cannot be read, has no such sub-tree or an unknown
      suffix.
    ImportError: if reading it needs a package that is not installed.
  """
  path, subtree = npz.split_subtree(file)
  npz.require_file(path)
  if path.suffix == ".npz":
    return npz.read(file)
  if path.name.endswith(INDEX):
    flat = {n: x for part in parts(path) for n, x in read(part).items()}
  elif path.suffix == ".safetensors":
    flat = _read_safetensors(path)
  elif path.suffix in TORCH:
    flat, subtree = _read_torch(path, subtree)
  else:
    raise ValueError(
      f"weights {str(path)!r} have an unknown suffix. "
      f"Known: .npz, .safetensors, {', '.join(TORCH)}."
    )
  if not subtree:
    return unwrap(flat)
  found = npz.subtree_of(flat, subtree)
  found = found or npz.subtree_of(unwrap(flat), subtree)
  found = found or torch_towers.tower_of(unwrap(flat), subtree)
  if not found:
    known = sorted({name.split(".")[0] for name in unwrap(flat)})
    raise ValueError(
      f"weights {str(path)!r} have no sub-tree {subtree!r}. "
      f"Known: {messages.shorten(known, 20)}."
    )
  return unwrap(found)


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


def parts(index: pathlib.Path) -> list[pathlib.Path]:
  """The files that an index lists, which are in its folder.

  Raises:
    ValueError: if it is damaged or names a file of another folder.
  """
  try:
    content = json.loads(index.read_text(encoding="utf-8"))
    names = sorted(set(content["weight_map"].values()))
    is_plain = all(pathlib.PureWindowsPath(x).name == x for x in names)
  except (ValueError, KeyError, TypeError, AttributeError):
    names, is_plain = [], False
  if not names or not is_plain:
    raise ValueError(
      f"weights {str(index)!r}: this index must say in which file of its "
      'folder each array is, under "weight_map".'
    )
  return [index.with_name(name) for name in names]


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


def _read_torch(path: pathlib.Path, subtree: str) -> tuple[Flat, str]:
  """Tensors by name, and the sub-tree of them that is still to be taken."""
  torch = _import("torch", path)
  try:
    # Training programs save their options too; a Namespace is harmless.
    with torch.serialization.safe_globals([argparse.Namespace]):
      content = torch.load(path, map_location="cpu", weights_only=True)
  except Exception as e:
    raise ValueError(
      f"weights {str(path)!r} cannot be read: {str(e).partition(chr(10))[0]} "
      "This must be a complete PyTorch file of tensors only."
    ) from e
  state, subtree = choose_state(content, path, subtree)
  tensors = {n: x for n, x in state.items() if isinstance(x, torch.Tensor)}
  if not tensors:
    raise ValueError(f"weights {str(path)!r} hold no tensors by name.")
  arrays = {
    name: (x.float() if x.is_floating_point() else x).numpy()
    for name, x in tensors.items()
  }
  return arrays, subtree


def choose_state(
  content: Any, path: pathlib.Path, subtree: str
) -> tuple[Mapping[str, Any], str]:
  """The state to read from what a training program saved.

  Args:
    content: the content of the file.
    path: the file, for messages.
    subtree: what the user asked for; its first part may name a state.

  Returns:
    The state, and the rest of `subtree`.
  """
  while isinstance(content, Mapping):
    states = [x for x in _STATES if isinstance(content.get(x), Mapping)]
    if not states:
      return content, subtree
    first, _, rest = subtree.partition("/")
    name = states[0]
    if first in states:
      name, subtree = first, rest
    if len(states) > 1:
      logging.info(
        "weights %s hold %s; reading %s. Choose another with %s:NAME.",
        path,
        ", ".join(states),
        name,
        path.name,
      )
    content = content[name]
  return {}, subtree


def unwrap(flat: Flat) -> Flat:
  """Removes the prefixes that wrappers of modules give to all names."""
  for prefix in _WRAPPERS * len(_WRAPPERS):
    if flat and all(name.startswith(prefix) for name in flat):
      flat = {name.removeprefix(prefix): x for name, x in flat.items()}
  return flat
