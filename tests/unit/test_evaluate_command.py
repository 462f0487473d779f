"""Evaluating what was trained: its evals, other data, and what is refused."""

import csv
import dataclasses
import io
import json
import pathlib
import shutil
import subprocess
import sys

import jax
import numpy as np
import pytest
import scipy.stats
from PIL import Image

import vitjax
from tests import run_folders
from vitjax import checks, models, program, weights
from vitjax.config import plain, resolving
from vitjax.config.schema import ConfigError
from vitjax.data import sources
from vitjax.data.pp import builder
from vitjax.data.sources.source import DatasetNotPreparedError
from vitjax.evaluate import answers, evaluation, thresholds
from vitjax.evaluators import tables
from vitjax.parallel import sharding
from vitjax.program.evals import make_evaluators

NAMES = ("ant", "bee 9", "bee 10", "cat", "dog", "eel", "fox")
MODEL = {
  "name": "vit",
  "width": 16,
  "depth": 1,
  "num_heads": 2,
  "patch_size": 8,
  "pool_type": "gap",
  "num_classes": len(NAMES),
}
METADATA = {
  "model": MODEL,
  "image_size": [16, 16],
  "channels": 3,
  "preprocess": "decode|resize(16)|value_range(-1, 1)",
  "class_names": list(NAMES),
  "data": "folder:/where/it/was/trained",
  "loss": "softmax_xent",
}


@pytest.fixture(scope="module")
def file(tmp_path_factory):
  """An exported model that knows nothing, but tells images apart."""
  model = models.create(**MODEL)
  image = jax.ShapeDtypeStruct((1, 16, 16, 3), np.float32)
  shapes = jax.eval_shape(model.init, jax.random.key(0), image)["params"]
  rng = np.random.default_rng(0)
  params = jax.tree.map(
    lambda x: rng.normal(size=x.shape).astype(np.float32), shapes
  )
  for name in ("kernel", "bias"):  # what an image is decides
    params["embedding"][name] *= 20 if name == "kernel" else 0
    params["head"][name] *= name == "kernel"
  params["Transformer"]["encoder_norm"]["bias"] *= 0
  file = tmp_path_factory.mktemp("model") / "x.npz"
  weights.save(file, params, model, metadata=METADATA)
  return file


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
  """Train and val of four of the classes, in another order."""
  folder = tmp_path_factory.mktemp("pictures")
  rng = np.random.default_rng(1)
  for split, count in (("train", 9), ("val", 5)):
    for name in ("fox", "bee 10", "ant", "dog"):
      (folder / split / name).mkdir(parents=True)
      for i in range(count):
        shades = rng.integers(0, 256, (4, 4, 3), np.uint8)
        pixels = shades.repeat(5, axis=0).repeat(4, axis=1)
        Image.fromarray(pixels).save(folder / split / name / f"{i}.png")
  return folder


def metrics_of(*args, **options):
  return {r.name: r.metrics for r in evaluation.evaluate(*args, **options)}


def test_other_data_and_any_batch_size(file, pictures):
  """Classes have the model's ids; predictions are among all or some."""
  section = {"data": f"folder:{pictures}", "split": "val"}
  evals = {
    "all": section,
    "some": {**section, "among": "present", "batch_size": 8},
    "named": {**section, "among": ["fox", "dog", "bee 10", "ant"]},
  }
  got = metrics_of(file, evals, batch_size=7)
  model = vitjax.load(file)
  paths = sorted((pictures / "val").glob("*/*.png"))
  logits = model.predict(np.stack([model.prepare(path) for path in paths]))
  label = np.array([NAMES.index(path.parent.name) for path in paths])
  p = np.exp(logits - logits.max(axis=1, keepdims=True))
  p /= p.sum(axis=1, keepdims=True)
  loss = -np.log(p[np.arange(20), label]).mean()
  assert got["all"]["loss"] == pytest.approx(loss, rel=1e-4)
  assert got["all"]["acc@1"] == (logits.argmax(axis=1) == label).mean()
  known = np.unique(label)
  guess = known[logits[:, known].argmax(axis=1)]
  assert got["some"]["acc@1"] == (guess == label).mean() > 0
  assert got["some"]["loss"] < got["all"]["loss"]
  assert got["named"] == got["some"]
  assert got["all"]["n_seen"] == 20
  again = metrics_of(file, {"all": section}, batch_size=64)["all"]
  assert again == pytest.approx(got["all"], rel=1e-6)


