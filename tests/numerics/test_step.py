"""Identities of the train step: devices, micro-batches, draws."""

import dataclasses
import functools
import types

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from vitjax import losses, mixing, models, objectives, optim, trees
from vitjax import step as step_lib
from vitjax.optim import schedules
from vitjax.parallel import sharding

IMAGE_SHAPE = (16, 16, 16, 3)


def batch(seed=0):
  rng = np.random.default_rng(seed)
  return {
    "image": rng.integers(0, 256, IMAGE_SHAPE, np.uint8),
    "label": rng.integers(0, 5, IMAGE_SHAPE[0]).astype(np.int32),
  }


def normalise(features):
  image = features["image"].astype(jnp.float32) / 127.5 - 1
  return {**features, "image": image}


def run(
  num_devices=1,
  num_steps=3,
  model=None,
  rules=(),
  mesh=None,
  mixing_options=None,
  optim_options=None,
  class_weights=None,
  states=None,
  **options,
):
  """State and losses after some steps; `states` gets that before each."""
  schedule = schedules.make_schedule(
    "cosine", total_steps=num_steps, warmup_steps=1
  )
  # Not Adam: the gradient of a key's bias is zero but for rounding, which Adam
  # would blow up to the size of a step.
  tx = optim.make_optimizer(
    "sgd",
    schedule=schedule,
    learning_rate=0.1,
    weight_decay=0.1,
    grad_clip_norm=0.5,
    **(optim_options or {}),
  )
  model = models.create(
    "vit", variant="mu/8", num_classes=5, head_zero_init=False, **(model or {})
  )
  if mesh is None:
    devices = np.array(jax.devices()[:num_devices]).reshape(-1, 1, 1)
    mesh = Mesh(devices, sharding.AXES, axis_types=(AxisType.Auto,) * 3)
  init_params = step_lib.make_init_fn(
    model, jax.ShapeDtypeStruct(IMAGE_SHAPE, jnp.float32)
  )

  def init(key):
    ema = {"ema_decay", "ema_uniform_from"} & {*options}
    return step_lib.make_state(init_params(key), tx, ema=bool(ema))

  augment = None
  if mixing_options:
    augment = functools.partial(mixing.augment, **mixing_options)
  abstract = jax.eval_shape(init, jax.random.key(0))
  shardings = sharding.of_state(abstract, rules, mesh)
  state = jax.jit(init, out_shardings=shardings)(jax.random.key(0))
  train_step = jax.jit(
    step_lib.make_train_step(
      objectives.classification(
        model,
        loss_fn=losses.softmax_xent,
        num_classes=5,
        augment=augment,
        class_weights=class_weights,
      ),
      tx,
      normalise=normalise,
      seed=1,
      schedule=schedule,
      **options,
    ),
    in_shardings=(shardings, sharding.over_batch(mesh)),
    out_shardings=(shardings, sharding.replicated(mesh)),
  )
  history = []
  for i in range(num_steps):
    if states is not None:
      states.append(jax.device_get(state))
    global_batch = jax.device_put(batch(i), sharding.over_batch(mesh))
    state, metrics = train_step(state, global_batch)
    history.append(float(metrics["train/loss"]))
  return jax.device_get(state), np.array(history)


def random_params(model, image):
  """As large as its own would be; made without compiling anything."""
  shapes = jax.eval_shape(model.init, jax.random.key(0), image)["params"]
  rng = np.random.default_rng(0)

  def draw(x):
    scale = np.sqrt(np.prod(x.shape[:-1], initial=1))
    return rng.normal(size=x.shape).astype(x.dtype) / x.dtype.type(scale)

  return jax.tree.map(draw, shapes)


def largest_difference(a, b):
  """Over the parameters and, where there are, their averages."""
  a, b = ((state.params, state.ema_params) for state in (a, b))
  return max(
    np.max(np.abs(x - y))
    for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True)
  )


CLASS_WEIGHTS = (0.2, 4.0, 1.0, 0.5, 2.0)

# Everything that is random in a step, with switches that go both ways, and a
# loss that is no plain mean over the batch.
RANDOM = {
  "class_weights": CLASS_WEIGHTS,
  "mixing_options": {
    "mixup_alpha": 0.5,
    "cutmix_alpha": 1.0,
    "mode": "elem",
    "erase_prob": 0.5,
    "label_smoothing": 0.1,
  },
  "model": {"dropout_rate": 0.2, "drop_path_rate": 0.2},
}


@pytest.fixture(scope="module")
def one_device():
  return run(**RANDOM)


