"""An ONNX graph that is being written: nodes, constants and shapes.

Values are NumPy arrays while they are known, and names in the graph otherwise.
The package `onnx` is imported when the graph becomes a file.
"""

import ast
import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np

OPSET = 20  # The first with Gelu.
IR_VERSION = 10  # What this opset was released with.
Value = np.ndarray | str
_DIMENSION_OPS: dict[Any, str] = {
  ast.Add: "Add",
  ast.Sub: "Sub",
  ast.Mult: "Mul",
  "floordiv": "Div",  # of sizes, which are not negative
  "mod": "Mod",
  "max": "Max",
  "min": "Min",
}


@dataclasses.dataclass
class Graph:
  """Nodes in the order of their evaluation.

  Attributes:
    nodes: (op, inputs, output, attributes) of each node.
    constants: arrays by their names in the graph.
    dimensions: (input, axis) that a symbolic dimension is read from.
  """

  nodes: list[tuple[str, list[str], str, dict[str, Any]]] = dataclasses.field(
    default_factory=list
  )
  constants: dict[str, np.ndarray] = dataclasses.field(default_factory=dict)
  dimensions: dict[str, tuple[str, int]] = dataclasses.field(
    default_factory=dict
  )
  _made: dict[Any, str] = dataclasses.field(default_factory=dict)

  def node(self, op: str, *inputs: Value, **attributes) -> str:
    """Adds a node with one output; the same node stands once."""
    names = [self.name_of(x) for x in inputs]
    key = (op, *names, repr(sorted(attributes.items())))
    if key not in self._made:
      self._made[key] = f"{op}_{len(self.nodes)}"
      self.nodes.append((op, names, self._made[key], attributes))
    return self._made[key]

  def name_of(self, value: Value) -> str:
    """The name of a value; an array becomes a constant of the graph."""
    if isinstance(value, str):
      return value
    value = np.asarray(value)
    key = (value.dtype.str, value.shape, value.tobytes())
    if value.size > 1024:  # Parameters are not compared.
      key = (id(value),)
    if key not in self._made:
      self._made[key] = f"constant_{len(self.constants)}"
      self.constants[self._made[key]] = value
    return self._made[key]

  def size(self, dimension: Any) -> Value:
    """int64 [1]: a dimension, which may be an expression such as 196*b."""
    if isinstance(dimension, int | np.integer):
      return np.array([dimension], np.int64)
    return self._evaluate(ast.parse(str(dimension), mode="eval").body)

  def _evaluate(self, node: ast.expr) -> Value:
    if isinstance(node, ast.Constant):
      return np.array([node.value], np.int64)
    if isinstance(node, ast.Name):
      name, axis = self.dimensions[node.id]
      return self.node("Shape", name, start=axis, end=axis + 1)
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
      return self.node("Neg", self._evaluate(node.operand))
    if isinstance(node, ast.BinOp) and type(node.op) in _DIMENSION_OPS:
      op, parts = _DIMENSION_OPS[type(node.op)], [node.left, node.right]
    elif (
      isinstance(node, ast.Call) and ast.unparse(node.func) in _DIMENSION_OPS
    ):
      op, parts = _DIMENSION_OPS[ast.unparse(node.func)], node.args
    else:
      raise ValueError(f"the size {ast.unparse(node)} is not supported.")
    return self.node(op, *map(self._evaluate, parts))

  def shape(self, shape: Sequence[Any]) -> Value:
    """int64 [rank]: a shape with symbolic dimensions."""
    if all(isinstance(x, int) for x in shape):
      return np.array(shape, np.int64)
    return self.node("Concat", *map(self.size, shape), axis=0)

  def reshape(self, x: Value, shape: Sequence[Any]) -> Value:
    """`x` in another shape, of which one dimension may be symbolic."""
    known = [isinstance(size, int) for size in shape]
    if isinstance(x, np.ndarray):
      return x.reshape(shape)
    if known.count(False) == 1:
      shape = [size if is_int else -1 for size, is_int in zip(shape, known)]
    return self.node("Reshape", x, self.shape(shape))

  def transpose(self, x: Value, axes: Sequence[int]) -> Value:
    """`x` with its axes in another order."""
    if list(axes) == list(range(len(axes))):
      return x
    if isinstance(x, np.ndarray):
      return np.ascontiguousarray(x.transpose(axes))
    return self.node("Transpose", x, perm=[int(i) for i in axes])

  def cast(self, x: Value, dtype: Any) -> Value:
    """`x` in another type."""
    if isinstance(x, np.ndarray):
      return x.astype(dtype)
    return self.node("Cast", x, to=np.dtype(dtype))
