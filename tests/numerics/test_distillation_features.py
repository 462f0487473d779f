"""Learning the features of a teacher against the same by definition."""

import dataclasses

import cv2
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.distillation import (
  STUDENT,
  TEACHER,
  TOWERS,
  assemble,
  assert_same,
  make_config,
  save_teacher,
  trained,
)
from vitjax import models, start
from vitjax.config.schema import ConfigError
from vitjax.distill import teaching
from vitjax.optim import muon


@pytest.fixture(scope="module")
def teacher(tmp_path_factory):
  """The file of a classifier with eight features."""
  return save_teacher(tmp_path_factory.mktemp("teacher") / "teacher.npz")


@pytest.fixture(scope="module")
def towers(tmp_path_factory):
  """The file of a teacher that compares images with texts."""
  file = tmp_path_factory.mktemp("towers") / "towers.npz"
  return save_teacher(file, options=TOWERS)


def config_of(teacher, width=16, **changes):
  """A run on features; the teachers have 6 and 8 of them."""
  return make_config(
    teacher,
    model={**STUDENT, "width": width},
    distill__loss="features",
    distill__temperature=1.0,
    **changes,
  )


def taught_by_features(old, student, params, seen, image):
  """The same with the features of the teacher."""
  if old.towers():
    image_tower = old.towers()["img"]
    tower = {"params": params["teacher"]["params"]["img"]}
    wanted, _ = image_tower.apply(tower, seen)
  else:
    wanted = old.apply(params["teacher"], seen)[1]["pre_logits"]
  logits, out = student.apply({"params": params["student"]}, image)
  found = out["encoded"].mean(axis=1)
  if found.shape != wanted.shape:
    projection = params["student"]["teacher_projection"]
    found = jnp.einsum("bd,de->be", found, projection["kernel"])
    found += projection["bias"][None]
  unit = [x / jnp.sqrt((x**2).sum(axis=1))[:, None] for x in (found, wanted)]
  return logits, ((unit[0] - unit[1]) ** 2).sum(axis=1).mean() / 2


@pytest.mark.slow
@pytest.mark.parametrize(
  "num_devices, kind, width, changes",
  [
    (8, "towers", 16, {"accumulation_steps": 2}),
    (1, "towers", 6, {}),
    (8, "teacher", 16, {}),
  ],
  ids=["8 in parts", "1 without projection", "8 of a classifier"],
)
def test_ten_steps_on_features_are_those_of_a_direct_computation(
  request, num_devices, kind, width, changes
):
  run = make_config(
    request.getfixturevalue(kind),
    model={**STUDENT, "width": width},
    distill__loss="features",
    distill__temperature=1.0,
    **changes,
  )
  options = {"towers": TOWERS, "teacher": {**TEACHER, "num_classes": 10}}[kind]
  before = assert_same(run, num_devices, options, taught_by_features)
  assert ("teacher_projection" in before.loss_params) == (width == 16)
  assert "txt" not in before.teacher


def test_cosine_distance_is_defined_for_a_row_of_zeros():
  """All units of a network with ReLUs may be off."""
  rng = np.random.default_rng(0)
  a, b = rng.normal(size=(2, 3, 5)).astype(np.float32)
  a[1] = 0
  distance, grad = jax.value_and_grad(
    lambda a: teaching.cosine_distance(a, b).sum()
  )(a)
  norms = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
  norms[1] = 1
  want = 1 - (a * b).sum(axis=1) / norms
  np.testing.assert_allclose(distance, want.sum(), rtol=1e-5)
  assert np.isfinite(grad).all()


def test_the_projection_trains_as_the_last_layer():
  model = models.create(**STUDENT, num_classes=10)
  name = f"{teaching.PROJECTION}/kernel"
  found, last = models.layers(model, {name: (16, 6)})
  assert found == {name: last}
  assert muon.matrix_axes(name, (16, 6)) is None


