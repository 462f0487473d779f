"""Batch normalisation in training: PyTorch's numbers, on any mesh.

Statistics are a part of the state. What a step does with them is compared with
timm's networks in training mode, and with itself on other meshes, in parts and
with frozen layers.
"""

import functools
import pathlib
import runpy

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import AxisType, Mesh

from vitjax import losses, models, objectives, optim, trees
from vitjax import step as step_lib
from vitjax.models import batch_norm, regnet
from vitjax.optim import schedules
from vitjax.parallel import sharding
from vitjax.plan import hlo
from vitjax.weights import fitting
from vitjax.weights.layouts import timm_regnet

FOLDER = pathlib.Path(__file__).parents[1] / "golden" / "reference"
ref = runpy.run_path(str(FOLDER / "refweights.py"))
load_case = functools.partial(ref["load_case"], folder=FOLDER)


def fit(case, model):
  """Weights of a case, in the model's own names."""
  return fitting.fit(
    ref["weights"](case),
    model,
    source=case["name"],
    metadata={},
    image_size=tuple(case["image_shape"][1:3]),
  )


def relative(got, want):
  want = np.asarray(want)
  return float(np.abs(np.asarray(got) - want).max() / np.abs(want).max())


def train(model, state, batches, *, mesh=None, optimizer=None, **options):
  """The state after these batches, and what each step measured."""
  tx, schedule = optimizer or sgd(len(batches))
  step = step_lib.make_train_step(
    objectives.classification(
      model, loss_fn=losses.softmax_xent, num_classes=10
    ),
    tx,
    normalise=lambda batch: batch,
    seed=0,
    schedule=schedule,
    **options,
  )
  if mesh is not None:
    shardings = sharding.replicated(mesh), sharding.over_batch(mesh)
    step = jax.jit(step, in_shardings=shardings)
  else:
    step = jax.jit(step)
  history = []
  for batch in batches:
    state, measured = step(state, batch)
    history.append(measured)
  return jax.device_get((state, history))


def sgd(total_steps, **options):
  recipe = {"learning_rate": 0.1, "weight_decay": 1e-2} | options
  schedule = schedules.make_schedule("cosine", total_steps=total_steps)
  tx = optim.make_optimizer(
    "sgd", schedule=schedule, decay_scale="gradient", **recipe
  )
  return tx, schedule


def pytorchs(name, **options):
  """Our ten steps of a case of PyTorch: state, history, model, outputs."""
  case = load_case(name)
  fields = {
    key: tuple(x) if isinstance(x, list) else x
    for key, x in case["model"].items()
    if key != "resolution"
  }
  model = regnet.Model(**fields, **options)
  recipe, total = case["recipe"], case["total_steps"]
  schedule = schedules.make_schedule(
    recipe["decay"], total_steps=total, warmup_steps=recipe["warmup_steps"]
  )
  tx = optim.make_optimizer(
    "sgd",
    schedule=schedule,
    learning_rate=recipe["lr"],
    momentum=recipe["momentum"],
    weight_decay=recipe["wd"],
    decay_scale="gradient",
  )
  dtype = model.dtype
  image = ref["images"](case).astype(dtype)
  batch = {"image": image, "label": np.arange(len(image)) % 10}
  weights = jax.tree.map(lambda x: jnp.asarray(x, dtype), fit(case, model))
  state, history = train(
    model,
    step_lib.make_state(weights, tx),
    [batch] * total,
    optimizer=(tx, schedule),
  )
  return state, history, model, case["outputs"]


