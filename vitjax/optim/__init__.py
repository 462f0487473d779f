"""From the `optim` section of a config to an optax chain.

The order is: clip by global norm -> statistics of the optimizer -> times
learning rate -> plus weight decay -> times schedule -> times -1. Weight decay
is decoupled from the statistics, and `decay_scale` says what it is scaled by:

  "learning_rate"  decay * learning_rate * schedule   (PyTorch's AdamW, optax)
  "schedule"       decay * schedule                   (big_vision, AugReg)

so weight_decay=0.1 with learning_rate=1e-3 of the first convention is
weight_decay=1e-4 of the second.
"""

import functools
import inspect
from collections.abc import Sequence
from typing import Any, Literal

import optax

from vitjax import trees
from vitjax.optim.schedules import Schedule


def adam(
  b1: float = 0.9,
  b2: float = 0.999,
  eps: float = 1e-8,
  mu_dtype: str | None = None,
) -> optax.GradientTransformation:
  """Adam's statistics, https://arxiv.org/abs/1412.6980, algorithm 1."""
  return optax.scale_by_adam(b1, b2, eps, mu_dtype=mu_dtype)


def sgd(
  momentum: float = 0.9,
  nesterov: bool = False,
  accumulator_dtype: str | None = None,
) -> optax.GradientTransformation:
  """Momentum as a plain sum: m <- momentum * m + g."""
  return optax.trace(momentum, nesterov, accumulator_dtype)


OPTIMIZERS = {"adam": adam, "sgd": sgd}


def options(name: str) -> dict[str, Any]:
  """Option name -> type of everything that `make_optimizer` accepts.

  Raises:
    ValueError: if there is no such optimizer.
  """
  if name not in OPTIMIZERS:
    raise ValueError(
      f"config.optim.name={name!r} is not an optimizer. Known: "
      f"{', '.join(OPTIMIZERS)}."
    )
  common = inspect.signature(make_optimizer).parameters
  own = inspect.signature(OPTIMIZERS[name]).parameters
  hidden = ("schedule", "options")
  return {
    k: p.annotation for k, p in {**common, **own}.items() if k not in hidden
  }


def make_optimizer(
  name: str,
  *,
  schedule: Schedule,
  learning_rate: float,
  weight_decay: float = 0.0,
  decay_scale: Literal["learning_rate", "schedule"] = "learning_rate",
  decay_params: Sequence[str] = (".*/kernel",),
  grad_clip_norm: float | None = None,
  **options,
) -> optax.GradientTransformation:
  """Builds the chain that the module's docstring describes.

  Args:
    name: of the statistics, see `OPTIMIZERS`.
    schedule: factor of the learning rate at each step.
    learning_rate: the peak.
    weight_decay: fraction of each decayed parameter that is subtracted in a
      step, before it is scaled.
    decay_scale: what scales the weight decay, see above.
    decay_params: regexes of the whole names of decayed parameters.
    grad_clip_norm: largest global norm of the gradient, None for no limit.
    **options: of the optimizer called `name`.
  """
  if decay_scale == "learning_rate":
    weight_decay = weight_decay * learning_rate
  chain = []
  if grad_clip_norm is not None:
    chain.append(optax.clip_by_global_norm(grad_clip_norm))
  chain.append(OPTIMIZERS[name](**options))
  chain.append(optax.scale(learning_rate))
  if weight_decay:
    decayed = functools.partial(trees.mask, regexes=decay_params)
    chain.append(optax.add_decayed_weights(weight_decay, mask=decayed))
  chain += [optax.scale_by_schedule(schedule), optax.scale(-1.0)]
  return optax.chain(*chain)
