"""Optimizers of optax in our chain against optax alone, or their papers.

Ten steps on a loss whose gradient depends on the weights, so that the point at
which it is computed matters. Tolerance: float32, and what ten steps amplify.
"""

import json
import pathlib
import re

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from optax.contrib import MuonDimensionNumbers

from vitjax import objectives, optim, step, trees
from vitjax.optim import muon, schedules

TREES = pathlib.Path(__file__).parents[1] / "golden" / "trees"
STEPS, WARMUP, RATE = 10, 4, 0.05
SHAPES = {
  "embedding/kernel": (2, 2, 3, 8),
  "a/query/kernel": (8, 2, 4),
  "a/query/bias": (2, 4),
  "a/out/kernel": (2, 4, 8),
  "conv/kernel": (3, 3, 8, 6),
  "dwconv/kernel": (3, 3, 1, 6),
  "T/encoderblock/Dense_0/kernel": (3, 8, 5),
  "norm/scale": (8,),
  "head/kernel": (8, 5),
}
# By hand: (inputs, outputs) of what Muon updates.
MATRICES = {
  "a/query/kernel": ((0,), (1, 2)),
  "a/out/kernel": ((0, 1), (2,)),
  "conv/kernel": ((0, 1, 2), (3,)),
  "T/encoderblock/Dense_0/kernel": ((1,), (2,)),
}


def stem(path):
  return path.stem


def draw(seed):
  rng = np.random.default_rng(seed)
  return {k: rng.normal(size=shape) for k, shape in SHAPES.items()}


def tree(flat):
  return trees.unflatten(
    {k: jnp.asarray(x, "float32") for k, x in flat.items()}
  )


PARAMS, TARGET = tree(draw(0)), tree(draw(1))


def loss(params):
  """Not quadratic: gradients of different points are not proportional."""
  parts = jax.tree.map(
    lambda x, t: jnp.log1p((x - t) ** 2).sum(), params, TARGET
  )
  return sum(jax.tree.leaves(parts))


schedule = schedules.make_schedule(
  "constant", total_steps=STEPS, warmup_steps=WARMUP
)


def ours(name, **options):
  """Parameters after ten train steps of a model with this loss."""
  tx = optim.make_optimizer(
    name, schedule=schedule, learning_rate=RATE, **options
  )
  train_step = step.make_train_step(
    objectives.Objective(
      inputs=(),
      prepare=lambda batch, key: batch,
      loss=lambda variables, batch, key: (loss(variables["params"]), {}),
      splits=False,
    ),
    tx,
    normalise=lambda batch: batch,
    seed=0,
    schedule=schedule,
  )
  train_step = jax.jit(train_step)
  state = jax.jit(lambda params: step.make_state(params, tx))(PARAMS)
  for _ in range(STEPS):
    state, _ = train_step(state, {})
  return state.params


def of_optax(tx):
  """Parameters and state after ten updates."""

  @jax.jit
  def update(params, state):
    updates, state = tx.update(jax.grad(loss)(params), state, params)
    return optax.apply_updates(params, updates), state

  params, state = PARAMS, jax.jit(tx.init)(PARAMS)
  for _ in range(STEPS):
    params, state = update(params, state)
  return params, state


def assert_close(got, want, tolerance=2e-5):
  got, want, start = map(trees.flatten, (got, want, PARAMS))
  assert got.keys() == want.keys()
  for name, x in want.items():
    moved = np.max(np.abs(x - start[name]))
    assert moved > 1e-3, name
    np.testing.assert_allclose(
      got[name], x, rtol=0, atol=tolerance * moved, err_msg=name
    )


def is_kernel(params):
  return trees.mask(params, ".*/kernel")


def rate(count):
  return RATE * schedule(count)


def test_nadamw():
  theirs = optax.nadamw(rate, weight_decay=0.1, mask=is_kernel)
  want, _ = of_optax(theirs)
  assert_close(ours("nadamw", weight_decay=0.1), want)


def test_lion():
  """Algorithm 2 of the paper, in NumPy."""
  weights, momentum = draw(0), {k: 0.0 for k in SHAPES}
  for t in range(STEPS):
    factor = RATE * min(t / WARMUP, 1)
    for name, target in draw(1).items():
      w = weights[name]
      g = 2 * (w - target) / (1 + (w - target) ** 2)
      update = np.sign(0.9 * momentum[name] + 0.1 * g)
      if name.endswith("kernel"):
        update = update + 0.1 * w
      momentum[name] = 0.99 * momentum[name] + 0.01 * g
      weights[name] = w - factor * update
  want = trees.unflatten(weights)
  assert_close(ours("lion", weight_decay=0.1), want)


