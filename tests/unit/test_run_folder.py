"""A run folder belongs to one run and config, which a newer vitjax knows."""

import json
import shutil

import pytest

from configs import quickstart
from vitjax import trained
from vitjax.compare import comparison
from vitjax.config import resolving, schema
from vitjax.run_folder import files, history, identity, reader


def resolved(**sections):
  c = quickstart.get_config()
  c.update(sections)
  return resolving.resolve(c)


def resume(folder, **sections):
  """What a run does with its folder before it resumes."""
  run = resolved(**sections)
  identity.check_config(folder, run)
  files.write(folder, run, {}, "")


@pytest.fixture
def folder(tmp_path):
  """Of a run that has saved something."""
  files.write(tmp_path, resolved(), {}, "")
  (tmp_path / "checkpoints" / "1").mkdir(parents=True)
  return tmp_path


def test_a_key_that_came_later_is_no_difference(folder):
  file = folder / "config.json"
  saved = json.loads(file.read_text())
  del saved["evals"]["test"]["optional"], saved["sam"]
  file.write_text(json.dumps(saved))
  with pytest.raises(schema.ConfigError, match=r"sam\.rho: 0\.0 -> 0\.1"):
    resume(folder, sam={"rho": 0.1})
  resume(folder)
  assert "sam" in json.loads(file.read_text())


def test_a_key_that_has_gone_is_one(folder):
  file = folder / "config.json"
  saved = json.loads(file.read_text())
  file.write_text(json.dumps({**saved, "gone": 1}))
  with pytest.raises(schema.ConfigError, match="gone"):
    resume(folder)


def test_a_run_that_has_saved_nothing_may_change_its_config(folder):
  (folder / "checkpoints" / "1").rmdir()
  resume(folder, seed=5)
  assert json.loads((folder / "config.json").read_text())["seed"] == 5


def start(folder, saved=None, **sections):
  """What the checkpoints of a run in this folder say about it."""
  info = identity.describe(folder, resolved(**sections), "data", saved)
  files.write(folder, resolved(**sections), {}, "", info["run"])
  return info


def test_a_run_keeps_its_id(tmp_path):
  info = start(tmp_path / "a")
  assert len(info["run"]) == 32
  assert start(tmp_path / "a", info)["run"] == info["run"]
  assert start(tmp_path / "b")["run"] != info["run"]
  # The checkpoints were moved to a folder that has nothing else.
  assert start(tmp_path / "c", info)["run"] == info["run"]


def test_a_checkpoint_of_another_run_is_refused(tmp_path):
  one, two = tmp_path / "one", tmp_path / "two"
  own, foreign = start(one), start(two)
  identity.check_checkpoint(one, 7, own, resolved())
  for check in (
    lambda: identity.check_checkpoint(one, 7, foreign, resolved()),
    lambda: identity.check_run(one, 7, foreign),
  ):
    with pytest.raises(identity.ForeignCheckpointError) as error:
      check()
    for part in (
      f"{one / 'checkpoints' / '7'} is a checkpoint of run {foreign['run']}, "
      f"but {one} is run {own['run']}. Move it out",
      "config.init.weights",
    ):
      assert part in str(error.value)


def test_a_checkpoint_of_another_config_is_refused(tmp_path):
  info = start(tmp_path)
  (tmp_path / "config.json").unlink()
  identity.check_config(tmp_path, resolved(seed=9))  # there is none
  with pytest.raises(schema.ConfigError) as error:
    identity.check_checkpoint(tmp_path, 7, info, resolved(seed=9))
  for part in ("checkpoints/7 was saved by", "seed: 0 -> 9", "--workdir"):
    assert part in str(error.value)
  # What only needs memory may differ; keys added since take their defaults.
  saved = json.loads(info["config"])
  del saved["sam"]
  info["config"] = json.dumps(saved)
  run = resolving.resolve({**saved, "input": {**saved["input"], "prefetch": 7}})
  identity.check_checkpoint(tmp_path, 7, info, run)


def test_runs_older_than_ids(tmp_path):
  old, new = tmp_path / "old", tmp_path / "new"
  info = {"fingerprint": "data"}
  assert identity.describe(old, resolved(), "data", info)["run"] is None
  identity.check_checkpoint(old, 7, info, resolved())
  files.write(old, resolved(), {}, "", None)
  assert not (old / "run.json").exists()
  start(new)
  with pytest.raises(identity.ForeignCheckpointError, match="without an id"):
    identity.check_checkpoint(new, 7, info, resolved())


DAMAGED = {
  "metrics.jsonl": ["[]", "3", "null", '{"a": 1}', '{"step": null}', "{"],
  "config.json": ["[]", "", "{", "null", "\udcff"],
}
DAMAGED["timing.jsonl"] = [*DAMAGED["metrics.jsonl"], '{"step": 1, "a": [2]}']
DAMAGED["environment.json"] = DAMAGED["model.json"] = DAMAGED["config.json"]
DAMAGED["run.json"] = [*DAMAGED["config.json"], "{}", '{"id": 3}']


@pytest.mark.parametrize(
  ("name", "content"), [(n, x) for n, xs in DAMAGED.items() for x in xs]
)
def test_damage_is_said_with_the_name_of_the_file(folder, name, content):
  (folder / "metrics.jsonl").write_text('{"step": 1, "train/loss": 2.0}\n')
  files.write(folder, resolved(), {}, "", "0" * 32)
  whole = shutil.copytree(folder, folder / "whole")
  file = folder / name
  data = content.encode(errors="surrogateescape") + b"\n"
  file.write_bytes(data)
  readers = {
    "metrics.jsonl": [
      lambda: reader.read_metrics(folder),
      lambda: history.read([folder]),
      lambda: comparison.compare(folder, whole),
    ],
    "timing.jsonl": [lambda: history.read([folder])],
    "config.json": [
      lambda: identity.check_config(folder, resolved()),
      lambda: history.read([folder]),
      lambda: comparison.compare(folder, whole),
    ],
    "environment.json": [lambda: history.read([folder])],
    "model.json": [lambda: trained.load(folder)],
    "run.json": [lambda: identity.run_id(folder, None)],
  }
  advice = "Delete the file" if name == "run.json" else ""
  for read in readers[name]:
    with pytest.raises(ValueError) as error:
      read()
    assert str(file) in str(error.value) and "\n" not in str(error.value)
    assert advice in str(error.value)
  # A run drops the lines that it cannot read, and resumes.
  assert reader.seconds_spent(folder, 1) == {}


def test_a_config_without_a_batch_size(folder):
  (folder / "config.json").write_text('{"input": []}')
  (folder / "metrics.jsonl").write_text('{"step": 1, "train/loss": 2.0}\n')
  for read in (
    lambda: identity.check_config(folder, resolved()),
    lambda: history.read([folder]),
    lambda: comparison.compare(folder, folder),
  ):
    with pytest.raises(ValueError, match=r"config\.json is damaged: .*batch"):
      read()
