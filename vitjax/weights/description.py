"""The JSON file beside weights: its checks, and checksums of the arrays.

The files may be a stranger's. So every value has a type and a range, models
come from the tables alone, and sizes are bounded by what the arrays hold. A
checksum guards against accidents, not against forgery.
"""

import hashlib
import json
import math
import os
import pathlib
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
from absl import logging

from vitjax import models, trees
from vitjax.config import messages
from vitjax.weights import npz

# Options of models that name another model.
_MODEL_OPTIONS = ("image_model", "text_model")
# Options of models that count layers, or list counts of them.
_LAYER_OPTIONS = ("depth", "depths", "stages", "stem")


def _is_size(x: Any) -> bool:
  return type(x) is int and 0 < x <= 1 << 14


def _is_side(x: Any) -> bool:  # strips of patches are long
  return type(x) is int and 0 < x <= 1 << 16


def _is_pair(x: Any) -> bool:
  return isinstance(x, list) and len(x) == 2 and all(map(_is_side, x))


def _is_text(x: Any) -> bool:
  return isinstance(x, str)


def _is_texts(x: Any) -> bool:
  return isinstance(x, list) and all(map(_is_text, x))


def _is_numbers(x: Any) -> bool:
  return isinstance(x, list) and all(
    type(i) in (int, float) and math.isfinite(i) for i in x
  )


def _is_tokenizer(x: Any) -> bool:
  return (
    isinstance(x, dict)
    and x.keys() == {"name", "vocab", "max_len"}
    and _is_text(x["name"])
    and _is_text(x["vocab"])
    and pathlib.PureWindowsPath(x["vocab"]).name == x["vocab"]
    and _is_size(x["max_len"])
  )


# Key -> (check of a value, description of allowed values). Other keys are for
# people and other programs; vitjax does not read them.
_FIELDS: Mapping[str, tuple[Callable[[Any], bool], str]] = {
  "channels": (_is_size, "a number from 1 to 16384"),
  "checksums": (
    lambda x: isinstance(x, dict) and all(map(_is_text, x.values())),
    "an object: array name -> checksum",
  ),
  "class_names": (lambda x: x is None or _is_texts(x), "a list of texts"),
  "data": (lambda x: x is None or _is_text(x), "a text"),
  "gelu": (_is_text, "a text"),
  "grid": (_is_pair, "[rows, columns]"),
  "image_size": (
    lambda x: _is_side(x) or _is_pair(x),
    "[height, width] in pixels, up to 65536",
  ),
  "labels": (_is_text, "a text"),
  "layer_norm_eps": (lambda x: type(x) in (int, float), "a number"),
  "layout": (_is_text, "a text"),
  "loss": (_is_text, "a text"),
  "model": (
    lambda x: isinstance(x, dict) and _is_text(x.get("name")),
    'an object with a "name"',
  ),
  "preprocess": (_is_text, "a text"),
  "target_deviation": (_is_numbers, "a list of numbers"),
  "target_mean": (_is_numbers, "a list of numbers"),
  "tokenizer": (
    _is_tokenizer,
    'an object with "name", "max_len" and "vocab", a file in the same folder',
  ),
}


def read_metadata(file: str | os.PathLike) -> dict[str, Any]:
  """The JSON that `weights.save` wrote beside `file`; {} if there is none.

  Raises:
    ValueError: if the JSON file is damaged or holds values of other types.
  """
  path, _ = npz.split_subtree(file)
  if path.suffix == ".json":  # an index of several files
    return {}
  path = path.with_suffix(".json")
  return parse(path) if path.exists() else {}


def parse(path: pathlib.Path) -> dict[str, Any]:
  """Reads a JSON file that describes a model.

  Raises:
    ValueError: if it is damaged or holds values of other types.
  """
  try:
    metadata = json.loads(path.read_text(encoding="utf-8"))
  except (ValueError, RecursionError) as e:
    raise ValueError(f"metadata {str(path)!r} is not JSON: {e}.") from e
  if not isinstance(metadata, dict):
    raise ValueError(f"metadata {str(path)!r} is not a JSON object.")
  for key, (is_allowed, allowed) in _FIELDS.items():
    if key in metadata and not is_allowed(metadata[key]):
      shown = json.dumps(metadata[key])
      shown = shown if len(shown) < 60 else f"{shown[:56]} ..."
      raise ValueError(
        f"metadata {str(path)!r}: {key}={shown} must be {allowed}."
      )
  if type(size := metadata.get("image_size")) is int:
    metadata["image_size"] = [size, size]
  return metadata


