"""Few-shot, k-NN and linear probe against direct computations on the rows."""

import dataclasses
import functools
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, Mesh
from sklearn import linear_model, neighbors

from vitjax.data import sources
from vitjax.data.pp import builder
from vitjax.evaluators import base, features, fewshot, knn, linear_probe
from vitjax.parallel import sharding

TRAIN, TEST, WIDTH = "train[:410]", "test[:203]", 12
WEIGHTS = np.random.default_rng(0).normal(size=(64, WIDTH)).astype(np.float32)


def predict(params, batch):
  """Features are a projection of the pixels: any error shows in them."""
  pixels = batch["image"].reshape(len(batch["image"]), -1) / 255.0
  z = pixels @ params
  return z, {"pre_logits": z, "twice": 2 * z, "tokens": z[:, None]}


def data_of(batch_size=64, num_devices=1, split=TEST):
  devices = np.array(jax.devices()[:num_devices]).reshape(-1, 1, 1)
  mesh = Mesh(devices, sharding.AXES, axis_types=(AxisType.Auto,) * 3)
  open_split = functools.partial(sources.open_source, "digits")
  return base.EvalData(
    open_split(split), builder.build(""), batch_size, mesh, open_split
  )


@functools.cache
def rows_of(split):
  """Features and labels in float64, without the code under test."""
  source = sources.open_source("digits", split)
  rows = source.fetch(np.arange(source.num_examples))
  x = np.asarray(rows["image"], np.float64).reshape(source.num_examples, -1)
  return x / 255 @ WEIGHTS.astype(np.float64), np.asarray(rows["label"])


def least_squares(x, label, l2, x_test):
  """The scores of a ridge regression, by the normal equations."""
  mean, std = x.mean(0), x.std(0) + 1e-5
  z, z_test = (
    np.hstack([(a - mean) / std, np.full((len(a), 1), 100.0)])
    for a in (x, x_test)
  )
  targets = np.where(label[:, None] == np.arange(10), 1.0, -1.0)
  gram = z.T @ z + l2 * np.eye(z.shape[1])
  return z_test @ np.linalg.solve(gram, z.T @ targets)


@pytest.mark.parametrize("batch_size, num_devices", [(50, 1), (64, 8)])
@pytest.mark.parametrize("l2", [2.0**10, (0.25, 1024.0, 2.0**18)])
def test_few_shot(l2, batch_size, num_devices):
  """1 shot has fewer images than numbers in a feature, 10 shots have more."""
  data = data_of(batch_size, num_devices)
  got = dict(
    fewshot.Evaluator(
      predict, data, train_split=TRAIN, shots=(1, 10), num_seeds=2, l2=l2
    ).run(WEIGHTS)
  )
  (x, label), (x_test, label_test) = rows_of(TRAIN), rows_of(TEST)
  several = (l2,) if isinstance(l2, float) else l2
  for shots in (1, 10):
    held_out, test = np.zeros((2, 2, len(several)))
    for seed in range(2):
      rng = np.random.default_rng(seed)
      order = [rng.permutation(np.where(label == c)[0]) for c in range(10)]
      rows = np.concatenate([o[:shots] for o in order])
      rest = np.concatenate([o[10:] for o in order])
      for i, penalty in enumerate(several):
        scores = functools.partial(least_squares, x[rows], label[rows], penalty)
        held_out[seed, i] = (scores(x[rest]).argmax(1) == label[rest]).mean()
        test[seed, i] = (scores(x_test).argmax(1) == label_test).mean()
    best = int(held_out.mean(0).argmax())
    assert len(several) == 1 or np.ptp(held_out.mean(0)) > 0.02
    assert got[f"{shots}shot"] == pytest.approx(test.mean(0)[best], abs=1e-12)
    assert got[f"{shots}shot_l2"] == several[best]
  assert got["n_seen"] == 203
  assert 0.2 < got["1shot"] < got["10shot"] < 0.9


def test_the_penalty_is_never_chosen_on_the_test_set():
  """What the test set would choose makes no difference."""
  wanted = []
  for offset in (0, 5):  # the second test set has other labels
    evaluator = fewshot.Evaluator(
      predict, data_of(), train_split=TRAIN, shots=(5,), l2=fewshot.L2
    )
    train, test = evaluator._splits(WEIGHTS)
    test = dataclasses.replace(test, label=(test.label + offset) % 10)
    evaluator._splits = _Given(evaluator._splits, train, test)
    wanted.append(dict(evaluator.run(WEIGHTS)))
  assert wanted[0]["5shot"] > wanted[1]["5shot"]
  assert wanted[0]["5shot_l2"] == wanted[1]["5shot_l2"]
  assert fewshot.L2[0] < wanted[0]["5shot_l2"] < fewshot.L2[-1]


class _Given:
  """Splits that were collected already."""

  def __init__(self, splits, *given):
    self.num_classes = splits.num_classes
    self.train_split = splits.train_split
    self._given = given

  def __call__(self, params):
    return self._given


def test_few_shot_needs_examples_to_choose_on():
  evaluator = fewshot.Evaluator(
    predict, data_of(), train_split=TRAIN, shots=(99,)
  )
  with pytest.raises(
    ValueError, match=r"no example of 'train\[:410\]' is left"
  ):
    dict(evaluator.run(WEIGHTS))
  # With the penalty given there is nothing to choose, and each class gives
  # all that it has.
  evaluator = fewshot.Evaluator(
    predict, data_of(), train_split=TRAIN, shots=(99,), l2=4096.0
  )
  scores = least_squares(*rows_of(TRAIN), 4096.0, rows_of(TEST)[0])
  want = (scores.argmax(1) == rows_of(TEST)[1]).mean()
  assert dict(evaluator.run(WEIGHTS))["99shot"] == pytest.approx(want)


