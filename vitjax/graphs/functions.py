"""Functions that are one node in ONNX, by the names that they have in JAX.

A rule gets the graph, the jaxpr of the function, the equation that calls it and
its arguments. It returns None where it does not apply: then the primitives of
the function are written.
"""

from typing import Any

import numpy as np

from vitjax.graphs.graph import Graph, Value


def _primitives(jaxpr) -> set[str]:
  return {equation.primitive.name for equation in jaxpr.eqns}


def _gelu(graph: Graph, jaxpr, equation, x: Value) -> Value:
  kind = "tanh" if "tanh" in _primitives(jaxpr) else "none"
  return graph.node("Gelu", x, approximate=kind)


def _softmax(graph: Graph, jaxpr, equation, x: Value) -> Value:
  return graph.node("Softmax", x, axis=-1)


def _layer_norm(
  graph: Graph, jaxpr, equation, x: Value, scale: Value, bias: Value, eps: Value
) -> Value:
  """`vitjax.models.named_norms`."""
  return graph.node(
    "LayerNormalization", x, scale, bias, axis=-1, epsilon=float(eps)
  )


def _relu(graph: Graph, jaxpr, equation, x: Value) -> Value:
  return graph.node("Relu", x)


def _relu6(graph: Graph, jaxpr, equation, x: Value) -> Value:
  dtype = equation.outvars[0].aval.dtype
  return graph.node("Clip", x, np.zeros((), dtype), np.full((), 6, dtype))


def _half_attention(
  graph: Graph, jaxpr, equation, query: Value, key: Value, value: Value
) -> Value:
  """`vitjax.models.attention`: softmax in float32."""
  scores = graph.node("MatMul", query, graph.transpose(key, (0, 1, 3, 2)))
  weights = graph.node("Softmax", graph.cast(scores, np.float32), axis=-1)
  dtype = equation.outvars[0].aval.dtype
  return graph.node("MatMul", graph.cast(weights, dtype), value)


RULES: dict[str, Any] = {
  "gelu": _gelu,
  "softmax": _softmax,
  "layer_norm": _layer_norm,
  "relu": _relu,
  "relu6": _relu6,
  "half_attention": _half_attention,
}
