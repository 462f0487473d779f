"""Whatever happens to a run, it ends as if nothing had happened."""

import json
import random
import shutil
import signal
import sys
import time

import numpy as np
import pytest

from tests.e2e import launch
from vitjax.run_folder.reader import read_metrics

TOTAL, SAVE_EVERY = 300, 70


@pytest.mark.parametrize(
  "kills", [1, pytest.param(3, marks=pytest.mark.slow)], ids=["one", "three"]
)
def test_killed_and_resumed_is_the_same_to_the_bit(
  tmp_path, cache, straight, kills
):
  seed = random.SystemRandom().randrange(2**32)
  print(f"moments of the kills: random.Random({seed})")
  moments = random.Random(seed)
  for i in range(kills):
    # A kill that comes before the first checkpoint, and later ones.
    start = i * TOTAL // (kills + 2)
    step = moments.randint(start + 1, start + TOTAL // (kills + 2))
    delay = moments.uniform(0, 0.05)
    with launch.Process(*launch.tiny(tmp_path), cache=cache) as process:
      process.wait_for_step(tmp_path, step)
      time.sleep(delay)
      process.send(signal.SIGKILL)
      assert process.finish().code == -signal.SIGKILL
    print(f"killed at step {step} + {delay:.3f} s:", end=" ")
    print(f"record {launch.last_step(tmp_path)}", end=", ")
    print(f"checkpoints {launch.saved_steps(tmp_path)}")
    assert launch.last_step(tmp_path) < TOTAL
    assert not (tmp_path / "params.npz").exists()
  end = launch.run(*launch.tiny(tmp_path), cache=cache).assert_done()
  assert f"Taking over {tmp_path}: process" in end.text
  assert not (tmp_path / "lock.json").exists()
  if launch.last_step(tmp_path) > SAVE_EVERY and kills > 1:
    assert "Resuming after step" in end.text
  launch.assert_same_run(tmp_path, straight)


@pytest.mark.slow
@pytest.mark.parametrize(
  "name", ["wds", "parquet", "mixture", "balanced", "fold"]
)
def test_killed_on_packed_data_is_the_same_to_the_bit(
  tmp_path, cache, packed, monkeypatch, name
):
  monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "indexes"))
  whole, killed = tmp_path / "whole", tmp_path / "killed"

  def command(workdir):
    options = ("total_steps=45", "checkpoint.every_steps=4")
    return launch.on_folder(workdir, *packed[name], *options)

  launch.run(*command(whole), cache=cache).assert_done()
  with launch.Process(*command(killed), cache=cache) as process:
    process.wait_for_step(killed, random.SystemRandom().randint(8, 30))
    process.wait_for_checkpoint(killed)
    process.send(signal.SIGKILL)
    assert process.finish().code == -signal.SIGKILL
  assert launch.last_step(killed) < 45
  end = launch.run(*command(killed), cache=cache).assert_done()
  assert "Resuming after step" in end.text
  launch.assert_same_run(killed, whole)
  # `val` of a fold has a fifth of all images, else it has 7 of each class.
  seen = read_metrics(whole)[-1]["test/n_seen"]
  assert seen == {"fold": 28, "mixture": 42, "balanced": 42}.get(name, 21)


@pytest.mark.slow
def test_sigterm_saves_the_step_and_says_so(tmp_path, cache, straight, stopped):
  workdir, text = tmp_path / "run", stopped[1]
  shutil.copytree(stopped[0], workdir)
  step = max(launch.saved_steps(workdir))
  assert step >= 100
  message = f"Stopped by SIGTERM after step {step} of {TOTAL}; everything is"
  assert message in text.splitlines()[-1] and "Traceback" not in text
  end = launch.run(*launch.tiny(workdir), cache=cache).assert_done()
  assert f"Resuming after step {step} of {TOTAL}." in end.text
  launch.assert_same_run(workdir, straight)


@pytest.mark.slow
def test_a_second_run_in_the_same_folder_is_refused(tmp_path, cache):
  workdir = tmp_path / "run"
  with launch.Process(
    *launch.tiny(workdir, "total_steps=100000"), cache=cache
  ) as first:
    first.wait_for_step(workdir, 1)
    for override in ("total_steps=100000", "optim.learning_rate=5e-3"):
      launch.run(*launch.tiny(workdir, override), cache=cache).assert_refused(
        f"{workdir} is in use: process ", "another --workdir"
      )
    first.send(signal.SIGTERM)
    assert first.finish().code == launch.PREEMPTED
  # The second one has written nothing.
  assert not (workdir / "error.txt").exists()
  assert not (workdir / "metrics.jsonl.old").exists()
  assert json.loads((workdir / "config.json").read_text())["total_steps"] == (
    100000
  )


