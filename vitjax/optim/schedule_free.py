"""Schedule-free learning: an average of the weights replaces the decay.

The Road Less Scheduled, https://arxiv.org/abs/2405.15682. There are three
sequences of weights: z, which the base optimizer moves; x, a running average
of z, which is evaluated; and y = b1 * x + (1 - b1) * z, where gradients are
computed. The parameters of a run are x, so evals, averages, checkpoints and
exports need to know nothing of the other two: z is in the optimizer's state,
and y is computed when a gradient is. Optax's own transformation has y in place
of x; this file translates.
"""

from typing import Any

import jax
import optax
from optax.contrib import schedule_free_eval_params

from vitjax import trees
from vitjax.optim.schedules import Schedule


def wrap(
  base: optax.GradientTransformation, rate: Schedule, **options
) -> optax.GradientTransformation:
  """`optax.contrib.schedule_free`, whose parameters are the average x.

  Args:
    base: optimizer without momentum, whose updates are those of z.
    rate: its learning rate at a step.
    **options: see `optax.contrib.schedule_free`.

  Returns:
    The optimizer. Its gradients must be those at `gradient_point`.
  """
  tx = optax.contrib.schedule_free(base, rate, **options)

  def update(updates, state, params=None):
    assert params is not None
    at = gradient_point(params, state)
    updates, state = tx.update(updates, state, at)
    new = schedule_free_eval_params(state, optax.apply_updates(at, updates))
    return optax.tree.sub(new, params), state

  return optax.GradientTransformation(tx.init, update)


def gradient_point(params: Any, opt_state: Any) -> Any:
  """The weights y at which a gradient is computed.

  Args:
    params: the parameters of the run, x.
    opt_state: state of the optimizer. If it is of another one, the point is
      `params`. Frozen parameters are in no state, and are returned as they are.
  """

  def is_state(x):
    return hasattr(x, "weight_sum")  # its class has no public name

  states = [
    x for x in jax.tree.leaves(opt_state, is_leaf=is_state) if is_state(x)
  ]
  if not states:
    return params
  (state,) = states
  z = trees.flatten(state.z)

  def mix(name, x):
    return state.b1 * x + (1 - state.b1) * z[name] if name in z else x

  return trees.map_with_names(mix, params)
