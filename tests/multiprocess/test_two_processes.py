"""Two processes are one run: the same numbers, one writer, one end."""

import json
import re
import shutil
import signal

import jax
import numpy as np
import pytest

from tests.e2e import launch
from tests.multiprocess import class_metrics, processes
from vitjax import trees
from vitjax.checkpoint import checkpointer
from vitjax.run_folder.reader import read_metrics

pytestmark = pytest.mark.multiprocess


@pytest.mark.slow
def test_two_that_differ_stop_with_one_message(tmp_path):
  # Before anything is compiled, read or written.
  workdir = tmp_path / "run"
  commands = [
    processes.command(workdir, f"optim.learning_rate={x}") for x in (1e-3, 2e-3)
  ]
  with processes.started(*commands, cache=tmp_path / "cache") as both:
    for process in both:
      process.finish().assert_refused(
        "the processes of this run differ",
        "process 1 (",
        "config.optim.learning_rate: 0.001 -> 0.002",
      )
  assert not list(tmp_path.iterdir())


@pytest.fixture(scope="module")
def one_process(shared_folder, cache):
  """The run in one process on one device."""
  workdir = shared_folder / "one_process"
  if not workdir.exists():
    launch.run(*processes.command(workdir), cache=cache).assert_done()
  return workdir


def assert_same_training(workdir, expected):
  """Equal but for the order in which float32 sums are taken."""
  rows, wanted = map(read_metrics, (workdir, expected))
  assert [sorted(row) for row in rows] == [sorted(row) for row in wanted]
  for row, other in zip(rows, wanted):
    assert row["step"] == other["step"]
    assert row.get("test/n_seen", 360) == 360  # no multiple of the batch
    for name in {"train/loss", "train/param_norm", "test/loss"} & {*row}:
      assert row[name] == pytest.approx(other[name], rel=1e-3), (name, row)
  first, other = rows[0]["train/grad_norm"], wanted[0]["train/grad_norm"]
  assert first == pytest.approx(other, rel=1e-5)


def assert_same_parameters(step, workdir, expected, item="params"):
  given, wanted = (
    trees.flatten(
      checkpointer.load_params(path / "checkpoints", step=step, item=item)[1]
    )
    for path in (workdir, expected)
  )
  assert given.keys() == wanted.keys() and len(wanted) >= 10
  for name in wanted:
    # A step is at most the learning rate, 1e-3.
    np.testing.assert_allclose(
      given[name], wanted[name], rtol=0, atol=2e-5, err_msg=name
    )


@pytest.mark.slow
@pytest.mark.parametrize(
  ("count", "devices", "option"),
  [(2, 1, ""), (2, 2, "fsdp"), (1, 8, ""), (1, 8, "fsdp")],
)
def test_any_split_of_the_work_trains_the_same(
  tmp_path, cache, one_process, count, devices, option
):
  command = processes.command(tmp_path, option=option)
  if count == 1:
    launch.run(*command, cache=cache, devices=devices).assert_done()
  else:
    first, second = processes.run(command, 2, cache=cache, devices=devices)
    first.assert_done()
    second.assert_done()
    # One of them speaks and writes.
    assert "Metrics: " in first.text and "step 40/40" in first.text
    assert "step" not in re.sub(r"\[Gloo\].*", "", second.text)
    assert len(list((tmp_path / "tensorboard").glob("*"))) == 1
    assert not (tmp_path / "metrics.jsonl.old").exists()
  assert_same_training(tmp_path, one_process)
  assert_same_parameters(15, tmp_path, one_process)


@pytest.mark.slow
def test_running_statistics_are_those_of_all_processes(tmp_path, cache):
  one, two, killed = (tmp_path / x for x in ("one", "two", "killed"))

  def command(workdir):
    # Often saved, so that a kill after the first one is before the end.
    often = "checkpoint.every_steps=5"
    return processes.command(workdir, often, option="statistics")

  launch.run(*command(one), cache=cache).assert_done()
  for process in processes.run(command(two), 2, cache=cache, devices=2):
    process.assert_done()
  assert_same_training(two, one)
  assert_same_parameters(15, two, one)
  assert_same_parameters(15, two, one, item="statistics")
  # Killed when there is a checkpoint, the run is the same to the bit.
  with launch.Process(*command(killed), cache=cache) as process:
    process.wait_for_checkpoint(killed)
    process.send(signal.SIGKILL)
    assert process.finish().code == -signal.SIGKILL
  end = launch.run(*command(killed), cache=cache).assert_done()
  assert "Resuming after step" in end.text
  launch.assert_same_run(killed, one)


@pytest.mark.slow
@pytest.mark.parametrize(
  "name", ["wds", "parquet", "mixture", "balanced", "fold"]
)
def test_two_processes_read_packed_data_as_one_does(
  tmp_path, cache, packed, monkeypatch, name
):
  """On two devices either way: to the bit."""
  monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "indexes"))
  one, two = tmp_path / "one", tmp_path / "two"
  command = launch.on_folder(one, *packed[name])
  launch.run(*command, cache=cache, devices=2).assert_done()
  command = launch.on_folder(two, *packed[name])
  for end in processes.run(command, 2, cache=cache):
    end.assert_done()
  launch.assert_same_run(two, one)


