"""Loads and saves the parameters of a model; see `vitjax.weights`."""

import json
import math
import os
import pathlib
import re
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from absl import logging

from vitjax import trees
from vitjax.config import messages
from vitjax.data import tokenizers
from vitjax.weights import files, layouts, npz, resample

Flat = dict[str, Any]

# Position tables of images; a text tower's is not a grid.
_TABLES = ("pos_embedding", "img/pos_embedding")


def load(
  file: str | os.PathLike,
  model,
  *,
  image_size: int | tuple[int, int] | None = None,
  channels: int = 3,
  inputs: Sequence[jax.ShapeDtypeStruct] | None = None,
  reinit: Sequence[str] = (),
  ignore: Sequence[str] = (),
  resize_posemb: bool = True,
  old_grid: tuple[int, int] | None = None,
  legacy_scipy: bool = False,
  key: jax.Array | None = None,
) -> dict[str, Any]:
  """Loads published weights into the parameters of `model`.

  A pattern of `reinit` or `ignore` is the path of an array or of a part of
  the tree, or a regular expression for one: "head" stands for "head/kernel"
  and "head/bias".

  Args:
    file: path of an .npz, .safetensors or PyTorch file, with ":NAME" behind
      it for a sub-tree, as "lit.npz:img".
    model: the Linen module that the weights are for.
    image_size: pixels, or (height, width); None for what the file was made
      for. Position tables are resized to it.
    channels: of the images.
    inputs: shapes of what the model is called with, where that is neither
      one image nor what its method `example_inputs` says.
    reinit: parameters that start anew, such as ["head"] for other classes.
    ignore: arrays of the file to leave out, such as ["pre_logits"]. A pattern
      that the file does not have is fine.
    resize_posemb: False turns a position table of another size into an error.
    old_grid: (rows, columns) of the file's position table where that is
      neither square nor noted in the file's metadata.
    legacy_scipy: repeats a fault of published code; see
      `resample.resample_grid`.
    key: for the parameters that start anew; None for `jax.random.key(0)`.

  Returns:
    The parameters: nested dicts of float32 NumPy arrays.

  Raises:
    FileNotFoundError: if there is no such file.
    ValueError: if the file cannot be read, its layout is not known, or it
      does not fit the model.
  """
  return fit(
    files.read(file),
    model,
    source=repr(os.path.basename(os.fspath(file))),
    metadata=read_metadata(file),
    image_size=image_size,
    channels=channels,
    inputs=inputs,
    reinit=reinit,
    ignore=ignore,
    resize_posemb=resize_posemb,
    old_grid=old_grid,
    legacy_scipy=legacy_scipy,
    key=key,
  )


