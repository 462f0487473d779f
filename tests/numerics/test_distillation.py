"""Learning from a teacher against the same computed in another way."""

import dataclasses

import cv2
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.distillation import (
  BATCH_SIZE,
  DEVIATION,
  LABEL_WEIGHT,
  MEAN,
  RATE,
  SIZE,
  STUDENT,
  TEACHER,
  TEMPERATURE,
  assemble,
  assert_same,
  batches,
  first_state,
  make_config,
  save_teacher,
  trained,
)
from vitjax import models, start
from vitjax.config.schema import ConfigError, Distill
from vitjax.distill import teacher as teacher_lib
from vitjax.distill import teaching
from vitjax.losses import sigmoid_xent, softmax_xent
from vitjax.models import batch_norm


@pytest.fixture(scope="module")
def teacher(tmp_path_factory):
  """The file of a teacher of another family, size and normalisation."""
  return save_teacher(tmp_path_factory.mktemp("teacher") / "teacher.npz")


def taught_by_logits(old, student, params, seen, image):
  """(logits of the student, its distance from the teacher) by definition."""
  wanted = old.apply(params["teacher"], seen)[0] / TEMPERATURE
  p = jnp.exp(wanted) / jnp.exp(wanted).sum(axis=1, keepdims=True)
  logits, _ = student.apply({"params": params["student"]}, image)
  q = jax.nn.softmax(logits / TEMPERATURE)
  return logits, TEMPERATURE**2 * (p * jnp.log(p / q)).sum(axis=1).mean()


@pytest.mark.parametrize(
  "num_devices, changes",
  [
    pytest.param(1, {}, marks=pytest.mark.slow),
    (8, {"accumulation_steps": 2}),
    pytest.param(
      8,
      {
        "sharding": [("head/kernel", ("fsdp", None))],
        "mesh": {"data": 1, "fsdp": 8},
      },
      marks=pytest.mark.slow,
    ),
  ],
  ids=["1", "8 in parts", "8 split"],
)
def test_ten_steps_are_those_of_a_direct_computation(
  teacher, num_devices, changes
):
  run = make_config(teacher, **changes)
  options = {**TEACHER, "num_classes": 10}
  assert_same(run, num_devices, options, taught_by_logits)


@pytest.mark.slow
def test_batch_norm_and_several_classes_are_taught_as_by_definition(
  teacher, tmp_path
):
  """Both are regnets with running statistics; half of the labels are known."""
  run = make_config(
    teacher,
    input__data=write_labels(tmp_path),
    input__pp="decode(channels=1)|central_crop(8)|value_range(-1, 1)",
    model=TEACHER,
    loss="sigmoid_xent_mean",
    mixing={},
  )
  before, after, got = trained(run, len(jax.devices()))
  before = jax.tree.map(jnp.asarray, before)
  parts = assemble(run)
  old, student = models.create(**TEACHER, num_classes=10), parts.model
  old_variables = batch_norm.split(before.teacher)
  norms = batch_norm.STATISTICS

  def loss(params, statistics, pixels, labels):
    large = jax.image.resize(pixels, (BATCH_SIZE, SIZE, SIZE, 1), "bilinear")
    logits = old.apply(old_variables, (large / 255 - MEAN) / DEVIATION)[0]
    p = jax.nn.sigmoid(logits / TEMPERATURE)
    (logits, _), new = student.apply(
      {"params": params, norms: statistics},
      pixels / 127.5 - 1,
      train=True,
      mutable=[norms],
    )
    q = jax.nn.sigmoid(logits / TEMPERATURE)
    kl = p * jnp.log(p / q) + (1 - p) * jnp.log((1 - p) / (1 - q))
    kl = TEMPERATURE**2 * kl.mean()
    q, known = jax.nn.sigmoid(logits), ~jnp.isnan(labels)
    hard = -jnp.log(jnp.where(labels == 1, q, 1 - q))
    hard = jnp.where(known, hard, 0).sum() / known.sum()
    return LABEL_WEIGHT * hard + (1 - LABEL_WEIGHT) * kl, new[norms]

  step = jax.jit(jax.value_and_grad(loss, has_aux=True))
  params, statistics, want = before.params, before.statistics[norms], []
  for batch in batches(parts):
    assert 0.2 < np.isnan(batch["labels"]).mean() < 0.8
    (value, statistics), grads = step(
      params, statistics, batch["image"].astype(np.float32), batch["labels"]
    )
    params = jax.tree.map(lambda x, g: x - RATE * g, params, grads)
    want.append(float(value))
  np.testing.assert_allclose(got, want, rtol=1e-4)
  found = after.statistics[norms]
  assert jax.tree.leaves(found)
  jax.tree.map(
    lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5),
    (after.params, found),
    (params, statistics),
  )
  jax.tree.map(np.testing.assert_array_equal, after.teacher, before.teacher)