@pytest.mark.slow
@pytest.mark.parametrize(("count", "devices"), [(2, 1), (1, 8)])
def test_any_split_of_the_work_evaluates_the_same(
  tmp_path, cache, count, devices
):
  # A finished run is evaluated once more: with the same parameters.
  command = processes.command(tmp_path, option="evaluators")
  launch.run(*command, cache=cache).assert_done()
  last = read_metrics(tmp_path)[-1]
  if count == 1:
    end = launch.run(*command, cache=cache, devices=devices).assert_done()
  else:
    end, other = processes.run(command, count, cache=cache)
    end.assert_done()
    other.assert_done()
  (line,) = re.findall("^step 40 · (.*)$", end.text, re.MULTILINE)
  found = dict(part.rsplit(" ", 1) for part in line.split(" · "))
  assert {"few/5shot", "near/20nn", "probe/acc@1", "test/ece"} <= {*found}
  for name, value in found.items():
    value = float(value.replace(",", ""))
    assert value == pytest.approx(last[name], abs=6e-5), name
  assert found["test/n_seen"] == found["few/n_seen"] == "360"


@pytest.mark.slow
def test_metrics_of_classes_are_those_of_one_process_to_the_bit(tmp_path):
  count = 10
  ends = processes.run(
    ["tests.multiprocess.class_metrics", str(tmp_path), str(count)],
    2,
    cache=tmp_path / "cache",
  )
  wanted = [class_metrics.metrics_of(seed) for seed in range(count)]
  for rank, end in enumerate(ends):
    assert end.code == 0, end.text
    found = json.loads((tmp_path / f"{rank}.json").read_text())
    for got, want in zip(found, wanted, strict=True):
      assert [*got] == [*want]
      for name, value in got.items():
        if name in ("loss", "ece"):  # sums of float32
          assert float(value) == pytest.approx(float(want[name]), rel=1e-5)
        else:
          assert value == want[name], name


@pytest.mark.slow
def test_told_to_stop_both_stop_and_one_goes_on_elsewhere(
  tmp_path, cache, one_process
):
  command = processes.command(tmp_path, option="fsdp")
  with processes.started(command, command, cache=cache, devices=2) as both:
    both[0].wait_for_step(tmp_path, 3)
    both[1].send(signal.SIGTERM)
    ends = [process.finish() for process in both]
  assert [end.code for end in ends] == [launch.PREEMPTED] * 2, ends
  (step,) = launch.saved_steps(tmp_path)[-1:]
  assert 3 < step < 40 and launch.last_step(tmp_path) == step
  assert f"after step {step} of 40; everything is saved" in ends[0].text
  # On another mesh, in one process; the config is that of the run.
  end = launch.run(*command, cache=cache, devices=8).assert_done()
  assert f"Resuming after step {step} of 40." in end.text
  assert_same_training(tmp_path, one_process)


@pytest.mark.slow
def test_both_end_early_when_nothing_improves(tmp_path, cache):
  command = processes.command(
    tmp_path,
    "optim.learning_rate=1e-12",
    "evals.test.every_steps=5",
    # The head starts at zero, so the least step already moves the accuracy.
    "checkpoint.best_metric=test/loss",
    "checkpoint.patience=2",
  )
  first, second = processes.run(command, 2, cache=cache)
  first.assert_done()
  second.assert_done()
  # The first eval is the best one, and two more are no better.
  assert "Ended early after step 15 of 40" in first.text
  assert json.loads((tmp_path / "ended.json").read_text())["step"] == 15
  assert launch.last_step(tmp_path) == launch.saved_steps(tmp_path)[-1] == 15
  # Started again, each of them knows that the run is over.
  again, other = processes.run(command, 2, cache=cache)
  other.assert_done()
  assert "This run is finished already" in again.assert_done().text
  assert launch.saved_steps(tmp_path)[-1] == 15


@pytest.mark.slow
@pytest.mark.parametrize("rank", [0, 1])
def test_when_one_is_killed_the_other_ends(tmp_path, cache, rank):
  command = processes.command(tmp_path, "total_steps=2000")
  with processes.started(command, command, cache=cache) as both:
    both[0].wait_for_checkpoint(tmp_path)
    both[rank].send(signal.SIGKILL)
    both[rank].finish()
    end = both[1 - rank].finish()
  assert end.code not in (0, launch.PREEMPTED)
  assert launch.saved_steps(tmp_path)[0] == 15


@pytest.mark.slow
def test_an_error_of_one_ends_both(tmp_path, cache, one_process):
  # Process 0 finds that the folder has a run with another config; process 1
  # would wait for it.
  workdir = tmp_path / "run"
  shutil.copytree(one_process, workdir)
  command = processes.command(workdir, "optim.learning_rate=2e-3")
  first, second = processes.run(command, 2, cache=cache)
  first.assert_refused("is a run with another config")
  second.assert_refused(
    "stopped because process 0 failed: ConfigError", "another config"
  )


def test_other_files_on_one_of_the_hosts(tmp_path):
  values = ("fingerprint", "another")
  commands = [["tests.multiprocess.alike", value] for value in values]
  with processes.started(*commands, cache=tmp_path) as both:
    first, second = [process.finish(timeout=60) for process in both]
  why = f"Does parallel.processes._jax_state fit jax {jax.__version__}?\n"
  assert second.code == 3, why + second.text
  assert first.code == 1, why + first.text
  assert first.text.startswith("Equal values pass.\n"), why + first.text
  assert (
    "stopped because process 1 failed: process 1 found training data that "
    "differs"
  ) in first.text
