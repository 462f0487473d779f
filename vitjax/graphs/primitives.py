"""The primitives of JAX in nodes of ONNX.

A rule gets the graph, the equation and its arguments, which are arrays where
they are known. ONNX keeps channels ahead of rows and columns; runtimes remove
the transpositions between two such nodes.
"""

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from vitjax.graphs.graph import Graph, Value


def _shape(equation) -> tuple[Any, ...]:
  return equation.outvars[0].aval.shape


def _dtype(equation) -> np.dtype:
  return equation.outvars[0].aval.dtype


def _op(name: str) -> Callable:
  return lambda graph, equation, *x: graph.node(name, *x)


def _same(graph: Graph, equation, x: Value) -> Value:
  return x


def _not_equal(graph: Graph, equation, x: Value, y: Value) -> Value:
  return graph.node("Not", graph.node("Equal", x, y))


def _rsqrt(graph: Graph, equation, x: Value) -> Value:
  return graph.node("Reciprocal", graph.node("Sqrt", x))


def _erfc(graph: Graph, equation, x: Value) -> Value:
  return graph.node("Sub", np.ones((), _dtype(equation)), graph.node("Erf", x))


def _square(graph: Graph, equation, x: Value) -> Value:
  return graph.node("Mul", x, x)


def _integer_pow(graph: Graph, equation, x: Value) -> Value:
  power = equation.params["y"]
  if power == 2:
    return graph.node("Mul", x, x)
  return graph.node("Pow", x, np.array(power, _dtype(equation)))


def _clamp(graph: Graph, equation, low: Value, x: Value, high: Value) -> Value:
  return graph.node("Min", graph.node("Max", x, low), high)


def _select(graph: Graph, equation, which: Value, *cases: Value) -> Value:
  if len(cases) != 2:
    raise NotImplementedError("a choice between more than two arrays")
  return graph.node("Where", which, cases[1], cases[0])


def _convert(graph: Graph, equation, x: Value) -> Value:
  if equation.invars[0].aval.dtype == _dtype(equation):
    return x
  return graph.cast(x, _dtype(equation))


def _round(graph: Graph, equation, x: Value) -> Value:
  if int(equation.params["rounding_method"]) != 1:
    raise NotImplementedError("rounding of halves away from zero")
  return graph.node("Round", x)


def _rem(graph: Graph, equation, x: Value, y: Value) -> Value:
  return graph.node("Mod", x, y, fmod=1)


def _reshape(graph: Graph, equation, x: Value, *_: Value) -> Value:
  return graph.reshape(x, _shape(equation))


def _broadcast(graph: Graph, equation, x: Value, *_: Value) -> Value:
  shape, axes = _shape(equation), equation.params["broadcast_dimensions"]
  sizes = equation.invars[0].aval.shape
  with_ones = [1] * len(shape)
  for axis, size in zip(axes, sizes):
    with_ones[axis] = size
  x = graph.reshape(x, with_ones)
  if tuple(with_ones) == tuple(shape):
    return x
  return graph.node("Expand", x, graph.shape(shape))


def _transpose(graph: Graph, equation, x: Value) -> Value:
  return graph.transpose(x, equation.params["permutation"])


def _product(shape) -> Any:
  return math.prod(shape)


def _dot(graph: Graph, equation, x: Value, y: Value) -> Value:
  """A product of matrices, after the axes stand in its order."""
  (x_sums, y_sums), (x_batch, y_batch) = equation.params["dimension_numbers"]
  x_shape, y_shape = (v.aval.shape for v in equation.invars)

  def rest(shape, *taken):
    return [i for i in range(len(shape)) if i not in {*sum(taken, ())}]

  x_free = rest(x_shape, tuple(x_sums), tuple(x_batch))
  y_free = rest(y_shape, tuple(y_sums), tuple(y_batch))
  batch = [x_shape[i] for i in x_batch]
  summed = _product([x_shape[i] for i in x_sums])
  rows = [x_shape[i] for i in x_free]
  columns = [y_shape[i] for i in y_free]
  x = graph.transpose(x, [*x_batch, *x_free, *x_sums])
  y = graph.transpose(y, [*y_batch, *y_sums, *y_free])
  if batch or not rows or len(x_sums) != 1:
    rows = [_product(rows)]
    x = graph.reshape(x, [*batch, *rows, summed])
  if len(columns) != 1 or len(y_sums) != 1:
    columns = [_product(columns)]
    y = graph.reshape(y, [*batch, summed, *columns])
  out = graph.node("MatMul", x, y)
  if equation.invars[0].aval.dtype != _dtype(equation):
    out = graph.cast(out, _dtype(equation))
  if [*batch, *rows, *columns] != list(_shape(equation)):
    out = graph.reshape(out, _shape(equation))
  return out


