"""Loads and saves the parameters of a model; see `vitjax.weights`."""

import json
import os
import pathlib
from collections.abc import Mapping
from typing import Any

import numpy as np

from vitjax import trees
from vitjax.data import tokenizers
from vitjax.weights import description, files, fitting, layouts, npz


def load(file: str | os.PathLike, model, **options) -> dict[str, Any]:
  """Loads weights from a file into the parameters of `model`.

  Args:
    file: path of an .npz, .safetensors or PyTorch file, followed by ":NAME"
      for a sub-tree, as in "lit.npz:img".
    model: the Linen module that the weights are for.
    **options: see `fitting.Options`.

  Returns:
    The parameters, and beside them the running statistics of a model with batch
    normalisation: nested dicts of float32 NumPy arrays. `model.apply` takes
    `batch_norm.split` of them.

  Raises:
    FileNotFoundError: if there is no such file.
    ValueError: if the file cannot be read, is damaged, is in no known layout,
      or does not fit the model.
  """
  flat, metadata = read(file)
  source = repr(os.path.basename(os.fspath(file)))
  return fitting.fit(flat, model, source=source, metadata=metadata, **options)


def read(
  file: str | os.PathLike,
) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
  """The arrays of a file by their names in it, verified, and its metadata."""
  metadata = description.read_metadata(file)
  flat = files.read(file)
  description.verify(flat, metadata, file)
  return flat, metadata


def save(
  file: str | os.PathLike,
  params: Mapping[str, Any],
  model,
  *,
  layout: str | None = None,
  metadata: Mapping[str, Any] | None = None,
) -> None:
  """Writes parameters in a published layout, and a JSON file beside them.

  "B_16.npz" gets "B_16.json" with `metadata`, the layout, the GELU and the
  epsilon of the model, the grid of the position table, checksums of the arrays
  and, for PyTorch layouts, the arguments that create their model. The
  vocabulary of a "tokenizer" in `metadata` is copied beside it as "B_16.txt".
  Arrays are always float32. Each file appears complete or not at all.

  Args:
    file: path of the weights, .npz or .safetensors.
    params: nested dicts of arrays, as `load` returns them.
    model: the Linen module that they belong to.
    layout: one of `layouts.LAYOUTS`; None for big_vision's in .npz and
      timm's in .safetensors.
    metadata: what else a reader needs: "model" (name and options),
      "image_size", "preprocess", "class_names" and so on; JSON values.

  Only big_vision's layout holds a patch embedding and a position table that
  are stored at another size than the model uses; for the others they are
  resized to it.

  Raises:
    ValueError: if the layout is not known or cannot hold the model.
  """
  # Facts that another layout needed are not passed on.
  metadata = {
    key: value
    for key, value in (metadata or {}).items()
    if key not in ("open_clip", "timm", "transformers")
  }
  flat = {
    n: np.asarray(x, np.float32) for n, x in trees.flatten(params).items()
  }
  path, _ = npz.split_subtree(file)
  layout = layout or layouts.default(model, path.suffix)
  converter = layouts.get(layout)
  size = metadata.get("image_size")
  if size:
    metadata["image_size"] = [size, size] if isinstance(size, int) else size
    if getattr(converter, "NEEDS_TABLE", False):
      flat |= fitting.fixed_table(model, size, metadata.get("channels", 3))
  if layout not in layouts.OWN:
    flat, model = fitting.at_own_size(flat, model, size)
  out = converter.from_vitjax(flat, model)
  facts: dict[str, Any] = {
    "layout": layout,
    "checksums": description.checksums(out),
  }
  if hasattr(converter, "facts"):
    facts.update(converter.facts(model, metadata))
  for option in ("gelu", "layer_norm_eps"):
    if hasattr(model, option):
      facts[option] = getattr(model, option)
  if size and "grid" not in metadata:
    for name in fitting.POSITION_TABLES:
      if name in flat:
        inputs = fitting.example_inputs(model, size)
        facts["grid"] = fitting.grid_of(model, inputs, name, flat[name].shape)
  files.write(file, out)
  if "tokenizer" in metadata:
    facts["tokenizer"] = tokenizers.copy_vocab(metadata["tokenizer"], path)
  with npz.atomic(path.with_suffix(".json")) as temporary:
    pathlib.Path(temporary).write_text(
      json.dumps({**metadata, **facts}, indent=2, sort_keys=True) + "\n"
    )
