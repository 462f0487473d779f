"""Thresholds of classes against a search over all of them, and their file."""

import numpy as np
import pytest
from sklearn import metrics as sklearn

from vitjax.evaluate import outputs, thresholds
from vitjax.evaluate.thresholds import Goal, Thresholds
from vitjax.evaluators.per_output import Found


def random_case(seed):
  """Probabilities with equal values among them, and labels, some unknown."""
  rng = np.random.default_rng(seed)
  m, n = rng.integers(1, 60), rng.integers(1, 5)
  truth = (rng.random((m, n)) < 0.3).astype(np.float32)
  score = np.clip(rng.normal(0.3 + 0.3 * truth, 0.2), 0, 1).round(1 + seed % 2)
  truth[rng.random((m, n)) < 0.1] = np.nan
  return [f"c{i}" for i in range(n)], score, truth


def at(p, y, threshold):
  """Precision, recall and F1 by scikit-learn."""
  found = sklearn.precision_recall_fscore_support(
    y == 1, p >= threshold, average="binary", zero_division=0
  )
  return dict(zip(("precision", "recall", "f1"), found))


@pytest.mark.parametrize("seed", range(30))
@pytest.mark.parametrize(
  "goal", [Goal("f1"), Goal("precision", 0.8), Goal("recall", 0.9)], ids=str
)
def test_none_is_better(goal, seed):
  names, score, truth = random_case(seed)
  chosen = thresholds.choose(names, score, truth, goal)
  applied = Thresholds(chosen, str(goal), "val", "x")
  values = applied.metrics(names, score, truth)
  for name, p, y in zip(names, score.T, truth.T):
    p, y = p[~np.isnan(y)], y[~np.isnan(y)]
    all_of_them = [at(p, y, t) for t in np.unique(p)]
    maximised = "f1"
    if goal.metric != "f1":
      maximised = {"precision": "recall", "recall": "precision"}[goal.metric]
      all_of_them = [x for x in all_of_them if x[goal.metric] >= goal.least]
    if not (y == 1).any() or not all_of_them:
      assert np.isnan(chosen[name])
      assert np.isnan(values[f"threshold_f1[{name}]"])
      continue
    got = at(p, y, chosen[name])
    assert got[maximised] == max(x[maximised] for x in all_of_them)
    for metric, value in got.items():
      assert values[f"threshold_{metric}[{name}]"] == pytest.approx(value)
    # In the middle, so that rounding moves no image to the other side.
    assert chosen[name] not in p or chosen[name] == 0


def test_a_class_that_is_not_there_and_a_broken_model():
  y = np.array([[1, 0], [0, 0]])
  found = thresholds.choose(
    "ab", np.array([[0.9, 0.1], [0.2, 0.3]]), y, Goal("f1")
  )
  assert found["a"] == pytest.approx(0.55) and np.isnan(found["b"])
  found = thresholds.choose("ab", np.full((2, 2), np.nan), y, Goal("f1"))
  assert np.isnan(list(found.values())).all()


def test_scores_of_images_with_several_classes():
  """Unknown labels are not counted; the logits become probabilities."""
  targets = np.float32([[1, 0], [np.nan, 1], [0, 1]])
  found = Found(np.float32([[2, -1], [9, 1], [-2, -3]]), targets, np.zeros(3))
  given = outputs.OutputAnswers(found, dict, True, ("a", "b"), None)
  chosen = thresholds.choose(*given.scores(), Goal("f1"))
  assert chosen == pytest.approx({"a": 0.5, "b": 0.0237129}, rel=1e-5)
  got = Thresholds(chosen, "f1", "val", "x").metrics(*given.scores())
  assert got["threshold_f1[a]"] == 1
  assert got["threshold_precision[b]"] == pytest.approx(2 / 3)


def test_a_file_holds_them(tmp_path):
  given = Thresholds({"é": 0.125, "b": float("nan")}, "f1", "val (x)", "123")
  file = tmp_path / "t.json"
  file.write_text(thresholds.to_text(given), encoding="utf-8")
  found = thresholds.read(file)
  assert str(found) == str(given)
  assert "chosen on val (x), for f1; none found for b" in found.sentence("4")
  assert "on these very images" in found.sentence("123")
  with pytest.raises(ValueError, match=r"other classes .*: 'b' is in one"):
    found.metrics(["é", "c"], np.zeros((1, 2)), np.zeros((1, 2)))
  file.write_text("[1]")
  with pytest.raises(ValueError, match="is not a file that"):
    thresholds.read(file)
  with pytest.raises(ValueError, match="cannot be read"):
    thresholds.read(tmp_path / "absent.json")


@pytest.mark.parametrize("text", ["f2", "recall", "recall=0", "precision=1.5"])
def test_goals(text):
  assert thresholds.parse_goal("recall=.95") == Goal("recall", 0.95)
  with pytest.raises(ValueError, match="is not f1, precision=P or recall=R"):
    thresholds.parse_goal(text)
