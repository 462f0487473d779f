"""Parses preprocessing strings such as `decode|resize(224)|value_range(-1,1)`.

The string is one Python expression of calls joined by `|`, literals only. It
is the language of big_vision's and vision_transformer's configs, and the names
that are published there mean the same here. The ops live in the `ops_*` and
`*randaug` modules; this file owns the parsing and the order of the kinds.
"""

import ast
import dataclasses
import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from vitjax.config import messages
from vitjax.data import seeds
from vitjax.data.pp import (
  kinds,
  ops_color,
  ops_crop,
  ops_general,
  ops_image,
  ops_text,
  ops_values,
  randaug,
  timm_randaug,
)
from vitjax.data.pp.kinds import Features, Op
from vitjax.data.tf import tf


def _merge(*tables: dict[str, Callable]) -> dict[str, Callable]:
  merged = {}
  for table in tables:
    if twice := merged.keys() & table.keys():
      raise ValueError(f"Ops defined twice: {sorted(twice)}.")
    merged.update(table)
  return merged


OPS = _merge(
  ops_color.OPS,
  ops_general.OPS,
  ops_image.OPS,
  ops_crop.OPS,
  ops_values.OPS,
  ops_text.OPS,
  randaug.OPS,
  timm_randaug.OPS,
)

# Random op on images -> the ops that prepare an image in its place.
_WITHOUT_CHANCE = {
  "decode_jpeg_and_inception_crop": (
    "decode(orient={orient}, max_pixels={max_pixels}, key={key!r})"
    "|resize({size}, antialias=True, key={key!r})"
  ),
  "inception_crop": "resize({size}, antialias=True, key={key!r})",
  "simple_random_crop": "resize({size}, antialias=True, key={key!r})",
  "random_crop": "central_crop({size}, key={key!r})",
  "random_shift": "",
  "flip_lr": "",
  **dict.fromkeys([*ops_color.OPS, *randaug.OPS, *timm_randaug.OPS], ""),
}


@dataclasses.dataclass(frozen=True)
class _Step:
  name: str
  position: int
  op: Callable
  keys: frozenset[str]  # Values of the arguments that name features.

  def __call__(self, features: Features) -> Features:
    """Runs the op with its own seed."""
    if "seed" not in features:
      return self.op(features)
    seed = features["seed"]
    out = self.op({**features, "seed": seeds.fold_in(seed, self.position)})
    return {**out, "seed": seed}


class Preprocess:
  """A parsed preprocessing string; make it with `build`.

  Attributes:
    spec: the string.
  """

  def __init__(self, spec: str, steps: list[_Step]):
    self.spec = spec
    self._host = [s for s in steps if not isinstance(s.op, kinds.DeviceOp)]
    self._device = [s.op for s in steps if isinstance(s.op, kinds.DeviceOp)]

  def __repr__(self) -> str:
    return f"Preprocess({self.spec!r})"

  def __call__(self, features: Features) -> Features:
    """Runs the host's ops on one example, eagerly or in a graph."""
    for step in self._host:
      if isinstance(step.op, kinds.ChunkOp):
        chunk = step({k: v[None] for k, v in features.items()})
        features = {k: v[0] for k, v in chunk.items()}
      else:
        features = step(features)
    return features

  def host(
    self,
    chunks: tf.data.Dataset,
    *,
    before: Sequence[Op],
    after: Sequence[Op],
    chunk_size: int,
    batch_size: int,
  ) -> tf.data.Dataset:
    """Maps examples through the host's ops, in parallel and in order.

    Ops that can work on whole chunks do so, for speed with small images.

    Args:
      chunks: chunks of examples, in order.
      before: functions to apply before the first op of the string: plain
        functions of one example or `AnyOp`s.
      after: functions to apply after the last op.
      chunk_size: examples per chunk, where examples are batched again.
      batch_size: examples per batch of the result.

    Returns:
      A dataset of full batches.
    """
    dataset, chunked, group = chunks, True, []

    def mapped() -> tf.data.Dataset:
      functions = tuple(group)
      group.clear()

      @tf.autograph.experimental.do_not_convert
      def run(features: Features) -> Features:
        for function in functions:
          features = function(features)
        return features

      if not functions:
        return dataset
      return dataset.map(run, tf.data.AUTOTUNE, deterministic=True)

    for function in (*before, *self._host, *after):
      op = function.op if isinstance(function, _Step) else function
      if chunked and not isinstance(op, kinds.AnyOp | kinds.ChunkOp):
        dataset, chunked = mapped().unbatch(), False
      elif not chunked and isinstance(op, kinds.ChunkOp):
        dataset, chunked = mapped().batch(chunk_size), True
      group.append(function)
    dataset = mapped()
    if chunked:
      return dataset.rebatch(batch_size, drop_remainder=True)
    return dataset.batch(batch_size, drop_remainder=True)

  def on_device(self, batch: Mapping[str, Any]) -> Mapping[str, Any]:
    """Normalises the images of a batch; jit-able, also fine on NumPy arrays.

    Args:
      batch: arrays with a leading batch axis; uint8 images in 0..255.

    Returns:
      The batch with float32 images, or as it was if the string has no
      `value_range` or other normalising op.
    """
    for op in self._device:
      batch = op(batch)
    return batch

  @property
  def tokenize(self) -> ops_text.TokenizeOp | None:
    """The op that makes token ids, if any."""
    ops = (s.op for s in self._host)
    return next((x for x in ops if isinstance(x, ops_text.TokenizeOp)), None)

  @property
  def pixel_statistics(self) -> dict[str, dict[str, list[float]]]:
    """`{"image": {"mean": [...], "std": [...]}}` of 0..255, or `{}`.

    The network sees `(pixel - mean) / std`. Goes to JSON next to weights.
    """
    return {
      op.key: {"mean": list(op.mean), "std": list(op.std)}
      for op in self._device
    }