def _inverse(axes) -> list[int]:
  return [int(i) for i in np.argsort(axes)]


def _conv(graph: Graph, equation, x: Value, kernel: Value) -> Value:
  params = equation.params
  if {*params["lhs_dilation"]} != {1} or params["batch_group_count"] != 1:
    raise NotImplementedError("a transposed convolution")
  numbers = params["dimension_numbers"]
  starts, ends = zip(*params["padding"])
  x = graph.node(
    "Conv",
    graph.transpose(x, numbers.lhs_spec),
    graph.transpose(kernel, numbers.rhs_spec),
    strides=list(params["window_strides"]),
    pads=[*starts, *ends],
    dilations=list(params["rhs_dilation"]),
    group=params["feature_group_count"],
  )
  return graph.transpose(x, _inverse(numbers.out_spec))


def _reduce(name: str) -> Callable:
  def rule(graph: Graph, equation, x: Value) -> Value:
    axes = np.array(equation.params["axes"], np.int64)
    return graph.node(name, x, axes, keepdims=0)

  return rule


def _argmax(graph: Graph, equation, x: Value) -> Value:
  (axis,) = equation.params["axes"]
  return graph.cast(
    graph.node("ArgMax", x, axis=axis, keepdims=0), _dtype(equation)
  )


def _pool(name: str, **attributes) -> Callable:
  """A window that moves over the rows and columns of (b, h, w, c)."""

  def rule(graph: Graph, equation, x: Value) -> Value:
    params = equation.params
    window, strides = params["window_dimensions"], params["window_strides"]
    starts, ends = zip(*params["padding"])
    if len(window) != 4 or window[0] != 1 or window[3] != 1:
      raise NotImplementedError(f"a window of {window}")
    out = graph.node(
      name,
      graph.transpose(x, (0, 3, 1, 2)),
      kernel_shape=list(window[1:3]),
      strides=list(strides[1:3]),
      pads=[*starts[1:3], *ends[1:3]],
      **attributes,
    )
    out = graph.transpose(out, (0, 2, 3, 1))
    if name == "AveragePool":
      count = np.array(window[1] * window[2], _dtype(equation))
      out = graph.node("Mul", out, count)
    return out

  return rule


def _pad(graph: Graph, equation, x: Value, value: Value) -> Value:
  low, high, between = zip(*equation.params["padding_config"])
  if any(between):
    raise NotImplementedError("padding between elements")
  if not any(low) and not any(high):
    return x
  return graph.node("Pad", x, np.array([*low, *high], np.int64), value)


def _concatenate(graph: Graph, equation, *x: Value) -> Value:
  return graph.node("Concat", *x, axis=equation.params["dimension"])


def _stack(graph: Graph, equation, *x: Value) -> Value:
  shape, axis = list(_shape(equation)), equation.params["axis"]
  shape[axis] = 1
  return graph.node("Concat", *(graph.reshape(y, shape) for y in x), axis=axis)


def _slice(graph: Graph, equation, x: Value) -> Value:
  params, shape = equation.params, equation.invars[0].aval.shape
  starts, ends = params["start_indices"], params["limit_indices"]
  steps = params["strides"] or (1,) * len(shape)
  changed = [
    i
    for i, size in enumerate(shape)
    if starts[i] != 0 or ends[i] != size or steps[i] != 1
  ]
  return graph.node(
    "Slice",
    x,
    graph.shape([starts[i] for i in changed]),
    graph.shape([ends[i] for i in changed]),
    np.array(changed, np.int64),
    np.array([steps[i] for i in changed], np.int64),
  )


def _split(graph: Graph, equation, x: Value) -> tuple[Value, ...]:
  axis, found, start = equation.params["axis"], [], 0
  for size in equation.params["sizes"]:
    bounds = [np.array([i], np.int64) for i in (start, start + size, axis)]
    found.append(graph.node("Slice", x, *bounds))
    start += size
  return tuple(found)


def _dynamic_slice(graph: Graph, equation, x: Value, *starts: Value) -> Value:
  sizes, shape = equation.params["slice_sizes"], equation.invars[0].aval.shape
  for axis, (start, size) in enumerate(zip(starts, sizes)):
    if size == shape[axis]:
      continue
    first = graph.reshape(graph.cast(start, np.int64), (1,))
    last = graph.node("Add", first, np.array([size], np.int64))
    x = graph.node("Slice", x, first, last, np.array([axis], np.int64))
  return x