def test_evaluators_with_classes_of_their_own(file, pictures):
  """A data set that the model's classes have nothing to do with."""
  (pictures / "train" / "zebra").mkdir()
  for i in range(9):
    Image.new("RGB", (20, 20), (i, i, i)).save(
      pictures / "train" / "zebra" / f"{i}.png"
    )
  try:
    section = {"data": f"folder:{pictures}", "split": "val"}
    got = metrics_of(
      file, {"k": {**section, "type": "knn", "train_split": "train", "k": 3}}
    )
    assert got["k"]["n_train"] == 45 and 0 < got["k"]["3nn"] < 1
    section["split"] = "train"
    with pytest.raises(ConfigError, match="'train' has class folders or lab"):
      metrics_of(file, {"all": section})
  finally:
    for path in (pictures / "train" / "zebra").iterdir():
      path.unlink()
    (pictures / "train" / "zebra").rmdir()


@pytest.mark.parametrize(
  ("evals", "message"),
  [
    (None, "no evals of its own because it is no run folder: give some"),
    (["test"], "'test' is not an eval of the model. It has: none"),
    ({"t": {}}, "config.evals.t.split is missing"),
    ({"t": 1}, "config.evals.t=1 must be a section, or None"),
    ({"t": {"split": "val", "amog": 1}}, "evals.t.amog is not a key. Did you"),
    ({"t": {"split": "val", "pp": "decode"}}, "does not normalise images"),
    ({"t": {"split": "val", "type": "zeroshot"}}, "with two towers, and this"),
    (
      {"t": {"data": "digits", "split": "test"}},
      r"config.evals.t: digits has 10 classes, but the model only 7",
    ),
    (
      {"t": {"data": "fake:9,16x16x3,4", "split": "test"}},
      r"4 of the 4 classes of 'fake:9,16x16x3,4' cannot be found among the 7",
    ),
  ],
)
def test_what_cannot_be_run_is_refused(file, evals, message):
  with pytest.raises(ConfigError, match=message):
    metrics_of(file, evals)


def test_a_failure_does_not_stop_the_others(file, pictures):
  section = {"data": f"folder:{pictures}", "split": "val"}
  bad = pictures / "val" / "fox" / "bad.png"
  evals = {
    "gone": {"data": "folder:/no/such/folder", "split": "val"},
    "bad": {**section},
    "size": {"data": "fake:90,8x8x3,7", "split": "val", "same_classes": True}
    | {"pp": "value_range(-1, 1)"},
    "good": {**section, "split": "train"},
  }
  bad.write_bytes(b"no image")
  try:
    results = {r.name: r for r in evaluation.evaluate(file, evals)}
  finally:
    bad.unlink()
  assert results["gone"].absent.endswith("'/no/such/folder' does not exist.")
  assert "fox/bad.png" in results["bad"].error
  assert "images of 8x8x3 do not fit the model, which takes 16x16x3" in (
    results["size"].error
  )
  assert results["good"].metrics["n_seen"] == 36
  table = evaluation.to_table(results.values()).splitlines()
  assert table[1].split()[:2] == ["gone", "folder:/no/such/folder"]
  assert table[-1].split()[0] == "loss" and table[-1].endswith("  36")
  rows = [json.loads(evaluation.to_json(r)) for r in results.values()]
  assert [sorted(row)[0] for row in rows] == ["absent", "data", "data", "data"]
  assert "error" in rows[1] and rows[3]["metrics"]["n_seen"] == 36


