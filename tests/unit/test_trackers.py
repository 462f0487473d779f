"""Trackers: the same rows in other places, none of which can stop a run."""

import contextlib
import csv
import json
import logging as python_logging
import math
import struct
import subprocess
import sys
import time

import pytest
from absl import logging

from vitjax.run_folder import trackers
from vitjax.run_folder.reader import read_metrics
from vitjax.run_folder.trackers.background import Background
from vitjax.run_folder.writer import MetricsWriter


@contextlib.contextmanager
def warnings():
  """The warnings that are logged meanwhile."""
  messages = []

  class Handler(python_logging.Handler):
    def emit(self, record):
      messages.append(record.getMessage())

  handler = Handler(level=python_logging.WARNING)
  logging.get_absl_logger().addHandler(handler)
  try:
    yield messages
  finally:
    logging.get_absl_logger().removeHandler(handler)


@pytest.fixture
def folder(tmp_path):
  """A run folder before step 1."""
  folder = tmp_path / "mine"
  folder.mkdir()
  config = {"input": {"batch_size": 8}, "optim": {"learning_rate": 0.1}}
  (folder / "config.json").write_text(json.dumps(config))
  environment = {"versions": {"jax": "0.10.2"}, "git_revision": "abc"}
  (folder / "environment.json").write_text(json.dumps(environment))
  return folder


def write(folder, chosen, steps, start_step=0, saved=()):
  """One process of a run, which is killed if it does not save at the end."""
  writer = MetricsWriter(
    folder, start_step=start_step, trackers=trackers.sections(chosen)
  )
  for step in steps:
    writer.write(step, {"train/loss": 1 / step})
    writer.write_timing(step, {"step_seconds": 0.5})
    if step % 4 == 0:
      writer.write(step, {"val/acc@1": step / 10, "val/recall[a b]": 0.5})
    if step in saved:
      writer.flush()
  writer.close()


def killed_and_resumed(folder, chosen):
  """Steps 1 to 6, killed; resumed from the checkpoint of step 3; to step 9."""
  write(folder, chosen, range(1, 7), saved=[3])
  write(folder, chosen, range(4, 10), start_step=3, saved=[9])


class Recorder:
  """A tracker that fails or hangs at one of its calls."""

  def __init__(self, fails="", hangs=""):
    self.rows, self.calls = [], []
    self._fails, self._hangs = fails, hangs
    self._call("init")

  def _call(self, name):
    self.calls.append(name)
    if name == self._hangs:
      time.sleep(30)
    if name == self._fails:
      raise SystemExit("it\nis broken")

  def write(self, step, values):
    self._call("write")
    self.rows.append((step, values))

  def flush(self):
    self._call("flush")

  def close(self):
    self._call("close")


def test_a_tracker_gets_all_rows_in_order():
  made = []
  tracker = Background("x", lambda: made.append(Recorder()) or made[0])
  for step in range(50):
    tracker.write(step, {"a": step})
  tracker.flush()
  assert made[0].rows == [(step, {"a": step}) for step in range(50)]
  tracker.close()
  assert made[0].calls[-2:] == ["flush", "close"]


@pytest.mark.parametrize("call", ["init", "write", "flush", "close"])
@pytest.mark.parametrize("kind", ["fails", "hangs"])
def test_a_tracker_that_breaks_is_one_warning(call, kind):
  with warnings() as messages:
    start = time.monotonic()
    tracker = Background(
      "mine", lambda: Recorder(**{kind: call}), patience_seconds=0.3
    )
    for step in range(3):
      tracker.write(step, {"a": step})
      tracker.flush()
    tracker.close()
    assert time.monotonic() - start < 3
  reason = {
    "fails": "SystemExit: it",
    "hangs": "it has not answered for 0.3 seconds",
  }[kind]
  assert messages == [
    f"Tracker mine is switched off ({reason}). The run continues, and "
    "metrics.jsonl has all metrics."
  ]


def test_a_broken_tracker_leaves_the_record_and_the_others(folder):
  with warnings() as messages:
    write(folder, ["no.such.module", "csv"], range(1, 4))
  assert len(messages) == 1
  assert messages[0].startswith("Tracker no.such.module is switched off")
  assert [x["step"] for x in read_metrics(folder)] == [1, 2, 3]
  assert len(rows_of(folder)) == 3