def build(pp: str, *, class_names: Sequence[str] | None = None) -> Preprocess:
  """Parses a preprocessing string.

  Args:
    pp: such as `"decode|resize(224)|value_range(-1,1)"`; may be empty.
    class_names: names of the data set's classes, for ops that have such an
      argument and do not get it in the string.

  Returns:
    The preprocessing.

  Raises:
    ValueError: if the string is not such an expression, an op is unknown or
      gets wrong arguments, or an image op follows a normalising op. The
      message shows the place.
  """
  text = pp.replace("\n", " ").strip()
  if not text:
    return Preprocess(pp, [])
  steps = []
  for position, node in enumerate(_split(_parse(text))):
    steps.append(_step(text, position, node, class_names))
    *before, step = steps
    if not isinstance(step.op, kinds.DeviceOp) and any(
      s.name == "naflex" and s.keys & step.keys for s in before
    ):
      raise _error(
        text,
        node.col_offset,
        "this op changes an image that naflex has cut into patches. Put it "
        "before naflex",
      )
    done = [s.op for s in before if isinstance(s.op, kinds.DeviceOp)]
    for device in done:
      if device.key in step.keys:
        raise _error(
          text,
          node.col_offset,
          f"this op changes {device.key!r} after it was normalised. "
          "value_range, normalize and vgg_value_range run on the accelerator, "
          "so they must come after every other op on the image, and only once",
        )
  return Preprocess(pp, steps)


def for_images(pp: str) -> str:
  """A preprocessing string without the ops that only texts need.

  Raises:
    ValueError: if the string is not such an expression.
  """
  text = pp.replace("\n", " ").strip()
  if not text:
    return ""
  nodes = _split(_parse(text))
  names = [ast.unparse(getattr(node, "func", node)) for node in nodes]
  return "|".join(
    ast.unparse(node)
    for node, name in zip(nodes, names)
    if name not in ops_text.OPS
  )


def without_chance(pp: str) -> str:
  """A preprocessing string of training, for images that are not to be varied.

  Random crops become a resize of the whole image, or the crop of its centre;
  other random changes are left out.

  Raises:
    ValueError: as `build` does.
  """
  text = pp.replace("\n", " ").strip()
  if not text:
    return ""
  found = []
  for node in _split(_parse(text)):
    name, bound = _bind(text, node, None)
    given = _WITHOUT_CHANCE.get(name)
    found.append(
      ast.unparse(node) if given is None else given.format(**bound.arguments)
    )
  return "|".join(filter(None, found))