@pytest.fixture(scope="module")
def kept(file, pictures):
  """The result of an eval whose answers are kept."""
  section = {"data": f"folder:{pictures}", "split": "val", "calibration": True}
  [result] = evaluation.evaluate(
    file, {"val": section}, keep_answers=True, bootstrap=200
  )
  return result


def test_answers_are_those_of_each_file(file, kept):
  model = vitjax.load(file)
  rows = list(kept.answers.rows())
  assert len(rows) == 20 == kept.answers.total
  for row in rows:
    path = pathlib.Path(row["file"])
    assert row["label"] == path.parent.name
    logits = model.predict(model.prepare(path)[None])[0]
    p = model.probabilities(logits)
    best = np.argsort(-p)[:5]
    assert [x["label"] for x in row["top"]] == [NAMES[i] for i in best]
    np.testing.assert_allclose(
      [x["probability"] for x in row["top"]], p[best], rtol=1e-4, atol=1e-7
    )
  right = np.mean([row["label"] == row["top"][0]["label"] for row in rows])
  assert right == kept.metrics["acc@1"]
  for name in ("loss", "acc@1", "acc@5"):
    assert kept.answers.values[name].mean() == pytest.approx(kept.metrics[name])


@pytest.mark.parametrize("is_sigmoid", [False, True])
def test_scores_are_probabilities(kept, is_sigmoid):
  logits = np.float32([[0, 2, -3, 1, 0, 0, 0], [50, 0, 0, 0, 0, 0, 50]])
  few = dataclasses.replace(
    kept.answers, label=np.array([1, 6]), logits=logits, is_sigmoid=is_sigmoid
  )
  names, score, truth = few.scores()
  want = np.exp(logits.astype(float))
  want /= 1 + want if is_sigmoid else want.sum(axis=1, keepdims=True)
  assert names == NAMES and truth.tolist() == np.eye(7)[[1, 6]].tolist()
  np.testing.assert_allclose(score, want, rtol=1e-12)


def test_answers_in_files(kept):
  given = {"val": kept.answers}
  lines = answers.to_text(given, ".jsonl").splitlines()
  parsed = [json.loads(line) for line in lines]
  assert parsed == [{"eval": "val", **row} for row in kept.answers.rows()]
  table = list(csv.DictReader(io.StringIO(answers.to_text(given, ".csv"))))
  assert len(table) == 20
  for cells, row in zip(table, parsed):
    assert (cells["file"], cells["label"]) == (row["file"], row["label"])
    assert cells["top1"] == row["top"][0]["label"]
    assert float(cells["probability5"]) == row["top"][4]["probability"]


def test_intervals_are_those_of_a_binomial(kept):
  assert set(kept.intervals) == {"loss", "acc@1", "acc@5"}
  for name, (low, high) in kept.intervals.items():
    assert low <= kept.metrics[name] <= high
  rng = np.random.default_rng(1)
  right = (rng.random(400) < 0.7).astype(np.float32)
  many = dataclasses.replace(
    kept.answers, label=np.zeros(400, int), values={"acc@1": right}
  )
  found = many.intervals(4000)["acc@1"]
  want = scipy.stats.binom.ppf((0.025, 0.975), 400, right.mean()) / 400
  np.testing.assert_allclose(found, want, atol=0.006)
  assert found == many.intervals(4000)["acc@1"]  # the same each time
  text = evaluation.to_table([kept])
  assert "95 % interval" in text and " .. " in text
  assert "95 %" not in evaluation.to_table(
    [dataclasses.replace(kept, intervals=None)]
  )
  assert json.loads(evaluation.to_json(kept))["intervals"].keys() == (
    kept.intervals.keys()
  )


