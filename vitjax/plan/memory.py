"""Memory of a train step by the shapes of its arrays."""

import collections
import math
from typing import Any

import jax
import numpy as np

from vitjax import program
from vitjax.parallel import sharding


def activation_bytes(parts: program.Program) -> int:
  """Activations that one device keeps for the backward pass, by shapes.

  Arrays that the compiler would recompute or keep in another type count as JAX
  has them. If heads and hidden units are split over `model`, all activations
  count as split.
  """
  run, mesh = parts.run, parts.mesh
  rows = run.input.batch_size // run.accumulation_steps
  rows = max(1, rows // sharding.batch_parts(mesh))
  batch = {
    name: jax.ShapeDtypeStruct((rows, *x.shape[1:]), x.dtype)
    for name, x in parts.spec.items()
  }
  key = jax.eval_shape(jax.random.key, 0)
  prepared = jax.eval_shape(parts.objective.prepare, batch, key)
  if parts.objective.teach is not None:
    teacher = parts.abstract.teacher
    taught = jax.eval_shape(parts.objective.teach, teacher, prepared)
    prepared = {**prepared, **taught}

  def residuals(params, statistics, batch, key):
    def loss(params):
      variables = {"params": params, **statistics}
      return parts.objective.loss(variables, batch, key)

    _, vjp, _ = jax.vjp(loss, params, has_aux=True)
    return jax.tree.leaves(vjp)

  one = mesh.abstract_mesh.update(axis_sizes=(1,) * len(sharding.AXES))
  with jax.sharding.use_abstract_mesh(one):
    kept = jax.eval_shape(
      residuals,
      parts.abstract.trained,
      parts.abstract.statistics,
      prepared,
      key,
    )
  # Parameters are in memory anyway, also as the matrices of a product.
  free = collections.Counter()
  for x in jax.tree.leaves(parts.abstract.trained):
    matrices = (
      (*x.shape[:i], x.shape[i] * x.shape[i + 1], *x.shape[i + 2 :])
      for i in range(x.ndim - 1)
    )
    free.update((shape, x.dtype) for shape in {x.shape, *matrices})
  total = 0
  for x in kept:
    if free[x.shape, x.dtype] > 0:
      free[x.shape, x.dtype] -= 1
    elif jax.dtypes.issubdtype(x.dtype, np.number):
      total += num_bytes(x)
  return total // mesh.shape["model"]


def num_bytes(tree: Any) -> int:
  """Bytes of a tree of (abstract) arrays."""
  return sum(
    math.prod(x.shape) * np.dtype(x.dtype).itemsize
    for x in jax.tree.leaves(tree)
  )


def size(n: float) -> str:
  """Bytes with a unit, such as 3.250 GiB."""
  for unit in ("B", "KiB", "MiB"):
    if n < 1024:
      return f"{n:.4g} {unit}"
    n /= 1024
  return f"{n:.3f} GiB"
