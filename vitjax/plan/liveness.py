"""Memory of a step, estimated from its operations without a compiler.

An operation on single elements becomes part of the operations that read its
result, so its result is in memory only if a product, a convolution or another
large operation reads it. Then the largest sum of the arrays that are still
needed, in the order of the program, is the memory of the temporaries.
"""

import math
from collections.abc import Iterator

import jax
import numpy as np
from jax.extend import core

# Operations whose operands and results are arrays in memory. All others are
# merged into those that read their results. So are the operands of sums over
# axes, except on CPUs.
_LARGE = {
  "cond",
  "conv_general_dilated",
  "cumsum",
  "dot_general",
  "gather",
  "pallas_call",
  "ragged_dot",
  "reduce_window_max",
  "reduce_window_sum",
  "scan",
  "scatter",
  "scatter-add",
  "select_and_gather_add",
  "select_and_scatter_add",
  "sort",
  "while",
}
_SUMS = {"argmax", "argmin", "reduce_max", "reduce_min", "reduce_sum"}
# The same numbers in memory.
_VIEWS = {
  "expand_dims",
  "optimization_barrier",
  "reshape",
  "squeeze",
  "stop_gradient",
  "transpose",
}
# Parameters of operations that call a program.
_CALLS = ("jaxpr", "call_jaxpr", "fun_jaxpr")


# Compilers use more than this count. Both numbers are fitted to compiled steps
# of ViT, ConvNeXt and Mixer (docs/scale.md).
_MORE = 1.1
# Parameters in another layout, which compilers copy at the start of a step.
_COPIES = 1.0


def temporary_bytes(
  jaxpr: core.ClosedJaxpr, params_bytes: int, platform: str
) -> int:
  """Memory of the temporaries of a train step.

  Args:
    jaxpr: the step. Its inputs and outputs do not count, as outputs are taken
      to replace inputs that are donated.
    params_bytes: size of the parameters.
    platform: "cpu", "gpu" or "tpu", as devices call it.
  """
  return int(_MORE * largest_sum(jaxpr, platform) + _COPIES * params_bytes)


def largest_sum(jaxpr: core.ClosedJaxpr, platform: str) -> int:
  """The largest sum of arrays that are needed at a time."""
  # Programs that differ between platforms name the kind of GPU.
  return _peak(jaxpr.jaxpr, "cuda" if platform == "gpu" else platform)


def _peak(jaxpr: core.Jaxpr, platform: str) -> int:
  names: dict = {}
  operations = list(_flat(jaxpr, names, platform))
  # Variable -> variables in memory that it is computed from.
  sources: dict = {}
  makers: dict = {}  # variable -> name of the operation that computes it
  stored = set()
  for operation, reads, writes in operations:
    name = operation.primitive.name
    if name in _LARGE:
      stored.update(x for x in reads if x in sources)
    elif name in _SUMS and platform == "cpu":
      # A call of a library, which reads arrays in memory, and multiplies the
      # factors of a product itself.
      for x in reads:
        factors = sources[x] if makers.get(x) == "mul" else [x]
        stored.update(
          y for y in factors if makers.get(y) not in (None, "broadcast_in_dim")
        )
    for x in writes:
      sources[x], makers[x] = reads, name
    if name in _LARGE | _SUMS:
      stored.update(writes)
  outputs = {names.get(x, x) for x in jaxpr.outvars if not _is_literal(x)}

  def roots(x) -> set:
    """Arrays in memory that reading `x` reads."""
    found, todo, seen = set(), [x], set()
    while todo:
      x = todo.pop()
      if x in seen:
        continue
      seen.add(x)
      if x in stored:
        found.add(x)
      else:
        todo += sources.get(x, ())
    return found

  last: dict = {}
  inner = [0] * len(operations)
  for i, (operation, reads, writes) in enumerate(operations):
    is_real = operation.primitive.name in _LARGE | _SUMS
    if is_real or any(x in stored or x in outputs for x in writes):
      for x in reads:
        for root in roots(x):
          last[root] = i
    inner[i] = _inside(operation, platform)
  ends: dict[int, list] = {}
  for x, i in last.items():
    ends.setdefault(i, []).append(x)
  largest = now = 0
  for i, (operation, _, writes) in enumerate(operations):
    born = sum(
      _bytes(x.aval)
      for x in writes
      if x in stored and x in last and x not in outputs
    )
    freed = sum(_bytes(x.aval) for x in ends.get(i, ()) if x not in outputs)
    # Others may write their result where an operand was.
    if operation.primitive.name in _LARGE:
      largest = max(largest, now + born + inner[i])
    now += born - freed
    largest = max(largest, now)
  return largest


def _flat(jaxpr: core.Jaxpr, names: dict, platform: str) -> Iterator[tuple]:
  """(operation, variables read, variables written), with calls inlined."""

  def outer(x):
    return names.get(x, x)

  for operation in jaxpr.eqns:
    reads = [outer(x) for x in operation.invars if not _is_literal(x)]
    if operation.primitive.name in _VIEWS and len(reads) == len(
      operation.outvars
    ):
      names.update(zip(operation.outvars, reads))
      continue
    called = _called(operation, platform)
    if called is None:
      yield operation, reads, list(operation.outvars)
      continue
    inside = getattr(called, "jaxpr", called)
    # A program may be called several times, and its variables are the same.
    own: dict = {}
    given = operation.invars[len(operation.invars) - len(inside.invars) :]
    for x, value in zip(inside.invars, given):
      own[x] = None if _is_literal(value) else outer(value)
    for x in (*inside.constvars, *(y for e in inside.eqns for y in e.outvars)):
      own[x] = _Copy(x.aval)
    yield from _renamed(inside, own, platform)
    for x, result in zip(operation.outvars, inside.outvars):
      if not _is_literal(result):
        names[x] = own[result]


def _called(operation, platform: str) -> core.Jaxpr | None:
  """The program that an operation stands for, on this platform."""
  params = operation.params
  if platforms := params.get("branches_platforms"):
    return next(
      branch
      for names, branch in zip(platforms, params["branches"])
      if names is None or platform in names
    )
  if operation.primitive.name in _LARGE:
    return None
  return next((params[k] for k in _CALLS if k in params), None)


class _Copy:
  """A variable of one call of a program."""

  def __init__(self, aval):
    self.aval = aval


def _renamed(jaxpr: core.Jaxpr, own: dict, platform: str) -> Iterator[tuple]:
  for operation, reads, writes in _flat(jaxpr, own, platform):
    yield (
      operation,
      [y for x in reads if (y := own.get(x, x)) is not None],
      [own.get(x, x) for x in writes],
    )


def _inside(operation, platform: str) -> int:
  """Temporaries of one turn of a loop, or of the largest branch."""
  name, params = operation.primitive.name, operation.params
  inside = ()
  if name == "cond":
    inside = params["branches"]
  elif name == "scan":
    inside = (params["jaxpr"],)
  elif name == "while":
    inside = (params["body_jaxpr"],)
  return max((_peak(x.jaxpr, platform) for x in inside), default=0)


def _is_literal(x) -> bool:
  return isinstance(x, core.Literal)


def _bytes(aval) -> int:
  if jax.dtypes.issubdtype(aval.dtype, jax.dtypes.prng_key):
    return 0
  return math.prod(aval.shape) * np.dtype(aval.dtype).itemsize