@pytest.mark.slow
def test_ten_steps_are_pytorchs(monkeypatch):
  """In float64, so that rounding switches no rectifier.

  The model and the step name float32 in many places; here that is float64.
  Only the warm-up stays in float32, with an error of 4e-9 in the loss.
  """
  monkeypatch.setattr(jnp, "float32", jnp.float64)
  with jax.enable_x64(True):
    state, history, model, want = pytorchs(
      "traj_timm_regnety_float64", dtype="float64"
    )
  for ours, theirs in (
    ("train/loss", "loss_before_each_step"),
    ("train/grad_norm", "grad_norm"),
  ):
    got = [float(x[ours]) for x in history]
    print(theirs, np.max(np.abs(np.divide(got, want[theirs]) - 1)))
    np.testing.assert_allclose(got, want[theirs], rtol=1e-8, err_msg=theirs)
  norm = np.sqrt(sum((x**2).sum() for x in jax.tree.leaves(state.params)))
  assert norm == pytest.approx(want["final_params_l2"], rel=1e-8)
  weights = jax.device_get(trees.flatten(state.weights))
  running = timm_regnet.from_vitjax(weights, model)
  for name, x in want["running_after"].items():
    assert relative(running[name], x) < 1e-8, name


@pytest.mark.slow
def test_steps_in_float32_are_pytorchs():
  """The first three; later, rounding switches a rectifier in PyTorch as well.

  One of four changes of the last digits of its weights moved its fourth loss by
  1e-4 and its fifth by 1e-3, as our convolutions do.
  """
  _, history, _, want = pytorchs("traj_timm_regnety")
  for ours, theirs in (
    ("train/loss", "loss_before_each_step"),
    ("train/grad_norm", "grad_norm"),
  ):
    got = [float(x[ours]) for x in history]
    print(theirs, np.abs(np.divide(got, want[theirs]) - 1))
    np.testing.assert_allclose(
      got[:3], want[theirs][:3], rtol=2e-4, err_msg=theirs
    )


# A network of seven norms that compiles in seconds.
TINY = {
  "depths": (1, 1),
  "widths": (8, 16),
  "group_width": 4,
  "stem_width": 8,
  "zero_init_residual": False,
}
# Its first block, norms included, and the stem.
FROZEN = ("stem.*", "stage0/.*")


def tiny():
  model = models.create("regnet", num_classes=10, **TINY)
  image = jax.ShapeDtypeStruct((1, 16, 16, 3), jnp.float32)
  init = step_lib.make_init_fn(model, image)
  return model, jax.jit(init)(jax.random.key(0))


def batches(n, size=16):
  rng = np.random.default_rng(0)
  return [
    {
      "image": rng.normal(size=(size, 16, 16, 3)).astype(np.float32),
      "label": rng.integers(10, size=size),
    }
    for _ in range(n)
  ]


def tiny_run(n=3, *, ema=False, mesh=None, optim_options=None, **options):
  model, weights = tiny()
  tx, schedule = sgd(n, **(optim_options or {}))
  state = step_lib.make_state(weights, tx, ema=ema)
  if ema:
    options["ema_decay"] = 0.9
  return train(
    model, state, batches(n), mesh=mesh, optimizer=(tx, schedule), **options
  )


@pytest.fixture(scope="module")
def plain():
  return tiny_run()


def flat_statistics(state):
  return trees.flatten(state.statistics)


def assert_close(got, want, tolerance):
  got, want = trees.flatten(got), trees.flatten(want)
  assert got.keys() == want.keys() and got
  for name, x in want.items():
    np.testing.assert_allclose(
      got[name], x, rtol=tolerance, atol=tolerance, err_msg=name
    )


def mesh_of(num_devices):
  devices = np.array(jax.devices()[:num_devices]).reshape(-1, 1, 1)
  return Mesh(devices, sharding.AXES, axis_types=(AxisType.Auto,) * 3)


@pytest.mark.slow
def test_statistics_are_those_of_the_global_batch(plain):
  """Statistics of the two images on each of 8 devices would differ by half."""
  state, history = tiny_run(mesh=mesh_of(8))
  assert_close(state.weights, plain[0].weights, 1e-5)
  for x, y in zip(history, plain[1]):
    assert x["train/loss"] == pytest.approx(y["train/loss"], rel=1e-5)


