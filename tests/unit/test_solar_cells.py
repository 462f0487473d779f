"""The script of the study of solar cells: labels, runs and tables."""

import csv
import json

import pytest

from configs import solar_cells as config
from scripts import solar_cells
from vitjax.data.sources import labels


@pytest.fixture
def data(tmp_path):
  """40 images of the package, ten of each probability."""
  folder = tmp_path / "package"
  (folder / "images").mkdir(parents=True)
  lines = []
  for i in range(40):
    name = f"images/cell{i:04d}.png"
    (folder / name).write_bytes(b"png")
    probability = (0.0, 0.3333333333333333, 0.6666666666666666, 1.0)[i % 4]
    lines.append(f"{name}  {probability}  mono")
  (folder / "labels.csv").write_text("\n".join(lines) + "\n")
  return folder


def test_labels_are_thresholded_and_split_by_the_name_alone(data, tmp_path):
  for _ in range(2):  # again changes nothing
    solar_cells.prepare(tmp_path / "out", data)
  rows = {}
  for kind in config.LABELS:
    with open(tmp_path / "out" / f"{kind}.csv", newline="") as file:
      rows[kind] = list(csv.DictReader(file))
  assert [x["label"] for x in rows["grade"][:4]] == ["0", "1", "2", "3"]
  assert [x["label"] for x in rows["defect"][:4]] == [
    *("functional", "functional", "defective", "defective"),
  ]
  splits = [x["split"] for x in rows["defect"]]
  assert splits == [x["split"] for x in rows["grade"]]
  assert {*splits} == {"train", "val", "test"}
  listing = labels.read(f"labels:{tmp_path}/out/grade.csv")
  assert sum(map(len, listing.splits.values())) == 40 and not listing.missing


def test_the_hash_gives_a_quarter_to_the_test():
  splits = [
    solar_cells.split_of(f"images/cell{i:04d}.png") for i in range(2624)
  ]
  assert [splits.count(x) for x in ("train", "val", "test")] == [1602, 375, 647]


def test_every_run_has_its_folder_and_known_options():
  runs = dict(solar_cells.runs())
  assert len(runs) == len({*runs.values()}) == 30
  for options in runs.values():
    config.get_config(f"{options},data=runs/solar")


def test_a_finished_run_is_left_alone(tmp_path, monkeypatch):
  started = []
  monkeypatch.setattr(
    solar_cells.subprocess, "run", lambda command, **_: started.append(command)
  )
  first, second, *_ = (name for name, _ in solar_cells.runs())
  for name, row in ((first, {"test/n_seen": 647}), (second, {"step": 9})):
    (tmp_path / name).mkdir(parents=True)
    file = tmp_path / name / "metrics.jsonl"
    file.write_text(json.dumps({"step": 3, **row}) + "\n")
  solar_cells.train(tmp_path, ["--config.total_steps=2"])
  assert len(started) == 29
  assert f"--workdir={tmp_path / second}" in started[0]
  assert started[0][-1] == "--config.total_steps=2"


def test_a_table_says_how_many_images_and_seeds():
  seeds = [
    [
      {
        "step": 9,
        "test/n_seen": 647,
        "test/acc@1": x,
        "test/balanced_acc": x - 0.1,
        "test/ap": x + 0.1,
      }
    ]
    for x in (0.7, 0.8)
  ]
  lines = solar_cells.table({"none": seeds}, {"none": "plain"}).splitlines()
  assert lines[-1] == (
    "| plain | 647 | 2 | 75.0 ± 7.1 | 65.0 ± 7.1 | 85.0 ± 7.1 |"
  )