def fit(
  flat: Mapping[str, Any],
  model,
  *,
  source: str,
  metadata: Mapping[str, Any],
  image_size: int | tuple[int, int] | None = None,
  channels: int = 3,
  inputs: Sequence[jax.ShapeDtypeStruct] | None = None,
  reinit: Sequence[str] = (),
  ignore: Sequence[str] = (),
  resize_posemb: bool = True,
  old_grid: tuple[int, int] | None = None,
  legacy_scipy: bool = False,
  key: jax.Array | None = None,
) -> dict[str, Any]:
  """Fits arrays with the names of any known layout into `model`.

  Args:
    flat: name -> array.
    model: as for `load`, and so are the other arguments.
    source: where the arrays come from, for messages.
    metadata: what is known of them, see `save`.

  Returns and Raises are those of `load`.
  """
  layout = layouts.recognise(flat)
  if inputs is None:
    size = image_size or metadata.get("image_size") or 224
    inputs = _inputs(model, size, channels)
  expected = _shapes(model, inputs)
  if layout is None and flat.keys() == expected.keys():
    layout = layouts.get("big_vision")  # our own names without a prefix
  if layout is None:
    raise ValueError(
      f"weights {source} have a layout that is not known; their arrays are "
      f"called {messages.shorten(sorted(flat))}. "
      f"Known: {', '.join(layouts.LAYOUTS)}."
    )
  flat = {name: _float32(x) for name, x in flat.items()}
  flat = layout.to_vitjax(flat, model)

  fresh = [name for name in expected if _match(name, reinit)]
  for pattern in reinit:
    if not any(_match(name, [pattern]) for name in expected):
      tops = sorted({n.split("/")[0] for n in expected})
      raise ValueError(
        f"reinit={pattern!r} matches no parameter of the model. "
        f"It has {messages.shorten(tops, 20)}."
      )
  ignored = [n for n in flat if n not in expected and _match(n, ignore)]
  found = {
    name: x
    for name, x in flat.items()
    if name not in ignored and name not in fresh
  }
  resized = {}
  fixed_size = image_size is not None or "image_size" in metadata
  has_images = len(inputs[0].shape) == 4
  for name in _TABLES if has_images else ():
    if name not in found or name not in expected:
      continue
    table, want = found[name], expected[name].shape
    if table.shape == want or table.ndim != 3 or table.shape[2] != want[2]:
      continue
    if not fixed_size:
      expected[name] = jax.ShapeDtypeStruct(table.shape, jnp.float32)
    elif resize_posemb:
      grid = _grid(model, inputs, name, want)
      found[name] = resample.resample_posemb(
        table,
        grid,
        old_grid=old_grid or tuple(metadata.get("grid", ())) or None,
        num_prefix=want[1] - grid[0] * grid[1],
        legacy_scipy=legacy_scipy,
      )
      resized[name] = f"{name} {table.shape} -> {want}"

  _check(found, expected, fresh, source, layout, model, inputs)
  new = _init(model, inputs, fresh, key)
  rows = {
    "loaded": [n for n in found if n not in resized],
    "resized": list(resized.values()),
    "re-initialised": [f"{n} {expected[n].shape}" for n in fresh],
    "left over": [f"{n} {flat[n].shape}" for n in ignored],
  }
  table = [f"weights {source} in layout {layout.NAME!r}:"]
  for title, names in rows.items():
    what = "" if title == "loaded" else f"  {messages.shorten(names)}"
    table.append(f"  {title:15}{len(names):5} arrays{what}".rstrip())
  logging.info("%s", "\n".join(table))
  for option in ("gelu", "layer_norm_eps"):
    made, have = metadata.get(option), getattr(model, option, None)
    if None not in (made, have) and made != have:
      logging.warning(
        "weights %s were made with %s=%r; the model has %r, and other logits.",
        source,
        option,
        made,
        have,
      )
  if "head/kernel" in found and not np.any(found["head/kernel"]):
    logging.warning("weights %s have a head of zeros: untrained.", source)
  return trees.unflatten({name: {**found, **new}[name] for name in expected})