@pytest.mark.slow
def test_parts_have_their_own_statistics(plain):
  """Each part updates the running ones, in order, as PyTorch's loop does."""
  (state, history), (_, whole) = tiny_run(1, accumulation_steps=2), plain
  model, weights = tiny()
  variables = batch_norm.split(weights)
  rows = batches(1)[0]
  total = 0.0
  for part in range(2):
    (logits, _), updated = model.apply(
      variables,
      rows["image"][part::2],
      train=True,
      mutable=[batch_norm.STATISTICS],
    )
    labels = jax.nn.one_hot(rows["label"][part::2], 10)
    total += float(losses.softmax_xent(logits, labels).mean()) / 2
    variables = {**variables, **updated}
  assert history[0]["train/loss"] == pytest.approx(total, rel=1e-5)
  assert_close(
    state.statistics,
    {batch_norm.STATISTICS: variables[batch_norm.STATISTICS]},
    1e-5,
  )
  # And the loss is not that of the whole batch.
  assert abs(total - whole[0]["train/loss"]) > 1e-3


@pytest.mark.slow
def test_sam_keeps_the_statistics_of_the_first_pass():
  one, _ = tiny_run(1)
  state, _ = tiny_run(1, sam_rho=0.5)
  assert_close(state.statistics, one.statistics, 1e-6)
  differs = [
    not np.array_equal(x, y)
    for x, y in zip(jax.tree.leaves(state.params), jax.tree.leaves(one.params))
  ]
  assert any(differs)


@pytest.mark.slow
def test_the_average_is_of_statistics_too():
  state, _ = tiny_run(1, ema=True)
  _, weights = tiny()
  start, after = trees.flatten(weights), trees.flatten(state.weights)
  want = {k: start[k] + 0.1 * (after[k] - start[k]) for k in start}
  assert_close(state.ema_params, trees.unflatten(want), 1e-6)
  assert sum("/mean" in name for name in want) == 9

  latest, _ = tiny_run(1, ema=True, ema_statistics=False)
  for name, x in trees.flatten(latest.ema_params).items():
    if name.endswith(("/mean", "/var")):
      want[name] = after[name]
    np.testing.assert_allclose(x, want[name], rtol=1e-6, atol=1e-7)


@pytest.mark.slow
@pytest.mark.parametrize("freeze", [True, False])
def test_frozen_layers(plain, freeze):
  """Frozen norms keep their running statistics, unless asked to train."""
  state, history = tiny_run(
    frozen=FROZEN, freeze_statistics=freeze, optim_options={"freeze": FROZEN}
  )
  _, before = tiny()
  before, after = trees.flatten(before), trees.flatten(state.weights)
  for name, x in after.items():
    is_frozen = name.startswith(("stem", "stage0/"))
    is_statistic = name.endswith(("/mean", "/var"))
    same = is_frozen and (freeze or not is_statistic)
    assert np.array_equal(x, before[name]) == same, name
  # Normalising with running statistics is another function.
  changed = abs(history[0]["train/loss"] - plain[1][0]["train/loss"]) > 1e-3
  assert changed == freeze


def test_parameters_do_not_count_statistics(plain):
  state, history = plain
  norm = float(optax.tree.norm(state.params))
  assert history[-1]["train/param_norm"] == pytest.approx(norm, rel=1e-6)
  trained = {n.rpartition("/")[2] for n in trees.names(state.params)}
  assert trained == {"kernel", "scale", "bias"}
  kept = {n.rpartition("/")[2] for n in trees.names(state.statistics)}
  assert kept == {"mean", "var"}
  assert state.weights["stem_norm"].keys() == {"scale", "bias", "mean", "var"}


