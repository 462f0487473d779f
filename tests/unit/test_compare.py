"""Whether runs are called on and off track as whoever made them up knows."""

import json
import math
import pathlib
import subprocess
import sys

import numpy as np
import pytest

from vitjax.compare import band
from vitjax.compare.comparison import compare

ROOT = pathlib.Path(__file__).parents[2]
CONFIG = {
  "seed": 0,
  "total_epochs": 10,
  "input": {"data": "digits", "batch_size": 10, "pp": "value_range(-1, 1)"},
  "model": {"name": "vit"},
  "optim": {"name": "adam", "learning_rate": 1e-3},
  "evals": {"test": {"split": "test", "pp": "value_range(-1, 1)"}},
}


def make_run(
  folder,
  *,
  seed=0,
  last=1000,
  batch_size=10,
  noise=0.05,
  num_seen=1000,
  change=lambda step, row: row,
  **config,
):
  """A run folder whose loss falls as a power of the examples seen.

  The noise is that of `seed`: relative, of the loss at every tenth step, and
  a tenth of it, of the evals at every hundredth.
  """
  rng = np.random.default_rng(seed)
  rows = []
  for step in range(10, last + 1, 10):
    loss = 10 / math.sqrt(step * batch_size)
    row = {"step": step, "train/loss": loss * (1 + noise * rng.normal())}
    row["train/param_norm"] = rng.normal()
    rows.append(change(step, row))
    if step % 100 == 0:
      shift = 1 + noise / 10 * rng.normal()
      row = {"step": step, "test/loss": loss * shift}
      row |= {"test/acc@1": 1 - 0.5 * loss * shift, "test/n_seen": num_seen}
      rows.append(change(step, row))
  folder.mkdir(parents=True)
  text = "".join(json.dumps(row) + "\n" for row in rows)
  (folder / "metrics.jsonl").write_text(text)
  full = CONFIG | {"seed": seed} | config
  full["input"] = full["input"] | {"batch_size": batch_size}
  (folder / "config.json").write_text(json.dumps(full))
  return folder


def scaled(name, factor, since=0):
  """Makes a metric `factor` times as large from a step on."""

  def change(step, row):
    if name in row and step >= since:
      row[name] *= factor
    return row

  return change


def without(*names):
  return lambda step, row: {k: v for k, v in row.items() if k not in names}


def by_name(comparison):
  return {metric.name: metric for metric in comparison.metrics}


@pytest.fixture
def seeds(tmp_path):
  """A folder of five runs of one recipe."""
  for seed in range(5):
    make_run(tmp_path / "seeds" / str(seed), seed=seed)
  return tmp_path / "seeds"


def test_the_numbers_are_those_of_the_files(tmp_path, seeds):
  run = make_run(tmp_path / "run", seed=9, last=500)
  metrics = by_name(compare(run, seeds))
  assert list(metrics) == ["train/loss", "test/loss", "test/acc@1"]

  def read(folder, name):
    lines = (folder / "metrics.jsonl").read_text().splitlines()
    rows = [row for line in lines if name in (row := json.loads(line))]
    return np.array([r[name] for r in rows if r["step"] <= 500])

  loss = metrics["train/loss"]
  curves = np.array([read(folder, "train/loss") for folder in seeds.iterdir()])
  assert loss.step == 500
  assert loss.value == pytest.approx(read(run, "train/loss")[-20:].mean())
  assert loss.reference == pytest.approx(curves[:, -20:].mean())
  smooth = np.stack(
    [curves[:, max(0, i - 20) : i].mean(1) for i in range(1, 51)], axis=1
  )
  sd = np.sqrt(smooth.var(0, ddof=1)[24:].mean() * (1 + 1 / 5))
  assert loss.sd == pytest.approx(sd)
  assert loss.allowed == pytest.approx(3 * sd)
  accuracy = metrics["test/acc@1"]
  values = np.array([read(f, "test/acc@1") for f in seeds.iterdir()])
  assert accuracy.value == read(run, "test/acc@1")[-1]
  assert accuracy.reference == pytest.approx(values[:, -1].mean())
  assert accuracy.difference == accuracy.value - accuracy.reference
  sd = np.sqrt(values.var(0, ddof=1)[2:].mean() * (1 + 1 / 5))
  assert accuracy.sd == pytest.approx(sd)