@pytest.mark.parametrize(
  "num_devices", [pytest.param(2, marks=pytest.mark.slow), 8]
)
def test_devices_do_not_matter_even_with_mixing_and_dropout(
  num_devices, one_device
):
  params, history = run(num_devices, **RANDOM)
  np.testing.assert_allclose(history, one_device[1], rtol=1e-5)
  assert largest_difference(params, one_device[0]) < 1e-6


@pytest.mark.slow
def test_sharded_parameters_do_not_matter(one_device):
  mesh = sharding.make_mesh(data=2, fsdp=4)
  params, history = run(
    mesh=mesh,
    rules=[(".*/(query|key|value)/kernel", ("fsdp", None, None))],
    **RANDOM,
  )
  np.testing.assert_allclose(history, one_device[1], rtol=1e-5)
  assert largest_difference(params, one_device[0]) < 1e-6


MIXING = {
  "mixing_options": {"mixup_alpha": 0.5, "label_smoothing": 0.1},
  "class_weights": CLASS_WEIGHTS,
  "ema_decay": 0.15,  # 1/10 of the warm-up is less, 2/11 and 3/12 are more
  "ema_warmup": True,
}


@pytest.fixture(scope="module")
def big_batch():
  """State and losses after three steps, and the states before each."""
  states = []
  return *run(**MIXING, states=states), states


@pytest.mark.parametrize(
  "num_devices, parts",
  [
    pytest.param(1, 2, marks=pytest.mark.slow),
    (1, 8),
    pytest.param(4, 4, marks=pytest.mark.slow),
  ],
)
def test_accumulation_equals_the_big_batch(num_devices, parts, big_batch):
  """With clipping, schedule, mixing, weights and average, which all bite."""
  whole, whole_history, _ = big_batch
  params, history = run(num_devices, accumulation_steps=parts, **MIXING)
  np.testing.assert_allclose(history, whole_history, rtol=1e-5)
  assert largest_difference(params, whole) < 1e-6


def test_a_step_draws_from_seed_and_step_alone(big_batch):
  """Mixup of two runs is the same to the bit."""
  params, history = run(**MIXING)
  assert np.all(history == big_batch[1])
  assert largest_difference(params, big_batch[0]) == 0


@pytest.mark.parametrize(
  "warmup", [pytest.param(False, marks=pytest.mark.slow), True]
)
def test_average_of_the_parameters(warmup, big_batch):
  """Against NumPy over the parameters after 0 to 3 steps."""
  last, _, states = big_batch
  decay = MIXING["ema_decay"]
  if not warmup:
    states = []
    last, _ = run(ema_decay=decay, states=states)
  want, *steps = [state.params for state in (*states, last)]
  for t, params in enumerate(steps):
    d = min(decay, (1 + t) / (10 + t)) if warmup else decay
    want = jax.tree.map(lambda a, p, d=d: d * a + (1 - d) * p, want, params)
  for a, b in zip(
    jax.tree.leaves(want), jax.tree.leaves(last.ema_params), strict=True
  ):
    np.testing.assert_allclose(a, b, atol=1e-6)


@pytest.mark.slow
def test_uniform_average_of_the_parameters():
  """Over all parameters after step 2; before, it is the latest ones."""
  states = []
  last, _ = run(num_steps=5, ema_uniform_from=2, states=states)
  params = [state.params for state in (*states, last)]
  average = [state.ema_params for state in (*states, last)]
  for step, averaged in enumerate(average):
    parts = params[3 : step + 1] or params[step : step + 1]
    want = jax.tree.map(lambda *x: np.mean(x, axis=0), *parts)
    jax.tree.map(
      lambda a, b: np.testing.assert_allclose(a, b, atol=1e-7), averaged, want
    )
    if step < 4:
      jax.tree.map(np.testing.assert_array_equal, averaged, params[step])


@pytest.mark.slow
@pytest.mark.parametrize("name", ["muon", "schedule_free_adamw"])
def test_the_state_of_an_optimizer_is_split_like_its_parameters(name):
  """The momentum, the second moment and z; one and eight devices agree."""
  tx = optim.make_optimizer(name, schedule=lambda step: 1.0, learning_rate=1e-3)
  rng = np.random.default_rng(0)
  params, grads = (
    {
      "block": {"kernel": rng.normal(size=(128, 256)).astype(np.float32)},
      "head": {"kernel": rng.normal(size=(256, 128)).astype(np.float32)},
    }
    for _ in range(2)
  )
  mesh = sharding.make_mesh(data=1, fsdp=8)

  def update(state):
    updates, opt_state = tx.update(grads, state.opt_state, state.params)
    params = optax.apply_updates(state.params, updates)
    return dataclasses.replace(state, params=params, opt_state=opt_state)

  state = step_lib.make_state(params, tx)
  shardings = sharding.of_state(jax.eval_shape(lambda: state), "fsdp", mesh)
  large = [
    s.spec
    for x, s in zip(jax.tree.leaves(state), jax.tree.leaves(shardings))
    if x.size >= 2**14
  ]
  assert len(large) >= 5 and all("fsdp" in spec for spec in large)
  placed = jax.device_put(state, shardings)
  split = jax.jit(update, in_shardings=(shardings,), out_shardings=shardings)
  one, eight = state, placed
  for _ in range(3):
    one, eight = jax.jit(update)(one), split(eight)
  jax.tree.map(
    lambda a, b: np.testing.assert_allclose(a, b, rtol=2e-5, atol=1e-6),
    jax.device_get(one),
    jax.device_get(eight),
  )


