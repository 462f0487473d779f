"""Two towers in the train step: losses, devices, parts, what is frozen."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests import pairs
from vitjax import losses, models, objectives, optim, trees
from vitjax import step as step_lib
from vitjax.optim import accumulation, schedules
from vitjax.parallel import sharding

FROZEN = ("img/.*",)


def mesh_of(num_devices, **axes):
  return sharding.make_mesh(devices=jax.devices()[:num_devices], **axes)


@pytest.mark.parametrize("num_devices", [1, 2, 4, 8])
@pytest.mark.parametrize("loss", losses.CONTRASTIVE)
def test_losses_in_chunks_and_rings_are_the_plain_ones(
  loss, num_devices, monkeypatch
):
  # 48 pairs: chunks of 4; on 8 devices 6 pairs each, and a chunk of 2.
  monkeypatch.setattr(losses.pairs, "_CHUNK", 4)
  mesh = mesh_of(num_devices, fsdp=min(2, num_devices))
  assert max(pairs.errors(loss, mesh)) < 1e-6


@pytest.mark.parametrize("loss", losses.CONTRASTIVE)
def test_a_prime_number_of_pairs_is_in_few_chunks(loss, monkeypatch):
  monkeypatch.setattr(losses.pairs, "_CHUNK", 8)
  assert max(pairs.errors(loss, mesh_of(1), size=23)) < 1e-6
  graph = jax.make_jaxpr(losses.CONTRASTIVE[loss])(*pairs.embeddings(23))
  assert re.findall(r"\blength=(\d+)", str(graph)) == ["2"]


@pytest.mark.parametrize("loss", losses.CONTRASTIVE)
def test_a_pair_that_is_learnt_is_exact(loss):
  """Losses near 0, where a difference of large numbers would be noise."""
  image = text = np.eye(4, dtype=np.float32)
  inputs = image, text, np.float32(30), np.float32(-15)
  fn = pairs.with_grads(losses.CONTRASTIVE[loss], mesh_of(1))
  value, grads = fn(*inputs)
  if loss == "siglip":
    want = 4 * np.log1p(np.exp(-15.0))
    np.testing.assert_allclose(value, want, rtol=1e-5)
    want = (np.eye(4) * -1 + (1 - np.eye(4))) / (1 + np.exp(15.0))
    np.testing.assert_allclose(grads[0], want * 30 / 4, rtol=1e-5)
  else:
    assert 0 <= value < 1e-6 and np.isfinite(grads[0]).all()


@pytest.mark.parametrize("loss", losses.CONTRASTIVE)
def test_memory_of_the_loss_grows_linearly(loss):
  """Of what the compiler sets aside for the loss and its gradients."""

  def temporaries(size, num_devices):
    inputs = jax.eval_shape(lambda: pairs.embeddings(8))
    image = jax.ShapeDtypeStruct((size, 16), np.float32)
    fn = pairs.with_grads(losses.CONTRASTIVE[loss], mesh_of(num_devices))
    compiled = fn.lower(image, image, *inputs[2:]).compile()
    return compiled.memory_analysis().temp_size_in_bytes

  for num_devices in (1, 8):
    small, large = (temporaries(n, num_devices) for n in (8192, 32_768))
    assert 0 < small and large <= 4.1 * small, num_devices
    assert large < 0.2 * (32_768**2 * 4) / num_devices


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
  options = {"frozen": FROZEN, **options}
  tx = optim.make_optimizer(
    "sgd", schedule=schedule, learning_rate=0.1, freeze=options["frozen"]
  )
  mesh = mesh_of(num_devices)
  objective = objectives.contrastive(model, loss_fn=losses.CONTRASTIVE[loss])
  spec = jax.eval_shape(lambda: batch(0))
  init = step_lib.make_init_fn(model, *(spec[k] for k in objective.inputs))
  state = jax.device_put(
    step_lib.make_state(jax.jit(init)(jax.random.key(0)), tx),
    sharding.replicated(mesh),
  )
  first = jax.device_get(state.params)
  step = step_lib.make_train_step(
    objective,
    tx,
    normalise=lambda batch: batch,
    seed=0,
    schedule=schedule,
    **options,
  )

  def train_step(state, batch):
    with jax.sharding.use_abstract_mesh(mesh.abstract_mesh):
      return step(state, batch)

  train_step = jax.jit(
    train_step,
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


def assert_same_run(got, want):
  (_, params, history), (_, of_params, of_history) = got, want
  np.testing.assert_allclose(history, of_history, rtol=1e-5)
  for name, x in params.items():
    np.testing.assert_allclose(x, of_params[name], atol=1e-6, err_msg=name)


def test_every_image_meets_every_text_on_any_number_of_devices(one_device):
  loss, want = one_device
  assert_same_run(run(loss, num_devices=8), want)


def test_the_frozen_tower_keeps_every_bit_and_all_else_learns(one_device):
  _, (before, after, history) = one_device
  for name, x in after.items():
    same = np.array_equal(x, before[name])
    assert same == name.startswith("img/"), name
  assert len(set(history)) == 3


def test_the_loss_of_a_step_against_numpy():
  """The first loss, from the embeddings of the towers."""
  model = two_towers(bias_init=-2.71)
  objective = objectives.contrastive(
    model, loss_fn=losses.CONTRASTIVE["siglip"]
  )
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


@pytest.mark.slow
@pytest.mark.parametrize(("parts", "num_devices"), [(4, 1), (16, 1), (2, 8)])
def test_parts_of_a_batch_give_the_step_of_the_batch(
  one_device, parts, num_devices
):
  loss, want = one_device
  got = run(loss, num_devices, accumulation_steps=parts)
  assert_same_run(got, want)


@pytest.mark.slow
@pytest.mark.parametrize("loss", losses.CONTRASTIVE)
def test_parts_of_a_batch_train_both_towers(loss):
  want = run(loss, frozen=())
  for parts in (4, 16):
    got = run(loss, frozen=(), accumulation_steps=parts)
    assert_same_run(got, want)


def test_parts_have_their_own_dropout_and_batch_statistics():
  """Gradients are those of the parts' embeddings, with each part's key."""

  def embed(variables, rows, key):
    x = rows["image"] @ variables["params"]["kernel"]
    mean = x.mean(axis=0, keepdims=True)
    x = jnp.tanh(x - mean) * jax.random.bernoulli(key, 0.5, x.shape)
    return (x, x + rows["text"]), {"mean": variables["mean"] + mean}

  def compare(params, embeddings):
    return losses.CONTRASTIVE["siglip"](*embeddings, params["t"], params["b"])

  rng = np.random.default_rng(0)
  rows, params = (
    jax.tree.map(lambda shape: rng.normal(size=shape), shapes, is_leaf=is_shape)
    for shapes in (
      {"image": (12, 5), "text": (12, 8)},
      {"kernel": (5, 8), "t": (), "b": ()},
    )
  )
  rows, params = jax.tree.map(jnp.float32, (rows, params))
  statistics = {"mean": jnp.zeros((1, 8))}
  key = jax.random.key(1)

  def reference(params):
    found, after = [], statistics
    for i in range(3):
      part = {name: x[i::3] for name, x in rows.items()}
      variables = {"params": params, **after}
      x, after = embed(variables, part, jax.random.fold_in(key, i))
      found.append(x)
    whole = jax.tree.map(lambda *x: jnp.concatenate(x), *found)
    return compare(params, whole), after

  want = jax.jit(jax.value_and_grad(reference, has_aux=True))(params)
  fn = jax.jit(accumulation.of_embeddings(embed, compare, 3))
  got = fn(params, statistics, rows, key)
  for x, y in zip(*map(jax.tree.leaves, (got, want)), strict=True):
    np.testing.assert_allclose(x, y, rtol=1e-5, atol=1e-6)


def is_shape(x):
  return isinstance(x, tuple)


@pytest.mark.slow
def test_a_frozen_tower_runs_once():
  """The compiler's count of operations, where a loop counts once."""
  model = two_towers()
  objective = objectives.contrastive(
    model, loss_fn=losses.CONTRASTIVE["siglip"]
  )
  rows = {name: x for name, x in batch(0).items() if name != "index"}

  def flops(fn, *inputs):
    return jax.jit(fn).lower(*inputs).compile().cost_analysis()["flops"]

  params = jax.eval_shape(
    model.init, jax.random.key(0), rows["image"], rows["text"]
  )["params"]

  def of_step(frozen):
    fn = accumulation.of_embeddings(
      objective.embed, objective.compare, 2, frozen
    )
    key = jax.eval_shape(jax.random.key, 0)

    def trained(*inputs):
      (loss, _), grads = fn(*inputs)
      off = trees.mask(grads, frozen)
      kept = zip(*map(jax.tree.leaves, (grads, off)))
      return loss, [x for x, is_off in kept if not is_off]

    return flops(trained, params, {}, rows, key)

  forward = flops(
    lambda params, image: model.apply({"params": params}, image)[0],
    params,
    rows["image"][::2],
  )
  saved = of_step(()) - of_step(FROZEN)
  assert saved > 2.5 * forward  # the second forward pass, and the backward one


def test_a_loss_without_embeddings_has_no_parts():
  whole = objectives.Objective(
    (), lambda x, _: x, lambda *_: (0.0, {}), splits=False
  )
  with pytest.raises(ValueError, match="accumulation_steps=2, but the loss"):
    step_lib.make_train_step(
      whole,
      optim.make_optimizer("sgd", schedule=lambda _: 1.0, learning_rate=0.1),
      normalise=lambda x: x,
      seed=0,
      schedule=lambda _: 1.0,
      accumulation_steps=2,
    )