def create_model(
  metadata: Mapping[str, Any],
  flat: Mapping[str, np.ndarray],
  path: pathlib.Path,
  allow_module: str | None = None,
):
  """The model that metadata describes.

  Args:
    metadata: what `parse` returned.
    flat: the arrays that the model is for; they bound its sizes.
    path: the file or folder that they are from, for messages.
    allow_module: dotted path of a model of your own that the file may name.

  Raises:
    ValueError: if the model is not in the tables, or cannot be built.
  """
  check_listed(metadata, path, allow_module)
  options = dict(metadata["model"])
  name = options.pop("name")
  problems = [*models.problems(name, options, "model.")]
  problems += _too_large(options, flat)
  model = None
  if not problems:
    try:
      model = models.create(name, **options)
    except Exception as e:  # a wrong option may fail in any way
      problems = [f"{type(e).__name__}: {e}"]
  if model is not None:
    num_classes = getattr(model, "num_classes", None)
    class_names = metadata.get("class_names")
    if num_classes and class_names and len(class_names) != num_classes:
      problems = [f"{len(class_names)} class_names for {num_classes} classes."]
    for key in ("target_mean", "target_deviation"):
      if key in metadata and len(metadata[key]) != num_classes:
        problems = [f"{len(metadata[key])} {key} for {num_classes} outputs."]
  if problems:
    first = problems[0].splitlines()[0]
    raise ValueError(f"{path}: its metadata describe no usable model: {first}")
  return model


def check_listed(
  metadata: Mapping[str, Any],
  path: os.PathLike | str,
  allow_module: str | None = None,
) -> None:
  """Raises ValueError for a model that is not in the tables.

  Its module would have to be imported, which runs its code.
  """
  model = metadata["model"]
  for given in (model["name"], *(model.get(key) for key in _MODEL_OPTIONS)):
    if isinstance(given, str) and given != allow_module:
      _check_name(given, path)


def _check_name(name: str, path: os.PathLike | str) -> None:
  if models.is_listed(name):
    return
  if "." not in name:
    raise ValueError(
      f"{path}: its metadata name {name!r}, which is not a model."
      f"{messages.did_you_mean(name, models.FAMILIES)}"
    )
  raise ValueError(
    f"{path}: its metadata name the module {name!r}, and importing it would "
    "run its code. If you trust the module, allow it: --allow_module="
    f"{name}, or vitjax.load(..., allow_module={name!r})."
  )


def _too_large(
  options: Mapping[str, Any], flat: Mapping[str, np.ndarray]
) -> Iterator[str]:
  """Sizes that the arrays of the file cannot have."""
  elements = sum(x.size for x in flat.values())
  layers = len(flat) + sum(
    x.shape[0] for name, x in flat.items() if x.ndim and trees.is_stacked(name)
  )
  for path, number in _numbers(options):
    most = elements
    if not {*path.split(".")}.isdisjoint(_LAYER_OPTIONS):
      most = layers
    if number > most:
      yield f"model.{path}={number} is more than its arrays can hold ({most})."


def _numbers(tree: Any, path: str = "") -> Iterator[tuple[str, int]]:
  """(path, number) of all integers in nested objects and lists."""
  if type(tree) is int:
    yield path, tree
  elif isinstance(tree, dict | list | tuple):
    items = tree.items() if isinstance(tree, dict) else enumerate(tree)
    for key, value in items:
      yield from _numbers(value, f"{path}.{key}" if path else str(key))


def checksums(flat: Mapping[str, np.ndarray]) -> dict[str, str]:
  """Array name -> checksum of its shape and its float32 values."""
  return {name: _checksum(x) for name, x in flat.items()}


def _checksum(x: np.ndarray) -> str:
  x = np.ascontiguousarray(x, "<f4").reshape(np.shape(x))
  content = hashlib.blake2b(repr(x.shape).encode(), digest_size=8)
  content.update(x.data)
  return content.hexdigest()


def verify(
  flat: Mapping[str, np.ndarray],
  metadata: Mapping[str, Any],
  file: str | os.PathLike,
) -> None:
  """Compares the arrays of a file with the checksums beside it.

  A file without checksums passes, as published ones do.

  Raises:
    ValueError: if an array is not the one that was exported.
  """
  path, subtree = npz.split_subtree(file)
  known = metadata.get("checksums", {})
  if subtree:
    known = npz.subtree_of(known, subtree) or known
  wrong = [
    n for n, x in flat.items() if n in known and known[n] != _checksum(x)
  ]
  if wrong:
    raise ValueError(
      f"weights {str(path)!r}: {messages.shorten(wrong)} differ from what was "
      f"exported, by the checksums in {path.with_suffix('.json').name}. The "
      "file is damaged: copy or export it again. If you changed it yourself, "
      'remove "checksums" from the JSON file.'
    )
  if known and known.keys().isdisjoint(flat):
    logging.warning(
      "weights %s: the checksums beside them belong to arrays with other "
      "names; nothing was verified.",
      path,
    )
