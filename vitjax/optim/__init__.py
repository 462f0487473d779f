"""From the `optim` section of a config to an optax chain.

The order of operations, where all but the four marked with * are optional and
"decay" is what `decay_scale` of that name adds:

    clip the gradient by its global norm
    clip it by unit (AGC)
    decay "gradient": + weight_decay * parameter
  * statistics of the optimizer
    LAMB: + weight_decay * parameter, times trust ratio
  * times learning rate
    decay "learning_rate": + learning_rate * weight_decay * parameter
    times multipliers and layer decay
    decay "schedule": + weight_decay * parameter
  * times schedule
  * times -1

"learning_rate" is the decay of PyTorch's AdamW and of optax, "schedule" that
of big_vision and AugReg: weight_decay=0.1 with learning_rate=1e-3 of the first
is weight_decay=1e-4 of the second. "gradient" is L2 regularisation, as in
NFNet's SGD. Frozen parameters take no part in any of this.
"""

import dataclasses
import inspect
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, Literal

import jax
import jax.numpy as jnp
import optax

from vitjax import trees
from vitjax.config import kinds, messages
from vitjax.config.ranges import Count, NonNegative, Positive, Rate
from vitjax.optim import agc
from vitjax.optim.rules import DecayScale, LayerDecay, Multipliers, Rules
from vitjax.optim.schedules import Schedule

Dtype = Literal["bfloat16", "float32"]


def adam(
  b1: Rate = 0.9,
  b2: Rate = 0.999,
  eps: Positive = 1e-8,
  mu_dtype: Dtype | None = None,
) -> optax.GradientTransformation:
  """Adam's statistics, https://arxiv.org/abs/1412.6980, algorithm 1."""
  return optax.scale_by_adam(b1, b2, eps, mu_dtype=mu_dtype)


def sgd(
  momentum: Rate = 0.9,
  nesterov: bool = False,
  accumulator_dtype: Dtype | None = None,
) -> optax.GradientTransformation:
  """Momentum as a plain sum: m <- momentum * m + g.

  The step is m, or g + momentum * m with `nesterov`.
  """
  return optax.trace(momentum, nesterov, accumulator_dtype)


def lamb(
  b1: Rate = 0.9,
  b2: Rate = 0.999,
  eps: Positive = 1e-6,
  mu_dtype: Dtype | None = None,
) -> optax.GradientTransformation:
  """Adam's statistics for LAMB, https://arxiv.org/abs/1904.00962.

  The chain adds the weight decay to them and multiplies each array (each
  block of stacked ones) by its trust ratio |parameter| / |update|. As in
  apex's FusedLAMB, which trained DeiT III, only what matches `decay_params`
  has a trust ratio; differs from it in that this holds for weight_decay=0 too.
  """
  return optax.scale_by_adam(b1, b2, eps, mu_dtype=mu_dtype)


def adafactor(
  momentum: Rate | None = 0.9,
  momentum_dtype: Dtype = "bfloat16",
  decay_exponent: Positive = 0.8,
  beta2_cap: Rate = 0.999,
  min_dim: Count = 32,
  eps: Positive = 1e-30,
) -> optax.GradientTransformation:
  """Factored second moments, and momentum of what they have scaled.

  Adafactor, https://arxiv.org/abs/1804.04235, as Scaling Vision Transformers,
  https://arxiv.org/abs/2106.04560, sec. 3.4 changes it: beta2 at update t is
  min(beta2_cap, 1 - t**-decay_exponent), updates are not clipped, and the
  momentum is an average in half precision without correction of its bias.
  Arrays are factored over their two longest axes if both have `min_dim`; of
  32 or more stacked blocks that can be the axis of the blocks.
  """

  def beta2(step, exponent):
    t = jnp.asarray(step, jnp.float32) + 1.0
    return jnp.minimum(beta2_cap, 1.0 - t**-exponent)

  second = optax.scale_by_factored_rms(
    decay_rate=decay_exponent,
    min_dim_size_to_factor=min_dim,
    epsilon=eps,
    decay_rate_fn=beta2,
  )
  if momentum is None:
    return second
  first = optax.ema(momentum, debias=False, accumulator_dtype=momentum_dtype)
  return optax.chain(second, first)


# With weight decay, adam is AdamW: "gradient" is the L2 regularisation of Adam.
OPTIMIZERS = {
  "adam": adam,
  "adamw": adam,
  "adafactor": adafactor,
  "lamb": lamb,
  "momentum": sgd,
  "sgd": sgd,
}


def options(name: str) -> dict[str, Any]:
  """Option name -> type and range of all that `make_optimizer` accepts.

  Raises:
    ValueError: if there is no such optimizer.
  """
  if name not in OPTIMIZERS:
    hint = messages.did_you_mean(name, OPTIMIZERS)
    raise ValueError(
      f"config.optim.name={name!r} is not an optimizer.{hint} Known: "
      f"{', '.join(OPTIMIZERS)}."
    )
  common = inspect.signature(make_optimizer).parameters
  own = inspect.signature(OPTIMIZERS[name]).parameters
  hidden = ("schedule", "model", "own")
  return {
    k: p.annotation for k, p in {**common, **own}.items() if k not in hidden
  }


