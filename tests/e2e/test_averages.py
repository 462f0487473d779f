"""Runs with averages of weights, early stopping, sweeps and soups."""

import csv
import json
import signal

import numpy as np
import pytest

import vitjax
from tests.e2e import launch
from vitjax.run_folder.reader import read_metrics

pytestmark = pytest.mark.slow

SCHEDULE_FREE = "--config=tests/e2e/tiny_schedule_free.py"
# The config file, if it is another one, and overrides.
RUNS = {
  "schedule_free": (
    SCHEDULE_FREE,
    "evals.test.every_steps=40",
    "input.sampling=balanced",
    "class_weights=balanced",
  ),
  "muon_and_a_uniform_average": (
    None,
    "optim.name=muon",
    "ema={'uniform_from_percent': 50}",
    "evals.test.every_steps=40",
  ),
  "patience": (
    None,
    "optim.freeze=('.*',)",  # nothing improves
    "evals={'test': {'split': 'test', 'pp': 'value_range(-1, 1)', "
    "'batch_size': 104, 'every_steps': 20}, "
    "'train_end': {'split': 'train', 'pp': 'value_range(-1, 1)'}}",
    "checkpoint.patience=4",
  ),
}


def command(workdir, name, *more):
  config, *overrides = RUNS[name]
  words = launch.tiny(
    workdir, "total_steps=120", "checkpoint.every_steps=30", *overrides, *more
  )
  if config:
    words[1] = config
  return words


@pytest.mark.parametrize("name", RUNS)
def test_killed_and_resumed_is_the_same_to_the_bit(tmp_path, cache, name):
  straight, killed = tmp_path / "straight", tmp_path / "killed"
  whole = launch.run(*command(straight, name), cache=cache).assert_done()
  with launch.Process(*command(killed, name), cache=cache) as process:
    process.wait_for_step(killed, 66)
    process.wait_for_checkpoint(killed)
    process.send(signal.SIGKILL)
    process.finish()
  end = launch.run(*command(killed, name), cache=cache).assert_done()
  assert "Resuming after step" in end.text
  launch.assert_same_run(killed, straight)
  if name != "patience":
    # The parameters of a run are those that its evals have seen.
    row = read_metrics(straight)[-1]
    text = launch.run(
      "vitjax.evaluate", f"--model={killed}", "--json", cache=cache
    ).assert_done()
    line = next(x for x in text.text.splitlines() if x.startswith("{"))
    found = json.loads(line)["metrics"]
    assert found["acc@1"] == row["test/acc@1"]
    assert found["loss"] == pytest.approx(row["test/loss"], rel=1e-5)
    return
  # It ended at the fifth eval, and evaluated all at the end.
  early = json.loads((straight / "ended.json").read_text())
  assert (early["step"], early["total_steps"]) == (100, 120)
  assert early == json.loads((killed / "ended.json").read_text())
  assert early["why"] in whole.text
  last = read_metrics(straight)[-1]
  assert last["step"] == 100 and "train_end/acc@1" in last
  assert launch.saved_steps(straight)[-1] == 100
  again = launch.run(*command(killed, name), cache=cache).assert_done()
  assert "This run is finished already" in again.text
  launch.assert_same_run(killed, straight)
  assert early == json.loads((killed / "ended.json").read_text())
  text = launch.run("vitjax.compare", killed, straight, cache=cache).text
  assert "Ended early after step 100 of 120" in text and "ON TRACK" in text


def test_a_sweep_resumes_and_its_points_make_a_soup(tmp_path, cache):
  workdir = tmp_path / "sweep"

  def sweep(*more):
    words = launch.tiny(workdir, "total_steps=40", "checkpoint.every_steps=10")
    axes = ["--over=optim.learning_rate=1e-3,3e-3", *more]
    return ["vitjax.sweep", *words[1:], *axes]

  first, second = (workdir / f"learning_rate={x}" for x in ("1e-3", "3e-3"))
  with launch.Process(*sweep(), cache=cache) as process:
    process.wait_for_step(second, 15)
    process.wait_for_checkpoint(second)
    process.send(signal.SIGKILL)
    process.finish()
  before = launch.contents(first)
  end = launch.run(*sweep(), cache=cache).assert_done()
  assert "learning_rate=1e-3 is finished already." in end.text
  assert "Resuming after step" in end.text
  assert launch.contents(first) == before
  with open(workdir / "sweep.csv") as f:
    rows = list(csv.DictReader(f))
  values = [read_metrics(x)[-1]["test/acc@1"] for x in (first, second)]
  assert [float(r["test/acc@1"]) for r in rows] == pytest.approx(
    values, rel=1e-5
  )
  assert (workdir / "sweep.png").read_bytes()[:4] == b"\x89PNG"
  assert "of the grid, so the best value may lie beyond it" in end.text
  assert "vitjax train --config=tests/e2e/tiny.py" in end.text
  # The same run as `vitjax train` makes it.
  alone = tmp_path / "alone"
  overrides = ("total_steps=40", "checkpoint.every_steps=10")
  launch.run(
    *launch.tiny(alone, *overrides, "optim.learning_rate=3e-3"), cache=cache
  ).assert_done()
  launch.assert_same_run(second, alone)

  # A changed config does not pass for a finished point.
  refused = launch.run(*sweep("--config.seed=4"), cache=cache)
  assert refused.code == 1 and "seed: 3 -> 4" in refused.text

  out = tmp_path / "soup.npz"
  launch.run(
    "vitjax.soup", first, f"{second}@best", f"--out={out}", cache=cache
  ).assert_done()
  about = json.loads(out.with_suffix(".json").read_text())
  members = [vitjax.load(first), vitjax.load(second, step="best")]
  soup = vitjax.load(out)
  kernels = [np.asarray(m.params["head"]["kernel"]) for m in (*members, soup)]
  np.testing.assert_allclose(
    kernels[2], (kernels[0] + kernels[1]) / 2, atol=1e-7
  )
  assert [m["model"] for m in about["soup"]["members"]] == [
    str(first),
    f"{second}@best",
  ]
  assert "step" not in about and about["preprocess"]
  text = launch.run(
    "vitjax.soup",
    first,
    second,
    "--greedy=test/acc@1",
    f"--out={out}",
    cache=cache,
  ).assert_done()
  about = json.loads(out.with_suffix(".json").read_text())["soup"]
  assert about["value"] >= max(values) - 1e-6, text.text
  evals = json.dumps({"test": {"split": "test"}})
  text = launch.run(
    "vitjax.evaluate",
    f"--model={out}",
    f"--evals={evals}",
    "--json",
    cache=cache,
  ).assert_done()
  line = next(x for x in text.text.splitlines() if x.startswith("{"))
  found = json.loads(line)["metrics"]["acc@1"]
  assert found == pytest.approx(about["value"], abs=1e-6)
