"""ONNX models: made of a function of JAX, written to a file and run."""

import json
import pathlib
from collections.abc import Iterable, Mapping
from typing import Any

import jax
import numpy as np

import vitjax
from vitjax.config import extras
from vitjax.graphs import jaxprs
from vitjax.graphs.forward import Forward
from vitjax.graphs.graph import IR_VERSION, OPSET, Graph
from vitjax.models import named_norms

# A file of Protocol Buffers ends at 2 GiB; the arrays of a larger model are in
# a file beside it.
_LARGE = 1_900_000_000


def convert(forward: Forward):
  """The `onnx.ModelProto` of a function.

  A symbolic dimension of its inputs is any number in the file.

  Raises:
    NotImplementedError: if an operation has no counterpart in ONNX.
    ImportError: if the package `onnx` is not installed.
  """
  inputs = forward.inputs
  leaves = jax.tree.leaves(forward.variables)
  shapes = jax.tree.map(
    lambda x: jax.ShapeDtypeStruct(x.shape, np.float32), forward.variables
  )
  function = named_norms.with_named_norms(forward.function)
  traced = jax.make_jaxpr(function)(shapes, *inputs.values())
  graph = Graph()
  for name, x in inputs.items():
    for axis, size in enumerate(x.shape):
      if not isinstance(size, int):
        graph.dimensions.setdefault(str(size), (name, axis))
  arrays = [np.asarray(x, np.float32) for x in leaves]
  results = jaxprs.write(graph, traced.jaxpr, traced.consts, [*arrays, *inputs])
  results = [graph.cast(x, np.float32) for x in results]
  outputs = {
    name: jax.ShapeDtypeStruct(x.shape, np.float32)
    for name, x in zip(forward.outputs, traced.out_avals, strict=True)
  }
  return _model(graph, inputs, outputs, results)


def write(model, path: pathlib.Path) -> None:
  """Writes an `onnx.ModelProto`; large arrays to a file beside it."""
  with extras.needed("onnx", "ONNX files"):
    import onnx

  is_large = model.ByteSize() > _LARGE
  onnx.save_model(
    model,
    path,
    save_as_external_data=is_large,
    location=f"{path.name}.data" if is_large else None,
  )


def describe(model, facts: Mapping[str, Any]) -> None:
  """Adds facts to the metadata of a model: texts, and others as JSON."""
  with extras.needed("onnx", "ONNX files"):
    from onnx import helper

  model.producer_version = vitjax.__version__
  helper.set_model_props(
    model,
    {k: x if isinstance(x, str) else json.dumps(x) for k, x in facts.items()},
  )


class Session:
  """Runs a file in ONNX Runtime on the CPU.

  Raises:
    ValueError: if the file is not a graph that it can run.
  """

  def __init__(self, path: pathlib.Path, threads: int = 0):
    with extras.needed("onnx", "ONNX files"):
      import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    try:
      self._session = onnxruntime.InferenceSession(
        path, options, providers=["CPUExecutionProvider"]
      )
    except Exception as e:  # one class for each kind of failure
      reason = str(e).partition("\n")[0]
      raise ValueError(f"ONNX Runtime cannot run {path.name}: {reason}") from e

  def __call__(self, x: np.ndarray) -> np.ndarray:
    """The first output for one input."""
    (name,) = (i.name for i in self._session.get_inputs())
    output, *_ = self._session.run(None, {name: x})
    assert isinstance(output, np.ndarray)
    return output


def _model(graph: Graph, inputs, outputs, results):
  with extras.needed("onnx", "ONNX files"):
    from onnx import helper, numpy_helper

  def element(dtype) -> int:
    return helper.np_dtype_to_tensor_dtype(np.dtype(dtype))

  def info(name: str, x: jax.ShapeDtypeStruct):
    shape = [i if isinstance(i, int) else str(i) for i in x.shape]
    return helper.make_tensor_value_info(name, element(x.dtype), shape)

  nodes = [
    *graph.nodes,
    *(
      ("Identity", [graph.name_of(result)], name, {})
      for name, result in zip(outputs, results)
    ),
  ]
  made = []
  for op, names, name, attributes in _used(nodes, outputs):
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


def _used(nodes, outputs: Iterable[str]) -> list:
  """The nodes that the outputs depend on."""
  wanted, kept = {*outputs}, []
  for node in reversed(nodes):
    if node[2] in wanted:
      wanted.update(node[1])
      kept.append(node)
  return kept[::-1]
