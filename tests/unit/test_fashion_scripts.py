"""Tables from records, and folders of PNG files from Fashion-MNIST."""

import json

import cv2
import numpy as np
import pytest

from scripts import fashion_folder, fashion_study
from vitjax.data import sources
from vitjax.data.sources import folder
from vitjax.data.sources.arrays import ArraySource


def record(accuracies, steps=(10, 20)):
  return [
    {"step": step, "test/acc@1": accuracy, "test/loss": 1 - accuracy}
    for step, accuracy in zip(steps, accuracies)
  ]


def test_a_table_has_mean_deviation_and_paired_difference():
  rows = {
    "a": [record((0.1, 0.80)), record((0.1, 0.84)), record((0.1, 0.85))],
    "b": [record((0.1, 0.70)), record((0.1, 0.75)), record((0.1, 0.77))],
  }
  lines = fashion_study.table(rows, {"a": "ours", "b": "other"}, "a")
  lines = lines.splitlines()
  # deviations -3, 1, 2 and -4, 1, 3 percent: sqrt(14 / 2), sqrt(26 / 2)
  assert lines[2] == "| ours | 3 | 20 | 83.00 ± 2.65 |  | 0.1700 ± 0.0265 |"
  assert (
    lines[3]
    == "| other | 3 | 20 | 74.00 ± 3.61 | -9.00 ± 1.00 | 0.2600 ± 0.0361 |"
  )


def test_a_row_has_its_accuracy_at_each_patch_size():
  def seed(*accuracies):
    names = [f"val/patch{size}/acc@1" for size in (4, 7, 14)]
    return [{"step": 9, **dict(zip(names, accuracies))}]

  rows = {"a": [seed(0.5, 0.6, 0.7), seed(0.52, 0.66, 0.7)]}
  lines = fashion_study.patch_table(rows, {"a": "all"}).splitlines()
  assert lines[2] == "| all | 2 | 51.00 ± 1.41 | 63.00 ± 4.24 | 70.00 ± 0.00 |"


def test_a_grid_has_a_column_per_rate():
  rows = {
    "a-0.01": [record((0.1, 0.5)), record((0.1, 0.7))],
    "a-0.003": [record((0.1, 0.4))],
    "b-0.01": [record((0.1, 0.8))],
  }
  grid = fashion_study.grid_table(rows, "test/acc@1", {"a": "A", "b": "B"})
  assert grid.splitlines() == [
    "| test/acc@1 | 0.003 | 0.01 |",
    "|---|--:|--:|",
    "| A | 0.400 | 0.600 |",
    "| B |  | 0.800 |",
  ]


def test_only_steps_of_all_seeds_count():
  seeds = [record((0.1, 0.2)), record((0.3,))]
  assert fashion_study.curves_of(seeds, "test/acc@1") == {10: [0.1, 0.3]}
  with pytest.raises(ValueError, match="no step at which all seeds have x"):
    fashion_study.curves_of(seeds, "x")


def test_smoothing_is_a_mean_over_the_past():
  values = np.array([[1.0], [3.0], [8.0], [2.0]])
  np.testing.assert_allclose(
    fashion_study.smooth(values, 2), [[1], [2], [5.5], [5]]
  )


def test_tables_go_between_their_marks():
  text = (
    "a\n<!-- table x -->\nold\n<!-- end -->\n<!-- table y -->\n<!-- end -->"
  )
  new = fashion_study.insert(text, "x", r"| \1 |")
  assert new == text.replace("old", r"| \1 |")
  assert fashion_study.insert(new, "y", "z").endswith("y -->\nz\n<!-- end -->")
  with pytest.raises(ValueError, match="0 marks"):
    fashion_study.insert(text, "z", "")


def test_records_are_collected_by_row(tmp_path):
  run = tmp_path / "runs/study/row/7"
  run.mkdir(parents=True)
  for name in ("config.json", "model.json"):
    (run / name).write_text("{}")
  (run / "metrics.jsonl").write_text(json.dumps({"step": 1, "a": 2}) + "\n")
  fashion_study.collect(tmp_path / "runs", tmp_path / "curves")
  rows = fashion_study.read_rows(tmp_path / "curves/study")
  assert rows == {"row": [[{"step": 1, "a": 2}]]}
  assert (tmp_path / "curves/study/row/7/config.json").exists()


@pytest.fixture
def fashion(monkeypatch):
  """100 training and 20 test images of ten classes; each has its number."""

  def open_source(data, split, **_):
    count = {"train": 100, "test": 20}[split]
    images = np.zeros((count, 28, 28, 1), np.uint8)
    images[:] = np.arange(count).reshape(-1, 1, 1, 1)
    names = ["T-shirt/top", *map(str, range(1, 10))]
    return array_source(data, split, images, np.arange(count) % 10, names)

  array_source = ArraySource
  monkeypatch.setattr(sources, "open_source", open_source)


def numbers(path):
  """(class, pixel value) of all files below `path`, and checks their names."""
  found = set()
  for file in path.glob("*/*.png"):
    image = cv2.imread(str(file), cv2.IMREAD_UNCHANGED)
    assert image.shape == (28, 28) and (image == int(file.stem)).all()
    found.add((file.parent.name, int(file.stem)))
  return found


def test_a_folder_has_the_classes_asked_for(tmp_path, fashion):
  count = fashion_folder.write(tmp_path / "a", (0, 7), train=4, val=3, seed=1)
  assert count == {"train": 8, "val": 6, "test": 4}
  train, val = numbers(tmp_path / "a/train"), numbers(tmp_path / "a/val")
  assert len(train) == 8 and len(val) == 6 and not train & val
  assert {(name, i % 10) for name, i in train | val} == {
    ("T-shirt or top", 0),
    ("7", 7),
  }
  test = {("T-shirt or top", i) for i in (0, 10)} | {("7", i) for i in (7, 17)}
  assert numbers(tmp_path / "a/test") == test
  source = folder.FolderSource(f"folder:{tmp_path / 'a'}", "train")
  assert source.num_examples == 8
  assert source.class_names == ("7", "T-shirt or top")


def test_more_images_of_a_seed_include_fewer(tmp_path, fashion):
  for name, train, seed in (("few", 4, 1), ("all", None, 1), ("other", 4, 2)):
    fashion_folder.write(tmp_path / name, (3,), train=train, val=2, seed=seed)
  few, every = numbers(tmp_path / "few/train"), numbers(tmp_path / "all/train")
  assert few < every and len(every) == 8
  assert few != numbers(tmp_path / "other/train")