@pytest.mark.slow
def test_checkpoints_of_another_run_are_refused(
  tmp_path, cache, straight, stopped
):
  workdir = tmp_path / "run"
  shutil.copytree(straight, workdir)
  checkpoints = workdir / "checkpoints"
  # The config is compared with the checkpoint where nothing else has it.
  (workdir / "config.json").unlink()
  command = launch.tiny(workdir, "seed=4")
  launch.run(*command, cache=cache).assert_refused(
    f"{checkpoints}/{TOTAL} was saved by a run with another", "seed: 3 -> 4"
  )
  assert not (workdir / "config.json").exists()
  # Of the same config, but not of this run.
  shutil.rmtree(checkpoints)
  shutil.copytree(stopped[0] / "checkpoints", checkpoints)
  step = launch.saved_steps(workdir)[-1]
  launch.run(*launch.tiny(workdir), cache=cache).assert_refused(
    f"{checkpoints}/{step} is a checkpoint of run ", "Move it out"
  )
  # Of this run, under the number of another step.
  shutil.rmtree(checkpoints)
  shutil.copytree(straight / "checkpoints", checkpoints)
  (checkpoints / str(TOTAL)).rename(checkpoints / "290")
  launch.run(*launch.tiny(workdir), cache=cache).assert_refused(
    f"{checkpoints}/290 holds the checkpoint of step {TOTAL}", "Rename it back"
  )


@pytest.mark.skipif(sys.platform == "win32", reason="needs RLIMIT_FSIZE")
@pytest.mark.slow
# The fork that sets the limit is followed by an exec at once.
@pytest.mark.filterwarnings("ignore:os.fork")
def test_a_full_disk_during_a_save_loses_nothing(
  tmp_path, cache, straight, stopped
):
  # A limit on the size of files fails a write as a full disk does, and needs
  # no rights to set up.
  import resource

  def limit():
    resource.setrlimit(resource.RLIMIT_FSIZE, (40_000, resource.RLIM_INFINITY))

  workdir = tmp_path / "run"
  shutil.copytree(stopped[0], workdir)
  before = launch.saved_steps(workdir)
  arguments = launch.tiny(workdir)
  launch.run(*arguments, cache=cache, preexec_fn=limit).assert_refused(
    "the checkpoint of step",
    f"could not be written to {workdir}/checkpoints",
    "File too large",
    f"Step {before[-1]} is complete; a restart continues",
  )
  assert launch.saved_steps(workdir) == before
  end = launch.run(*arguments, cache=cache).assert_done()
  assert f"Resuming after step {before[-1]} of {TOTAL}." in end.text
  launch.assert_same_run(workdir, straight)


@pytest.mark.slow
def test_a_finished_run_only_evaluates(tmp_path, cache, straight):
  workdir = tmp_path / "run"
  shutil.copytree(straight, workdir)
  before = launch.contents(workdir)
  again = launch.run(*launch.tiny(workdir), cache=cache).assert_done()
  assert "This run is finished already" in again.text
  results = read_metrics(workdir)[-1]
  assert f"test/acc@1 {results['test/acc@1']:.4f}" in again.text
  assert f"test/n_seen {results['test/n_seen']}" in again.text
  after = launch.contents(workdir)
  kept = ("metrics.jsonl", "checkpoints/", "config.json", "model.json")
  for name in (n for n in {*before, *after} if n.startswith(kept)):
    assert before.get(name) == after.get(name), name


@pytest.mark.slow
def test_one_and_eight_devices_compute_the_same(tmp_path, cache, straight):
  # As long as rounding has not grown: that of float32, amplified by Adam
  # (which divides small gradients by small second moments).
  steps = 45
  with launch.Process(
    *launch.tiny(tmp_path), cache=cache, devices=8
  ) as process:
    process.wait_for_step(tmp_path, steps)
    process.send(signal.SIGKILL)
    assert process.finish()
  one, eight = (
    [row for row in read_metrics(path) if row["step"] <= steps]
    for path in (straight, tmp_path)
  )
  assert [row["step"] for row in eight] == list(range(3, steps + 1, 3))
  for name in ("train/loss", "train/learning_rate", "train/param_norm"):
    np.testing.assert_allclose(
      [row[name] for row in eight], [row[name] for row in one], rtol=1e-4
    )
  # Which examples, crops and mixing weights there are decides the gradient.
  np.testing.assert_allclose(
    eight[0]["train/grad_norm"], one[0]["train/grad_norm"], rtol=1e-4
  )
