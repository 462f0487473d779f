"""Runs whose patch and image sizes change from step to step."""

import json
import signal

import pytest

from tests.e2e import launch
from vitjax.run_folder.reader import read_metrics

# Drawn patch sizes, and images of 4 pixels before those of 8.
OPTIONS = (
  "total_steps=60",
  "checkpoint.every_steps=7",
  "report.every_steps=1",
  "model.patch_kernel=4",
  "model.posemb_grid=4",
  "flexible.patch_sizes=(2,4)",
  "flexible.image_sizes=(4,8)",
  "evals.test.patch_sizes=(2,4)",
  "evals.test.every_steps=30",
  "checkpoint.best_metric=test/patch2/acc@1",
)


@pytest.fixture(scope="module")
def straight(tmp_path_factory, cache):
  workdir = tmp_path_factory.mktemp("flexible") / "straight"
  end = launch.run(*launch.tiny(workdir, *OPTIONS), cache=cache)
  end.assert_done()
  assert end.text.count("Compiled train step") == 4
  assert "train step 1 of 4, for patch size 2, image size 8" in end.text
  return workdir


@pytest.mark.slow
def test_the_record_has_the_sizes_and_a_curve(straight, cache):
  rows = [r for r in read_metrics(straight) if "train/loss" in r]
  assert [r["train/image_size"] for r in rows] == [4] * 30 + [8] * 30
  drawn = [r["train/patch_size"] for r in rows]
  assert 15 < drawn.count(2) < 45 and set(drawn) == {2, 4}
  last = read_metrics(straight)[-1]
  curve = {n: last[f"test/patch{n}/acc@1"] for n in (2, 4)}
  assert 0 < min(curve.values()) <= max(curve.values()) <= 1
  assert last["test/patch2/loss"] != last["test/patch4/loss"]
  # The command measures the same.
  command = ("vitjax.evaluate", f"--model={straight}", "--json")
  end = launch.run(*command, "--patch_sizes=4,2", cache=cache)
  end.assert_done()
  line = next(x for x in end.text.splitlines() if x.startswith("{"))
  metrics = json.loads(line)["metrics"]
  assert next(iter(metrics)).startswith("patch4/")
  for n in (2, 4):
    assert metrics[f"patch{n}/acc@1"] == pytest.approx(curve[n], abs=1e-9)


@pytest.mark.slow
def test_killed_and_resumed_is_the_same_to_the_bit(tmp_path, cache, straight):
  command = launch.tiny(tmp_path, *OPTIONS)
  with launch.Process(*command, cache=cache) as process:
    process.wait_for_step(tmp_path, 23)
    process.wait_for_checkpoint(tmp_path)
    process.send(signal.SIGKILL)
    assert process.finish().code == -signal.SIGKILL
  assert launch.last_step(tmp_path) < 60
  end = launch.run(*command, cache=cache).assert_done()
  assert "Resuming after step" in end.text
  launch.assert_same_run(tmp_path, straight)
