"""Random logits and labels, and what the evaluator makes of them."""

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType, Mesh

from vitjax.data.pp import builder
from vitjax.data.sources.arrays import ArraySource
from vitjax.evaluators import base, classification
from vitjax.parallel import sharding


def mesh_of(num_devices):
  devices = np.array(jax.devices()[:num_devices]).reshape(-1, 1, 1)
  return Mesh(devices, sharding.AXES, axis_types=(AxisType.Auto,) * 3)


def names_of(n):
  return [f"c{i}" for i in range(n)]


def predict(params, batch):
  """The logits of each image: its one pixel is its row among `params`."""
  row = batch["image"].reshape(len(batch["image"])).astype(jnp.int32)
  return params[row], {}


def evaluate(
  logits,
  label,
  names,
  wanted=(),
  devices=1,
  batch=64,
  known=True,
  **options,
):
  """The metrics of some logits (m, n).

  Args:
    logits, label: of each image.
    names: names of the classes.
    wanted: the option `metrics`.
    devices: number of devices.
    batch: images per step.
    known: whether labels are known before the images are read.
    **options: more options of the evaluator.
  """
  images = np.arange(len(label), dtype=np.uint8).reshape(-1, 1, 1, 1)
  source = ArraySource("rows", "all", images, label, names)
  if not known:
    source.labels = None
  mesh = mesh_of(devices)
  data = base.EvalData(source, builder.build(""), batch, mesh)
  evaluator = classification.Evaluator(predict, data, metrics=wanted, **options)
  params = np.asarray(logits, np.float32)
  got = list(evaluator.run(jax.device_put(params, sharding.replicated(mesh))))
  assert [name for name, _ in got] == list(evaluator.metrics)
  assert all(type(value) in (int, float) for _, value in got)
  return dict(got)


def random_case(rng, num_images=None):
  """1 to 200 images of 1 to 50 classes, of which some are absent."""
  m = num_images or int(rng.integers(1, 201))
  n = int(rng.integers(1, 51))
  some = rng.permutation(n)[: rng.integers(1, n + 1)]
  label = rng.choice(some, m)
  logits = rng.normal(size=(m, n)).astype(np.float32)
  logits[np.arange(m), label] += rng.uniform(0, 3)
  return logits, label
