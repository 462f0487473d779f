"""The optimizer chain and its schedules against their formulas."""

import jax.numpy as jnp
import numpy as np
import optax
import pytest

from vitjax import optim
from vitjax.optim import schedules


def constant(_):
  return jnp.float32(1.0)


PARAMS = {"a": {"kernel": jnp.array([1.0, -2.0]), "bias": jnp.array([3.0])}}
GRADS = {"a": {"kernel": jnp.array([0.5, 0.1]), "bias": jnp.array([-1.0])}}


def run(tx, steps=3):
  params, state = PARAMS, tx.init(PARAMS)
  for _ in range(steps):
    updates, state = tx.update(GRADS, state, params)
    params = optax.apply_updates(params, updates)
  return params


def test_learning_rate_decay_is_adamw_of_pytorch_and_optax():
  ours = optim.make_optimizer(
    "adam",
    schedule=constant,
    learning_rate=1e-2,
    weight_decay=0.1,
    decay_params=(".*",),
  )
  theirs = optax.adamw(1e-2, weight_decay=0.1)
  for a, b in zip(run(ours)["a"].values(), run(theirs)["a"].values()):
    np.testing.assert_allclose(a, b, rtol=1e-6)


def test_the_two_conventions_of_weight_decay():
  """wd=1e-4 scaled by the schedule is 0.1 scaled by a rate of 1e-3."""

  def make(decay, scale):
    return optim.make_optimizer(
      "adam",
      schedule=constant,
      learning_rate=1e-3,
      weight_decay=decay,
      decay_scale=scale,
    )

  a = run(make(0.1, "learning_rate"))
  b = run(make(1e-4, "schedule"))
  np.testing.assert_allclose(a["a"]["kernel"], b["a"]["kernel"], rtol=1e-7)


def test_only_kernels_decay_by_default():
  def make(decay):
    return optim.make_optimizer(
      "sgd", schedule=constant, learning_rate=0.1, weight_decay=decay
    )

  with_decay, without = run(make(0.5)), run(make(0.0))
  assert np.all(with_decay["a"]["bias"] == without["a"]["bias"])
  assert np.all(with_decay["a"]["kernel"] != without["a"]["kernel"])


def test_sgd_step_by_hand():
  """Clip to norm 1, momentum sum, rate, decay, schedule: in that order."""
  tx = optim.make_optimizer(
    "sgd",
    schedule=lambda t: jnp.where(t == 0, 1.0, 0.5),
    learning_rate=0.1,
    weight_decay=0.2,
    decay_scale="schedule",
    grad_clip_norm=1.0,
    momentum=0.9,
  )
  norm = np.sqrt(0.5**2 + 0.1**2 + 1)
  w, m = np.array([1.0, -2.0]), np.zeros(2)
  for factor in (1.0, 0.5):
    m = 0.9 * m + np.array([0.5, 0.1]) / norm
    w = w - factor * (0.1 * m + 0.2 * w)
  np.testing.assert_allclose(run(tx, 2)["a"]["kernel"], w, rtol=1e-6)


def test_rmsprop_step_by_hand():
  """The mean of squares starts at 1, and epsilon is below the root."""
  tx = optim.make_optimizer(
    "rmsprop", schedule=constant, learning_rate=0.1, momentum=0.8, eps=0.2
  )
  gradient = np.array([0.5, 0.1])
  w, m, square = np.array([1.0, -2.0]), 0.0, 1.0
  for _ in range(3):
    square = 0.9 * square + 0.1 * gradient**2
    m = 0.8 * m + gradient / np.sqrt(square + 0.2)
    w = w - 0.1 * m
  np.testing.assert_allclose(run(tx)["a"]["kernel"], w, rtol=1e-6)


class TestSchedules:
  def values(self, decay, steps, **kw):
    fn = schedules.make_schedule(decay, **kw)
    return np.array([float(fn(t)) for t in steps])

  def test_warmup_and_cosine(self):
    got = self.values(
      "cosine", [0, 5, 10, 60, 110, 200], total_steps=110, warmup_steps=10
    )
    np.testing.assert_allclose(got, [0, 0.5, 1, 0.5, 0, 0], atol=1e-6)

  def test_linear_to_an_end_value(self):
    got = self.values("linear", [0, 50, 100], total_steps=100, end_value=0.1)
    np.testing.assert_allclose(got, [1, 0.55, 0.1], rtol=1e-6)

  def test_rsqrt_falls_to_root_half_after_its_timescale(self):
    got = self.values(
      "rsqrt", [20, 120], total_steps=500, warmup_steps=20, timescale_steps=100
    )
    np.testing.assert_allclose(got, [1, 0.5**0.5], rtol=1e-6)

  def test_exponential_halves_in_its_timescale(self):
    got = self.values(
      "exponential",
      [20, 120, 220],
      total_steps=500,
      warmup_steps=20,
      timescale_steps=100,
    )
    np.testing.assert_allclose(got, [1, 0.5, 0.25], rtol=1e-6)

  def test_constant_without_warmup_starts_at_one(self):
    assert self.values("constant", [0], total_steps=5) == 1

  def test_cooldown_ends_at_zero(self):
    steps = [5, 60, 80, 90, 99, 100]
    got = self.values(
      "constant", steps, total_steps=100, warmup_steps=10, cooldown_steps=20
    )
    np.testing.assert_allclose(got, [0.5, 1, 1, 0.5, 0.05, 0], rtol=1e-6)

  def test_cooldown_starts_from_where_rsqrt_is(self):
    kw = {"total_steps": 100, "timescale_steps": 30}
    steps = [0, 50, 75, 90, 100]
    got = self.values("rsqrt", steps, cooldown_steps=50, **kw)
    want = self.values("rsqrt", steps, **kw) * np.array([1, 1, 0.5, 0.2, 0])
    np.testing.assert_allclose(got, want, rtol=1e-6)

  def test_errors(self):
    with pytest.raises(ValueError, match="warmup lasts 20 steps"):
      schedules.make_schedule("cosine", total_steps=10, warmup_steps=20)
    with pytest.raises(ValueError, match="not one of constant, cosine"):
      schedules.make_schedule("step", total_steps=10)
    with pytest.raises(ValueError, match=r"cooldown lasts 8 steps.* 10, 3 of"):
      schedules.make_schedule(
        "rsqrt", total_steps=10, warmup_steps=3, cooldown_steps=8
      )
    for decay in ("cosine", "linear"):
      with pytest.raises(ValueError, match="cooldown does not fit decay"):
        schedules.make_schedule(decay, total_steps=10, cooldown_steps=2)