@pytest.mark.slow
def test_a_frozen_backbone_stays_and_the_head_learns():
  frozen = (r"(?!head/).*",)
  states = []
  last, _ = run(frozen=frozen, optim_options={"freeze": frozen}, states=states)
  before = trees.flatten(states[0].params)
  for name, x in trees.flatten(last.params).items():
    same = np.array_equal(x, before[name])
    assert same == (not name.startswith("head/")), name


@pytest.mark.parametrize(
  "scan_layers, remat",
  [
    pytest.param(True, "none", marks=pytest.mark.slow),
    pytest.param(False, "dots", marks=pytest.mark.slow),
    (True, "full"),
    pytest.param(False, "full", marks=pytest.mark.slow),
    pytest.param(True, "dots", marks=pytest.mark.slow),
  ],
)
def test_remat_and_scan_compute_the_same(remat, scan_layers):
  """A scanned model with the looped one's parameters, and its gradient."""
  fields = {"variant": "mu/8", "depth": 3, "num_classes": 5}
  fields["head_zero_init"] = False
  loop = models.create("vit", **fields)
  other = models.create("vit", **fields, remat=remat, scan_layers=scan_layers)
  image = normalise(batch())["image"]
  params = random_params(loop, image)

  @functools.partial(jax.jit, static_argnums=0)
  def loss_and_grads(model, p):
    def loss(p):
      logits, _ = model.apply({"params": p}, image, train=True)
      return (logits**2).sum()

    return jax.value_and_grad(loss)(p)

  def stack(tree):
    if not scan_layers:
      return tree
    blocks = [tree["Transformer"][f"encoderblock_{i}"] for i in range(3)]
    stacked = jax.tree.map(lambda *x: jnp.stack(x), *blocks)
    norm = tree["Transformer"]["encoder_norm"]
    transformer = {"encoderblock": stacked, "encoder_norm": norm}
    return {**tree, "Transformer": transformer}

  want, grads = loss_and_grads(loop, params)
  got, got_grads = loss_and_grads(other, stack(params))
  np.testing.assert_allclose(got, want, rtol=1e-6)
  for a, b in zip(
    jax.tree.leaves(got_grads), jax.tree.leaves(stack(grads)), strict=True
  ):
    np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)


def test_bfloat16_compute_keeps_parameters_and_logits_in_float32():
  fields = {"variant": "mu/8", "num_classes": 5, "head_zero_init": False}
  image = normalise(batch())["image"]
  exact = models.create("vit", **fields)
  rough = models.create("vit", **fields, dtype="bfloat16")
  params = random_params(rough, image)
  assert {x.dtype for x in jax.tree.leaves(params)} == {jnp.dtype("float32")}
  apply = functools.partial(jax.jit, static_argnums=0)(
    lambda model: model.apply({"params": params}, image)
  )
  want, _ = apply(exact)
  got, out = apply(rough)
  assert got.dtype == jnp.float32
  assert out["encoder/block00/out"].dtype == jnp.bfloat16
  gap = np.max(np.abs(got - want)) / np.max(np.abs(want))
  assert 1e-5 < gap < 2e-2


def test_mixup_keeps_the_larger_share_and_mixes_labels_alike():
  image = jnp.arange(4.0).reshape(4, 1, 1, 1)
  labels = jnp.eye(4)
  for i in range(5):
    mixed, targets = mixing.augment(
      image, labels, jax.random.key(i), mixup_alpha=0.4
    )
    weight = targets[0, 0]
    assert 0.5 <= weight < 1
    partner = jnp.roll(image, 1, axis=0)
    want = weight * image + (1 - weight) * partner
    np.testing.assert_allclose(mixed, want, rtol=1e-6)
    np.testing.assert_allclose(targets.sum(axis=1), np.ones(4), rtol=1e-6)


def test_label_smoothing():
  got = mixing.smooth_labels(jnp.eye(4), 0.1)
  np.testing.assert_allclose(got[0], [0.925, 0.025, 0.025, 0.025], rtol=1e-6)