def write_labels(folder, count=32):
  """Small images with a column of 0, 1 or nothing for each of ten classes."""
  rng = np.random.default_rng(0)
  lines = ["file," + ",".join(f"c{i}" for i in range(10))]
  for i in range(count):
    file = folder / f"{i}.png"
    cv2.imwrite(str(file), rng.integers(256, size=(8, 8), dtype=np.uint8))
    lines.append(f"{file.name}," + ",".join(rng.choice(["0", "1", "", ""], 10)))
  table = folder / "table.csv"
  table.write_text("\n".join(lines) + "\n")
  return f"labels:{table}:multi_label=*:ignore=empty"


@pytest.mark.parametrize(
  "dtype", ["bfloat16", pytest.param("float32", marks=pytest.mark.slow)]
)
def test_the_teacher_is_frozen_and_not_saved(teacher, dtype):
  run = make_config(
    teacher,
    distill={"teacher": teacher, "dtype": dtype},
    optim={"name": "adam", "learning_rate": 1e-2, "weight_decay": 0.1},
    sam={"rho": 0.1},
    ema={"decay": 0.9},
  )
  before, after, _ = trained(run)
  assert jax.tree.all(
    jax.tree.map(
      lambda a, b: a.dtype == b.dtype and a.tobytes() == b.tobytes(),
      before.teacher,
      after.teacher,
    )
  )
  leaves = jax.tree_util.tree_leaves_with_path(after.teacher)
  for path, x in leaves:
    is_statistic = path[-1].key in ("mean", "var")
    assert x.dtype == ("float32" if is_statistic else dtype)
  assert "teacher" not in after.checkpoint_items
  assert "stem" in after.teacher and "stem" not in after.params
  names = jax.tree_util.tree_leaves_with_path(after.checkpoint_items)
  assert "stem" not in str([path for path, _ in names])


class TestDistance:
  rng = np.random.default_rng(0)
  student, teacher = rng.normal(size=(2, 6, 5)).astype(np.float32) * 3

  def distance(self, loss_fn, **options):
    is_sigmoid = loss_fn is sigmoid_xent
    made = teaching.Teaching(
      None,
      Distill(**options),
      loss_fn,
      is_sigmoid=is_sigmoid,
      statistics=None,
      width=0,
    )
    logits = jnp.asarray(self.student), jnp.asarray(self.teacher)
    return np.asarray(made.distance(*logits))

  def test_kl_of_sigmoids(self):
    t = 3.0
    p, q = (1 / (1 + np.exp(-x / t)) for x in (self.teacher, self.student))
    kl = p * np.log(p / q) + (1 - p) * np.log((1 - p) / (1 - q))
    got = self.distance(sigmoid_xent, temperature=t)
    np.testing.assert_allclose(got, t**2 * kl.sum(axis=1), rtol=1e-4)

  def test_hard(self):
    p = np.exp(self.student)
    p /= p.sum(axis=1, keepdims=True)
    chosen = p[np.arange(6), self.teacher.argmax(axis=1)]
    got = self.distance(softmax_xent, loss="hard")
    np.testing.assert_allclose(got, -np.log(chosen), rtol=1e-4)

  def test_hard_of_sigmoids(self):
    p = 1 / (1 + np.exp(-self.student))
    right = np.where(self.teacher > 0, p, 1 - p)
    got = self.distance(sigmoid_xent, loss="hard")
    np.testing.assert_allclose(got, -np.log(right).sum(axis=1), rtol=1e-4)


@pytest.mark.slow
def test_two_heads_learn_from_labels_and_from_the_teacher(teacher):
  """Steps of plain SGD: each head moves by its own loss."""
  model = {**STUDENT, "num_registers": 1, "distilled": True}

  def moved(label_weight):
    options = {"teacher": teacher, "label_weight": label_weight}
    run = make_config(teacher, model=model, distill=options)
    parts = assemble(run)
    state = first_state(parts)
    before = jax.tree.map(np.array, state.params)
    state, _ = parts.train_step(state, next(batches(parts)))
    return [
      (before[name]["kernel"] != np.asarray(state.params[name]["kernel"])).any()
      for name in ("head", "head_dist")
    ]

  assert moved(1.0) == [True, False]
  assert moved(0.0) == [False, True]


