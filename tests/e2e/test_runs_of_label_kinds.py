"""Whole runs on images with several classes, probabilities and numbers."""

import json
import signal

import cv2
import numpy as np
import pytest

import vitjax
from tests.e2e import launch
from vitjax.data import sources
from vitjax.run_folder.reader import read_metrics

pytestmark = pytest.mark.slow

PRIMES = (2, 3, 5, 7)


@pytest.fixture(scope="module")
def root(tmp_path_factory):
  """Digits as files, and a table of each kind in which some are unknown."""
  root = tmp_path_factory.mktemp("digits")
  rng = np.random.default_rng(0)
  rows = {"classes": [], "values": [], "shares": [], "class": []}
  for split in ("train", "test"):
    source = sources.open_source("digits", split)
    fetched = source.fetch(np.arange(source.num_examples))
    for i, image in enumerate(fetched["image"].numpy()):
      file, digit = f"{split}{i}.png", int(source.labels[i])
      assert cv2.imwrite(str(root / file), image)
      start = {"file": file, "split": split}
      big = None if rng.random() < 0.3 else int(digit >= 5)
      prime = int(digit in PRIMES)
      rows["classes"].append(
        {**start, "odd": digit % 2, "prime": prime, "big": big}
      )
      square = None if rng.random() < 0.3 else digit**2
      rows["values"].append({**start, "digit": digit, "square": square})
      shares = {f"d{k}": 0.1 / 9 for k in range(10)} | {f"d{digit}": 0.9}
      rows["shares"].append({**start, **shares})
      label = "?" if rng.random() < 0.3 else str(digit)
      rows["class"].append({**start, "label": label})
  for name, found in rows.items():
    (root / f"{name}.jsonl").write_text("\n".join(map(json.dumps, found)))
  return root


# Options of the data, the overrides, and what the run must reach.
KINDS = {
  "classes": (
    ":multi_label=odd+prime+big:ignore=empty",
    ("loss=sigmoid_xent_mean", "evals.test.type=multi_label"),
    ("test/mAP", 0.9),
  ),
  "values": (
    ":regression=digit+square:ignore=empty",
    (
      "loss=huber",
      "evals.test.type=regression",
      "mixing.label_smoothing=0",
    ),
    ("test/r2", 0.6),
  ),
  "shares": (":soft_label=*", (), ("test/acc@1", 0.8)),
  "class": (":ignore=?", (), ("test/acc@1", 0.8)),
}


def command(workdir, root, kind):
  options, overrides, (metric, _) = KINDS[kind]
  pp = "decode(channels=1)|resize(8)|value_range(-1, 1)"
  return launch.tiny(
    workdir,
    f"input.data=labels:{root}/{kind}.jsonl{options}",
    f"input.pp={pp}",
    "input.repeats=1",
    f"evals.test.pp={pp}",
    f"checkpoint.best_metric={metric}",
    "mixing.cutmix_alpha=0",
    "mixing.erase_prob=0",
    "model.dropout_rate=0",
    "optim.learning_rate=0.01",
    *overrides,
  )


@pytest.mark.parametrize("kind", KINDS)
def test_each_kind_learns_and_resumes_to_the_bit(tmp_path, root, cache, kind):
  straight, killed = tmp_path / "straight", tmp_path / "killed"
  launch.run(*command(straight, root, kind), cache=cache).assert_done()
  last = {}
  for row in read_metrics(straight):
    last |= row
  metric, least = KINDS[kind][2]
  assert last[metric] > least
  with launch.Process(*command(killed, root, kind), cache=cache) as process:
    process.wait_for_step(killed, 120)
    process.wait_for_checkpoint(killed)
    process.send(signal.SIGKILL)
    process.finish()
  end = launch.run(*command(killed, root, kind), cache=cache).assert_done()
  assert "Resuming after step" in end.text
  launch.assert_same_run(killed, straight)

  # What evaluate says of the run, and of its export, is what training said.
  exported = tmp_path / "model.npz"
  launch.run(
    "vitjax.export", f"--model={straight}", f"--out={exported}", cache=cache
  ).assert_done()
  options, overrides, _ = KINDS[kind]
  section = {"data": f"labels:{root}/{kind}.jsonl{options}", "split": "test"}
  section["type"] = next(
    (x.partition("=")[2] for x in overrides if ".type=" in x), "classification"
  )
  rows = tmp_path / "rows.jsonl"
  text = launch.run(
    "vitjax.evaluate",
    f"--model={exported}",
    f"--evals={json.dumps({'test': section})}",
    f"--examples={rows}",
    f"--out={tmp_path / 'out.jsonl'}",
    "--json",
    cache=cache,
  ).assert_done()
  found = json.loads((tmp_path / "out.jsonl").read_text())["metrics"]
  assert found[metric.partition("/")[2]] == pytest.approx(
    last[metric], abs=0.01
  ), text.text
  assert len(rows.read_text().splitlines()) == 360


@pytest.mark.parametrize(
  ("kind", "overrides"),
  [
    ("classes", ("optim.name=muon", "ema={'uniform_from_percent': 50}")),
    ("class", ("optim.name=nadamw", "ema={'uniform_from_percent': 50}")),
    ("values", ("optim.name=lion", "optim.learning_rate=0.003")),
  ],
)
def test_other_optimizers_and_averages(tmp_path, root, cache, kind, overrides):
  """With class weights where there are classes; the average learns as well."""
  words = command(tmp_path, root, kind)
  words += [f"--config.{x}" for x in overrides]
  if kind != "values":
    words.append("--config.class_weights=balanced")
  launch.run(*words, cache=cache).assert_done()
  last = {}
  for row in read_metrics(tmp_path):
    last |= row
  metric, least = KINDS[kind][2]
  assert last[metric] > least
  assert last[metric.replace("test/", "test_ema/")] > least


def test_a_regression_gives_its_own_units(tmp_path, root, cache):
  """Of all commands, also after an export; the demo refuses it."""
  workdir = tmp_path / "run"
  args = command(workdir, root, "values")
  launch.run(*args, "--config.total_steps=60", cache=cache).assert_done()
  run = vitjax.load(workdir)
  mean, deviation = run.target_scale
  assert mean == pytest.approx([4.5, 28.5], rel=0.1)
  batch = np.stack([run.prepare(root / f"test{i}.png") for i in range(20)])
  outputs = run.predict(batch)
  assert np.abs(outputs.mean(axis=0) - mean).max() < 2 * deviation.max()
  assert outputs[:, 1].mean() > 10
  with pytest.raises(ValueError, match="predicts numbers and has no classes"):
    run.classify(root / "test0.png")
  text = launch.run(
    "vitjax.predict",
    f"--model={workdir}",
    str(root / "test0.png"),
    "--json",
    cache=cache,
  ).assert_done()
  line = next(x for x in text.text.splitlines() if x.startswith("{"))
  assert json.loads(line)["numbers"] == pytest.approx(
    dict(zip(("digit", "square"), outputs[0].tolist())), rel=1e-4
  )
