"""Learning-rate schedules: a factor in [0, 1] as a function of the step.

The same factor multiplies the learning rate and the weight decay.
"""

from collections.abc import Callable

import jax.numpy as jnp
from jax.typing import ArrayLike

Schedule = Callable[[ArrayLike], ArrayLike]


def make_schedule(
  decay: str,
  *,
  total_steps: int,
  warmup_steps: int = 0,
  end_value: float = 0.0,
  timescale_steps: int = 10_000,
  cooldown_steps: int = 0,
) -> Schedule:
  """Linear warm-up from 0, a decay, and an optional linear cool-down.

  Args:
    decay: "constant", "cosine" (to `end_value`), "linear" (to `end_value`),
      "exponential" or "rsqrt" (Scaling Vision Transformers,
      https://arxiv.org/abs/2106.04560, sec. 3.5).
    total_steps: step at which "cosine" and "linear" end.
    warmup_steps: length of the warm-up, in which the factor is
      step / warmup_steps; step 0 therefore changes nothing, as published.
    end_value: the last factor of "cosine" and "linear".
    timescale_steps: steps after the warm-up until "rsqrt" has fallen to
      sqrt(1/2), and in which "exponential" halves.
    cooldown_steps: length of the cool-down: the last steps, in which
      "constant", "exponential" and "rsqrt" also fall linearly to 0 (same
      section).

  Returns:
    A function of the 0-based step.

  Raises:
    ValueError: for an unknown decay, a cool-down after "cosine" or "linear",
      or a warm-up and a cool-down that together exceed the run.
  """
  if warmup_steps > total_steps:
    raise ValueError(
      f"config.schedule.warmup lasts {warmup_steps} steps, but the run has only"
      f" {total_steps}. Shorten it, or give it in percent: warmup_percent=5."
    )

  if warmup_steps + cooldown_steps > total_steps:
    raise ValueError(
      f"config.schedule.cooldown lasts {cooldown_steps} steps, but the run "
      f"only {total_steps}, {warmup_steps} of them warm-up. Shorten it."
    )
  if cooldown_steps and decay in ("cosine", "linear"):
    raise ValueError(
      f"config.schedule.cooldown does not fit decay={decay!r}, which already "
      "falls to end_value. Remove it, or use decay='constant', "
      "'exponential' or 'rsqrt'."
    )

  decays = {
    "constant": lambda after, progress: jnp.ones_like(after),
    "cosine": lambda after, progress: (
      end_value + (1 - end_value) * 0.5 * (1 + jnp.cos(jnp.pi * progress))
    ),
    "linear": lambda after, progress: (
      end_value + (1 - end_value) * (1 - progress)
    ),
    "exponential": lambda after, progress: 0.5 ** (after / timescale_steps),
    "rsqrt": lambda after, progress: jnp.sqrt(
      timescale_steps / (after + timescale_steps)
    ),
  }
  if decay not in decays:
    raise ValueError(f"decay={decay!r} is not one of {', '.join(decays)}.")

  def schedule(step):
    after = jnp.maximum(jnp.asarray(step, jnp.float32) - warmup_steps, 0.0)
    progress = jnp.clip(after / max(total_steps - warmup_steps, 1), 0.0, 1.0)
    warmup = jnp.minimum(step / warmup_steps, 1.0) if warmup_steps else 1.0
    factor = decays[decay](after, progress) * warmup
    if cooldown_steps:
      left = jnp.asarray(total_steps - step, jnp.float32)
      factor = factor * jnp.clip(left / cooldown_steps, 0.0, 1.0)
    return factor

  return schedule