@pytest.mark.slow
def test_two_heads_are_averaged():
  options = {**STUDENT, "num_registers": 1, "distilled": True}
  model = models.create(**options, num_classes=3)
  image = jnp.ones((2, 8, 8, 1))
  variables = model.init(jax.random.key(0), image)
  logits, out = model.apply(variables, image)
  heads = out["logits/head"], out["logits/head_dist"]
  np.testing.assert_allclose(logits, (heads[0] + heads[1]) / 2)
  for head, token in zip(heads, (out["head_input"], out["encoded"][:, 0])):
    name = "head" if head is heads[0] else "head_dist"
    params = variables["params"][name]
    want = token @ params["kernel"] + params["bias"][None]
    np.testing.assert_allclose(head, want, rtol=1e-5, atol=1e-6)


def test_the_same_images_are_not_touched(teacher):
  found = teacher_lib.find(make_config(teacher))
  own = dataclasses.replace(found, image_size=(8, 8))
  image = np.random.default_rng(0).normal(size=(2, 8, 8, 1)).astype(np.float32)
  same = own.view(image, {"mean": [MEAN * 255], "std": [DEVIATION * 255]})
  np.testing.assert_array_equal(same, image)


@pytest.mark.parametrize(
  "made, changes, message",
  [
    ({"num_classes": 7}, {}, "has 7 classes, and this run has 10"),
    ({"channels": 3}, {}, "3 channels, and config.input.pp makes 1"),
    ({}, {"loss": "mse", "input__data": "digits"}, "does not fit"),
  ],
)
def test_a_teacher_that_does_not_fit(tmp_path, made, changes, message):
  file = save_teacher(tmp_path / "teacher.npz", **made)
  run = make_config(file, mixing={}, **changes)
  with pytest.raises(ConfigError, match=message):
    assemble(run)


def test_no_teacher_of_that_name():
  with pytest.raises(ConfigError, match=r"distill.teacher='runs/no'.*Name a"):
    assemble(make_config("runs/no"))


def test_a_run_resumes_with_its_own_teacher_alone(teacher, tmp_path):
  parts = assemble(make_config(teacher))
  saved = {"teacher": start.load_teacher(parts, None).checksum}
  start.load_teacher(parts, saved)
  for change in ({"seed": 1}, {"deviation": 2 * DEVIATION}):
    parts = assemble(make_config(save_teacher(tmp_path / "x.npz", **change)))
    with pytest.raises(ConfigError, match=r"other weights \(SHA-256"):
      start.load_teacher(parts, saved)


def test_a_cache_needs_views_that_return(teacher, tmp_path):
  cache = {"teacher": teacher, "cache": str(tmp_path)}
  with pytest.raises(ConfigError, match=r"effect without input\.views"):
    make_config(teacher, mixing={}, distill=cache)
  with pytest.raises(ConfigError, match=r"mixup_alpha=0\.4 the teacher sees"):
    make_config(teacher, input__views=2, distill=cache)
  with pytest.raises(ConfigError, match=r"image_sizes=\(4, 8\) the teacher"):
    make_config(
      teacher,
      mixing={},
      input__views=2,
      flexible={"image_sizes": (4, 8)},
      distill=cache,
    )


@pytest.mark.slow
@pytest.mark.parametrize("sampling", [None, "balanced"])
def test_the_cache_is_as_no_cache(teacher, tmp_path, sampling):
  """Eight epochs of views 0, 1, 0, 1, ..., the first two of them computed.

  With balanced classes, a batch may have an image twice, and not all are shown.
  """
  changes = {
    "mixing": {},
    "input__views": 2,
    "input__sampling": sampling,
    "input__data": "digits",
    "input__split": "train[:64]",
    "input__pp": "random_crop(8, padding=2)|value_range(-1, 1)",
    "total_steps": 32,
  }
  options = {"teacher": teacher, "label_weight": 0.2}

  def run(**more):
    config = make_config(teacher, distill={**options, **more}, **changes)
    parts = assemble(config, len(jax.devices()))
    state, loaded = start.random_state(parts), start.load_teacher(parts, None)
    if "cache" not in more:
      state = dataclasses.replace(state, teacher=loaded.weights)
    with start.make_feed(parts, 0, loaded) as feed:
      for batch in feed:
        state, _ = parts.train_step(state, batch)
    return jax.device_get(state.params)

  plain = run()
  (first, again) = (run(cache=str(tmp_path)) for _ in range(2))
  (file,) = tmp_path.iterdir()
  known = np.load(file)
  assert known.shape == (2, 64, 10)
  assert np.isnan(known).any() == (sampling == "balanced")
  assert (known[0] != known[1])[~np.isnan(known).any(axis=0)].any()
  for got in (first, again):
    equal = jax.tree.map(lambda a, b: a.tobytes() == b.tobytes(), got, plain)
    assert jax.tree.all(equal)


def test_options_without_a_teacher():
  with pytest.raises(ConfigError, match=r"config.distill.loss='hard' has no"):
    make_config(None, distill={"loss": "hard"})
