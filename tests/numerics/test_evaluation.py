"""Every example counts exactly once, whatever the batch, devices, padding."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tensorflow as tf
from jax.sharding import AxisType, Mesh

from vitjax.config import resolving, schema
from vitjax.data import pipeline, sources
from vitjax.data.pp import builder
from vitjax.evaluators import base, classification, subject
from vitjax.parallel import sharding


def mesh_of(num_devices):
  devices = np.array(jax.devices()[:num_devices]).reshape(-1, 1, 1)
  return Mesh(devices, sharding.AXES, axis_types=(AxisType.Auto,) * 3)


def predict(params, batch):
  """A fixed linear classifier of the pixels: any error shows in its sums."""
  pixels = batch["image"].reshape(len(batch["image"]), -1)
  return pixels.astype(jnp.float32) @ params, {}


WEIGHTS = np.random.default_rng(0).normal(size=(64, 10)).astype(np.float32)


def expected(n):
  """The metrics of the first `n` digits in float64 NumPy."""
  source = sources.open_source("digits", f"all[:{n}]")
  rows = source.fetch(np.arange(n))
  x = np.asarray(rows["image"], np.float64).reshape(n, -1)
  label = np.asarray(rows["label"])
  logits = x @ WEIGHTS.astype(np.float64)
  top = logits.max(axis=1, keepdims=True)
  log_p = logits - top - np.log(np.exp(logits - top).sum(axis=1, keepdims=True))
  rank = (logits > logits[np.arange(n), label][:, None]).sum(axis=1)
  return {
    "loss": -log_p[np.arange(n), label].mean(),
    "acc@1": (rank < 1).mean(),
    "acc@5": (rank < 5).mean(),
    "n_seen": n,
  }


@pytest.mark.parametrize("n", [1, 7, 1797])
@pytest.mark.parametrize("batch_size, num_devices", [(1, 1), (64, 1), (200, 8)])
def test_exactly_once(n, batch_size, num_devices):
  if n == 1797 and batch_size == 1:
    batch_size = 1797  # one batch that just fits
  data = base.EvalData(
    sources.open_source("digits", f"all[:{n}]"),
    builder.build("value_range(0, 255)"),
    batch_size,
    mesh_of(num_devices),
  )
  got = dict(classification.Evaluator(predict, data).run(WEIGHTS))
  want = expected(n)
  assert got["n_seen"] == n
  assert got["acc@1"] == want["acc@1"]
  assert got["acc@5"] == want["acc@5"]
  np.testing.assert_allclose(got["loss"], want["loss"], rtol=1e-5)


@pytest.mark.parametrize("num_devices", [1, 8])
def test_what_is_traced_before_a_run_is_not_traced_again(num_devices):
  traced = []

  def noted(params, batch):
    traced.append(batch["image"].shape)
    return predict(params, batch)

  mesh = mesh_of(num_devices)
  data = base.EvalData(
    sources.open_source("digits", "all[:70]"), builder.build(""), 32, mesh
  )
  evaluator = classification.Evaluator(noted, data)
  params = jax.device_put(WEIGHTS, sharding.replicated(mesh))
  placed = params.sharding
  evaluator.trace(
    jax.ShapeDtypeStruct(params.shape, params.dtype, sharding=placed)
  )
  assert traced == [(32, 8, 8, 1)]
  dict(evaluator.run(params))
  assert len(traced) == 1


def test_a_lost_example_is_an_error_not_a_metric():
  class Short:
    """Says that it holds one example more than it yields."""

    def __init__(self, source):
      self.data, self.split = source.data, source.split
      self.num_examples = source.num_examples + 1

  source = sources.open_source("digits", "all[:8]")
  data = base.EvalData(
    source, builder.build("value_range(0, 1)"), 8, mesh_of(1)
  )
  sums = base.MaskedSums(lambda params, batch: {}, data)
  batches = list(data.batches())
  object.__setattr__(data, "source", Short(source))
  object.__setattr__(data, "batches", lambda: iter(batches))
  with pytest.raises(RuntimeError, match="saw 8 examples instead of 9"):
    sums(WEIGHTS)


@pytest.mark.parametrize("label", [-1, 10])
def test_a_label_that_no_class_has_is_an_error(label):
  """The -1 of unlabelled test sets would count as a wrong answer."""
  source = sources.open_source("digits", "all[:8]")
  fetch = source.fetch
  source.fetch = lambda index: {
    **fetch(index),
    "label": tf.where(index == 5, label, fetch(index)["label"]),
  }
  data = base.EvalData(
    source, builder.build("value_range(0, 1)"), 8, mesh_of(1)
  )
  with pytest.raises(pipeline.InputError, match=f"has label {label}, but"):
    list(data.batches())


def test_an_eval_set_with_more_classes_than_the_head_is_an_error():
  run = resolving.resolve(
    {
      "total_steps": 1,
      "input": {
        "data": "fake:8,8x8x1,4",
        "batch_size": 8,
        "pp": "keep('image')",
      },
      "model": {"name": "vit"},
      "optim": {"name": "adam"},
      "evals": {
        "v": {"data": "digits", "split": "test", "pp": "keep('image')"}
      },
    }
  )
  source = sources.open_source(run.input.data, "train")
  with pytest.raises(schema.ConfigError, match="digits has 10 classes"):
    model = subject.of_run(run, source, 4, builder.build(run.input.pp))
    subject.make_evaluator("v", run.evals["v"], model, predict, mesh_of(1))


def test_an_eval_needs_data_if_the_model_does_not_name_any():
  model = subject.Subject(
    data=None,
    data_dir=None,
    cache=False,
    batch_size=8,
    num_classes=10,
    class_names=None,
    loss="softmax_xent",
    pixel_statistics={},
    tokenizer=None,
  )
  section = schema.Eval(split="test", pp="keep('image')")
  with pytest.raises(schema.ConfigError, match=r"evals\.v\.data is missing"):
    subject.make_evaluator("v", section, model, predict, mesh_of(1))


@pytest.mark.parametrize("bad", [0.0, np.nan])
def test_constant_and_nan_logits_score_nothing(bad):
  logits = jnp.full((4, 10), bad)
  label = jnp.arange(4)
  assert not classification.correct_at_k(logits, label, 5).any()


def test_top_k_against_numpy():
  rng = np.random.default_rng(1)
  logits = rng.normal(size=(50, 12)).astype(np.float32)
  label = rng.integers(0, 12, 50)
  top = np.argsort(-logits, axis=1)
  for k in (1, 3):
    want = (top[:, :k] == label[:, None]).any(axis=1)
    got = classification.correct_at_k(
      jnp.asarray(logits), jnp.asarray(label), k
    )
    assert np.array_equal(got, want)
