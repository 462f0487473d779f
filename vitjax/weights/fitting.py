"""Fits arrays of any known layout into the parameters of a model.

Strict: a missing array, an unexpected one, or one of another shape is an error
unless the caller names it.
"""

import dataclasses
import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from absl import logging

from vitjax import trees
from vitjax.config import messages
from vitjax.models import batch_norm, common, flexible, relative_position
from vitjax.weights import layouts, resample, stem

Flat = dict[str, Any]

# Position tables of images; a text tower's is not a grid.
POSITION_TABLES = ("pos_embedding", "img/pos_embedding")

# The end of the names of tables of relative positions.
RELATIVE_TABLE = "position_bias/table"

# Parameters of trained models are far smaller; a flipped bit of an exponent
# makes numbers like 1e30.
_LARGEST = 1e6


@dataclasses.dataclass(frozen=True, kw_only=True)
class Options:
  """How weights are fitted into a model: the options of `load` and `fit`.

  A pattern of `reinit` or `ignore` is the path of an array or of a part of
  the tree, or a regular expression for one: "head" stands for "head/kernel"
  and "head/bias".

  Attributes:
    image_size: pixels, or (height, width), to which position tables are
      resized; None for the size that the file was made for.
    channels: channels of the images.
    channel_rule: "sum", "repeat" or "first": how kernels that were trained on
      another number of channels are adapted, see `stem.adapt`. None makes
      them an error.
    inputs: shapes of the model's inputs, where these are neither one image
      nor what its method `example_inputs` says.
    reinit: parameters to re-initialise, such as ["head"] for other classes.
    ignore: arrays of the file to leave out, such as ["pre_logits"]. A pattern
      that matches nothing is fine.
    resize_posemb: False makes a position table of another size an error.
    old_grid: (rows, columns) of the file's position table where that is
      neither square nor noted in the file's metadata.
    legacy_scipy: repeat a fault of published code; see
      `resample.resample_grid`.
    key: PRNG key of the parameters that are re-initialised; None for
      `jax.random.key(0)`.
  """

  image_size: int | tuple[int, int] | None = None
  channels: int = 3
  channel_rule: str | None = None
  inputs: Sequence[jax.ShapeDtypeStruct] | None = None
  reinit: Sequence[str] = ()
  ignore: Sequence[str] = ()
  resize_posemb: bool = True
  old_grid: tuple[int, int] | None = None
  legacy_scipy: bool = False
  key: jax.Array | None = None