@pytest.mark.parametrize("one", [True, False], ids=["one", "several"])
def test_other_seeds_are_on_track(tmp_path, seeds, one):
  for seed in range(100, 120):
    run = make_run(tmp_path / str(seed), seed=seed, last=50 * (seed - 99))
    comparison = compare(run, seeds / "0" if one else seeds)
    assert comparison.on_track, str(comparison)
    assert comparison.differences == ()
    assert "ON TRACK" in str(comparison)


@pytest.mark.parametrize("one", [True, False], ids=["one", "several"])
@pytest.mark.parametrize("factor", [0.7, 1.4])
def test_a_run_that_leaves_the_track(tmp_path, seeds, factor, one):
  change = scaled("train/loss", factor, since=600)
  run = make_run(tmp_path / "run", seed=9, change=change)
  comparison = compare(run, seeds / "0" if one else seeds)
  metrics = by_name(comparison)
  assert not comparison.on_track
  # The mean of 20 records follows some records later.
  assert 600 <= metrics["train/loss"].off_since <= 750
  assert metrics["test/loss"].off_since is None
  assert metrics["train/loss"].step == 1000
  text = str(comparison)
  assert text.startswith("OFF TRACK") and "off since step" in text


def test_a_run_that_comes_back_is_on_track(tmp_path, seeds):
  def change(step, row):
    return scaled("test/loss", 2)(step, row) if 200 <= step <= 700 else row

  run = make_run(tmp_path / "run", seed=9, last=700, change=change)
  assert by_name(compare(run, seeds))["test/loss"].off_since == 200
  run = make_run(tmp_path / "later", seed=9, change=change)
  assert compare(run, seeds).on_track


def test_more_seeds_see_smaller_differences(tmp_path, seeds):
  # Five standard deviations of the seeds, but 2.5 % of the loss.
  run = make_run(tmp_path / "run", seed=9, change=scaled("test/loss", 1.025))
  assert compare(run, seeds / "0").on_track
  metric = by_name(compare(run, seeds))["test/loss"]
  assert metric.off_since is not None
  assert 3 < metric.difference / metric.sd < 8


def test_tolerance_and_noise_of_a_single_reference(tmp_path):
  exact = {"noise": 0, "num_seen": 10**12}
  reference = make_run(tmp_path / "reference", **exact)
  run = make_run(tmp_path / "run", change=scaled("test/loss", 1.08), **exact)
  assert compare(run, reference).on_track
  metrics = by_name(compare(run, reference, tolerance=0.05))
  assert metrics["test/loss"].off_since == 100
  # Of the accuracy it is the error rate that counts.
  accuracy = metrics["test/acc@1"]
  assert accuracy.allowed == pytest.approx(
    0.05 * (1 - accuracy.value), rel=1e-3
  )
  # Few examples may differ more: 3 standard deviations of two binomials.
  for folder in (tmp_path / "a", tmp_path / "b"):
    make_run(folder, noise=0, num_seen=100)
  accuracy = by_name(compare(tmp_path / "a", tmp_path / "b"))["test/acc@1"]
  p = (100 * accuracy.value + 1) / 102
  expected = 0.1 * (1 - accuracy.value) + 3 * math.sqrt(2 * p * (1 - p) / 100)
  assert accuracy.allowed == pytest.approx(expected)


@pytest.mark.parametrize("value", ["nan", "inf"])
@pytest.mark.parametrize("one", [True, False], ids=["one", "several"])
def test_what_is_not_finite_is_off_track(tmp_path, seeds, value, one):
  def change(step, row):
    return row | {"train/loss": value} if step == 1000 else row

  run = make_run(tmp_path / "run", seed=9, change=change)
  comparison = compare(run, seeds / "0" if one else seeds)
  assert by_name(comparison)["train/loss"].off_since == 1000
  assert value in str(comparison)
  with pytest.raises(ValueError, match="train/loss of a reference is not fini"):
    compare(seeds / "0", [run])


def test_metrics_and_steps_that_only_one_has(tmp_path, seeds):
  run = make_run(tmp_path / "run", seed=9, change=without("test/acc@1"))
  comparison = compare(run, seeds)
  assert list(by_name(comparison)) == ["train/loss", "test/loss"]
  assert comparison.notes == (
    "Not compared: test/acc@1, which only the references have at such steps.",
  )
  # A run that is not at its first eval yet.
  early = make_run(tmp_path / "early", seed=9, last=50)
  assert list(by_name(compare(early, seeds))) == ["train/loss"]
  # A reference that is not as far, for example one under way.
  short = make_run(tmp_path / "short", last=500)
  metrics = by_name(compare(seeds / "1", short))
  assert {metric.step for metric in metrics.values()} == {500}
  notes = compare(seeds / "1", short).notes
  assert notes == ("The references end at step 500, the run is at 1,000.",)