@pytest.mark.parametrize(
  "rms", [0.2, pytest.param(None, marks=pytest.mark.slow)]
)
def test_muon(rms):
  def axes(params):
    found = {k: MuonDimensionNumbers(*v) for k, v in MATRICES.items()}
    return trees.map_with_names(lambda name, _: found.get(name), params)

  theirs = optax.contrib.muon(
    rate,
    weight_decay=0.1,
    nesterov=False,  # which optax gives to Adam, too
    consistent_rms=rms,
    adam_weight_decay=0.1,
    muon_weight_dimension_numbers=axes,
  )
  options = {"decay_params": (".*",), "weight_decay": 0.1}
  got = ours("muon", nesterov=False, consistent_rms=rms, **options)
  want, _ = of_optax(theirs)
  assert_close(got, want, 1e-4)


@pytest.mark.slow
def test_muon_with_nesterov_has_orthogonal_updates():
  """The first update of a matrix is near U V' of its gradient's SVD."""
  tx = optim.make_optimizer(
    "muon", schedule=lambda _: 1.0, learning_rate=1.0, consistent_rms=None
  )
  grads = jax.grad(loss)(PARAMS)
  updates, _ = jax.jit(tx.update)(grads, tx.init(PARAMS), PARAMS)
  for name, (rows, columns) in MATRICES.items():
    if name.startswith("T/"):
      continue
    shape = (
      np.prod([SHAPES[name][i] for i in part]) for part in (rows, columns)
    )
    shape = tuple(map(int, shape))
    u, _, v = np.linalg.svd(
      np.reshape(trees.flatten(grads)[name], shape), full_matrices=False
    )
    update = -np.reshape(trees.flatten(updates)[name], shape)
    update /= np.sqrt(max(1, shape[1] / shape[0]))
    inside = np.diag(u.T @ update @ v.T)
    assert np.all((inside > 0.5) & (inside < 1.3)), (name, inside)
    np.testing.assert_allclose(u.T @ update @ v.T, np.diag(inside), atol=1e-2)


@pytest.mark.parametrize(
  "name, options, theirs",
  [
    (
      "schedule_free_adamw",
      {"b1": 0.95, "b2": 0.99, "weight_decay": 0.1, "decay_params": (".*",)},
      optax.contrib.schedule_free_adamw(
        RATE, WARMUP, b1=0.95, b2=0.99, weight_decay=0.1
      ),
    ),
    pytest.param(
      "schedule_free_sgd",
      {"weight_lr_power": 1.0},
      optax.contrib.schedule_free_sgd(RATE, WARMUP, weight_lr_power=1.0),
      marks=pytest.mark.slow,
    ),
  ],
)
def test_schedule_free(name, options, theirs):
  """The parameters of a run are those that optax evaluates."""
  point, state = of_optax(theirs)
  want = jax.jit(optax.contrib.schedule_free_eval_params)(state, point)
  got = ours(name, **options)
  assert_close(got, want, 1e-4)
  # The point of the gradient, which optax has as parameters, differs.
  with pytest.raises(AssertionError):
    assert_close(got, point, 1e-2)


class TestRolesOfMuon:
  @pytest.mark.parametrize("file", sorted(TREES.glob("*.json")), ids=stem)
  def test_the_first_and_the_last_layer_are_adams(self, file):
    shapes = {k: tuple(x) for k, x in json.loads(file.read_text()).items()}
    by_muon = {k for k, x in shapes.items() if muon.matrix_axes(k, x)}
    assert all(name.endswith("kernel") for name in by_muon)
    for name, shape in shapes.items():
      reads_image = len(shape) == 4 and shape[-2] == 3
      is_vector = sum(size > 1 for size in shape) < 2
      is_head = re.search(r"(^|/)head(_dist)?/kernel$", name)
      if reads_image or is_vector or is_head:
        assert name not in by_muon, name
      elif name.endswith("kernel") and name not in by_muon:
        ends = r"(.*/)?(embedding|stem\w*|conv_root)/(.*/)?kernel"
        is_depthwise = len(shape) == 4 and shape[2] == 1
        assert is_depthwise or re.fullmatch(ends, name), name

  def test_the_pixels_of_a_masked_autoencoder_are_a_last_layer(self):
    assert muon.matrix_axes("decoder/pixels/kernel", (16, 192)) is None
    assert muon.matrix_axes("decoder/embedding/kernel", (64, 16)) is None

  def test_more_of_them(self):
    got = trees.flatten(muon.labels(PARAMS, ["conv/.*"]))
    assert {k for k, x in got.items() if x == "muon"} == {*MATRICES} - {
      "conv/kernel"
    }
    with pytest.raises(ValueError, match=r"config\.optim\.adam_params .*'cnv"):
      muon.labels(PARAMS, ["cnv/.*"])