def test_a_missing_package_is_a_warning_with_the_command(folder, monkeypatch):
  monkeypatch.setitem(sys.modules, "wandb", None)
  with warnings() as messages:
    write(folder, ["wandb"], range(1, 3))
  (message,) = messages
  assert "Weights & Biases need the package 'wandb'" in message
  assert 'pip install "vitjax[wandb]"' in message


def test_nothing_is_imported_unless_chosen(folder):
  code = """
import sys
from vitjax.run_folder import trackers
from vitjax.run_folder.writer import MetricsWriter
for name in trackers.TRACKERS:
  trackers.find(name)
with MetricsWriter(sys.argv[1], trackers={"csv": {}}) as writer:
  writer.write(1, {"a": 1})
sys.exit(str({"tensorflow", "wandb", "mlflow", "tqdm"} & {*sys.modules}))
"""
  done = subprocess.run(
    [sys.executable, "-c", code, folder], capture_output=True, text=True
  )
  assert done.stderr.strip() == "set()"


def test_only_the_main_process_has_trackers(folder):
  before = sorted(folder.iterdir())
  with MetricsWriter(folder, is_main=False, trackers={"csv": {}}) as writer:
    writer.write(1, {"a": 1})
  assert sorted(folder.iterdir()) == before


def test_unknown_trackers_are_refused():
  with pytest.raises(ValueError, match="Did you mean 'wandb'"):
    trackers.find("wanbd")
  with pytest.raises(ValueError, match="has no class Tracker"):
    trackers.find("os.path")


# CSV.


def rows_of(folder):
  with open(folder / "metrics.csv", newline="") as file:
    return list(csv.DictReader(file))


def test_the_table_has_a_row_for_each_step(folder):
  write(folder, ["csv"], range(1, 6))
  text = (folder / "metrics.csv").read_text()
  assert text.splitlines() == [
    "step,train/loss,step_seconds,val/acc@1,val/recall[a b]",
    "1,1.0,0.5,,",
    "2,0.5,0.5,,",
    "3,0.3333333333333333,0.5,,",
    "4,0.25,0.5,0.4,0.5",
    "5,0.2,0.5,,",
  ]


def test_a_resumed_table_has_the_same_bytes(folder, tmp_path):
  killed_and_resumed(folder, ["csv"])
  (tmp_path / "other").mkdir()
  write(tmp_path / "other", ["csv"], range(1, 10))
  expected = (tmp_path / "other" / "metrics.csv").read_bytes()
  assert (folder / "metrics.csv").read_bytes() == expected
  write(folder, ["csv"], [])
  assert (folder / "metrics.csv.old").read_bytes() == expected
  assert rows_of(folder) == []


def test_a_row_that_a_kill_has_cut_is_written_again(folder):
  write(folder, ["csv"], range(1, 4))
  file = folder / "metrics.csv"
  file.write_bytes(file.read_bytes()[:-3])
  write(folder, ["csv"], [4], start_step=3)
  assert [row["step"] for row in rows_of(folder)] == ["1", "2", "4"]


def test_a_table_takes_a_step_again_and_odd_names(folder):
  writer = MetricsWriter(folder, trackers={"csv": {}})
  name = 'val/recall[a,"b"\nc]'
  writer.write(1, {"a": 1.5, name: math.nan})
  writer.flush()
  writer.write(1, {"b": math.inf})
  writer.write(2, {"a": 1})
  writer.close()
  assert rows_of(folder) == [
    {"step": "1", "a": "1.5", name: "nan", "b": "inf"},
    {"step": "2", "a": "1", name: "", "b": ""},
  ]


# Weights & Biases.


def sent(file):
  """(step, name -> value) of each row in an offline file of W&B.

  It has the format of LevelDB's log: blocks of 32 KiB of pieces, each with a
  checksum, its length and its place in a record.
  """
  from wandb.proto import wandb_internal_pb2

  data, position, record, rows = file.read_bytes(), 7, b"", []
  while position + 7 <= len(data):
    left = 2**15 - position % 2**15
    _, length, kind = struct.unpack("<IHB", data[position : position + 7])
    if left < 7:
      position += left
      continue
    record += data[position + 7 : position + 7 + length]
    position += 7 + length
    if kind in (1, 4):  # whole, or its last piece
      message = wandb_internal_pb2.Record.FromString(record)
      record = b""
      if message.WhichOneof("record_type") == "history":
        items = {
          "/".join(x.nested_key) or x.key: json.loads(x.value_json)
          for x in message.history.item
        }
        rows.append((message.history.step.num, items))
  return rows