def fit(
  flat: Mapping[str, Any],
  model,
  *,
  source: str,
  metadata: Mapping[str, Any],
  **options,
) -> dict[str, Any]:
  """Fits arrays with the names of any known layout into `model`.

  Args:
    flat: name -> array.
    model: the Linen module that the weights are for.
    source: where the arrays come from, for messages.
    metadata: what is known about them, see `weights.save`.
    **options: see `Options`.

  Returns:
    The parameters, and beside them the running statistics of a model with batch
    normalisation: nested dicts of float32 NumPy arrays.

  Raises:
    ValueError: if the layout is not known, the arrays do not fit the model,
      or hold NaN or infinity.
  """
  options = _for_encoder(Options(**options), model, metadata)
  layout = layouts.recognise(flat)
  inputs = options.inputs
  if inputs is None:
    size = options.image_size or metadata.get("image_size") or 224
    inputs = example_inputs(model, size, options.channels)
  expected = shapes(model, inputs)
  if layout is None and flat.keys() == expected.keys():
    layout = layouts.get("big_vision")  # our own names without a prefix
  if layout is None:
    raise ValueError(
      f"weights {source} are in no known layout; their arrays are called "
      f"{messages.shorten(sorted(flat))}. Known: {', '.join(layouts.LAYOUTS)}."
    )
  flat = {name: _float32(x) for name, x in flat.items()}
  try:
    flat = layout.to_vitjax(flat, model)
  except (ValueError, IndexError) as e:
    raise ValueError(f"weights {source} in layout {layout.NAME!r}: {e}") from e

  fresh = [name for name in expected if _match(name, options.reinit)]
  for pattern in options.reinit:
    if not any(_match(name, [pattern]) for name in expected):
      tops = sorted({n.split("/")[0] for n in expected})
      raise ValueError(
        f"reinit={pattern!r} matches no parameter of the model. "
        f"It has {messages.shorten(tops, 20)}."
      )
  unused = [n for n in flat if n not in expected and _match(n, options.ignore)]
  found = {
    name: x
    for name, x in flat.items()
    if name not in unused and name not in fresh
  }
  resized = {}
  fixed_size = options.image_size is not None or "image_size" in metadata
  has_images = len(inputs[0].shape) == 4
  for name in POSITION_TABLES if has_images else ():
    if name not in found or name not in expected:
      continue
    table, want = found[name], expected[name].shape
    if table.shape == want or table.ndim != 3 or table.shape[2] != want[2]:
      continue
    is_flexible = getattr(_image_model(model, name), "posemb_grid", None)
    if not fixed_size and not is_flexible:
      expected[name] = jax.ShapeDtypeStruct(table.shape, jnp.float32)
    elif options.resize_posemb:
      grid = grid_of(model, inputs, name, want)
      found[name] = resample.resample_posemb(
        table,
        grid,
        old_grid=options.old_grid or tuple(metadata.get("grid", ())) or None,
        num_prefix=want[1] - grid[0] * grid[1],
        method=getattr(_image_model(model, name), "posemb_resize", "corners"),
        legacy_scipy=options.legacy_scipy,
      )
      resized[name] = f"{name} {table.shape} -> {want}"

  resized |= _fit_offsets(found, expected, resize=options.resize_posemb)
  resized |= _fit_kernels(found, expected, model)

  stems = _stems(found, expected, model, inputs) if has_images else ()
  adapted = {}
  if rule := options.channel_rule:
    for name in stems:
      want = expected[name].shape
      adapted[name] = f"{name} {found[name].shape} -> {want} by {rule!r}"
      found[name] = stem.adapt(found[name], want[-2], rule)

  _check(found, expected, fresh, source, layout, model, inputs, stems)
  check_values(found, source)
  new = _init(model, inputs, fresh, options.key)
  rows = {
    "loaded": [n for n in found if n not in {**resized, **adapted}],
    "resized": list(resized.values()),
    "adapted": list(adapted.values()),
    "re-initialised": [f"{n} {expected[n].shape}" for n in fresh],
    "unused": [f"{n} {flat[n].shape}" for n in unused],
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
        "weights %s were trained with %s=%r, the model has %r: its logits will "
        "differ.",
        source,
        option,
        made,
        have,
      )
  if "head/kernel" in found and not np.any(found["head/kernel"]):
    logging.warning(
      "weights %s have a head of zeros: it is not trained.", source
    )
  return trees.unflatten({name: {**found, **new}[name] for name in expected})


def initial(
  model,
  *,
  image_size: int | tuple[int, int],
  channels: int = 3,
  key: jax.Array | None = None,
) -> dict[str, Any]:
  """Weights of `model` before any training; see `Options` for Args."""
  inputs = example_inputs(model, image_size, channels)
  names = list(shapes(model, inputs))
  return trees.unflatten(_init(model, inputs, names, key))


def _fit_offsets(
  found: Flat, expected: Flat, *, resize: bool
) -> dict[str, str]:
  """Gives tables of relative positions the shape of the model's, in place.

  A table whose offsets are in one axis, as in files of PyTorch, is that of a
  square window unless it is as long as the model's. A table of another window
  is resized if `resize` is true.

  Returns:
    Name of each resized table -> what was done.
  """
  resized = {}
  for name, x in found.items():
    if not name.endswith(RELATIVE_TABLE) or name not in expected:
      continue
    want = expected[name].shape
    side = math.isqrt(len(x))
    if x.size == math.prod(want):
      found[name] = x.reshape(want)
    elif resize and (x.ndim == 3 or side**2 == len(x)):
      table = x if x.ndim == 3 else x.reshape(side, side, -1)
      found[name] = relative_position.resample_table(table, want[:2])
      resized[name] = f"{name} {table.shape} -> {want}"
  return resized


