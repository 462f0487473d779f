"""Runs with a teacher, from the command line."""

import signal

import numpy as np
import pytest

from tests.e2e import launch


def distilled(workdir, teacher, *overrides: str) -> list[str]:
  return launch.tiny(
    workdir,
    f"distill.teacher={teacher}",
    "distill.label_weight=0.25",
    "input.batch_size=16",
    "total_steps=60",
    "checkpoint.every_steps=20",
    "evals.test.every_steps=30",
    *overrides,
  )


@pytest.mark.slow
@pytest.mark.parametrize(
  "changes",
  [
    ["distill.temperature=2"],
    ["distill.loss=features", "model.width=16", "model.num_heads=2"],
  ],
  ids=["logits", "features"],
)
def test_a_run_is_killed_and_resumes_with_its_teacher(tmp_path, cache, changes):
  teacher, other = tmp_path / "teacher", tmp_path / "other"
  for folder, seed in ((teacher, 3), (other, 4)):
    command = launch.tiny(folder, "total_steps=20", f"seed={seed}")
    launch.run(*command, cache=cache).assert_done()
  stopped, straight = tmp_path / "stopped", tmp_path / "straight"
  command = distilled(stopped, teacher, *changes)
  with launch.Process(*command, cache=cache) as process:
    process.wait_for_checkpoint(stopped)
    process.send(signal.SIGKILL)
    process.finish()
  assert launch.last_step(stopped) < 60

  own = teacher.rename(tmp_path / "own")
  other.rename(teacher)
  launch.run(*command, cache=cache).assert_refused(
    "config.distill.teacher", "has other weights (SHA-256 ", "--workdir"
  )
  teacher.rename(other)
  own.rename(teacher)

  end = launch.run(*command, cache=cache).assert_done()
  assert "Resuming after step" in end.text
  assert f"Teacher: {teacher}, " in end.text
  command = distilled(straight, teacher, *changes)
  launch.run(*command, cache=cache).assert_done()
  launch.assert_same_run(stopped, straight)
  with np.load(stopped / "params.npz") as exported:
    assert not [name for name in exported if "projection" in name]


@pytest.mark.slow
@pytest.mark.parametrize("recipe", ["distill.py:smoke", "flexivit.py:S,smoke"])
def test_the_smoke_variant_is_stopped_and_resumes(tmp_path, cache, recipe):
  teacher = tmp_path / "teacher"
  launch.run(
    "vitjax.main",
    "--config=configs/resnet50.py:norm=group,smoke",
    f"--workdir={teacher}",
    cache=cache,
  ).assert_done()
  stopped, straight = tmp_path / "stopped", tmp_path / "straight"

  def command(workdir):
    return [
      "vitjax.main",
      f"--config=configs/{recipe},teacher={teacher}",
      f"--workdir={workdir}",
      "--config.export_npz=True",
    ]

  with launch.Process(*command(stopped), cache=cache) as process:
    process.wait_for_step(stopped, 1)
    process.send(signal.SIGTERM)
    finished = process.finish()
  assert finished.code == launch.PREEMPTED, finished.text
  launch.run(*command(stopped), cache=cache).assert_done()
  launch.run(*command(straight), cache=cache).assert_done()
  launch.assert_same_run(stopped, straight)
