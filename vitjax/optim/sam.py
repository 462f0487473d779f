"""Sharpness-aware minimisation (SAM): gradients at the worst point nearby.

SAM: Sharpness-Aware Minimization, https://arxiv.org/abs/2010.01412.
GSAM: Surrogate Gap Guided Sharpness-Aware Minimization,
https://arxiv.org/abs/2203.08065. Both cost two gradients for each step.
"""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float

Params = Mapping[str, Any]
# The loss may come with statistics: (loss, statistics).
LossAndGrads = tuple[Any, Params]


def rho_at(
  factor: float | Float[Array, ""], rho: float, rho_min: float | None
) -> float | Float[Array, ""]:
  """SAM's radius at a step: falls with the learning rate to `rho_min`.

  GSAM, sec. 4.1, for a learning rate between 0 and its peak.

  Args:
    factor: factor of the learning rate at the step, in [0, 1].
    rho: the radius at the peak.
    rho_min: the radius where the learning rate is 0. None: `rho` at every
      step.
  """
  if rho_min is None:
    return rho
  return rho_min + (rho - rho_min) * factor


def loss_and_grads(
  fn: Callable[[Params], LossAndGrads],
  params: Params,
  *,
  rho: float | Float[Array, ""],
  alpha: float = 0.0,
) -> LossAndGrads:
  """The loss at the parameters, and the gradient for the optimizer.

  Statistics that come with the loss are those of the first pass.

  SAM, eq. 2: the gradient at `params + rho * g / |g|`, with g the gradient at
  the parameters and |g| its norm over all of them. GSAM, algorithm 1: minus
  `alpha` times the part of g that is orthogonal to that gradient, so that the
  gap between the two losses shrinks too.

  Args:
    fn: params -> (loss, gradient of the whole batch). It is called twice and
      must draw the same random numbers both times.
    params: the current parameters.
    rho: norm of the perturbation; 0 gives the plain gradient.
    alpha: weight of the orthogonal part; 0 is SAM.
  """
  loss, grads = fn(params)
  scale = rho / (optax.tree.norm(grads) + 1e-12)
  worst = jax.tree.map(lambda p, g: p + scale * g, params, grads)
  _, worst_grads = fn(worst)
  if not alpha:
    return loss, worst_grads
  norm = optax.tree.norm(worst_grads) + 1e-12
  along = optax.tree.vdot(grads, worst_grads) / jnp.square(norm)
  return loss, jax.tree.map(
    lambda g, w: w - alpha * (g - along * w), grads, worst_grads
  )
