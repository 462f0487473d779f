"""The table of speed and accuracy: its facts, and that none is made up."""

import csv
import dataclasses
import io
import json
import pathlib
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests import run_folders
from vitjax import models
from vitjax.models import flops
from vitjax.pareto import benchmark
from vitjax.plots import charts
from vitjax.run_folder import history

ROOT = pathlib.Path(__file__).parents[2]
IMAGENET = benchmark.Accuracy(76.0, 93.0, "published: x.csv")


def candidate(name, width=8, accuracy=None):
  model = models.create(
    "vit", width=width, depth=1, num_heads=2, patch_size=4, num_classes=3
  )
  image = jax.ShapeDtypeStruct((1, 8, 8, 3), jnp.float32)
  params = jax.eval_shape(model.init, jax.random.key(0), image)["params"]
  return benchmark.Candidate(name, model, params, (8, 8, 3), accuracy)


def test_rows_of_the_table():
  given = [
    candidate("small", 8, IMAGENET),
    candidate("large | one", 64),
  ]
  rows = benchmark.measure(given, batch_size=3, repeats=1)
  for row, one in zip(rows, given, strict=True):
    count = sum(x.size for x in jax.tree.leaves(one.params))
    assert row.param_count == pytest.approx(count / 1e6, abs=1e-3)
    assert row.img_size == "8"
    assert row.infer_step_time == pytest.approx(
      3000 / row.infer_samples_per_sec, abs=1e-3
    )
  assert (rows[0].top1, rows[0].top5, rows[0].pareto) == (76, 93, True)
  assert (rows[1].top1, rows[1].accuracy, rows[1].pareto) == (None, "", None)

  lines = list(csv.DictReader(io.StringIO(benchmark.to_csv(rows))))
  assert lines[1]["model"] == "large | one"
  assert (lines[0]["top1"], lines[1]["top1"]) == ("76.0", "")
  table = benchmark.to_markdown(rows).splitlines()
  assert len({line.replace("\\|", "").count("|") for line in table}) == 1
  content = json.loads(benchmark.to_json(rows, {"device": "cpu"}))
  assert content["rows"][1]["top1"] is None
  assert benchmark.groups(rows) == {
    "published: x.csv": [
      ("small", rows[0].infer_samples_per_sec, rows[0].param_count, 76, True)
    ]
  }


def test_macs_are_those_of_the_formula():
  name = "vit_small_patch32_224.augreg_in21k_ft_in1k"
  found = benchmark.find(name, {}, "bfloat16")
  assert found.image_shape == (224, 224, 3)
  assert found.model.dtype == "bfloat16"
  shape = (1, 224, 224, 3)
  want = sum(flops.vit_forward(found.model, shape)) / 2e9
  assert benchmark.gmacs(found) == pytest.approx(want, rel=1e-6)
  # timm's table says 1.15, with 22.88 million parameters.
  assert want == pytest.approx(1.15, abs=0.02)
  count = sum(x.size for x in jax.tree.leaves(found.params))
  assert count == pytest.approx(22.88e6, rel=1e-3)


def test_macs_of_depth_wise_convolutions_count():
  """9.40 by PyTorch's counter, which has no norms and no activations."""
  found = benchmark.find("efficientnet_b5.sw_in12k_ft_in1k", {}, "float32")
  assert benchmark.gmacs(found) == pytest.approx(9.404, abs=0.001)


def made_up(model, speed, top1, source):
  return benchmark.Row(
    model, "8", top1, None, source, 1.0, 1.0, speed, 1.0, 1, None
  )


@pytest.mark.parametrize("seed", range(3))
def test_the_front_has_whoever_is_not_beaten(seed):
  rng = np.random.default_rng(seed)
  given = [
    made_up(str(i), *row)
    for i, row in enumerate(
      zip(
        rng.integers(1, 6, 12),
        rng.integers(1, 6, 12),
        rng.choice(["a", "b"], 12),
      )
    )
  ]
  unknown = made_up("unknown", 9, None, "")
  *rows, last = benchmark.with_front([*given, unknown])
  assert last == unknown
  for own in rows:
    beaten = False
    for other in rows:
      if other.accuracy != own.accuracy:
        continue
      speeds = other.infer_samples_per_sec, own.infer_samples_per_sec
      faster, better = speeds[0] > speeds[1], other.top1 > own.top1
      slower, worse = speeds[0] < speeds[1], other.top1 < own.top1
      beaten |= (faster and not worse) or (better and not slower)
    assert own.pareto == (not beaten)


def test_the_accuracy_of_a_run_is_what_it_recorded(tmp_path):
  images = run_folders.make_images(tmp_path / "images", 1)
  run = run_folders.make(tmp_path / "run", images)
  found = benchmark.find(str(run), {}, "float32")
  assert found.accuracy == benchmark.Accuracy(
    25.0, None, f"measured: folder:{images} val, n = 21"
  )
  (run / "metrics.jsonl").write_text('{"step": 1, "train/loss": 2.0}\n')
  assert benchmark.recorded(history.read([run])[0]) is None