def test_other_batch_sizes_are_compared_by_examples(tmp_path, seeds):
  # Evals at the ends of epochs of 990 examples: step 99 of 10, 24 of 40.
  run = make_run(tmp_path / "run", seed=9, batch_size=40, last=250)
  comparison = compare(run, seeds)
  assert not comparison.on_track
  assert comparison.differences == ("input.batch_size: 10 -> 40",)
  comparison = compare(run, seeds, allow=["input.batch_size"])
  assert comparison.on_track, str(comparison)
  assert by_name(comparison)["train/loss"].step == 250
  assert "by examples seen, because the batch sizes differ" in str(comparison)
  assert comparison.differences == ()
  assert comparison.allowed == ("input.batch_size: 10 -> 40",)
  # Without a config the batch size is unknown: the loss is too low.
  (run / "config.json").unlink()
  comparison = compare(run, seeds)
  assert not comparison.on_track and comparison.differences == ()
  assert "without config.json a batch size is unknown" in str(comparison)
  assert "The recipes were not compared" in str(comparison)


def test_steps_of_other_batch_sizes_are_paired_once():
  pair = band._pair
  assert pair([5, 10], 64, [5, 10, 15], 64) == {5: 5, 10: 10}
  assert pair([5, 10], 64, [4, 11], 64) == {}
  # The ends of epochs of 60,000 examples.
  assert pair([937, 1875], 64, [468, 937], 128) == {937: 468, 1875: 937}
  # Every step recorded: each of the larger batch's has one partner.
  assert pair(range(1, 9), 1, range(1, 3), 4) == {4: 1, 8: 2}
  assert pair(range(1, 3), 4, range(1, 9), 1) == {1: 4, 2: 8}


@pytest.mark.parametrize("one", [True, False], ids=["one", "several"])
def test_another_recipe_is_not_comparable_even_within_the_band(
  tmp_path, seeds, one
):
  run = make_run(
    tmp_path / "run",
    seed=9,
    num_seen=999,
    total_epochs=8,
    optim={"name": "adam", "learning_rate": 0.03},
    report={"every_steps": 3},  # no part of the recipe
  )
  references = seeds / "0" if one else seeds
  comparison = compare(run, references)
  assert all(metric.off_since is None for metric in comparison.metrics)
  assert not comparison.on_track
  assert comparison.differences == (
    "optim.learning_rate: 0.001 -> 0.03",
    "total_epochs: 10 -> 8",
    "test/n_seen: 1000 -> 999",
  )
  text = str(comparison)
  assert text.startswith("NOT COMPARABLE: ")
  assert "\n  optim.learning_rate: 0.001 -> 0.03\n" in text
  assert "add --allow=optim.learning_rate,total_epochs,test/n_seen\n" in text
  partly = compare(run, references, allow=["optim.*", "total_epochs"])
  assert not partly.on_track
  assert partly.differences == ("test/n_seen: 1000 -> 999",)
  assert len(partly.allowed) == 2
  allow = ["optim.*", "total_epochs", "test/n_seen"]
  assert compare(run, references, allow=allow).on_track


def test_what_changes_no_result_is_no_difference(tmp_path, seeds):
  evals = CONFIG["evals"]["test"]
  run = make_run(
    tmp_path / "run",
    seed=9,
    accumulation_steps=2,
    mesh={"fsdp": 2},
    model={"name": "vit", "remat": "full", "scan_layers": True},
    evals={
      "test": {**evals, "batch_size": 3, "every_steps": 50},
      "more": {**evals, "split": "train"},
    },
  )
  assert compare(run, seeds).on_track
  other = make_run(
    tmp_path / "other", seed=9, evals={"test": {**evals, "split": "train"}}
  )
  assert compare(other, seeds).differences == (
    "evals.test.split: test -> train",
  )