def with_vocab(pp: str, vocab: str) -> str:
  """A preprocessing string whose tokenizer reads the file `vocab`.

  Raises:
    ValueError: if the string is not such an expression.
  """
  text = pp.replace("\n", " ").strip()
  if "tokenize" not in text:
    return pp
  nodes = _split(_parse(text))
  for node in nodes:
    if isinstance(node, ast.Call) and ast.unparse(node.func) == "tokenize":
      path = ast.Constant(vocab)
      node.args[1:2] = [path] * bool(node.args[1:])
      for keyword in node.keywords:
        if keyword.arg == "vocab":
          keyword.value = path
  return "|".join(map(ast.unparse, nodes))


def _parse(text: str) -> ast.expr:
  try:
    return ast.parse(text, mode="eval").body
  except SyntaxError as error:
    raise _error(text, (error.offset or 1) - 1, "not an expression") from None


def _split(node: ast.expr) -> list[ast.expr]:
  if isinstance(node, ast.BinOp) and isinstance(node.op, ast.BitOr):
    return [*_split(node.left), *_split(node.right)]
  return [node]


def calls(pp: str) -> list[tuple[str, dict[str, Any]]]:
  """The name and the arguments of each op, defaults included.

  Raises:
    ValueError: as `build` does.
  """
  text = pp.replace("\n", " ").strip()
  if not text:
    return []
  bound = [_bind(text, node, None) for node in _split(_parse(text))]
  return [(name, x.arguments) for name, x in bound]


def _bind(
  text: str, node: ast.expr, class_names: Sequence[str] | None
) -> tuple[str, inspect.BoundArguments]:
  """The name of an op, and its literal arguments with the defaults."""
  column = node.col_offset
  call = node if isinstance(node, ast.Call) else None
  name = call.func if call else node
  if not isinstance(name, ast.Name):
    raise _error(text, column, "expected an op such as 'resize(224)'")
  if name.id not in OPS:
    hint = messages.did_you_mean(name.id, OPS)
    known = ", ".join(sorted(OPS))
    raise _error(text, column, f"unknown op {name.id!r}.{hint} Known: {known}")

  args = [_literal(text, arg) for arg in call.args] if call else []
  kwargs = {}
  for keyword in call.keywords if call else []:
    if keyword.arg is None:
      raise _error(text, column, "'**' is not allowed")
    kwargs[keyword.arg] = _literal(text, keyword.value)
  signature = inspect.signature(OPS[name.id])
  if "class_names" in signature.parameters:
    kwargs.setdefault("class_names", class_names)
  try:
    bound = signature.bind(*args, **kwargs)
  except TypeError as error:
    raise _wrong_arguments(text, column, name.id, error) from None
  bound.apply_defaults()
  return name.id, bound


def _step(
  text: str,
  position: int,
  node: ast.expr,
  class_names: Sequence[str] | None,
) -> _Step:
  """Calls the factory of an op."""
  name, bound = _bind(text, node, class_names)
  try:
    op = OPS[name](*bound.args, **bound.kwargs)
  except (TypeError, ValueError) as error:
    raise _wrong_arguments(text, node.col_offset, name, error) from None
  keys = [
    value
    for key, value in bound.arguments.items()
    if key in ("key", "key_result", "inkey", "outkey") and value
  ]
  return _Step(name, position, op, frozenset(keys))


def _wrong_arguments(
  text: str, column: int, name: str, error: Exception
) -> ValueError:
  signature = inspect.signature(OPS[name])
  public = signature.replace(
    parameters=[
      p.replace(annotation=p.empty) for p in signature.parameters.values()
    ],
    return_annotation=signature.empty,
  )
  return _error(text, column, f"{error}. The op is {name}{public}")


def _literal(text: str, node: ast.expr) -> Any:
  try:
    return ast.literal_eval(node)
  except (ValueError, TypeError, SyntaxError):
    raise _error(
      text,
      node.col_offset,
      "arguments must be literals (numbers, strings, tuples, None, True)",
    ) from None


def _error(text: str, byte_column: int, message: str) -> ValueError:
  # ast counts bytes of UTF-8, people count characters.
  column = len(text.encode()[:byte_column].decode(errors="ignore"))
  return ValueError(
    f"Preprocessing string, column {column + 1}: {message}.\n"
    f"  {text}\n  {' ' * column}^"
  )
