"""Builds an optax chain from the `optim` section of a config.

The chain does this to a gradient, in this order. Steps without a * are
optional. At most one of the steps "decay ..." is present: the one that
`decay_scale` names.

    clip by the global norm
    clip each unit by its norm (AGC)
    decay "gradient": + weight_decay * parameter
  * statistics of the optimizer
    LAMB: + weight_decay * parameter, times trust ratio
  * times learning rate
    decay "learning_rate": + learning_rate * weight_decay * parameter
    times multipliers and layer decay
    decay "schedule": + weight_decay * parameter
  * times schedule
  * times -1

PyTorch's AdamW and optax scale the decay by "learning_rate", big_vision and
AugReg by "schedule": weight_decay=0.1 with learning_rate=1e-3 in the former
equals weight_decay=1e-4 in the latter. "gradient" is L2 regularisation, as in
NFNet's SGD. Frozen parameters are not updated, and their gradients do not count
in the global norm. The schedule-free optimizers move z by all of this, and the
parameters follow as their average, see `optim.schedule_free`.
"""

import dataclasses
import inspect
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Annotated, Any, Literal

import jax
import jax.numpy as jnp
import optax

from vitjax import trees
from vitjax.config import kinds, messages
from vitjax.config.ranges import Count, NonNegative, Positive, Range, Rate
from vitjax.optim import agc, muon, schedule_free
from vitjax.optim.rules import DecayScale, LayerDecay, Multipliers, Rules
from vitjax.optim.schedules import Schedule

Dtype = Literal["bfloat16", "float32"]
# Share of the average in the weights at which gradients are computed.
Interpolation = Annotated[float, Range(gt=0, lt=1)]


def adam(
  b1: Rate = 0.9,
  b2: Rate = 0.999,
  eps: Positive = 1e-8,
  mu_dtype: Dtype | None = None,
) -> optax.GradientTransformation:
  """Adam, https://arxiv.org/abs/1412.6980, algorithm 1; with decay, AdamW.

  Args:
    b1: decay rate of the first moment.
    b2: decay rate of the second moment.
    eps: term added to the denominator.
    mu_dtype: type in which the first moment is stored. None: that of the
      gradients.
  """
  return optax.scale_by_adam(b1, b2, eps, mu_dtype=mu_dtype)


def sgd(
  momentum: Rate = 0.9,
  nesterov: bool = False,
  accumulator_dtype: Dtype | None = None,
) -> optax.GradientTransformation:
  """SGD with momentum: m <- momentum * m + gradient; the update is m.

  Args:
    momentum: decay rate of the sum of gradients. 0: plain SGD.
    nesterov: use Nesterov's update: gradient + momentum * m.
    accumulator_dtype: type in which the sum is stored. None: that of the
      gradients.
  """
  return optax.trace(momentum, nesterov, accumulator_dtype)


def lamb(
  b1: Rate = 0.9,
  b2: Rate = 0.999,
  eps: Positive = 1e-6,
  mu_dtype: Dtype | None = None,
) -> optax.GradientTransformation:
  """LAMB, https://arxiv.org/abs/1904.00962: Adam with a trust ratio.

  The update of each array (of each block, if blocks are stacked), weight decay
  included, is multiplied by the trust ratio |parameter| / |update|. As in
  apex's FusedLAMB, which trained DeiT III, only parameters that match
  `decay_params` have a trust ratio; here also with weight_decay=0.

  Args:
    b1: decay rate of the first moment.
    b2: decay rate of the second moment.
    eps: term added to the denominator.
    mu_dtype: type in which the first moment is stored. None: that of the
      gradients.
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
  """Adafactor as changed for Scaling Vision Transformers.

  https://arxiv.org/abs/1804.04235, with the changes of
  https://arxiv.org/abs/2106.04560, sec. 3.4: the second moment is stored as row
  and column sums, updates are not clipped, and the momentum of the scaled
  gradients is an average in half precision without bias correction.

  Args:
    momentum: decay rate of the momentum. None: no momentum.
    momentum_dtype: type in which the momentum is stored.
    decay_exponent: the decay rate of the second moment at update t is
      min(beta2_cap, 1 - t**-decay_exponent).
    beta2_cap: largest decay rate of the second moment.
    min_dim: an array is factored over its two longest axes if both have at
      least this length; other arrays store the full second moment. The axis of
      stacked blocks counts too.
    eps: term added to the squared gradients.
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