@pytest.mark.slow
def test_a_resumed_run_is_one_run_on_wandb(folder):
  pytest.importorskip("wandb")
  options = {"project": "birds", "mode": "offline", "tags": ("a",)}
  with warnings() as messages:
    killed_and_resumed(folder, {"wandb": options})
  assert not messages
  files = sorted((folder / "wandb").glob("offline-run-*/run-*.wandb"))
  state = json.loads((folder / "wandb.json").read_text())
  assert {file.stem for file in files} == {f"run-{state['id']}"}
  assert state["step"] == 9
  deadline = time.monotonic() + 60  # its own process writes, and outlives ours
  rows = []
  while len(rows) < 9 and time.monotonic() < deadline:
    rows = [row for file in files for row in sent(file)]
    time.sleep(0.1)
  assert [step for step, _ in rows] == [*range(1, 10)]
  assert rows[3][1].items() >= {"train/loss": 0.25, "val/acc@1": 0.4}.items()
  assert b"birds" in files[0].read_bytes()
  assert b"0.10.2" in files[0].read_bytes()


def test_wandb_without_a_login_neither_asks_nor_stops(folder, monkeypatch):
  pytest.importorskip("wandb")
  monkeypatch.setenv("HOME", str(folder))  # no ~/.netrc
  monkeypatch.delenv("WANDB_API_KEY", raising=False)
  with warnings() as messages:
    write(folder, {"wandb": {"mode": "online"}}, range(1, 3))
  assert len(messages) == 1 and "Tracker wandb is switched off" in messages[0]
  assert len(read_metrics(folder)) == 2


# MLflow.


@pytest.mark.slow  # makes a database
@pytest.mark.filterwarnings("ignore")  # MLflow's own, about SQLAlchemy
def test_a_resumed_run_is_one_run_in_mlflow(folder, tmp_path):
  mlflow = pytest.importorskip("mlflow")
  uri = f"sqlite:///{tmp_path}/mlflow.db"
  options = {"uri": uri, "experiment": "birds", "tags": {"team": "vision"}}
  with warnings() as messages:
    killed_and_resumed(folder, {"mlflow": options})
  assert not messages
  client = mlflow.MlflowClient(uri)
  experiment = client.get_experiment_by_name("birds")
  (run,) = client.search_runs([experiment.experiment_id])
  assert (
    run.info.run_id == json.loads((folder / "mlflow.json").read_text())["id"]
  )
  assert run.info.status == "FINISHED" and run.info.run_name == "mine"
  assert run.data.params["optim.learning_rate"] == "0.1"
  assert run.data.tags["team"] == "vision"
  assert run.data.tags["version.jax"] == "0.10.2"
  for name, steps in {
    "train/loss": [*range(1, 10)],
    "step_seconds": [*range(1, 10)],
    "val/acc_1": [4, 8],
    "val/recall/a b": [4, 8],
  }.items():
    history = client.get_metric_history(run.info.run_id, name)
    assert [point.step for point in history] == steps


# TensorBoard.


@pytest.mark.slow  # imports TensorFlow
def test_tensorboard_files_are_written(folder):
  with MetricsWriter(folder, trackers={"tensorboard": {}}) as writer:
    writer.write(1, {"train/loss": 2.0, "bad": math.nan})
    writer.write_timing(1, {"step_seconds": 0.5})
  (events,) = (folder / "tensorboard").glob("events.out.tfevents.*")
  data = events.read_bytes()
  assert b"train/loss" in data and b"step_seconds" in data


@pytest.mark.slow  # imports TensorFlow
def test_tensorboard_that_fails_is_one_warning(folder):
  (folder / "tensorboard").write_text("in the way")
  with warnings() as messages:
    write(folder, ["tensorboard"], range(1, 4), saved=[1, 2, 3])
  assert len(messages) == 1 and "Tracker tensorboard is" in messages[0]
  assert len(read_metrics(folder)) == 3