@pytest.mark.slow
def test_the_projection_is_no_part_of_the_model_and_the_teacher_is_frozen(
  towers,
):
  run = config_of(
    towers,
    distill__dtype="bfloat16",
    optim={"name": "adam", "learning_rate": 1e-2, "layer_decay": 0.8},
    sam={"rho": 0.1},
    ema={"decay": 0.9},
  )
  before, after, _ = trained(run)
  assert after.teacher["img"]["head"]["kernel"].dtype == "bfloat16"
  jax.tree.map(
    lambda a, b: np.testing.assert_array_equal(a.view("u1"), b.view("u1")),
    *(
      jax.tree.map(np.atleast_1d, jax.device_get(x.teacher))
      for x in (before, after)
    ),
  )
  items = after.checkpoint_items
  assert "teacher" not in items
  (name,) = items["loss_params"]
  for part in ("params", "ema_params"):
    assert name not in items[part] and "head" in items[part]
  assert name not in after.weights
  moved = jax.tree.map(
    lambda a, b: np.abs(a - b).max() > 1e-3,
    before.loss_params,
    after.loss_params,
  )
  assert all(jax.tree.leaves(moved))


@pytest.mark.slow
def test_the_cache_of_features_is_as_no_cache(towers, tmp_path):
  """Eight epochs of views 0, 1, 0, 1, ..., the first two of them computed."""
  changes = {
    "mixing": {},
    "input__views": 2,
    "input__split": "train[:64]",
    "input__pp": "random_crop(8, padding=2)|value_range(-1, 1)",
    "total_steps": 32,
  }

  def run(cache):
    parts = assemble(
      config_of(towers, distill__cache=cache, **changes), len(jax.devices())
    )
    state, loaded = start.random_state(parts), start.load_teacher(parts, None)
    if cache is None:
      state = dataclasses.replace(state, teacher=loaded.weights)
    with start.make_feed(parts, 0, loaded) as feed:
      for batch in feed:
        state, _ = parts.train_step(state, batch)
    return jax.device_get(state.trained)

  plain, first, again = map(run, (None, str(tmp_path), str(tmp_path)))
  (file,) = tmp_path.iterdir()
  known = np.load(file)
  assert known.shape == (2, 64, 6)
  assert (known[0] != known[1]).any(axis=1).mean() > 0.8
  for got in (first, again):
    equal = jax.tree.map(lambda a, b: a.tobytes() == b.tobytes(), got, plain)
    assert jax.tree.all(equal)


def test_logits_and_features_of_a_teacher_have_other_checksums(teacher):
  """So they are in different files of a cache."""
  runs = make_config(teacher), config_of(teacher)
  found = [start.load_teacher(assemble(run), None).checksum for run in runs]
  assert found[0] != found[1]


@pytest.mark.parametrize(
  "options, changes, message",
  [
    (TOWERS, {}, r"no classes, .*\.loss='kl'.*distill\.loss=features"),
    (
      TEACHER,
      {
        "distill__loss": "features",
        "distill__temperature": 1.0,
        "model": {**STUDENT, "num_registers": 1, "distilled": True},
      },
      r"distilled=True.*model\.distilled=False",
    ),
    (
      TEACHER,
      {
        "distill__loss": "features",
        "distill__temperature": 1.0,
        "model": {**STUDENT, "pool_type": "none"},
      },
      "'pre_logits' must be a vector",
    ),
    (
      TEACHER,
      {
        "loss": "pixel_mse",
        "mixing": {},
        "model": {**STUDENT, "name": "mae", "decoder_width": 16},
      },
      "does not fit config.loss='pixel_mse'",
    ),
  ],
)
def test_features_that_do_not_fit(tmp_path, options, changes, message):
  file = save_teacher(tmp_path / "teacher.npz", options=options)
  with pytest.raises(ConfigError, match=message):
    assemble(make_config(file, **changes))


def test_numbers_are_learned_by_features_alone(teacher, tmp_path):
  for i in range(16):
    cv2.imwrite(str(tmp_path / f"{i}.png"), np.zeros((8, 8), np.uint8))
  table = tmp_path / "table.csv"
  table.write_text("file,size\n" + "".join(f"{i}.png,{i}\n" for i in range(16)))
  changes = {
    "loss": "mse",
    "mixing": {},
    "input__data": f"labels:{table}:regression=size",
    "input__pp": "decode(channels=1)|central_crop(8)|value_range(-1, 1)",
  }
  with pytest.raises(ConfigError, match=r"predicts numbers.*loss=features"):
    assemble(make_config(teacher, **changes))
  assert assemble(config_of(teacher, **changes)).teaching.width == 16
