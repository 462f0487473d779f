"""Runs whose patch and image sizes change from step to step."""

import signal

import pytest

from tests.e2e import launch

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


@pytest.mark.slow
def test_killed_and_resumed_is_the_same_to_the_bit(tmp_path, cache):
  straight, killed = tmp_path / "straight", tmp_path / "killed"
  end = launch.run(*launch.tiny(straight, *OPTIONS), cache=cache)
  assert end.assert_done().text.count("Compiled train step") == 4
  command = launch.tiny(killed, *OPTIONS)
  with launch.Process(*command, cache=cache) as process:
    process.wait_for_step(killed, 23)
    process.wait_for_checkpoint(killed)
    process.send(signal.SIGKILL)
    assert process.finish().code == -signal.SIGKILL
  assert launch.last_step(killed) < 60
  end = launch.run(*command, cache=cache).assert_done()
  assert "Resuming after step" in end.text
  launch.assert_same_run(killed, straight)
