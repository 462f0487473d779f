"""ONNX models: from a function of JAX to a file."""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np

from vitjax.config import extras
from vitjax.graphs import jaxprs
from vitjax.graphs.graph import IR_VERSION, OPSET, Graph


def convert(
  function: Callable,
  constants: Any,
  inputs: Mapping[str, jax.ShapeDtypeStruct],
  output: str,
):
  """The ONNX model of `function(constants, *inputs)`, which has one output.

  Args:
    function: function of JAX.
    constants: tree of arrays that the file holds: the parameters.
    inputs: shape and type of each input by its name. A symbolic dimension of
      `jax.export.symbolic_shape` is any number; its name is in the file.
    output: name of the output.

  Returns:
    An `onnx.ModelProto`.

  Raises:
    NotImplementedError: if an operation has no counterpart in ONNX.
    ImportError: if the package `onnx` is not installed.
  """
  traced = jax.make_jaxpr(function)(
    jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), constants),
    *inputs.values(),
  )
  graph = Graph()
  for name, x in inputs.items():
    for axis, size in enumerate(x.shape):
      if not isinstance(size, int):
        graph.dimensions.setdefault(str(size), (name, axis))
  arrays = [np.asarray(x) for x in jax.tree.leaves(constants)]
  (result,) = jaxprs.write(
    graph, traced.jaxpr, traced.consts, [*arrays, *inputs]
  )
  out = jax.ShapeDtypeStruct(traced.out_avals[0].shape, np.float32)
  result = graph.cast(result, np.float32)
  return _model(graph, inputs, {output: out}, result)


def _model(graph: Graph, inputs, outputs, result):
  with extras.needed("onnx", "ONNX files"):
    import onnx
    from onnx import helper, numpy_helper

  def element(dtype) -> int:
    return helper.np_dtype_to_tensor_dtype(np.dtype(dtype))

  def info(name: str, x: jax.ShapeDtypeStruct):
    shape = [i if isinstance(i, int) else str(i) for i in x.shape]
    return helper.make_tensor_value_info(name, element(x.dtype), shape)

  (output,) = outputs
  nodes = [*graph.nodes, ("Identity", [graph.name_of(result)], output, {})]
  made = []
  for op, names, name, attributes in _used(nodes, output):
    if "to" in attributes:
      attributes = {"to": element(attributes["to"])}
    made.append(helper.make_node(op, names, [name], name=name, **attributes))
  read = {name for node in made for name in node.input}
  content = helper.make_graph(
    made,
    "vitjax",
    [info(name, x) for name, x in inputs.items()],
    [info(name, x) for name, x in outputs.items()],
    [
      numpy_helper.from_array(np.ascontiguousarray(x).reshape(x.shape), name)
      for name, x in graph.constants.items()
      if name in read
    ],
  )
  return helper.make_model(
    content,
    opset_imports=[helper.make_opsetid("", OPSET)],
    ir_version=IR_VERSION,
    producer_name="vitjax",
  )


def _used(nodes, output: str) -> list:
  """The nodes that the output depends on."""
  wanted, kept = {output}, []
  for node in reversed(nodes):
    if node[2] in wanted:
      wanted.update(node[1])
      kept.append(node)
  return kept[::-1]
