"""Metrics of classes against scikit-learn, and against loops over the rows."""

import functools
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from absl import logging
from jax.sharding import AxisType, Mesh
from sklearn import metrics as sklearn

from vitjax.data.pp import builder
from vitjax.data.sources.arrays import ArraySource
from vitjax.evaluators import base, classification, counts
from vitjax.parallel import sharding

ALL = (*counts.METRICS, "confusion", "auroc", "ap")


def mesh_of(num_devices):
  devices = np.array(jax.devices()[:num_devices]).reshape(-1, 1, 1)
  return Mesh(devices, sharding.AXES, axis_types=(AxisType.Auto,) * 3)


def predict(params, batch):
  """The logits of each image: its one pixel is its row among `params`."""
  row = batch["image"].reshape(len(batch["image"])).astype(jnp.int32)
  return params[row], {}


def evaluate(logits, label, names, wanted=(), devices=1, batch=64, **options):
  """The metrics of some logits (m, n)."""
  images = np.arange(len(label), dtype=np.uint8).reshape(-1, 1, 1, 1)
  source = ArraySource("rows", "all", images, label, names)
  data = base.EvalData(source, builder.build(""), batch, mesh_of(devices))
  evaluator = classification.Evaluator(predict, data, metrics=wanted, **options)
  got = list(evaluator.run(jnp.asarray(logits, jnp.float32)))
  assert [name for name, _ in got] == list(evaluator.metrics)
  assert all(type(value) in (int, float) for _, value in got)
  return dict(got)


def names_of(n):
  return [f"c{i}" for i in range(n)]


def random_case(rng):
  """1 to 200 images of 1 to 50 classes, of which some are absent."""
  m, n = int(rng.integers(1, 201)), int(rng.integers(1, 51))
  some = rng.permutation(n)[: rng.integers(1, n + 1)]
  label = rng.choice(some, m)
  logits = rng.normal(size=(m, n)).astype(np.float32)
  logits[np.arange(m), label] += rng.uniform(0, 3)
  return logits, label


@pytest.mark.parametrize("seed", range(12))
def test_against_scikit_learn(seed):
  logits, label = random_case(np.random.default_rng(seed))
  m, n = logits.shape
  devices, batch = ((1, 64), (8, 16), (1, 7))[seed % 3]
  names = names_of(n)
  got = evaluate(logits, label, names, ALL, devices, batch)
  guess = logits.argmax(axis=1)
  present = np.unique(label)
  options = {"labels": range(n), "zero_division": 0}
  each = sklearn.precision_recall_fscore_support(label, guess, **options)
  for metric, values in zip(("precision", "recall", "f1", "support"), each):
    have = [got[f"{metric}[{name}]"] for name in names]
    if metric == "recall":
      assert np.isnan(have).tolist() == [c not in present for c in range(n)]
      have = np.nan_to_num(have)
    np.testing.assert_allclose(have, values, rtol=1e-12)
  macro = sklearn.precision_recall_fscore_support(
    label, guess, labels=present, average="macro", zero_division=0
  )
  assert got["macro_precision"] == pytest.approx(macro[0], rel=1e-12)
  assert got["balanced_acc"] == pytest.approx(macro[1], rel=1e-12)
  assert got["macro_f1"] == pytest.approx(macro[2], rel=1e-12)
  assert got["majority"] == np.bincount(label).max() / m
  table = sklearn.confusion_matrix(label, guess, labels=range(n))
  for a in range(n):
    row = [got[f"confusion[{names[a]}->{name}]"] for name in names]
    assert row == table[a].tolist()
    assert got[f"confusion[{names[a]}->none]"] == 0
  probability = np.exp(logits.astype(np.float64))
  probability /= probability.sum(axis=1, keepdims=True)
  for metric, fn in (
    ("auroc", sklearn.roc_auc_score),
    ("ap", sklearn.average_precision_score),
  ):
    if len(present) == 1:
      assert np.isnan(got[metric])
      continue
    truth = label[:, None] == present
    want = fn(truth, probability[:, present], average="macro")
    assert got[metric] == pytest.approx(want, rel=1e-9)


@pytest.mark.parametrize("seed", range(3))
def test_ranking_of_few_values(seed):
  """Images with equal probabilities are neither before nor after each other."""
  rng = np.random.default_rng(seed)
  logits, label = rng.integers(0, 3, (60, 2)), rng.integers(0, 2, 60)
  got = evaluate(logits, label, "ab", ("auroc",))
  score = (logits[:, 1] - logits[:, 0]).astype(float)
  pairs = score[label == 1][:, None] - score[label == 0]
  want = ((pairs > 0) + 0.5 * (pairs == 0)).mean()
  assert got["auroc"] == pytest.approx(want, rel=1e-12)


