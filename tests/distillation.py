"""Short runs with a teacher, and files of teachers for them."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np

from vitjax import checks, models, program, start, weights
from vitjax.config import resolving
from vitjax.data import pipeline, sources
from vitjax.models import batch_norm
from vitjax.parallel import sharding

STEPS, SEED, ALPHA = 10, 3, 0.4
BATCH_SIZE, RATE = 16, 0.1
TEMPERATURE, LABEL_WEIGHT = 2.0, 0.3
MEAN, DEVIATION, SIZE = 0.3, 0.25, 12  # of the teacher's images
STUDENT = {
  "name": "vit",
  "width": 16,
  "depth": 1,
  "num_heads": 2,
  "patch_size": 4,
  "pool_type": "gap",
  "head_zero_init": False,
}
TEACHER = {
  "name": "regnet",
  "depths": (1,),
  "widths": (8,),
  "group_width": 4,
  "stem_width": 8,
}
TOWER = {"width": 8, "depth": 1, "num_heads": 2, "num_classes": 6}
TOWERS = {
  "name": "two_tower",
  "image": {**TOWER, "patch_size": 4, "head_zero_init": False},
  "text": {**TOWER, "vocab_size": 11, "max_len": 5},
}


def save_teacher(
  file,
  seed=0,
  num_classes=10,
  channels=1,
  deviation=DEVIATION,
  options=TEACHER,
):
  if options["name"] != "two_tower":
    options = {**options, "num_classes": num_classes}
  model = models.create(**options)
  shapes = jax.eval_shape(
    model.init, jax.random.key(0), *model.example_inputs(SIZE, channels)
  )
  rng = np.random.default_rng(seed)

  def draw(path, x):
    scale = np.prod(x.shape[:-1], initial=1) ** -0.5
    if path[-1].key in ("var", "scale"):
      return rng.uniform(0.5, 2, x.shape).astype(x.dtype)
    return (scale * rng.normal(size=x.shape)).astype(x.dtype)

  params = batch_norm.join(jax.tree_util.tree_map_with_path(draw, shapes))
  metadata = {
    "model": options,
    "image_size": [SIZE, SIZE],
    "channels": channels,
    "preprocess": f"normalize(({MEAN},), ({deviation},))",
    "class_names": None,
    "loss": "softmax_xent",
  }
  weights.save(file, params, model, metadata=metadata)
  return str(file)


def make_config(teacher, **changes):
  config = {
    "seed": SEED,
    "total_steps": STEPS,
    "input": {
      "data": "digits",
      "batch_size": BATCH_SIZE,
      "pp": "value_range(-1, 1)",
    },
    "model": STUDENT,
    "optim": {"name": "sgd", "momentum": 0.0, "learning_rate": RATE},
    "schedule": {"decay": "constant"},
    "mixing": {"mixup_alpha": ALPHA},
    "distill": {
      "teacher": teacher,
      "temperature": TEMPERATURE,
      "label_weight": LABEL_WEIGHT,
      "dtype": "float32",
    },
  }
  for key, value in changes.items():
    section, _, name = key.rpartition("__")
    (config[section] if section else config)[name] = value
  return resolving.resolve(config, checks.problems)


def assemble(run, num_devices=1):
  source = sources.open_source(run.input.data, run.input.split)
  mesh = sharding.make_mesh(
    **vars(run.mesh), devices=jax.devices()[:num_devices]
  )
  return program.assemble(run, source, mesh)


def batches(parts):
  return pipeline.train_batches(
    parts.source,
    parts.preprocess,
    batch_size=BATCH_SIZE,
    seed=SEED,
    start_step=0,
    total_steps=STEPS,
  )


def first_state(parts):
  teacher = start.load_teacher(parts, None).weights
  return dataclasses.replace(start.random_state(parts), teacher=teacher)


def trained(run, num_devices=1):
  """State before and after the steps, and the losses."""
  parts = assemble(run, num_devices)
  state = first_state(parts)
  before = jax.tree.map(np.array, state)  # a step overwrites it in place
  history = []
  for batch in batches(parts):
    batch = jax.device_put(batch, sharding.over_batch(parts.mesh))
    state, metrics = parts.train_step(state, batch)
    history.append(float(metrics["train/loss"]))
  return before, jax.device_get(state), np.array(history)


def directly(run, before, num_devices, options, taught):
  """Parameters and losses, from pixels that are mixed before all else."""
  parts = assemble(run, num_devices)
  old = models.create(**options)
  before = jax.tree.map(jnp.asarray, before)
  old_variables = batch_norm.split(before.teacher)

  @jax.jit
  def step(params, i, image, label):
    key = jax.random.fold_in(jax.random.key(SEED), i)
    share = jax.random.beta(jax.random.fold_in(key, 0), ALPHA, ALPHA, (1,))[0]
    share = jnp.maximum(share, 1 - share)

    def mixed(x):
      return share * x + (1 - share) * jnp.roll(x, 1, axis=0)

    pixels = mixed(image.astype(jnp.float32))
    large = jax.image.resize(pixels, (BATCH_SIZE, SIZE, SIZE, 1), "bilinear")
    seen = (large / 255 - MEAN) / DEVIATION

    def loss(params):
      params = {"student": params, "teacher": old_variables}
      logits, distance = taught(
        old, parts.model, params, seen, pixels / 127.5 - 1
      )
      targets = mixed(jax.nn.one_hot(label, 10))
      hard = -(targets * jnp.log(jax.nn.softmax(logits))).sum(axis=1).mean()
      return LABEL_WEIGHT * hard + (1 - LABEL_WEIGHT) * distance

    value, grads = jax.value_and_grad(loss)(params)
    new = jax.tree.map(lambda x, g: x - RATE * g, params, grads)
    return new, value

  params, history = before.trained, []
  for i, batch in enumerate(batches(parts)):
    params, value = step(params, i, batch["image"], batch["label"])
    history.append(float(value))
  return params, np.array(history)


def assert_same(run, num_devices, options, taught):
  """The run is that of the direct computation; the state before it."""
  before, after, got = trained(run, num_devices)
  params, want = directly(run, before, num_devices, options, taught)
  np.testing.assert_allclose(got, want, rtol=1e-5)

  def distance(a, b):
    apart = jax.tree.map(lambda x, y: np.abs(x - y).max(), a, b)
    return max(jax.tree.leaves(apart))

  for name in params:
    assert distance(before.trained[name], params[name]) > 1e-3, name
  assert distance(after.trained, params) < 1e-5
  return before