def test_thresholds_are_chosen_on_the_first_eval(file, pictures):
  data = {"data": f"folder:{pictures}"}
  evals = {
    "val": {**data, "split": "train"},
    "test": {**data, "split": "val", "metrics": ["f1"]},
  }
  goal = thresholds.Goal("f1")
  val, test = evaluation.evaluate(file, evals, thresholds=goal, metrics=["ap"])
  assert val.thresholds is test.thresholds
  assert "on these very images" in val.note
  assert "chosen on val (" in test.note and "applied to other" in test.note
  table = evaluation.to_table([val, test])
  assert test.note in table.splitlines()
  assert json.loads(evaluation.to_json(test))["note"] == test.note
  value = val.thresholds.by_class["dog"]
  assert (
    val.metrics["threshold[dog]"] == test.metrics["threshold[dog]"] == value
  )
  assert 0 < val.metrics["threshold_f1[dog]"] <= 1
  # "--metrics" adds to those of the eval.
  assert "f1[dog]" in test.metrics and "f1[dog]" not in val.metrics
  assert {"ap"} <= {*val.metrics} & {*test.metrics}
  # Again, with those of the file.
  [again] = evaluation.evaluate(
    file, {"test": evals["test"]}, thresholds=val.thresholds
  )
  chosen = {k: x for k, x in test.metrics.items() if k.startswith("thres")}
  assert str(chosen) == str({k: again.metrics[k] for k in chosen})


def test_thresholds_are_not_chosen_on_another_eval(file, pictures, tmp_path):
  """If the data of the first one is absent, the test set would be next."""
  evals = {
    "val": {"data": "cifar10", "split": "train", "same_classes": True},
    "test": {"data": f"folder:{pictures}", "split": "val"},
  }
  with pytest.raises(ConfigError, match="cannot be chosen on val: Data set"):
    list(
      evaluation.evaluate(
        file, evals, data_dir=tmp_path, thresholds=thresholds.Goal("f1")
      )
    )


def test_evals_without_answers(file, pictures, tmp_path):
  section = {"data": f"folder:{pictures}", "split": "val", "among": "present"}
  with pytest.raises(ConfigError, match="--bootstrap needs an eval of"):
    list(evaluation.evaluate(file, {"val": section}, bootstrap=10))
  for name in ("out.txt", "no/such/folder.csv"):
    with pytest.raises(ValueError, match=r"must end in \.csv or \.jsonl"):
      answers.check_file(tmp_path / name)


def test_how_evals_are_written(tmp_path):
  parse = evaluation.parse_evals
  assert parse(None) is None
  assert parse("test, val") == ["test", "val"]
  want = {"t": {"split": "train[:10%]", "k": [1, 20]}}
  for text in ('{t: {split: "train[:10%]", k: [1, 20]}}', json.dumps(want)):
    assert parse(text) == want
    (tmp_path / "evals.yaml").write_text(text)
    assert parse(str(tmp_path / "evals.yaml")) == want
  for text, message in (
    (
      "{t: {split: train[:10%]}}",
      r"not YAML in line 1, column .* Quote values",
    ),
    ("{}", "must be sections by name"),
    ("/no/such/file.json", "--evals=/no/such/file.json cannot be read"),
  ):
    with pytest.raises(ValueError, match=message):
      parse(text)


@pytest.mark.slow
def test_the_command(file, pictures, tmp_path):
  def run(*flags):
    command = [sys.executable, "-m", "vitjax.evaluate", f"--model={file}"]
    return subprocess.run(
      [*command, *flags], capture_output=True, text=True, check=False
    )

  evals = (
    f'--evals={{here: {{data: "folder:{pictures}", split: val}}, '
    "gone: {data: cifar10, split: test}}"
  )
  out = tmp_path / "out.jsonl"
  folder = f"--data_dir={tmp_path}"
  done = run(evals, folder, "--json", f"--out={out}")
  assert done.returncode == 0, done.stderr
  assert out.read_text() == done.stdout
  here, gone = map(json.loads, done.stdout.splitlines())
  assert here["metrics"]["n_seen"] == 20 and "not prepared" in gone["absent"]
  strict = run(evals, folder, "--strict")
  assert strict.returncode == 1
  assert "acc@1" in strict.stdout
  assert strict.stderr.splitlines()[-1].startswith(
    "vitjax.evaluate: gone: Data"
  )
  rows = tmp_path / "rows.csv"
  done = run(evals, folder, f"--examples={rows}", "--bootstrap=50")
  assert done.returncode == 0 and "95 % interval" in done.stdout
  assert len(rows.read_text().splitlines()) == 21
  for flag in (
    "--evals=test",
    f"--out={tmp_path}/no/x",
    f"--examples={tmp_path}/x.txt",
    "--step=best",
    "more",
  ):
    wrong = run(flag)
    assert wrong.returncode == 1 and not wrong.stdout
    assert "Traceback" not in wrong.stderr
    assert wrong.stderr.splitlines()[-1].startswith("vitjax.evaluate: ")


