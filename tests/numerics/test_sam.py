"""SAM and GSAM against their equations, and against big_vision's code."""

import functools
import pathlib
import sys

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from vitjax import losses, models, optim, trees
from vitjax.optim import sam, schedules

REFERENCE = pathlib.Path(__file__).parents[1] / "golden" / "reference"
sys.path.insert(0, str(REFERENCE))
import refweights  # noqa: E402


def sam_step(fn, params, rho):
  return sam.loss_and_grads(fn, params, rho=rho)


def doubled_rho(fn, params, rho):
  return sam.loss_and_grads(fn, params, rho=2 * rho)


def plain_gradient(fn, params, rho):
  del rho
  return fn(params)


def not_normalised(fn, params, rho):
  loss, grads = fn(params)
  worst = jax.tree.map(lambda p, g: p + rho * g, params, grads)
  return loss, fn(worst)[1]


def worst_error(loss_and_grads):
  """Largest relative error over ten steps of big_vision's SAM.

  The recorded losses are those of the parameters, the norms those of the
  gradient at the worst point, before clipping.
  """
  case = refweights.load_case("traj_bv_sam", REFERENCE)
  recipe, gsam, total = case["recipe"], case["gsam"], case["total_steps"]
  assert gsam["rho_max"] == gsam["rho_min"] and gsam["alpha"] == 0
  fields = {k: v for k, v in case["model"].items() if k != "resolution"}
  model = models.create("vit", **fields)
  tx = optim.make_optimizer(
    "adam",
    schedule=schedules.make_schedule(
      recipe["schedule"]["decay_type"],
      total_steps=total,
      warmup_steps=recipe["schedule"]["warmup_steps"],
    ),
    learning_rate=recipe["lr"],
    weight_decay=recipe["wd"],
    decay_scale="schedule",
    grad_clip_norm=recipe["grad_clip_norm"],
    mu_dtype="bfloat16",
  )
  params = trees.unflatten(
    {
      k.removeprefix("params/"): jnp.asarray(v)
      for k, v in refweights.weights(case).items()
    }
  )
  image = refweights.images(case)
  labels = jax.nn.one_hot(np.arange(8) % 10, 10)

  def loss_of(params):
    logits, _ = model.apply({"params": params}, image)
    return losses.LOSSES[case["loss"]](logits, labels).mean()

  @jax.jit
  def step(params, state):
    loss, grads = loss_and_grads(
      jax.value_and_grad(loss_of), params, gsam["rho_max"]
    )
    updates, state = tx.update(grads, state, params)
    params = optax.apply_updates(params, updates)
    return params, state, loss, optax.tree.norm(grads)

  state = tx.init(params)
  got = []
  for _ in range(total):
    params, state, loss, norm = step(params, state)
    got.append((loss, norm))
  out = case["outputs"]
  want = zip(out["loss_before_each_step_and_final"], out["grad_norm"])
  error = np.max(np.abs(np.array(got) / np.array([*want]) - 1))
  l2 = optax.tree.norm(params) / out["final_params_l2"]
  return max(error, abs(l2 - 1))


def test_trajectory():
  assert worst_error(sam_step) < 2e-4


@pytest.mark.parametrize(
  "mistake",
  [
    pytest.param(doubled_rho, marks=pytest.mark.slow),
    pytest.param(plain_gradient, marks=pytest.mark.slow),
    pytest.param(not_normalised, marks=pytest.mark.slow),
  ],
)
def test_tolerance_tells_apart(mistake):
  assert worst_error(mistake) > 2e-2


class TestQuadratic:
  """f(p) = p A p / 2 over the entries of two arrays, so its gradient is A p.

  In float32 with numbers around 1: 1e-5 relative.
  """

  rng = np.random.default_rng(0)
  hessian = rng.normal(size=(5, 5))
  hessian = hessian @ hessian.T + np.eye(5)
  start = rng.normal(size=5)

  def fn(self, params):
    def loss(params):
      p = jnp.concatenate([params["a"].reshape(-1), params["b"]])
      return 0.5 * p @ jnp.asarray(self.hessian, jnp.float32) @ p

    return jax.jit(jax.value_and_grad(loss))(params)

  def ours(self, **options):
    p = jnp.asarray(self.start, jnp.float32)
    params = {"a": p[:4].reshape(2, 2), "b": p[4:]}
    ours = functools.partial(sam.loss_and_grads, self.fn, **options)
    loss, grads = jax.jit(ours)(params)
    return loss, np.concatenate([grads["a"].reshape(-1), grads["b"]])

  def at_worst(self, rho):
    g = self.hessian @ self.start
    return g, self.hessian @ (self.start + rho * g / np.linalg.norm(g))

  def test_sam(self):
    loss, grads = self.ours(rho=0.3)
    _, worst = self.at_worst(0.3)
    np.testing.assert_allclose(grads, worst, rtol=1e-5)
    here = 0.5 * self.start @ self.hessian @ self.start
    np.testing.assert_allclose(loss, here, rtol=1e-5)

  def test_gsam(self):
    _, grads = self.ours(rho=0.3, alpha=0.4)
    g, worst = self.at_worst(0.3)
    unit = worst / np.linalg.norm(worst)
    orthogonal = g - (g @ unit) * unit
    assert np.linalg.norm(orthogonal) > 0.01
    np.testing.assert_allclose(grads, worst - 0.4 * orthogonal, rtol=1e-5)

  def test_without_a_radius_it_is_the_gradient(self):
    loss, grads = self.ours(rho=0.0)
    p = jnp.asarray(self.start, jnp.float32)
    want, plain = self.fn({"a": p[:4].reshape(2, 2), "b": p[4:]})
    assert loss == want
    np.testing.assert_array_equal(grads[:4], plain["a"].reshape(-1))
    np.testing.assert_array_equal(grads[4:], plain["b"])

  def test_a_gradient_of_zero_moves_nothing(self):
    zeros = {"a": jnp.zeros((2, 2)), "b": jnp.zeros(1)}
    _, grads = sam.loss_and_grads(self.fn, zeros, rho=0.3, alpha=0.4)
    assert all(np.all(g == 0) for g in grads.values())


def test_radius_follows_the_learning_rate():
  assert sam.rho_at(0.3, 0.5, None) == 0.5
  radii = [sam.rho_at(factor, 0.6, 0.2) for factor in (0.0, 0.25, 1.0)]
  np.testing.assert_allclose(radii, [0.2, 0.3, 0.6], rtol=1e-7)