@pytest.mark.parametrize("k", [1, 2, 3, 7])
def test_top_k_of_any_k(k):
  rng = np.random.default_rng(k)
  logits, label = rng.normal(size=(90, 9)), rng.integers(0, 9, 90)
  got = evaluate(logits, label, names_of(9), (f"acc@{k}",))
  want = sklearn.top_k_accuracy_score(label, logits, k=k, labels=range(9))
  assert got[f"acc@{k}"] == pytest.approx(want, rel=1e-12)
  assert {"acc@1", "acc@5", "loss"} < got.keys()


def test_ties_and_nan_are_predictions_of_no_class():
  logits = np.array([[1, 1, 0], [np.nan, 0, 9], [0, 0, 2], [3, 0, 1]])
  got = evaluate(logits, np.array([0, 2, 2, 1]), "abc", ALL)
  assert got["acc@1"] == 0.25
  assert got["confusion[a->none]"] == got["confusion[c->none]"] == 1
  assert (got["recall[c]"], got["precision[c]"]) == (0.5, 1.0)
  assert got["balanced_acc"] == pytest.approx(0.5 / 3)
  assert np.isnan(got["auroc"])


def test_the_classes_of_another_model():
  """Counts are of the classes that can be predicted, under their names."""
  from vitjax.evaluators.classes import Classes

  rng = np.random.default_rng(0)
  model = Classes("mine", 5, ("d", "b", "x", "a", "c"))
  logits, label = rng.normal(size=(50, 5)), rng.integers(0, 3, 50)
  got = evaluate(
    logits,
    label,
    "abc",
    ("support", "confusion"),
    classes=model,
    among="present",
  )
  assert [x for x in got if x.startswith("support")] == [
    "support[b]",
    "support[a]",
    "support[c]",
  ]
  order = ["a", "b", "c"]
  guess = logits[:, [3, 1, 4]].argmax(axis=1)
  table = sklearn.confusion_matrix(label, guess)
  for i, j in np.ndindex(3, 3):
    assert got[f"confusion[{order[i]}->{order[j]}]"] == table[i, j]


def test_options_change_no_other_metric():
  rng = np.random.default_rng(0)
  logits, label = rng.normal(size=(150, 7)), rng.integers(0, 7, 150)
  plain = evaluate(logits, label, names_of(7))
  assert list(plain) == ["acc@1", "acc@5", "loss", "n_seen"]
  more = evaluate(logits, label, names_of(7), ALL)
  assert {name: more[name] for name in plain} == plain


@pytest.mark.parametrize(
  ("wanted", "part"),
  [
    (("balanced",), "metrics has 'balanced', which is not one of acc@K, loss"),
    (("acc@0",), "metrics has 'acc@0'"),
    (("acc@3",), "there are only 3 classes: it would always be 1"),
    ((3,), "metrics has 3"),
  ],
)
def test_refused(wanted, part):
  with pytest.raises(ValueError, match=re.escape(part)):
    evaluate(np.zeros((2, 3)), np.array([0, 1]), "abc", wanted)


def test_a_large_confusion_matrix_is_refused():
  with pytest.raises(ValueError, match="at most 100"):
    n = counts.MOST_CONFUSED + 1
    evaluate(np.zeros((2, n)), np.array([0, 1]), names_of(n), ("confusion",))


@pytest.fixture
def said(monkeypatch):
  """What is logged, as lines."""
  lines = {"info": [], "warning": []}
  for level, found in lines.items():
    monkeypatch.setattr(
      logging, level, lambda text, *args, found=found: found.append(text % args)
    )
  return lines


ONE = functools.partial(np.tile, np.array([0.0, 3.0, 1.0]))


@pytest.mark.parametrize(
  ("logits", "label", "part"),
  [
    (
      ONE((10, 1)),
      [0] * 3 + [1] * 7,
      "all 10 images are predicted as 'b', and",
    ),
    (ONE((10, 1)), [0] * 3 + [1] * 7, "and 70.0% of them are of this class."),
    (np.zeros((10, 3)), [0] * 3 + [1] * 7, "no class has the largest logit"),
    (ONE((10, 1)), [1] * 10, None),  # they are all of this class
    (np.eye(3)[[1] * 9 + [0]], [0] * 3 + [1] * 7, None),
  ],
)
def test_a_collapsed_model_is_warned_of(said, logits, label, part):
  evaluate(logits, np.array(label), "abc")
  if part is None:
    assert not said["warning"]
  else:
    (line,) = said["warning"]
    assert part in line and "10 images" in line


def test_the_largest_class_is_named_at_the_start(said):
  evaluate(np.eye(3)[[0, 1, 2, 2]], np.array([0, 1, 2, 2]), "abc")
  assert said["info"] == [
    "rows all: 2 of 4 images (50.0%) are of the largest class, 'c': always "
    "answering it has this accuracy."
  ]