def test_the_preprocessing_of_a_model_is_that_of_its_own_data():
  """Evals come in alphabetical order; the first may be of something else."""
  section = {"split": "test", "pp": "resize(7)|value_range(-1, 1)"}
  given = {
    "few": {**section, "type": "fewshot", "train_split": "train"},
    "other": {**section, "data": "fake:9,16x16x3,4"},
    "val": {**section, "pp": "resize(8)|value_range(-1, 1)"},
  }
  run = resolving.resolve(
    {
      "total_steps": 1,
      "input": {"data": "digits", "batch_size": 8, "pp": "value_range(-1, 1)"},
      "model": {"name": "vit", "variant": "mu/4"},
      "optim": {"name": "adam", "learning_rate": 0.1},
      "evals": given,
    },
    checks.problems,
  )
  source = sources.open_source("digits", "train")
  parts = program.assemble(run, source, sharding.make_mesh())
  described = program.describe_model(parts)
  assert described["preprocess"] == given["val"]["pp"]
  # Without evals it is that of training, which varies images at random.
  varied = "flip_lr|value_range(-1, 1)"
  run = dataclasses.replace(
    run, evals={}, input=dataclasses.replace(run.input, pp=varied)
  )
  described = program.describe_model(dataclasses.replace(parts, run=run))
  assert described["preprocess"] == "value_range(-1, 1)"


def test_optional_evals(caplog):
  """Without their data they are left out, and cannot choose a checkpoint."""
  given = {
    "total_steps": 1,
    "input": {"data": "digits", "batch_size": 8, "pp": "value_range(-1, 1)"},
    "model": {"name": "vit", "variant": "mu/4"},
    "optim": {"name": "adam", "learning_rate": 0.1},
    "evals": {
      "gone": {
        "data": "folder:/no/such/folder",
        "split": "val",
        "pp": "value_range(-1, 1)",
        "optional": True,
      },
      "here": {"split": "test", "pp": "value_range(-1, 1)"},
    },
  }
  run = resolving.resolve(given, checks.problems)
  source = sources.open_source("digits", "train")
  mesh = sharding.make_mesh()
  made = make_evaluators(program.assemble(run, source, mesh))
  assert list(made) == ["here"]
  assert "config.evals.gone is left out: 'folder:/no/such/fol" in caplog.text
  given["evals"]["gone"]["optional"] = False
  run = resolving.resolve(given, checks.problems)
  with pytest.raises(DatasetNotPreparedError, match="does not exist"):
    make_evaluators(program.assemble(run, source, mesh))
  given["evals"]["gone"]["optional"] = True
  given["checkpoint"] = {"best_metric": "gone/acc@1"}
  with pytest.raises(ConfigError, match="a metric of an optional eval"):
    resolving.resolve(given, checks.problems)


def test_a_resolved_eval_resolves_to_itself():
  given = {"t": {"type": "knn", "split": "a", "pp": "", "k": 5}}
  sections = resolving.resolve_evals(given)
  saved = {"t": plain.to_dict(sections["t"])}
  assert "options" not in saved["t"] and saved["t"]["k"] == 5
  assert resolving.resolve_evals(saved) == sections
  older = {"t": {**saved["t"], "options": {"k": 5}}}
  assert resolving.resolve_evals(older) == sections