def initial(
  model,
  *,
  image_size: int | tuple[int, int],
  channels: int = 3,
  key: jax.Array | None = None,
) -> dict[str, Any]:
  """Parameters of `model` before any training, see `load` for Args."""
  inputs = _inputs(model, image_size, channels)
  names = list(_shapes(model, inputs))
  return trees.unflatten(_init(model, inputs, names, key))


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
  epsilon of the model, the grid of the position table and, for PyTorch
  layouts, what to create their model with; the vocabulary of a "tokenizer"
  in `metadata` is copied beside it as "B_16.txt". Arrays are always float32.
  Both files appear complete or not at all.

  Args:
    file: path of the weights, .npz or .safetensors.
    params: nested dicts of arrays, as `model.init(...)["params"]`.
    model: the Linen module that they belong to.
    layout: one of `layouts.LAYOUTS`; None for big_vision's in .npz and
      timm's in .safetensors.
    metadata: what else a reader needs: "model" (name and options),
      "image_size", "preprocess", "class_names" and so on; JSON values.

  Raises:
    ValueError: if the layout is not known or cannot hold the model.
  """
  metadata = dict(metadata or {})
  flat = {
    n: np.asarray(x, np.float32) for n, x in trees.flatten(params).items()
  }
  path, _ = npz.split_subtree(file)
  layout = layout or layouts.default(model, path.suffix)
  converter = layouts.get(layout)
  out = converter.from_vitjax(flat, model)
  facts = {"layout": layout}
  if hasattr(converter, "facts"):
    facts.update(converter.facts(model))
  for option in ("gelu", "layer_norm_eps"):
    if hasattr(model, option):
      facts[option] = getattr(model, option)
  size = metadata.get("image_size")
  if size and "grid" not in metadata:
    for name in _TABLES:
      if name in flat:
        shape = flat[name].shape
        facts["grid"] = _grid(model, _inputs(model, size), name, shape)
  files.write(file, out)
  if "tokenizer" in metadata:
    facts["tokenizer"] = tokenizers.copy_vocab(metadata["tokenizer"], path)
  with npz.atomic(path.with_suffix(".json")) as temporary:
    pathlib.Path(temporary).write_text(
      json.dumps({**metadata, **facts}, indent=2, sort_keys=True) + "\n"
    )


def read_metadata(file: str | os.PathLike) -> dict[str, Any]:
  """What `save` wrote beside `file`; empty where there is nothing.

  Raises:
    ValueError: if the JSON file is damaged.
  """
  path, _ = npz.split_subtree(file)
  path = path.with_suffix(".json")
  if not path.exists():
    return {}
  try:
    metadata = json.loads(path.read_text())
  except ValueError as e:
    raise ValueError(f"metadata {str(path)!r} is not JSON: {e}.") from e
  if not isinstance(metadata, dict):
    raise ValueError(f"metadata {str(path)!r} is not a JSON object.")
  return metadata


def _hw(size: int | Sequence[int]) -> tuple[int, int]:
  h, w = (size, size) if isinstance(size, int) else size
  return int(h), int(w)


def _image(hw: tuple[int, int], channels: int = 3) -> jax.ShapeDtypeStruct:
  return jax.ShapeDtypeStruct((1, *hw, channels), jnp.float32)


def _inputs(
  model, size: int | Sequence[int], channels: int = 3
) -> Sequence[jax.ShapeDtypeStruct]:
  return model.example_inputs(_hw(size), channels)


def _shapes(model, inputs: Sequence[jax.ShapeDtypeStruct]) -> Flat:
  tree = jax.eval_shape(model.init, jax.random.key(0), *inputs)
  return trees.flatten(tree.get("params", {}))


def _grid(
  model, inputs: Sequence, name: str, shape: tuple[int, ...]
) -> tuple[int, int]:
  """(rows, columns) of a position table, rows of other tokens apart.

  Each side of the grid depends on the same side of the image only, so square
  images tell both without knowing what is in front of the patches.
  """
  image, *rest = inputs
  _, h, w, c = image.shape
  if h == w:
    return (math.isqrt(shape[1]),) * 2
  rows, columns = (
    math.isqrt(_shapes(model, [_image((s, s), c), *rest])[name].shape[1])
    for s in (h, w)
  )
  return rows, columns


def _float32(x: np.ndarray) -> np.ndarray:
  """Counters of a training program stay what they are: left over."""
  return (
    np.asarray(x, np.float32) if jnp.issubdtype(x.dtype, jnp.floating) else x
  )


def _match(name: str, patterns: Sequence[str]) -> bool:
  return any(re.fullmatch(f"(?:{p})(/.*)?", name) for p in patterns)


def _check(found, expected, fresh, source, layout, model, inputs) -> None:
  """Raises ValueError unless names and shapes agree exactly."""
  missing = [n for n in expected if n not in found and n not in fresh]
  extra = [n for n in found if n not in expected]
  shape = [
    n
    for n, x in found.items()
    if n in expected and x.shape != expected[n].shape
  ]
  wrong = [n for n, x in found.items() if x.dtype != np.float32]
  if not (missing or extra or shape or wrong):
    return
  size = "x".join(map(str, inputs[0].shape[1:3]))
  problems = [
    f"weights {source} in layout {layout.NAME!r} do not fit model "
    f"{type(model).__module__.rpartition('.')[2]} at {size}."
  ]
  if missing:
    problems.append(f"Missing: {messages.shorten(missing)}.")
  if extra:
    problems.append(f"Extra: {messages.shorten(extra)}.")
  if shape:
    pairs = [f"{n} {found[n].shape} vs {expected[n].shape}" for n in shape]
    problems.append(f"Shape: {messages.shorten(pairs)}.")
  if wrong:
    types = [f"{n} {found[n].dtype}" for n in wrong]
    problems.append(f"Not floating point: {messages.shorten(types)}.")
  hints = ["change the model's options"]
  if any(n in _TABLES for n in shape):
    hints.append("pass resize_posemb=True")
  if start := sorted({n.partition("/")[0] for n in missing + shape}):
    hints.append(f"start anew with reinit={start[:4]}")
  if extra:
    drop = sorted({n.partition("/")[0] for n in extra})
    hints.append(f"leave out with ignore={drop[:4]}")
  problems.append(f"Either {', or '.join(hints)}.")
  raise ValueError(" ".join(problems))


def _init(
  model, inputs: Sequence, names: Sequence[str], key: jax.Array | None
) -> dict[str, np.ndarray]:
  """Fresh values of `names` only; the compiler leaves the others out."""
  if not names:
    return {}

  def init(key):
    zeros = [jnp.zeros(x.shape, x.dtype) for x in inputs]
    flat = trees.flatten(model.init(key, *zeros)["params"])
    return {name: flat[name] for name in names}

  key = jax.random.key(0) if key is None else key
  return jax.tree.map(np.asarray, jax.jit(init)(key))