@pytest.mark.parametrize("last", [40, 80, 200])
def test_a_run_that_drifts_away_does_not_widen_its_own_band(tmp_path, last):
  reference = make_run(tmp_path / "reference", last=600)

  def drift(step, row):
    return scaled("train/loss", 1 + 0.43 * step / last)(step, row)

  run = make_run(tmp_path / "run", seed=9, last=last, change=drift)
  metric = by_name(compare(run, reference))["train/loss"]
  assert metric.off_since is not None, metric
  # Nor does a noisy run.
  noisy = make_run(tmp_path / "noisy", seed=9, last=last, noise=0.5)
  other = make_run(tmp_path / "other", seed=9, last=last)
  bands = [
    by_name(compare(x, reference))["train/loss"].allowed for x in (noisy, other)
  ]
  assert bands[0] == bands[1]


def test_a_reference_older_than_a_key_has_its_default(tmp_path):
  make_run(tmp_path / "old")
  make_run(tmp_path / "new", accumulation_steps=1, mixing={"mixup_alpha": 0.2})
  comparison = compare(tmp_path / "new", tmp_path / "old")
  assert comparison.differences == ("mixing.mixup_alpha: 0.0 -> 0.2",)


def test_what_cannot_be_compared(tmp_path, seeds):
  run = seeds / "0"
  with pytest.raises(
    FileNotFoundError, match=r"no is not a run; give run folders"
  ):
    (tmp_path / "no").mkdir()
    compare(tmp_path / "no", run)
  with pytest.raises(FileNotFoundError, match=r"no metrics.jsonl in .*/no or"):
    compare(run, tmp_path / "no")
  with pytest.raises(
    FileNotFoundError, match=r"absent is not a run; give run fol"
  ):
    compare(run, tmp_path / "absent")
  other = make_run(tmp_path / "other", total_epochs=20)
  with pytest.raises(ValueError, match="different recipes") as error:
    compare(run, [seeds, other])
  assert "total_epochs: 10 -> 20" in str(error.value)
  odd = make_run(
    tmp_path / "odd", change=lambda step, row: row | {"step": step + 1}
  )
  with pytest.raises(
    ValueError, match="no metric in common at any step"
  ) as error:
    compare(odd, run)
  assert "train/loss at 100 steps from 11 to 1,001" in str(error.value)
  (tmp_path / "no" / "metrics.jsonl").write_text("")
  with pytest.raises(ValueError, match="has no metrics yet"):
    compare(tmp_path / "no", run)


def test_the_curves_of_the_repository_are_on_track():
  runs = [p.parent for p in ROOT.glob("docs/curves/**/metrics.jsonl")]
  assert runs
  for run in runs:
    row = "/".join(run.parts[-3:-1])
    # Seeds of these have their own images.
    if row.startswith(("finetuning/", "ssl/scratch-", "ssl/mae-")):
      continue
    comparison = compare(run, run.parent)  # one recipe, or it is refused
    assert comparison.on_track and comparison.notes == (), run


def command(*arguments):
  return subprocess.run(
    [sys.executable, "-m", "vitjax.compare", *map(str, arguments)],
    cwd=ROOT,
    capture_output=True,
    text=True,
  )


def test_the_command(tmp_path, seeds):
  change = scaled("train/loss", 3)
  bad = make_run(tmp_path / "bad", seed=9, change=change)
  good = command(seeds / "0" / "metrics.jsonl", seeds / "1")
  assert (good.returncode, good.stderr) == (0, "")
  assert good.stdout.startswith("ON TRACK: ")
  result = command(bad, seeds, "--json")
  assert (result.returncode, result.stderr) == (3, "")
  given = json.loads(result.stdout)
  assert given["on_track"] is False and given["run"] == str(bad)
  assert given["verdict"] == "OFF TRACK"
  assert given["metrics"][0]["name"] == "train/loss"
  assert given["metrics"][0]["off_since"] == 10
  assert len(given["references"]) == 5
  longer = make_run(tmp_path / "longer", seed=9, total_epochs=11)
  result = command(longer, seeds)
  assert result.returncode == 3
  assert result.stdout.startswith("NOT COMPARABLE: ")
  assert command(longer, seeds, "--allow=total_epochs").returncode == 0
  for arguments, message in [
    ((bad,), "give RUN and at least one REFERENCE."),
    ((bad, tmp_path / "x"), f"{tmp_path / 'x'} is not a run; give run fol"),
    ((bad, seeds, "--jsn"), "Unknown command line flag 'jsn'"),
  ]:
    result = command(*arguments)
    assert result.returncode == 1 and result.stdout == ""
    assert result.stderr.startswith(f"vitjax.compare: {message}")
  help = command("--help")
  assert help.returncode == 0 and "Exit codes: 0 on track" in help.stdout