def test_the_vocabulary_of_a_run_is_the_one_in_its_folder():
  given = "decode|tokenize('bert', 'a.txt', max_len=4)|value_range(-1, 1)"
  want = given.replace("a.txt", "/run/vocab.txt")
  assert builder.with_vocab(given, "/run/vocab.txt") == want
  named = given.replace("'a.txt'", "vocab='a.txt'")
  want = want.replace("'/run", "vocab='/run")
  assert builder.with_vocab(named, "/run/vocab.txt") == want
  assert builder.with_vocab("decode | resize(8)", "x") == "decode | resize(8)"


def test_a_run_folder_cannot_import_an_evaluator():
  """Its config may be a stranger's; sections of the command are the user's."""
  section = {"type": "their.code", "split": "test", "pp": ""}
  run = resolving.resolve(
    {
      "total_steps": 1,
      "input": {"data": "digits", "batch_size": 8, "pp": ""},
      "model": MODEL,
      "optim": {"name": "sgd", "learning_rate": 1.0},
      "evals": {"theirs": section},
    }
  )
  for evals in (None, ["theirs"]):
    with pytest.raises(ConfigError, match=r"--allow_module=their\.code"):
      evaluation._sections(evals, run, "", None)
  for evals, allowed in ((None, "their.code"), ({"mine": section}, None)):
    (got,) = evaluation._sections(evals, run, "", allowed).values()
    assert got.type == "their.code"


@pytest.mark.slow
def test_a_run_on_other_images_than_those_of_today(tmp_path, caplog):
  """What is held out now may have been trained on."""
  images = run_folders.make_images(tmp_path / "images", per_class=2)
  run = run_folders.make(tmp_path / "run", images)
  assert metrics_of(run)["val"]["n_seen"] == 6
  assert "differ from those" not in caplog.text
  name = run_folders.CLASSES[-1]
  (images / "train" / name / "0.png").rename(images / "val" / name / "9.png")
  assert metrics_of(run)["val"]["n_seen"] == 7
  assert "the images differ from those that this run was tr" in caplog.text


def test_metrics_are_added_to_several_classes(file, pictures, tmp_path):
  model = shutil.copy(file, tmp_path)
  stored = json.loads(file.with_suffix(".json").read_text())
  stored["loss"] = "sigmoid_xent"
  (tmp_path / "x.json").write_text(json.dumps(stored))
  rows = [
    ",".join([f"train/{x}/{i}.png", *(str(int(x == name)) for name in NAMES)])
    for x in ("ant", "dog")
    for i in range(9)
  ]
  header = ",".join(["file", *NAMES])
  (pictures / "several.csv").write_text("\n".join([header, *rows]))
  data = f"labels:{pictures}/several.csv:multi_label={'+'.join(NAMES)}"
  evals = {"all": {"type": "multi_label", "data": data, "split": "train"}}
  found = metrics_of(model, evals, metrics=["all"])["all"]
  assert found["support[ant]"] > 0 == found["support[fox]"]
  assert 0 <= found["ap[dog]"] <= 1
  [result] = evaluation.evaluate(model, evals, bootstrap=20)
  low, high = result.intervals["mAP"]
  assert low <= result.metrics["mAP"] <= high and result.answers is None
  assert " .. " in evaluation.to_table([result])


def test_numbers_of_any_size_are_shown():
  shown = [tables.text(x) for x in (0.97, 2.5e-6, 1.25e7, 0.0, -0.0002, np.nan)]
  assert shown == ["0.9700", "2.5e-06", "1.25e+07", "0.0000", "-0.0002", "–"]


def test_targets_are_not_called_classes():
  found = {"val/mae": 2.0, "val/mae[age]": 1.5, "val/mae[size]": 2.5}
  assert tables.summary(found, "")[-4:] == [
    "val, by target:",
    "target     mae",
    "age     1.5000",
    "size    2.5000",
  ]
