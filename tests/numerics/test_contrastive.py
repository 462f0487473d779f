"""Two towers in the train step: losses, devices, what is frozen."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, Mesh

from vitjax import losses, models, objectives, optim, trees
from vitjax import step as step_lib
from vitjax.optim import schedules
from vitjax.parallel import sharding

FROZEN = ("img/.*",)


def test_losses_against_numpy():
  logits = np.random.default_rng(0).normal(size=(5, 5)) * 4
  e = np.exp(logits)
  own = np.diagonal(logits)
  want = (np.log(e.sum(1)) + np.log(e.sum(0))) / 2 - own
  got = losses.contrastive(jnp.asarray(logits, jnp.float32))
  np.testing.assert_allclose(got, want, rtol=1e-5)

  p = 1 / (1 + np.exp(-logits))
  pairs = np.where(np.eye(5, dtype=bool), np.log(p), np.log(1 - p))
  got = losses.siglip(jnp.asarray(logits, jnp.float32))
  np.testing.assert_allclose(got, -pairs.sum(axis=1), rtol=1e-5)


def two_towers(**options):
  return models.create(
    "two_tower",
    image={"variant": "mu/8", "num_classes": 24, "head_zero_init": False},
    text={"variant": "mu", "vocab_size": 11, "max_len": 5, "num_classes": 24},
    **options,
  )


def batch(i):
  rng = np.random.default_rng(i)
  return {
    "image": rng.normal(size=(16, 16, 16, 3)).astype(np.float32),
    "text": rng.integers(0, 11, (16, 5)).astype(np.int32),
    "index": np.arange(16),  # what the objective does not need is no trouble
  }


def run(loss, num_devices=1, **options):
  """Parameters before and after three steps, and the losses."""
  model = two_towers(bias_init=-2.71 if loss == "siglip" else None)
  schedule = schedules.make_schedule("cosine", total_steps=3)
  tx = optim.make_optimizer(
    "sgd", schedule=schedule, learning_rate=0.1, freeze=FROZEN
  )
  devices = np.array(jax.devices()[:num_devices]).reshape(-1, 1, 1)
  mesh = Mesh(devices, sharding.AXES, axis_types=(AxisType.Auto,) * 3)
  objective = objectives.contrastive(model, loss_fn=losses.CONTRASTIVE[loss])
  spec = jax.eval_shape(lambda: batch(0))
  init = step_lib.make_init_fn(model, *(spec[k] for k in objective.inputs))
  state = jax.device_put(
    step_lib.make_state(jax.jit(init)(jax.random.key(0)), tx),
    sharding.replicated(mesh),
  )
  first = jax.device_get(state.params)
  train_step = jax.jit(
    step_lib.make_train_step(
      objective,
      tx,
      normalise=lambda batch: batch,
      seed=0,
      schedule=schedule,
      frozen=FROZEN,
      **options,
    ),
    in_shardings=(sharding.replicated(mesh), sharding.over_batch(mesh)),
  )
  history = []
  for i in range(3):
    state, measured = train_step(
      state, jax.device_put(batch(i), sharding.over_batch(mesh))
    )
    history.append(float(measured["train/loss"]))
  return trees.flatten(first), trees.flatten(state.params), np.array(history)


@pytest.fixture(
  scope="module",
  params=["contrastive", pytest.param("siglip", marks=pytest.mark.slow)],
)
def one_device(request):
  return request.param, run(request.param)


def test_every_image_meets_every_text_on_any_number_of_devices(one_device):
  loss, (_, want, history) = one_device
  _, got, other = run(loss, num_devices=8)
  np.testing.assert_allclose(other, history, rtol=1e-5)
  for name, x in got.items():
    np.testing.assert_allclose(x, want[name], atol=1e-6, err_msg=name)


def test_the_frozen_tower_keeps_every_bit_and_all_else_learns(one_device):
  _, (before, after, history) = one_device
  for name, x in after.items():
    same = np.array_equal(x, before[name])
    assert same == name.startswith("img/"), name
  assert len(set(history)) == 3


def test_the_loss_of_a_step_against_numpy():
  """The first loss, from the embeddings of the towers."""
  model = two_towers(bias_init=-2.71)
  objective = objectives.contrastive(model, loss_fn=losses.siglip)
  rows = batch(0)
  spec = jax.eval_shape(lambda: rows)
  init = step_lib.make_init_fn(model, *(spec[k] for k in objective.inputs))

  @jax.jit
  def compute(key):
    params = init(key)
    image, text, _ = model.apply(
      {"params": params}, rows["image"], rows["text"]
    )
    prepared = objective.prepare(rows, jax.random.key(0))
    variables = {"params": params}
    loss, _ = objective.loss(variables, prepared, jax.random.key(0))
    return image, text, loss

  image, text, got = compute(jax.random.key(1))
  logits = 10 * np.asarray(image, float) @ np.asarray(text, float).T - 2.71
  signs = 2 * np.eye(16) - 1
  want = np.log1p(np.exp(-signs * logits)).sum() / 16
  np.testing.assert_allclose(got, want, rtol=1e-5)


def test_parts_of_a_batch_are_refused():
  with pytest.raises(ValueError, match="accumulation_steps=2, but the loss"):
    run("siglip", accumulation_steps=2)