def rmsprop(
  decay: Rate = 0.9, momentum: Rate = 0.9, eps: Positive = 1e-3
) -> optax.GradientTransformation:
  """RMSProp with momentum, as TensorFlow has it.

  The mean of the squares starts at 1, and `eps` is below the square root. The
  momentum sums updates before they are multiplied by the learning rate;
  TensorFlow sums them after it, which is the same while the rate is constant.

  Args:
    decay: decay rate of the mean of the squared gradients.
    momentum: decay rate of the sum of updates.
    eps: term added to the mean of the squares.
  """
  return optax.chain(
    optax.scale_by_rms(decay, eps, initial_scale=1.0), optax.trace(momentum)
  )


def nadamw(
  b1: Rate = 0.9,
  b2: Rate = 0.999,
  eps: Positive = 1e-8,
  mu_dtype: Dtype | None = None,
) -> optax.GradientTransformation:
  """NAdamW: Adam with Nesterov's momentum, with weight decay as AdamW has it.

  Incorporating Nesterov Momentum into Adam,
  https://openreview.net/forum?id=OM0jvwB8jIp57ZJjtNEZ.

  Args:
    b1: decay rate of the first moment.
    b2: decay rate of the second moment.
    eps: term added to the denominator.
    mu_dtype: type in which the first moment is stored. None: that of the
      gradients.
  """
  return optax.scale_by_adam(b1, b2, eps, mu_dtype=mu_dtype, nesterov=True)


def lion(
  b1: Rate = 0.9, b2: Rate = 0.99, mu_dtype: Dtype | None = None
) -> optax.GradientTransformation:
  """Lion, https://arxiv.org/abs/2302.06675: the sign of a momentum.

  Its learning rate is 3 to 10 times smaller than AdamW's, and its weight decay
  larger by the same factor (sec. 5).

  Args:
    b1: weight of the momentum, beside the gradient, in the update.
    b2: decay rate of the momentum.
    mu_dtype: type in which the momentum is stored. None: that of the
      gradients.
  """
  return optax.scale_by_lion(b1, b2, mu_dtype=mu_dtype)


def muon_and_adam(
  momentum: Rate = 0.95,
  nesterov: bool = True,
  ns_steps: Count = 5,
  consistent_rms: Positive | None = 0.2,
  adam_params: Sequence[str] = (),
  b1: Rate = 0.9,
  b2: Rate = 0.999,
  eps: Positive = 1e-8,
  mu_dtype: Dtype | None = None,
) -> optax.GradientTransformation:
  """Muon for the matrices inside a model, and Adam for all other parameters.

  `optim.muon.matrix_axes` says which parameters are such matrices.

  Args:
    momentum: decay rate of Muon's momentum.
    nesterov: use Nesterov's momentum in Muon.
    ns_steps: Newton-Schulz iterations that orthogonalise the momentum.
    consistent_rms: root mean square of Muon's updates of matrices of full
      rank. 0.2 is that of Adam's updates, so that both share a learning rate
      (https://arxiv.org/abs/2502.16982). None: as first published, an
      orthogonal matrix times sqrt(max(1, outputs / inputs)), which needs
      another learning rate than Adam: see `learning_rate_multipliers`.
    adam_params: regexes of further parameters that Adam updates.
    b1: decay rate of Adam's first moment.
    b2: decay rate of Adam's second moment.
    eps: term added to Adam's denominator.
    mu_dtype: type in which the momentum and Adam's first moment are stored.
      None: that of the gradients.
  """
  return muon.make(
    optax.scale_by_adam(b1, b2, eps, mu_dtype=mu_dtype),
    adam_params,
    consistent_rms,
    beta=momentum,
    nesterov=nesterov,
    ns_steps=ns_steps,
    mu_dtype=mu_dtype,
  )


def schedule_free_adamw(
  b1: Interpolation = 0.9,
  b2: Rate = 0.999,
  eps: Positive = 1e-8,
  weight_lr_power: NonNegative = 2.0,
) -> optax.GradientTransformation:
  """Schedule-free AdamW, https://arxiv.org/abs/2405.15682.

  Needs schedule.decay="constant"; a warm-up may stay.

  Args:
    b1: share of the average in the weights at which gradients are computed;
      it replaces Adam's momentum.
    b2: decay rate of the second moment.
    eps: term added to the denominator.
    weight_lr_power: a step counts in the average by the largest learning rate
      so far to this power.
  """
  del b1, weight_lr_power  # of the average, see `make_optimizer`
  return optax.scale_by_rms(b2, eps, eps_in_sqrt=False, bias_correction=True)


def schedule_free_sgd(
  b1: Interpolation = 0.9, weight_lr_power: NonNegative = 2.0
) -> optax.GradientTransformation:
  """Schedule-free SGD, https://arxiv.org/abs/2405.15682.

  Needs schedule.decay="constant"; a warm-up may stay.

  Args:
    b1: share of the average in the weights at which gradients are computed;
      it replaces the momentum.
    weight_lr_power: a step counts in the average by the largest learning rate
      so far to this power.
  """
  del b1, weight_lr_power  # of the average, see `make_optimizer`
  return optax.identity()