def _fit_kernels(found: Flat, expected: Flat, model) -> dict[str, str]:
  """Gives patch embeddings the size of `patch_kernel`, in place.

  Returns:
    Name of each resized kernel -> what was done.
  """
  resized = {}
  image_models = {"": model}
  image_models |= {f"{n}/": m for n, m in model.towers().items()}
  for prefix, image_model in image_models.items():
    name = f"{prefix}embedding/kernel"
    is_flexible = getattr(image_model, "patch_kernel", None) is not None
    if not is_flexible or name not in found or name not in expected:
      continue
    x, want = found[name], expected[name].shape
    if x.ndim == 4 and x.shape[:2] != want[:2]:
      found[name] = np.asarray(flexible.resize_kernel(x, want[0]))
      resized[name] = f"{name} {x.shape} -> {want}"
  return resized


def _hw(size: int | Sequence[int]) -> tuple[int, int]:
  h, w = (size, size) if isinstance(size, int) else size
  return int(h), int(w)


def _image(hw: tuple[int, int], channels: int = 3) -> jax.ShapeDtypeStruct:
  return jax.ShapeDtypeStruct((1, *hw, channels), jnp.float32)


def example_inputs(
  model, size: int | Sequence[int], channels: int = 3
) -> Sequence[jax.ShapeDtypeStruct]:
  """Shapes of the inputs of `model` for images of this size."""
  return model.example_inputs(_hw(size), channels)


def shapes(model, inputs: Sequence[jax.ShapeDtypeStruct]) -> Flat:
  """Shapes of the weights of `model`, see `batch_norm.join`, by name.

  Raises:
    ValueError: if the model cannot be applied to such inputs.
  """
  try:
    tree = jax.eval_shape(model.init, jax.random.key(0), *inputs)
  except Exception as e:  # models fail in as many ways as they have options
    sizes = " and ".join("x".join(map(str, x.shape[1:])) for x in inputs)
    first = (str(e).splitlines() or [type(e).__name__])[0]
    raise ValueError(
      f"model {family(model)} cannot take inputs of {sizes}: {first}"
    ) from e
  return trees.flatten(batch_norm.join(tree))


def _for_encoder(
  options: Options, model, metadata: Mapping[str, Any]
) -> Options:
  """The options for an encoder that is trained on: without its decoder.

  It has no head, so that of `model` is re-initialised.
  """
  was = metadata.get("model", {}).get("name")
  if was not in ("mae", "captioner") or family(model) == was:
    return options
  has_head = getattr(model, "num_classes", None) is not None
  return dataclasses.replace(
    options,
    ignore=(*options.ignore, "decoder"),
    reinit=(*options.reinit, *(["head"] if has_head else [])),
  )


def grid_of(
  model, inputs: Sequence, name: str, shape: tuple[int, ...]
) -> tuple[int, int]:
  """(rows, columns) of a position table, without rows of other tokens.

  Each side of the grid depends only on the same side of the image. Square
  images therefore give both sides, whatever stands before the patches. A
  flexible ViT says it itself.
  """
  if (
    side := getattr(_image_model(model, name), "posemb_grid", None)
  ) is not None:
    return side, side
  image, *rest = inputs
  _, h, w, c = image.shape
  if h == w:
    return (math.isqrt(shape[1]),) * 2
  rows, columns = (
    math.isqrt(shapes(model, [_image((s, s), c), *rest])[name].shape[1])
    for s in (h, w)
  )
  return rows, columns


def fixed_table(
  model, size: int | Sequence[int], channels: int
) -> dict[str, np.ndarray]:
  """{"pos_embedding": table} of a model that computes it; {} of others."""
  if getattr(model, "posemb", None) != "sincos2d":
    return {}
  learned = model.clone(posemb="learn")
  inputs = example_inputs(learned, size, channels)
  shape = shapes(learned, inputs)["pos_embedding"].shape
  h, w = grid_of(learned, inputs, "pos_embedding", shape)
  table = common.posemb_sincos_2d(h, w, model.width)
  others = ((0, 0), (shape[1] - h * w, 0), (0, 0))
  return {"pos_embedding": np.pad(np.asarray(table), others)}