@pytest.mark.slow
def test_bfloat16_keeps_float32_statistics():
  model = models.create("regnet", num_classes=10, **TINY, dtype="bfloat16")
  _, weights = tiny()
  image = batches(1)[0]["image"]
  (logits, out), updated = model.apply(
    batch_norm.split(weights),
    image,
    train=True,
    mutable=[batch_norm.STATISTICS],
  )
  assert out["stem"].dtype == jnp.bfloat16 and logits.dtype == jnp.float32
  assert {x.dtype for x in jax.tree.leaves(updated)} == {jnp.dtype("float32")}
  exact = models.create("regnet", num_classes=10, **TINY)
  _, wanted = exact.apply(
    batch_norm.split(weights),
    image,
    train=True,
    mutable=[batch_norm.STATISTICS],
  )
  assert_close(updated, wanted, 2e-2)


def test_running_statistics_against_numpy():
  """PyTorch's: a tenth of the new, and of the unbiased variance."""
  x = np.random.default_rng(0).normal(2, 3, size=(2, 2, 3, 4))
  norm = batch_norm.BatchNorm()
  variables = norm.init(jax.random.key(0), jnp.ones((1, 1, 1, 4)), train=True)
  y, updated = norm.apply(
    variables,
    jnp.asarray(x, jnp.float32),
    train=True,
    mutable=[batch_norm.STATISTICS],
  )
  rows = x.reshape(-1, 4)
  want = (x - rows.mean(0)) / np.sqrt(rows.var(0) + 1e-5)
  np.testing.assert_allclose(y, want, atol=1e-5)
  running = updated[batch_norm.STATISTICS]
  np.testing.assert_allclose(running["mean"], 0.1 * rows.mean(0), rtol=1e-5)
  var = 0.9 + 0.1 * rows.var(0, ddof=1)
  np.testing.assert_allclose(running["var"], var, rtol=1e-5)


class Norms(nn.Module):
  count: int

  @nn.compact
  def __call__(self, x):
    for i in range(self.count):
      x = jnp.tanh(batch_norm.BatchNorm(name=f"norm{i}")(x, train=True))
    return x


def test_a_norm_adds_one_sum_over_devices_to_each_pass():
  """A variance that waits for the mean, as `jnp.var` does, adds one more."""
  mesh = mesh_of(8)

  def sums(count):
    model, x = Norms(count), jnp.ones((16, 4))
    variables = model.init(jax.random.key(0), x)

    def step(variables, x):
      def loss(params):
        y, updated = model.apply(
          {**variables, "params": params}, x, mutable=[batch_norm.STATISTICS]
        )
        return y.mean(), updated

      return jax.grad(loss, has_aux=True)(variables["params"])

    shardings = sharding.replicated(mesh), sharding.over_batch(mesh)
    compiled = jax.jit(step, in_shardings=shardings).lower(variables, x)
    found = hlo.collectives(compiled.compile().as_text())
    assert found.keys() == {"all-reduce"}
    return found["all-reduce"]["count"]

  assert sums(3) - sums(2) == 2


def test_few_digits_cancel_near_the_running_mean():
  """The squares themselves are whole numbers in float32, the variance 0.5."""
  x = np.random.default_rng(0).normal(4000, 0.7, size=(4096, 1))
  x = jnp.asarray(x, jnp.float32)
  norm = batch_norm.BatchNorm()
  variables = norm.init(jax.random.key(0), x, train=True)
  variables[batch_norm.STATISTICS]["mean"] += 3999
  y, _ = norm.apply(variables, x, train=True, mutable=[batch_norm.STATISTICS])
  assert np.std(y) == pytest.approx(1, abs=1e-3)


class Wrong(nn.Module):
  @nn.compact
  def __call__(self, x):
    return x - self.param("mean", nn.initializers.zeros, x.shape[-1:])


def test_names_tell_statistics_from_parameters():
  variables = Wrong().init(jax.random.key(0), jnp.zeros(3))
  with pytest.raises(ValueError, match="variables mean: those called 'mean'"):
    batch_norm.join(variables)