# With weight decay, adam is AdamW too; decay_scale="gradient" gives Adam's L2
# regularisation.
OPTIMIZERS = {
  "adam": adam,
  "adamw": adam,
  "adafactor": adafactor,
  "lamb": lamb,
  "lion": lion,
  "momentum": sgd,
  "muon": muon_and_adam,
  "nadamw": nadamw,
  "rmsprop": rmsprop,
  "schedule_free_adamw": schedule_free_adamw,
  "schedule_free_sgd": schedule_free_sgd,
  "sgd": sgd,
}


def is_schedule_free(name: str) -> bool:
  """Whether an optimizer averages weights in place of a decay."""
  return name.startswith("schedule_free_")


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
    name: name of the optimizer, see `OPTIMIZERS`.
    schedule: function of the step that returns the factor of the learning rate.
    learning_rate: peak learning rate; the schedule multiplies it.
    model: model whose layers `layer_decay` counts; only needed for that.
    weight_decay: fraction of each decayed parameter that a step subtracts,
      before `decay_scale` scales it.
    decay_scale: factor of the weight decay: "learning_rate" (learning rate and
      schedule, as PyTorch's AdamW), "schedule" (schedule only, as big_vision)
      or "gradient" (L2 regularisation: the decay is added to the gradient).
    decay_params: parameters with weight decay, as regexes that match whole
      names.
    grad_clip_norm: clip the gradient to this global norm. None: no clipping.
    agc_clip: adaptive gradient clipping: largest norm of the gradient of a
      unit, as a fraction of the norm of its weights; see `vitjax.optim.agc`.
      None: no clipping.
    agc_exclude: regexes of parameters that AGC does not clip.
    learning_rate_multipliers: (regex, factor) pairs that scale the learning
      rate of matching parameters; the first match wins. Weight decay with
      decay_scale="schedule" is not scaled.
    layer_decay: factor of the learning rate from each layer to the one before
      it, counted from the head; see `vitjax.models.layers`. None: no such
      decay.
    freeze: regexes of parameters that are not trained. They have no optimizer
      state, and do not count in the global norm.
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
  averaging = {}
  if is_schedule_free(name):
    bound = inspect.signature(OPTIMIZERS[name]).bind(**own)
    bound.apply_defaults()
    averaging = {k: bound.arguments[k] for k in ("b1", "weight_lr_power")}

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
    if averaging:
      chain = schedule_free.wrap(
        chain, lambda step: learning_rate * schedule(step), **averaging
      )
    if not roles.frozen:
      return chain
    trained = frozenset(trees.names(params)) - roles.frozen
    return optax.chain(
      optax.masked(chain, _mask(trained)),
      optax.masked(optax.set_to_zero(), _mask(roles.frozen)),
    )

  # The rules need the names of the parameters, so each call builds the chain
  # again. All that it must remember is in its state.
  return optax.GradientTransformation(
    lambda params: chain_of(params).init(params),
    lambda updates, state, params=None: chain_of(params).update(
      updates, state, params
    ),
  )


def describe(params: Any, **section) -> list[str]:
  """Describes how many parameters are decayed, scaled, clipped and frozen.

  Args:
    params: parameters as arrays or abstract shapes.
    **section: arguments of `make_optimizer`, without the schedule.

  Returns:
    Lines for the start of a run.

  Raises:
    ValueError: as `make_optimizer` and its optimizer do.
  """
  call = inspect.signature(make_optimizer).bind(schedule=None, **section)
  call.apply_defaults()
  fields = [field.name for field in dataclasses.fields(Rules)]
  rules = Rules(**{name: call.arguments[name] for name in fields})
  lines = rules.describe(params)
  if rules.name == "muon":
    frozen = rules.roles(params).frozen
    flat = {k: x for k, x in trees.flatten(params).items() if k not in frozen}
    adam_params = call.arguments.get("own", {}).get("adam_params", ())
    lines.append(muon.describe(trees.unflatten(flat), adam_params))
  return lines


def _mask(names: Collection[str]) -> Callable[[Any], Any]:
  """A function from a tree to one of bools: whether a leaf is in `names`."""
  return lambda tree: trees.map_with_names(lambda name, _: name in names, tree)


def _scale_by_factor(
  factors: Mapping[str, Any],
) -> optax.GradientTransformation:
  """Multiplies each update by its factor; stacked blocks have one each."""

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