def at_own_size(
  flat: Flat, model, size: int | Sequence[int] | None
) -> tuple[Flat, Any]:
  """Arrays of a flexible ViT for its own patch size, and a model of fixed size.

  Args:
    flat: name -> array.
    model: the module; if it is not flexible, both are returned as they are.
    size: pixels, or (height, width), of the images.

  Raises:
    ValueError: if a position table must be resized and `size` is None, or the
      images have no one size.
  """
  changed = {}
  for prefix, tower in {"": model, **model.towers()}.items():
    names = ("patch_kernel", "posemb_grid")
    if all(getattr(tower, name, None) is None for name in names):
      continue
    if getattr(tower, "naflex", False):
      raise ValueError(
        "a model with naflex=True has a position table for images of any "
        "shape, which this layout does not have: write a .npz file without "
        "naming a layout."
      )
    fixed = tower.clone(patch_kernel=None, posemb_grid=None)
    kernel, table = (
      f"{prefix}/{name}".lstrip("/")
      for name in ("embedding/kernel", "pos_embedding")
    )
    changed[kernel] = flexible.resize_kernel(flat[kernel], tower.patch_size)
    if tower.posemb_grid is not None:
      if size is None:
        raise ValueError(
          "the position table of a flexible ViT is written for images of one "
          "size: give metadata={'image_size': ...}."
        )
      inputs = example_inputs(fixed, size)
      shape = shapes(fixed, inputs)["pos_embedding"].shape
      changed[table] = flexible.resize_table(
        flat[table],
        tower.posemb_grid,
        grid_of(fixed, inputs, "pos_embedding", shape),
        tower.posemb_resize,
      )
    fields = {name: None for name in names}
    if prefix:
      model = model.clone(image={**model.image, **fields})
    else:
      model = fixed
  return {**flat, **{n: np.asarray(x) for n, x in changed.items()}}, model


def _image_model(model, name: str):
  """The model or tower that has the position table of this name."""
  tower, _, _ = name.rpartition("/")
  return model.towers()[tower] if tower else model


def family(model) -> str:
  """The name of the model's module, such as "vit"."""
  return type(model).__module__.rpartition(".")[2]


def _stems(found, expected, model, inputs) -> Sequence[str]:
  """Names of the kernels that were trained on other channels."""
  image, *rest = inputs

  def shapes_for(channels: int) -> Flat:
    _, h, w, _ = image.shape
    return shapes(model, [_image((h, w), channels), *rest])

  return stem.mismatched(found, expected, shapes_for)


def _float32(x: np.ndarray) -> np.ndarray:
  """Counters of a training program keep their type; they are unused."""
  return (
    np.asarray(x, np.float32) if jnp.issubdtype(x.dtype, jnp.floating) else x
  )


def _match(name: str, patterns: Sequence[str]) -> bool:
  return any(re.fullmatch(f"(?:{p})(/.*)?", name) for p in patterns)


def _check(
  found, expected, fresh, source, layout, model, inputs, stems
) -> None:
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
    f"{family(model)} at {size}."
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
  if set(stems) & set(shape):
    hints.append(
      "adapt the kernel to the channels of the images with "
      'config.init.channels (channel_rule in Python) = "sum", "repeat" or '
      '"first"'
    )
  if any(n in POSITION_TABLES for n in shape):
    hints.append("pass resize_posemb=True")
  if start := sorted({n.partition("/")[0] for n in missing + shape}):
    hints.append(f"re-initialise with reinit={start[:4]}")
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
    flat = trees.flatten(batch_norm.join(model.init(key, *zeros)))
    return {name: flat[name] for name in names}

  key = jax.random.key(0) if key is None else key
  return jax.tree.map(np.asarray, jax.jit(init)(key))


def check_values(flat: Mapping[str, np.ndarray], source: str) -> None:
  """Warns of numbers that are too large to be trained parameters.

  Raises:
    ValueError: if an array holds NaN or infinity.
  """
  largest = {n: float(np.abs(x).max()) for n, x in flat.items() if x.size}
  broken = [n for n, x in largest.items() if not np.isfinite(x)]
  if broken:
    raise ValueError(
      f"weights {source} hold NaN or infinity in {messages.shorten(broken)}: "
      "the file is damaged, or training diverged. Download or export it "
      "again, or take an earlier step of the run."
    )
  large = [n for n, x in largest.items() if x > _LARGEST]
  if large:
    logging.warning(
      "weights %s hold numbers above %g in %s: the file may be damaged.",
      source,
      _LARGEST,
      messages.shorten(large),
    )