@pytest.mark.parametrize("batch_size, num_devices", [(50, 1), (64, 8)])
def test_nearest_neighbours(batch_size, num_devices, monkeypatch):
  monkeypatch.setattr(knn, "_MOST", 410 * 7)  # seven test images at a time
  data = data_of(batch_size, num_devices)
  got = dict(
    knn.Evaluator(predict, data, train_split=TRAIN, k=(1, 20)).run(WEIGHTS)
  )
  (x, label), (x_test, label_test) = rows_of(TRAIN), rows_of(TEST)
  similarity = (x_test / np.linalg.norm(x_test, axis=1, keepdims=True)) @ (
    x / np.linalg.norm(x, axis=1, keepdims=True)
  ).T
  for k in (1, 20):
    right = 0
    for row, own in zip(similarity, label_test):
      votes = np.zeros(10)
      for j in np.argsort(-row)[:k]:
        votes[label[j]] += np.exp(row[j] / 0.07)
      right += votes.argmax() == own
    assert got[f"{k}nn"] == right / 203
  assert got["n_train"] == 410 and got["n_seen"] == 203
  assert 0.5 < got["20nn"] < 1


def test_a_majority_of_neighbours_equals_scikit_learn():
  got = dict(
    knn.Evaluator(
      predict, data_of(), train_split=TRAIN, k=9, vote="majority"
    ).run(WEIGHTS)
  )
  reference = neighbors.KNeighborsClassifier(9, metric="cosine")
  want = reference.fit(*rows_of(TRAIN)).score(*rows_of(TEST))
  assert got["9nn"] == pytest.approx(want)
  with pytest.raises(ValueError, match=r"k=999, but split 'train\[:410\]' has"):
    dict(
      knn.Evaluator(predict, data_of(), train_split=TRAIN, k=999).run(WEIGHTS)
    )


@pytest.mark.parametrize("batch_size, num_devices", [(50, 1), (64, 8)])
def test_linear_probe(batch_size, num_devices):
  l2 = (1e-2, 3e-2, 10.0)  # the kept part would choose the first
  evaluator = linear_probe.Evaluator(
    predict, data_of(batch_size, num_devices), train_split=TRAIN, l2=l2
  )
  got = dict(evaluator.run(WEIGHTS))
  (x, label), (x_test, label_test) = rows_of(TRAIN), rows_of(TEST)
  mean, std = x.mean(0), x.std(0)
  x, x_test = (x - mean) / std, (x_test - mean) / std

  def fit(x, label, penalty):
    return linear_model.LogisticRegression(
      C=1 / (penalty * len(x)), solver="newton-cg", tol=1e-8, max_iter=500
    ).fit(x, label)

  order = np.random.default_rng(0).permutation(410)
  rest, kept = order[:82], order[82:]
  scores = [
    fit(x[kept], label[kept], p).score(x[rest], label[rest]) for p in l2
  ]
  best = l2[int(np.argmax(scores))]
  assert best == 3e-2 and sorted(scores)[-2] < max(scores)
  assert got["l2"] == best
  want = fit(x, label, best).score(x_test, label_test)
  assert got["acc@1"] == pytest.approx(want, abs=1.5 / 203)
  assert (got["n_train"], got["n_seen"]) == (410, 203)


def test_a_probe_that_does_not_converge_says_so(caplog):
  evaluator = linear_probe.Evaluator(
    predict, data_of(), train_split=TRAIN, l2=1e-6, max_iterations=2
  )
  assert 0 < dict(evaluator.run(WEIGHTS))["acc@1"] < 1
  assert "no convergence in max_iterations=2 for l2=1e-06" in caplog.text


EVALUATORS = pytest.mark.parametrize(
  "evaluator", [fewshot.Evaluator, knn.Evaluator, linear_probe.Evaluator]
)


@EVALUATORS
def test_metrics_are_known_before_they_are_computed(evaluator):
  evaluator = evaluator(predict, data_of(), train_split=TRAIN)
  known = tuple(evaluator.metrics)
  assert known == tuple(name for name, _ in evaluator.run(WEIGHTS))


@EVALUATORS
@pytest.mark.parametrize(
  ("split", "shared"),
  [(TEST, 203), ("test", 203), ("train+test[200:]", 3), ("test[-160:]", 3)],
)
def test_no_image_is_both_learned_from_and_evaluated(evaluator, split, shared):
  match = re.escape(f"train_split={split!r} of 'digits' has {shared} examples")
  with pytest.raises(ValueError, match=match):
    evaluator(predict, data_of(), train_split=split)


@EVALUATORS
def test_refusals(evaluator):
  for feature, message in (
    ("tokens", r"'tokens': this output of the model has shape \(64, 1, 12\)"),
    ("logits", "'logits': this output .* not exist. .* pre_logits, twice"),
  ):
    given = evaluator(predict, data_of(), train_split=TRAIN, feature=feature)
    with pytest.raises(ValueError, match=message):
      given.trace(jax.ShapeDtypeStruct(WEIGHTS.shape, WEIGHTS.dtype))
  with pytest.raises(FloatingPointError, match="features of digits train"):
    dict(evaluator(predict, data_of(), train_split=TRAIN).run(WEIGHTS * np.nan))


def test_features_of_two_towers_are_the_embedding():
  z = jnp.arange(6.0).reshape(2, 3)
  out = {"t": jnp.ones(1), "img/pre_logits": z + 1, "img/tokens": z[:, None]}
  given = functools.partial(features.features, (z, None, out))
  assert np.array_equal(given("pre_logits"), z)
  assert np.array_equal(given("img/pre_logits"), z + 1)
  with pytest.raises(ValueError, match="vector per image: img/pre_logits"):
    given("logits")
