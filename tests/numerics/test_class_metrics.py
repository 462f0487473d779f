"""Metrics of classes against scikit-learn, and against loops over the rows."""

import functools
import re

import numpy as np
import pytest
from absl import logging
from sklearn import metrics as sklearn

from tests.class_metrics import evaluate, names_of, random_case
from vitjax.data.sources import source
from vitjax.evaluators import counts, tables


def check_against_scikit_learn(logits, label, devices, batch):
  m, n = logits.shape
  names = names_of(n)
  got = evaluate(logits, label, names, ("all",), devices, batch)
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
  table = sklearn.confusion_matrix(label, guess, labels=range(n + 1))
  for a in range(n):
    row = [got[f"confusion[{names[a]}->{name}]"] for name in names]
    assert row == table[a, :n].tolist()
    assert got[f"confusion[{names[a]}->none]"] == 0
  probability = np.exp(logits.astype(np.float64))
  probability /= probability.sum(axis=1, keepdims=True)
  assert got["loss"] == pytest.approx(
    -np.log(probability[np.arange(m), label]).mean(), rel=1e-5
  )
  if n > 5:
    want = sklearn.top_k_accuracy_score(label, logits, k=5, labels=range(n))
    assert got["acc@5"] == pytest.approx(want, rel=1e-12)
  for metric, fn in (
    ("auroc", sklearn.roc_auc_score),
    ("ap", sklearn.average_precision_score),
  ):
    each = np.array([got[f"class_{metric}[{name}]"] for name in names])
    if len(present) == 1:
      assert np.isnan(got[metric]) and np.isnan(each).all()
      continue
    truth = label[:, None] == present
    want = fn(truth, probability[:, present], average=None)
    np.testing.assert_allclose(each[present], want, rtol=1e-9)
    assert np.isnan(np.delete(each, present)).all()
    assert got[metric] == pytest.approx(want.mean(), rel=1e-9)


@pytest.mark.parametrize("seed", range(6))
def test_against_scikit_learn(seed):
  logits, label = random_case(np.random.default_rng(seed))
  devices, batch = ((1, 64), (8, 16), (2, 6))[seed % 3]
  check_against_scikit_learn(logits, label, devices, batch)


@pytest.mark.slow
@pytest.mark.parametrize("first", range(1, 201, 25))
def test_any_number_of_images_and_batch_size(first):
  for m in range(first, first + 25):
    rng = np.random.default_rng(m)
    devices = int(rng.choice([1, 2, 8]))
    batch = -(-int(rng.integers(1, 17)) // devices) * devices
    check_against_scikit_learn(*random_case(rng, m), devices, batch)


@pytest.mark.parametrize("seed", range(2))
def test_ranking_of_few_values(seed):
  """Images with equal probabilities are neither before nor after each other."""
  rng = np.random.default_rng(seed)
  logits, label = rng.integers(0, 3, (60, 2)), rng.integers(0, 2, 60)
  got = evaluate(logits, label, "ab", ("auroc", "class_ap"))
  score = (logits[:, 1] - logits[:, 0]).astype(float)
  pairs = score[label == 1][:, None] - score[label == 0]
  want = ((pairs > 0) + 0.5 * (pairs == 0)).mean()
  assert got["auroc"] == pytest.approx(want, rel=1e-12)
  found = 0.0
  for value in np.unique(score):  # the precision of each step of the recall
    share = (score[label == 1] == value).mean()
    found += share * (label[score >= value] == 1).mean()
  assert got["class_ap[b]"] == pytest.approx(found, rel=1e-12)


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
  got = evaluate(logits, np.array([0, 2, 2, 1]), "abc", ("all",))
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
  more = evaluate(logits, label, names_of(7), ("all",))
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


@pytest.mark.parametrize(
  ("label", "logits", "parts"),
  [
    ([1, 1], np.eye(3)[:2], ["2 of 3 classes have no images: a, c. Their rec"]),
    (
      [1, 1],
      np.eye(3)[:2],
      ["auroc, ap are nan, because all images are of"],
    ),
    (
      [0, 2, 1],
      np.eye(3) * np.nan,
      ["nan, because the model gives logits that"],
    ),
    ([0, 2, 1], np.eye(3), []),
  ],
)
def test_why_a_metric_is_nan_is_said(said, label, logits, parts):
  source.warn_once.cache_clear()
  evaluate(logits, np.array(label), "abc", ("recall", "auroc", "ap"))
  assert len(said["warning"]) >= len(parts)
  for part in parts:
    assert any(part in line for line in said["warning"]), said
  if not parts:
    assert not said["warning"]


@pytest.mark.parametrize("known", [True, False])
def test_the_largest_class_is_named_once(said, known):
  """At the start, or after the first eval if labels are not known before."""
  label = np.array([0, 1, 2, 2])
  evaluate(np.eye(3)[label], label, "abc", known=known)
  assert said["info"] == [
    "rows all: 2 of 4 images (50.0%) are of the largest class, 'c': always "
    "answering it has this accuracy."
  ]


def test_metrics_of_classes_as_tables():
  """Also of classes whose names look like the marks of the format."""
  names = ["a->b", "none", "c[1]/x"]
  logits = np.array([[3, 1, 0], [0, 0, 0], [0, 2, 1], [0, 1, 4], [1, 2, 0]])
  got = evaluate(logits, np.array([0, 1, 1, 2, 0]), names, ("all",))
  found = tables.by_class(got)
  assert found.classes == names
  assert found.confusion == [[1, 1, 0, 0], [0, 1, 0, 1], [0, 0, 1, 0]]
  assert [*found.single] == [
    *("precision", "recall", "f1", "support", "class_auroc", "class_ap")
  ]
  assert found.single["recall"] == {"a->b": 0.5, "none": 0.5, "c[1]/x": 1.0}
  assert found.whole.keys() >= {"acc@1", "loss", "balanced_acc", "auroc"}
  lines = tables.lines(got, "the file")
  assert lines[1].split()[:5] == ["a->b", "1.0000", "0.5000", "0.6667", "2"]
  assert lines[-1].split() == ["c[1]/x", "0", "0", "1", "0"]
  assert lines[4].endswith("no class")
  many = {f"recall[{i}]": float("nan") for i in range(60)}
  *_, last, more = tables.lines(many, "metrics.jsonl")
  assert last.split() == ["49", "–"]
  assert more == "... and 10 more classes; all are in metrics.jsonl."
