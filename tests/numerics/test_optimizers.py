"""Optimizers over several steps against rewrites of their papers in NumPy.

In float64 there and float32 here: 1e-5 of how far an array has moved, and
5e-7 for the rounding of its numbers. Where the momentum is kept in bfloat16,
with its 8 bits: 1e-2.
"""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from vitjax import optim, trees

SHAPES = {
  "large/kernel": (3, 40, 48),
  "small/kernel": (16, 40),
  "small/bias": (40,),
}
FACTORS = (0.5, 1.0, 0.75, 0.25)  # the schedule


def draw(seed):
  rng = np.random.default_rng(seed)
  return {k: rng.normal(size=shape) for k, shape in SHAPES.items()}


def optax_run(name, **options):
  """Parameters after as many steps as FACTORS has, with new gradients in each.

  The sizes of the gradients differ by orders of magnitude from step to step.
  """
  tx = optim.make_optimizer(
    name, schedule=lambda t: jnp.asarray(FACTORS)[t], **options
  )

  def tree(flat):
    flat = {k: jnp.asarray(v, jnp.float32) for k, v in flat.items()}
    return trees.unflatten(flat)

  @jax.jit
  def update(params, state, grads):
    updates, state = tx.update(grads, state, params)
    return optax.apply_updates(params, updates), state

  params = tree(draw(0))
  state = tx.init(params)
  for grads in gradients():
    params, state = update(params, state, tree(grads))
  return trees.flatten(params), state


def gradients():
  for t in range(len(FACTORS)):
    yield {k: 3.0**-t * g for k, g in draw(t + 1).items()}


def numpy_run(step_of, clip=None):
  """The same with `step_of(t, name, state, g, w)`, which has its own state."""
  params, states = draw(0), {k: {} for k in SHAPES}
  for t, grads in enumerate(gradients()):
    norm = np.sqrt(sum(np.sum(g**2) for g in grads.values()))
    scale = min(1, clip / norm) if clip else 1
    for k, g in grads.items():
      step = step_of(t + 1, k, states[k], scale * g, params[k])
      params[k] = params[k] - FACTORS[t] * step
  return params


def assert_close(got, want, tolerance):
  for k, x in want.items():
    moved = np.max(np.abs(x - draw(0)[k]))
    assert np.max(np.abs(got[k] - x)) < tolerance * moved + 5e-7, k


@pytest.mark.parametrize(
  "dtype, tolerance", [("float32", 1e-5), ("bfloat16", 1e-2)]
)
def test_nesterov_with_l2(dtype, tolerance):
  """NFNet's: m <- 0.9 m + g, and a step of g + 0.9 m."""

  def step(t, name, state, g, w):
    if name.endswith("kernel"):
      g = g + 0.02 * w
    state["m"] = 0.9 * state.get("m", 0) + g
    return 0.1 * (g + 0.9 * state["m"])

  got, state = optax_run(
    "sgd",
    learning_rate=0.1,
    weight_decay=0.02,
    decay_scale="gradient",
    grad_clip_norm=2.0,
    nesterov=True,
    accumulator_dtype=dtype,
  )
  assert_close(got, numpy_run(step, clip=2.0), tolerance)
  sizes = {x.dtype for x in jax.tree.leaves(state) if x.ndim}
  assert sizes == {jnp.dtype(dtype)}


@pytest.mark.parametrize("decay", [0.0, 0.3])
def test_lamb(decay):
  """Algorithm 2 of the paper after the clipping of FusedLAMB."""

  def step(t, name, state, g, w):
    m = state["m"] = 0.9 * state.get("m", 0) + 0.1 * g
    v = state["v"] = 0.99 * state.get("v", 0) + 0.01 * g**2
    u = m / (1 - 0.9**t) / (np.sqrt(v / (1 - 0.99**t)) + 1e-6)
    if name.endswith("kernel"):
      u = u + decay * w
      u = u * np.linalg.norm(w) / np.linalg.norm(u)
    return 0.02 * u

  got, _ = optax_run(
    "lamb",
    learning_rate=0.02,
    weight_decay=decay,
    grad_clip_norm=1.0,
    b2=0.99,
  )
  assert_close(got, numpy_run(step, clip=1.0), 1e-5)


def adafactor_step(cap, scale):
  def step(t, name, state, g, w):
    beta2 = min(cap, 1 - t**-0.8)
    square = g**2 + 1e-30

    def average(key, x):
      state[key] = beta2 * state.get(key, 0) + (1 - beta2) * x
      return state[key]

    if name == "large/kernel":  # the only one with two axes of 32 or more
      row = average("row", square.mean(2))[:, :, None]
      column = average("column", square.mean(1))[:, None]
      v = row * column / row.mean(1, keepdims=True)
    else:
      v = average("v", square)
    m = state["m"] = 0.9 * state.get("m", 0) + 0.1 * g / np.sqrt(v)
    return scale * m + (0.01 * w if name.endswith("kernel") else 0)

  return step


@pytest.mark.parametrize(
  "dtype, tolerance", [("float32", 1e-5), ("bfloat16", 1e-2)]
)
@pytest.mark.parametrize("cap", [0.999, 0.5])
def test_adafactor(cap, dtype, tolerance):
  got, state = optax_run(
    "adafactor",
    learning_rate=0.02,
    weight_decay=0.01,
    decay_scale="schedule",
    momentum_dtype=dtype,
    beta2_cap=cap,
  )
  assert_close(got, numpy_run(adafactor_step(cap, 0.02)), tolerance)
  # One row and one column of second moments, and the momentum in `dtype`.
  kept = {k: v for k, v in trees.flatten(state).items() if "large" in k}
  sizes = [x.size for x in kept.values() if x.dtype != jnp.dtype(dtype)]
  assert sum(sizes) < 3 * 40 * 48 or dtype == "float32"
  momentum = [x for x in kept.values() if x.size == 3 * 40 * 48]
  assert [x.dtype for x in momentum] == [jnp.dtype(dtype)]


def test_adafactor_forgets_second_moments_for_ever():
  """beta2 stops at 0.999: after 5,623 steps 1 - t**-0.8 is above that."""
  tx = optim.adafactor(momentum=None)
  params = {"bias": jnp.ones(4)}
  for count, forgotten in ((0, 1.0), (31, 32**-0.8), (10**6, 1e-3)):
    state = tx.init(params)._replace(count=jnp.int32(count))
    updates, _ = tx.update(params, state, params)
    np.testing.assert_allclose(updates["bias"], forgotten**-0.5, rtol=1e-5)
