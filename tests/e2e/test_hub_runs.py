"""Runs that begin with a repository of a hub, whose branch moves meanwhile."""

import json
import signal

import pytest

from tests import fake_hub, hub_models, run_folders
from tests.e2e import launch
from vitjax.finetune import choosing, stored
from vitjax.finetune.recipe import Recipe

pytestmark = pytest.mark.slow
NAME = "hf:owner/model"


@pytest.fixture(scope="module")
def images(tmp_path_factory):
  return run_folders.make_images(tmp_path_factory.mktemp("images"))


@pytest.fixture
def hub(tmp_path, monkeypatch):
  with fake_hub.serve() as hub:
    monkeypatch.setenv("HF_ENDPOINT", hub.address)
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hub"))
    monkeypatch.setenv("HF_HUB_DISABLE_XET", "1")
    yield hub


def add(hub, folder, seed: int) -> str:
  """Commits the model with other weights; returns the commit."""
  arrays = hub_models.arrays("timm_vit", seed=seed)
  files = hub_models.timm(folder) | {
    "model.safetensors": hub_models.safetensors(arrays, folder),
    "README.md": str(seed).encode(),
  }
  return hub.add("owner/model", files)


def origin(workdir) -> dict:
  return json.loads((workdir / "model.json").read_text())["init"]


def written(workdir) -> int:
  """When the record of a run was written to, in nanoseconds."""
  record = workdir / "metrics.jsonl"
  return record.stat().st_mtime_ns if record.exists() else 0


def check_killed_and_resumed(start, hub, tmp_path, cache):
  """Against a run that nothing happened to; `start(workdir)` is a command."""
  commits = [add(hub, tmp_path, seed=0)]
  straight, killed = tmp_path / "straight", tmp_path / "killed"
  launch.run(*start(straight), cache=cache).assert_done()
  for stop in (signal.SIGKILL, signal.SIGTERM):
    before = written(killed)  # the record of the process before
    with launch.Process(*start(killed), cache=cache) as process:
      process.wait_until(
        lambda before=before: (
          written(killed) > before and launch.last_step(killed)
        )
      )
      process.send(stop)
      assert process.finish().code in (-signal.SIGKILL, launch.PREEMPTED)
    commits.append(add(hub, tmp_path, seed=len(commits)))
  launch.run(*start(killed), cache=cache).assert_done()
  assert len({*commits}) == 3
  assert origin(killed) == origin(straight) == {NAME: f"{NAME}@{commits[0]}"}
  launch.assert_same_run(killed, straight)


def test_training(hub, images, tmp_path, cache):
  options = f"{NAME},folder:{images},res=32,batch=8,steps=300"

  def start(workdir):
    return [
      "vitjax.main",
      f"--config=configs/transfer.py:{options},train=train,val=val",
      f"--config.init.weights={NAME}",
      "--config.export_npz=True",
      "--config.checkpoint.every_steps=200",
      f"--workdir={workdir}",
    ]

  check_killed_and_resumed(start, hub, tmp_path, cache)


def test_fine_tuning(hub, images, tmp_path, cache):
  data = f"folder:{images}"
  options = {"weights": NAME, "dataset": data, "res": 32, "batch": 8}
  options |= {"steps": 300, "train": "train", "val": "val"}
  overrides = {"export_npz": True, "checkpoint.best_metric": "val/acc@1"}
  recipe = Recipe("transfer.py", options, overrides)

  def start(workdir):
    request = choosing.Request(data, model=NAME)
    if not workdir.exists():
      stored.write(workdir, request, choosing.Choice(recipe, "val", ("data",)))
    return ["vitjax.finetune", data, f"--model={NAME}", f"--workdir={workdir}"]

  check_killed_and_resumed(start, hub, tmp_path, cache)