def make_optimizer(
  name: str,
  *,
  schedule: Schedule,
  learning_rate: Positive,
  model: Any = None,
  weight_decay: NonNegative = 0.0,
  decay_scale: DecayScale = "learning_rate",
  decay_params: Sequence[str] = (".*/kernel",),
  grad_clip_norm: Positive | None = None,
  agc_clip: Positive | None = None,
  agc_exclude: Sequence[str] = ("(.*/)?head/kernel",),
  learning_rate_multipliers: Multipliers = (),
  layer_decay: LayerDecay | None = None,
  freeze: Sequence[str] = (),
  **own,
) -> optax.GradientTransformation:
  """Builds the chain that the module's docstring describes.

  Args:
    name: of the statistics, see `OPTIMIZERS`.
    schedule: factor of the learning rate at each step.
    learning_rate: the peak.
    model: whose layers `layer_decay` counts; only needed for that.
    weight_decay: fraction of each decayed parameter that is subtracted in a
      step, before it is scaled.
    decay_scale: what scales the weight decay, see above.
    decay_params: regexes of the whole names of decayed parameters.
    grad_clip_norm: largest global norm of the gradient, None for no limit.
    agc_clip: largest norm of the gradient of a unit as a fraction of its
      weights', see `vitjax.optim.agc`; None for no limit.
    agc_exclude: regexes of parameters that AGC leaves alone.
    learning_rate_multipliers: (regex, factor) of the learning rate of single
      parameters, the first match wins. The decay of "learning_rate" is scaled
      too, that of "schedule" is not.
    layer_decay: multiplies the learning rate once for each layer between a
      parameter and the head, see `vitjax.models.layers`.
    freeze: regexes of parameters that stay as they are. They have no state,
      and do not count in the global norm.
    **own: options of the optimizer called `name`.

  Returns:
    The optimizer. Its `update` needs the parameters.

  Raises:
    ValueError: here for a value that is not allowed; when the optimizer first
      sees the parameters, for a regex that matches none of them.
  """
  rules = Rules(
    name=name,
    learning_rate=learning_rate,
    model=model,
    weight_decay=weight_decay,
    decay_scale=decay_scale,
    decay_params=decay_params,
    grad_clip_norm=grad_clip_norm,
    agc_clip=agc_clip,
    agc_exclude=agc_exclude,
    learning_rate_multipliers=learning_rate_multipliers,
    layer_decay=layer_decay,
    freeze=freeze,
  )
  known = options(name)
  for key, value in own.items():
    if error := kinds.problem(f"config.optim.{key}", value, known[key]):
      raise ValueError(error)
  is_lamb = name == "lamb"

  def chain_of(params):
    roles = rules.roles(params)

    def decay(scale, rate):
      if weight_decay and decay_scale == scale:
        return optax.add_decayed_weights(rate, mask=_mask(roles.decayed))
      return None

    parts = (
      grad_clip_norm and optax.clip_by_global_norm(grad_clip_norm),
      agc_clip and agc.adaptive_grad_clip(agc_clip, roles.clipped),
      decay("gradient", weight_decay),
      OPTIMIZERS[name](**own),
      is_lamb and decay("learning_rate", weight_decay),
      is_lamb and _scale_by_trust_ratio(roles.decayed),
      optax.scale(learning_rate),
      not is_lamb and decay("learning_rate", weight_decay * learning_rate),
      roles.factor and _scale_by_factor(roles.factor),
      decay("schedule", weight_decay),
      optax.scale_by_schedule(schedule),
      optax.scale(-1.0),
    )
    chain = optax.chain(*(part for part in parts if part))
    if not roles.frozen:
      return chain
    trained = frozenset(trees.names(params)) - roles.frozen
    return optax.chain(
      optax.masked(chain, _mask(trained)),
      optax.masked(optax.set_to_zero(), _mask(roles.frozen)),
    )

  # Rules are about names, so the chain is built when there are parameters.
  # What it has to remember is in its state.
  return optax.GradientTransformation(
    lambda params: chain_of(params).init(params),
    lambda updates, state, params=None: chain_of(params).update(
      updates, state, params
    ),
  )


def describe(params: Any, **section) -> list[str]:
  """Says how many parameters are decayed, scaled, clipped and frozen.

  Args:
    params: arrays, or their abstract shapes.
    **section: the arguments of `make_optimizer` but for the schedule.

  Returns:
    Lines for the start of a run.

  Raises:
    ValueError: as `make_optimizer` and its optimizer do.
  """
  call = inspect.signature(make_optimizer).bind(schedule=None, **section)
  call.apply_defaults()
  fields = [field.name for field in dataclasses.fields(Rules)]
  rules = Rules(**{name: call.arguments[name] for name in fields})
  return rules.describe(params)


def _mask(names: Collection[str]) -> Callable[[Any], Any]:
  """Tree -> the same tree of whether each leaf is one of `names`."""
  return lambda tree: trees.map_with_names(lambda name, _: name in names, tree)


def _scale_by_factor(
  factors: Mapping[str, Any],
) -> optax.GradientTransformation:
  """Multiplies updates by their factor, or each row by its own."""

  def scale(name, update):
    factor = jnp.asarray(factors.get(name, 1.0), update.dtype)
    shape = factor.shape + (1,) * (update.ndim - factor.ndim)
    return update * factor.reshape(shape)

  return optax.stateless(
    lambda updates, _: trees.map_with_names(scale, updates)
  )


def _scale_by_trust_ratio(
  names: Collection[str],
) -> optax.GradientTransformation:
  """Multiplies the updates of `names` by |parameter| / |update|."""
  tx = optax.scale_by_trust_ratio()

  def scale(name, update, param):
    if name not in names:
      return update

    def by_ratio(u, p):
      return tx.update(u, tx.init(p), p)[0]

    if trees.is_stacked(name):
      by_ratio = jax.vmap(by_ratio)
    return by_ratio(update, param)

  return optax.stateless(
    lambda updates, params: trees.map_with_names(scale, updates, params)
  )