def test_published_accuracies_come_from_a_table(tmp_path):
  file = tmp_path / "results.csv"
  file.write_text("model,top1,top1_err,top5\na,81.5,18.5,95.6\nb,70,30,\n")
  assert benchmark.read_accuracies(file) == {
    ("a", None): benchmark.Accuracy(81.5, 95.6, "published: results.csv"),
    ("b", None): benchmark.Accuracy(70, None, "published: results.csv"),
  }
  for text, message in (
    ("name,top1\n", "has no column model; it has name, top1"),
    ("model,top1\na,x\n", "line 2"),
    ("model,top1\na,101\n", "not a percentage"),
  ):
    file.write_text(text)
    with pytest.raises(ValueError, match=message):
      benchmark.read_accuracies(file)


def test_an_accuracy_belongs_to_a_size_of_images(tmp_path):
  file = tmp_path / "results.csv"
  name, other = "convnext_tiny.fb_in22k_ft_in1k", "convnext_tiny.not_ours"
  file.write_text(
    f"model,img_size,top1\n{name},288,79.0\n{name},224,82.9\n{other},224,80\n"
  )
  known = benchmark.read_accuracies(file)

  def find(name):
    found = benchmark.find(name, known, "float32")
    return found.image_shape[0], found.accuracy and found.accuracy.top1

  assert find(name) == (224, 82.9)
  assert find(f"{name}@288") == (288, 79.0)
  assert find(f"{name}@256") == (256, None)
  assert find(f"{other}@224") == (224, 80)
  with pytest.raises(ValueError, match="is not a run folder"):
    find("convnext_tiny.misspelt")


def test_the_table_of_timm():
  names, known = benchmark.expand(["ViT-S_16", "@timm-12k"], {})
  assert len(names) == 37 and names[0] == "ViT-S_16"
  assert len(known) == 36
  for name in names[1:]:
    model, _ = benchmark._published(name.rpartition("@")[0], known)
    assert model.num_classes == 1000
  with pytest.raises(ValueError, match="known are @timm-12k"):
    benchmark.expand(["@timm"], {})


def test_a_model_that_does_not_fit_is_left_out(monkeypatch):
  monkeypatch.setattr(benchmark.devices, "memory_of", lambda device: 200_000)
  lines = []
  rows = benchmark.measure(
    [candidate("small"), candidate("large", 256)],
    batch_size=1,
    repeats=1,
    log=lines.append,
  )
  assert [row.model for row in rows] == ["small"]
  assert any("Left out: large needs" in line for line in lines)


def test_rows_are_read_as_they_were_written(tmp_path):
  file = tmp_path / "t.csv"
  kept = [made_up("a", 9.5, 76.0, "x"), made_up("b", 1.25, None, "")]
  file.write_text(benchmark.to_csv(benchmark.with_front(kept)))
  assert benchmark.read_rows(file) == benchmark.with_front(kept)
  file.write_text("model,top1\n")
  with pytest.raises(ValueError, match="is not a table of vitjax"):
    benchmark.read_rows(file)


@pytest.mark.slow
def test_a_killed_run_goes_on(tmp_path):
  file = tmp_path / "t.csv"
  kept = made_up("ViT-Ti_16", 9.5, 76.0, "x")
  kept = dataclasses.replace(kept, img_size="224", pareto=True)
  file.write_text(benchmark.to_csv([kept]))
  command = ["-m", "vitjax.pareto", "--models=ViT-Ti_16,testing", "--resume"]
  done = subprocess.run(
    [sys.executable, *command, f"--out={file}", "--repeats=1"],
    capture_output=True,
    text=True,
    cwd=ROOT,
  )
  assert done.returncode == 0, done.stderr
  first, second = benchmark.read_rows(file)
  assert first == kept
  assert (second.model, second.pareto) == ("testing", None)


def test_what_there_is_not():
  with pytest.raises(ValueError, match=r"'ViT-B_61' is not a run folder"):
    benchmark.find("ViT-B_61", {}, "float32")


def test_the_plot_has_every_model():
  rows = {
    "x": [("vit", 10.0, 5.0, 76.0, True), ("mixer", 8.0, 6.0, 75.0, False)]
  }
  text = charts.trade_off("t", rows, ("speed", "size", "top-1")).svg()
  assert "1  vit<" in text and "2  mixer<" in text
  assert text.count(">1<") == text.count(">2<") == 2
  assert "mathdefault" not in text


def run(*arguments):
  return subprocess.run(
    [sys.executable, "-m", "vitjax.pareto", *arguments],
    cwd=ROOT,
    capture_output=True,
    text=True,
  )


def test_the_command():
  found = run("--help")
  assert found.returncode == 0
  for part in ("--models", "--accuracy", "--batch_size", "published"):
    assert part in found.stdout
  found = run("--models=a", "--out=x.txt")
  assert found.returncode == 1
  assert found.stderr.startswith("vitjax.pareto: --out=x.txt must end in")