def test_losses_against_numpy():
  rng = np.random.default_rng(0)
  logits = rng.normal(size=(3, 7)).astype(np.float32) * 4
  labels = rng.dirichlet(np.ones(7), 3).astype(np.float32)
  p = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
  np.testing.assert_allclose(
    jax.jit(losses.softmax_xent)(logits, labels),
    -(labels * np.log(p)).sum(axis=1),
    rtol=1e-5,
  )
  q = 1 / (1 + np.exp(-logits))
  np.testing.assert_allclose(
    jax.jit(losses.sigmoid_xent)(logits, labels),
    -(labels * np.log(q) + (1 - labels) * np.log(1 - q)).sum(axis=1),
    rtol=1e-5,
  )

  np.testing.assert_allclose(
    jax.jit(losses.focal)(logits, labels),
    -(labels * (1 - p) ** 2 * np.log(p)).sum(axis=1),
    rtol=1e-5,
  )


def test_class_weights_as_in_pytorch():
  """`CrossEntropyLoss(weight=)`: sum of weight * loss over sum of weights."""
  rng = np.random.default_rng(0)
  logits = rng.normal(size=(6, 5)).astype(np.float32) * 4
  label = np.array([0, 1, 1, 4, 3, 1])
  model = types.SimpleNamespace(apply=lambda _, image, **__: ((image, {}), {}))
  objective = objectives.classification(
    model,
    loss_fn=losses.softmax_xent,
    num_classes=5,
    class_weights=CLASS_WEIGHTS,
  )
  rows = {"image": jnp.asarray(logits), "label": jnp.asarray(label)}
  key = jax.random.key(0)
  got, _ = objective.loss({}, objective.prepare(rows, key), key)
  p = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
  weight = np.array(CLASS_WEIGHTS)[label]
  want = -(weight * np.log(p[np.arange(6), label])).sum() / weight.sum()
  np.testing.assert_allclose(got, want, rtol=1e-5)


def test_weights_of_soft_targets():
  """A mixed image weighs the mean over its classes, also if thresholded."""
  labels = jnp.array(
    [[1, 0, 0], [0, 0.25, 0.75], [0, 1, 1], [0, 0, 0]], jnp.float32
  )
  weights = objectives.example_weights(labels, (2, 1, 5))
  want = np.array([2, 4, 3, 1]) / 2.5
  np.testing.assert_allclose(weights, want, rtol=1e-6)


class TestSharding:
  def test_mesh_errors(self):
    with pytest.raises(ValueError, match="data=3, fsdp=1, model=1 do not"):
      sharding.make_mesh(3, 1)
    with pytest.raises(ValueError, match="data=-1, fsdp=3"):
      sharding.make_mesh(-1, 3)

  def test_an_axis_smaller_than_those_of_the_torus(self):
    """On a cube of 8x8x8 chips, 4 that share the work are neighbours."""

    class Chip(types.SimpleNamespace):
      __hash__ = object.__hash__

    devices = [
      Chip(
        id=i,
        platform="tpu",
        device_kind="TPU v5",
        process_index=i // 4,
        coords=(i % 8, i // 8 % 8, i // 64),
        core_on_chip=0,
      )
      for i in range(512)
    ]
    mesh = sharding.make_mesh(-1, 1, 4, devices=devices)
    assert dict(mesh.shape) == {"data": 128, "fsdp": 1, "model": 4}
    assert {d.id for d in mesh.devices.flat} == set(range(512))
    for group in mesh.devices.reshape(128, 4):
      places = np.array([d.coords for d in group])
      assert np.ptp(places, axis=0).sum() == 3  # along one axis

  def test_rules(self):
    mesh = sharding.make_mesh(-1, 4)
    assert dict(mesh.shape) == {"data": 2, "fsdp": 4, "model": 1}
    state = {
      "params": {"a": {"kernel": jnp.zeros((8, 6)), "bias": jnp.zeros(6)}},
      "opt_state": ({"mu": {"a": {"kernel": jnp.zeros((8, 6))}}},),
    }
    got = sharding.of_state(state, [("a/kernel", ("fsdp", None))], mesh)
    split = NamedSharding(mesh, PartitionSpec("fsdp", None))
    assert got["params"]["a"]["kernel"] == split
    assert got["opt_state"][0]["mu"]["a"]["kernel"] == split
    assert got["params"]["a"]["bias"] == sharding.replicated(mesh)
    with pytest.raises(ValueError, match="does not divide over mesh axis"):
      sharding.of_state(state, [("a/kernel", (None, "fsdp"))], mesh)
    with pytest.raises(ValueError, match="No leaf matches"):
      sharding.of_state(state, [("b/kernel", ("fsdp", None))], mesh)
