"""Writes what JAX traced into an ONNX graph.

Each primitive has a rule in `primitives`. Functions whose whole is a node of
ONNX, such as GELU and softmax, are recognised by their names and have a rule in
`functions`; without one, their own primitives are written. What depends on
constants alone is computed here.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jax.extend.core import ClosedJaxpr

from vitjax.graphs import functions, primitives
from vitjax.graphs.graph import Graph, Value

# A constant may grow by broadcasting up to this number of elements.
_SMALL = 1 << 16


def write(
  graph: Graph, jaxpr, constants: Sequence[Any], inputs: Sequence[Value]
) -> list[Value]:
  """Adds the nodes of a jaxpr; returns its outputs.

  Raises:
    NotImplementedError: for a primitive or a form of it without a rule.
  """
  values: dict[Any, Value] = dict(
    zip(jaxpr.constvars, map(np.asarray, constants))
  )
  values.update(zip(jaxpr.invars, inputs))

  def read(atom) -> Value:
    if hasattr(atom, "val"):  # a literal
      return np.asarray(atom.val, atom.aval.dtype)
    return values[atom]

  for equation in jaxpr.eqns:
    arguments = [read(x) for x in equation.invars]
    outputs = _write(graph, equation, arguments)
    values.update(zip(equation.outvars, outputs))
  return [read(x) for x in jaxpr.outvars]


def _write(graph: Graph, equation, arguments: list[Value]) -> list[Value]:
  name, params = equation.primitive.name, equation.params
  inner = _inner(params)
  if inner is not None and name != "scan":
    rule = functions.RULES.get(inner.jaxpr.debug_info.func_name)
    if rule and (out := rule(graph, inner.jaxpr, equation, *arguments)):
      return [out]
    return write(graph, inner.jaxpr, inner.consts, arguments)
  if name == "scan":
    return _scan(graph, params, arguments)
  if name == "platform_index":
    return [np.zeros((), np.int32)]  # unused, see below
  if name == "cond" and params.get("branches_platforms"):
    # Forms for some platforms; the last one is for all others.
    other = params["branches"][-1]
    return write(graph, other.jaxpr, other.consts, arguments[1:])
  if _is_foldable(equation, arguments):
    return _computed(equation, arguments)
  if name not in primitives.RULES:
    raise NotImplementedError(f"the operation {name} has no counterpart")
  out = primitives.RULES[name](graph, equation, *arguments)
  return list(out) if isinstance(out, tuple) else [out]


def _inner(params: Mapping[str, Any]):
  """The closed jaxpr of a call, or None."""
  for key in ("jaxpr", "call_jaxpr"):
    if (found := params.get(key)) is not None:
      is_closed = hasattr(found, "jaxpr")
      return found if is_closed else ClosedJaxpr(found, ())
  return None


def _is_foldable(equation, arguments: Sequence[Any]) -> bool:
  if any(isinstance(x, str) for x in arguments):
    return False
  sizes = [*(v.aval.shape for v in equation.outvars)]
  if not all(isinstance(i, int) for shape in sizes for i in shape):
    return False
  if equation.primitive.name == "dim_as_value":
    return False
  most = max([_SMALL, *(2 * x.size for x in arguments)])
  return sum(int(np.prod(shape)) for shape in sizes) <= most


def _computed(equation, arguments: Sequence[Any]) -> list[Value]:
  out = equation.primitive.bind(*arguments, **equation.params)
  out = out if equation.primitive.multiple_results else [out]
  return [np.asarray(x) for x in out]


def _scan(graph: Graph, params, arguments: list[Value]) -> list[Value]:
  """The steps of a loop, one after the other."""
  num_consts, num_carry = params["num_consts"], params["num_carry"]
  body = params["jaxpr"]
  kept, carry = arguments[:num_consts], arguments[num_consts:][:num_carry]
  stacked = arguments[num_consts + num_carry :]
  if any(isinstance(x, str) for x in stacked):
    raise NotImplementedError("a loop over computed values is not supported")
  steps = range(params["length"])
  results = []
  for i in reversed(steps) if params["reverse"] else steps:
    rows = [x[i] for x in stacked]
    out = write(graph, body.jaxpr, body.consts, [*kept, *carry, *rows])
    carry = out[:num_carry]
    results.append(out[num_carry:])
  shapes = [v.aval.shape for v in body.jaxpr.outvars[num_carry:]]
  joined = [
    graph.node("Concat", *(graph.reshape(x, (1, *shape)) for x in rows), axis=0)
    for shape, rows in zip(shapes, zip(*results))
  ]
  return [*carry, *joined]