def _gather(graph: Graph, equation, x: Value, indices: Value) -> Value:
  """One slice, or rows along one axis: the forms that models have.

  Of a batch, each example may have rows of its own, along the second axis.
  """
  numbers = equation.params["dimension_numbers"]
  sizes, shape = equation.params["slice_sizes"], equation.invars[0].aval.shape
  axes = numbers.start_index_map
  places = equation.invars[1].aval.shape[:-1]
  if not places and isinstance(indices, np.ndarray):
    starts = [int(i) for i in indices]
    ends = [i + sizes[axis] for i, axis in zip(starts, axes)]
    bounds = [np.array(i, np.int64) for i in (starts, ends, axes)]
    return graph.reshape(graph.node("Slice", x, *bounds), _shape(equation))
  batch = numbers.operand_batching_dims
  whole = (i for i in range(len(shape)) if i not in (*axes, *batch))
  if (
    len(axes) != 1
    or numbers.collapsed_slice_dims != axes
    or any(sizes[i] != shape[i] for i in whole)
  ):
    raise NotImplementedError("a gather along more than one axis")
  (axis,) = axes
  last = np.array(shape[axis] - 1, equation.invars[1].aval.dtype)
  offset = list(numbers.offset_dims)
  new = [i for i in range(len(_shape(equation))) if i not in offset]
  if batch:
    if (batch, numbers.start_indices_batching_dims, axis) != ((0,), (0,), 1):
      raise NotImplementedError("a gather of a batch along another axis")
    indices = graph.node("Clip", indices, np.zeros_like(last), last)
    indices = graph.cast(indices, np.int64)
    out = graph.node("GatherND", x, indices, batch_dims=1)
    return graph.transpose(out, _inverse([*new, *offset]))
  indices = graph.reshape(indices, places)
  indices = graph.node("Clip", indices, np.zeros_like(last), last)
  out = graph.node("Gather", x, indices, axis=axis)
  # ONNX puts the axes of the indices where the axis was.
  return graph.transpose(out, _inverse([*offset[:axis], *new, *offset[axis:]]))


def _iota(graph: Graph, equation, *_: Value) -> Value:
  shape, axis = _shape(equation), equation.params["dimension"]
  size = graph.reshape(graph.size(shape[axis]), ())
  zero, one = np.array(0, np.int64), np.array(1, np.int64)
  x = graph.cast(graph.node("Range", zero, size, one), _dtype(equation))
  ones = [size if i == axis else 1 for i, size in enumerate(shape)]
  x = graph.reshape(x, ones)
  return (
    x if ones == list(shape) else graph.node("Expand", x, graph.shape(shape))
  )


def _dimension(graph: Graph, equation) -> Value:
  size = graph.reshape(graph.size(equation.params["dim"]), ())
  return graph.cast(size, _dtype(equation))


RULES: dict[str, Callable] = {
  **{
    name: _op(op)
    for name, op in {
      "abs": "Abs",
      "add": "Add",
      "add_any": "Add",
      "and": "And",
      "ceil": "Ceil",
      "cos": "Cos",
      "div": "Div",
      "eq": "Equal",
      "erf": "Erf",
      "exp": "Exp",
      "floor": "Floor",
      "ge": "GreaterOrEqual",
      "gt": "Greater",
      "le": "LessOrEqual",
      "log": "Log",
      "logistic": "Sigmoid",
      "lt": "Less",
      "max": "Max",
      "min": "Min",
      "mul": "Mul",
      "neg": "Neg",
      "not": "Not",
      "or": "Or",
      "pow": "Pow",
      "sign": "Sign",
      "sin": "Sin",
      "sqrt": "Sqrt",
      "sub": "Sub",
      "tanh": "Tanh",
    }.items()
  },
  "argmax": _argmax,
  "broadcast_in_dim": _broadcast,
  "clamp": _clamp,
  "concatenate": _concatenate,
  "conv_general_dilated": _conv,
  "convert_element_type": _convert,
  "copy": _same,
  "copy_p": _same,
  "dim_as_value": _dimension,
  "dot_general": _dot,
  "dynamic_slice": _dynamic_slice,
  "erfc": _erfc,
  "expand_dims": _reshape,
  "gather": _gather,
  "integer_pow": _integer_pow,
  "iota": _iota,
  "ne": _not_equal,
  "optimization_barrier": lambda graph, equation, *x: tuple(x),
  "pad": _pad,
  "reduce_max": _reduce("ReduceMax"),
  "reduce_min": _reduce("ReduceMin"),
  "reduce_sum": _reduce("ReduceSum"),
  "reduce_window_max": _pool("MaxPool"),
  "reduce_window_sum": _pool("AveragePool", count_include_pad=1),
  "rem": _rem,
  "reshape": _reshape,
  "round": _round,
  "rsqrt": _rsqrt,
  "select_n": _select,
  "slice": _slice,
  "split": _split,
  "square": _square,
  "squeeze": _reshape,
  "stack": _stack,
  "stop_gradient": _same,
  "transpose": _transpose,
}
