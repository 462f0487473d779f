"""The grid of a sweep, and what is said about its points."""

import math
import pathlib
import types

import numpy as np
import pytest

from vitjax.config import resolving
from vitjax.run_folder.history import Record
from vitjax.sweep import __main__ as command
from vitjax.sweep import grid, results

BASE = {"total_epochs": 3, "optim": {"name": "adam", "learning_rate": 1.0}}


def axes(*texts):
  return [grid.parse(text) for text in texts]


class TestGrid:
  def test_all_combinations_and_their_folders(self):
    found = grid.points(
      axes("config.optim.learning_rate=1e-3,3e-3", "seed=0,1")
    )
    assert [p.name for p in found] == [
      "learning_rate=1e-3_seed=0",
      "learning_rate=1e-3_seed=1",
      "learning_rate=3e-3_seed=0",
      "learning_rate=3e-3_seed=1",
    ]
    assert found[1].overrides == [
      "--config.optim.learning_rate=1e-3",
      "--config.seed=1",
    ]

  def test_keys_with_the_same_end_have_whole_names(self):
    (point,) = grid.points(axes("optim.name=sgd", "model.name=vit"))
    assert point.name == "optim.name=sgd_model.name=vit"

  def test_commas_in_brackets_and_quotes(self):
    axis = grid.parse("""input.pp="crop(2,3)|a",flip(1, 2),'x,y'""")
    assert axis.texts == ('"crop(2,3)|a"', "flip(1, 2)", "'x,y'")

  @pytest.mark.parametrize("text", ["seed", "=1", "seed=", "seed=1,,2"])
  def test_what_is_no_axis(self, text):
    with pytest.raises(ValueError, match=r"must be KEY=VALUE,VALUE"):
      grid.parse(text)

  def test_values_and_keys_that_are_given_twice(self):
    with pytest.raises(ValueError, match="has 1 twice"):
      grid.parse("seed=1,2,1")
    with pytest.raises(ValueError, match="is given twice"):
      grid.points(axes("seed=1", "seed=2"))

  def test_a_duration_replaces_that_of_the_file(self):
    (point,) = grid.points(axes("total_steps=20", "optim.learning_rate=1e-3"))
    assert grid.config_of(BASE, point) == {
      "total_steps": 20,
      "optim": {"name": "adam", "learning_rate": 1e-3},
    }
    assert BASE["total_epochs"] == 3

  def test_values_are_read_as_overrides_are(self):
    assert [grid.value_of(x) for x in ("1e-3", "None", "cosine", "(1, 2)")] == [
      1e-3,
      None,
      "cosine",
      (1, 2),
    ]


@pytest.mark.parametrize(
  ("metric", "ema", "want"),
  [
    ("val/acc@1", {}, "max"),
    ("val_ema/loss", {"decay": 0.9}, "min"),
    (None, {}, "--metric= must be EVAL/METRIC with EVAL one of val, such as"),
    ("acc@1", {}, "--metric=acc@1 must be"),
    ("test/acc@1", {}, "--metric=test/acc@1 must be"),
    ("val_ema/loss", {}, "--metric=val_ema/loss must be"),
    ("val/x", {}, "whether the largest or the smallest value is the best"),
  ],
)
def test_the_metric_is_of_an_eval(monkeypatch, metric, ema, want):
  """Said before the first point is trained."""
  run = resolving.resolve(
    {
      "total_steps": 20,
      "input": {"data": "digits", "batch_size": 8, "pp": ""},
      "model": {"name": "vit"},
      "optim": {"name": "sgd", "learning_rate": 0.1},
      "ema": ema,
      "evals": {"val": {"split": "test", "pp": ""}},
    }
  )
  flags = types.SimpleNamespace(metric=metric, mode=None)
  monkeypatch.setattr(command, "FLAGS", flags)
  if want in ("max", "min"):
    assert command._metric_and_mode(run) == (metric, want)
  else:
    with pytest.raises(ValueError, match=want):
      command._metric_and_mode(run)


class TestResults:
  AXES = axes("optim.learning_rate=1e-3,3e-3,1e-2", "total_epochs=5,10")

  def outcomes(self, values):
    return [
      results.Outcome(point, value, 100, 7)
      for point, value in zip(grid.points(self.AXES), values)
    ]

  def test_the_best_point(self):
    found = self.outcomes([0.1, 0.3, math.nan, 0.5, None, 0.5])
    assert results.best(found, "max") is found[3]
    assert results.best(found, "min") is found[0]
    assert results.best(found[2:3], "max") is None

  def test_a_best_value_at_the_edge_is_told(self):
    inside, largest, smallest = (
      results.edges(self.AXES, found)
      for found in (self.outcomes([0] * 6)[i] for i in (3, 5, 0))
    )
    (length,) = inside  # of two values, each is at an edge
    assert "total_epochs=10 is the largest" in length
    assert "--over=total_epochs=10,20,40" in length
    assert "optim.learning_rate=0.01 is the largest of the grid" in largest[0]
    assert "--over=optim.learning_rate=0.01,0.0333,0.111" in largest[0]
    assert "learning_rate=0.001 is the smallest" in smallest[0]
    assert "--over=optim.learning_rate=0.001,0.000333,0.000111" in smallest[0]

  def test_the_table(self):
    found = self.outcomes([0.25, 0.5])
    table = results.rows(self.AXES, found, "val/acc@1", found[1])
    assert table[0][:3] == ["optim.learning_rate", "total_epochs", "val/acc@1"]
    assert table[2] == ["1e-3", "10", "0.5", "100", "7", "best"]
    assert results.to_text(table).splitlines()[2].endswith("7  best")
    assert results.to_csv(table).splitlines()[1] == "1e-3,5,0.25,100,7,"

  def test_the_lines_of_the_plot(self):
    found = self.outcomes([0.1, 0.2, None, 0.4, 0.5, 0.6])
    lines = results.series(self.AXES, found)
    x, y = lines["total_epochs=5"]
    np.testing.assert_array_equal(x, [1e-3, 3e-3, 1e-2])
    np.testing.assert_array_equal(y, [0.1, math.nan, 0.5])
    assert results.plot(self.AXES, found, "val/acc@1")[:4] == b"\x89PNG"
    names = axes("optim.name=sgd,adam")
    points = grid.points(names)
    found = [results.Outcome(point, 0.5, None, 1) for point in points]
    assert results.plot(names, found, "val/loss")[:4] == b"\x89PNG"

  def test_outcomes_of_runs(self):
    (point,) = grid.points(axes("seed=1"))
    curve = (np.array([3, 6]), np.array([0.9, 0.5]))
    record = Record(
      name="x",
      path=pathlib.Path("x"),
      metrics={"val/acc@1": curve, "train/loss": curve},
      num_seen={"val": 50},
      timing={},
      config=None,
      environment=None,
      early_end="Ended early after step 6 of 9: ...",
    )
    found = results.outcome(point, record, "val/acc@1", "")
    # The value at the end, which the best one would flatter.
    assert (found.value, found.num_seen, found.step) == (0.5, 50, 6)
    assert found.note == "ended early"
    diverged = results.outcome(point, record, "val/acc@1", "diverged: ...")
    assert diverged.value is None and diverged.note == "diverged: ..."
    with pytest.raises(ValueError, match=r"no such metric. It has val/acc@1\."):
      results.outcome(point, record, "val/acc", "")
