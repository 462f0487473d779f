"""The page about runs: its numbers, its escaping, and what it leaves out."""

import copy
import dataclasses
import html.parser
import json
import math
import pathlib
import re
import subprocess
import sys

import cv2
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import sklearn.metrics

import vitjax
from tests import run_folders
from vitjax.config import resolving
from vitjax.data.sources.arrays import AbsentSource
from vitjax.evaluate import answers, evaluation
from vitjax.evaluators import tables
from vitjax.plots import charts, grids, pixels
from vitjax.report import mistakes, model, reporting
from vitjax.run_folder import history

ROOT = pathlib.Path(__file__).parents[2]


@pytest.fixture(scope="module")
def images(tmp_path_factory):
  return run_folders.make_images(tmp_path_factory.mktemp("images"))


@pytest.fixture(scope="module")
def run(images, tmp_path_factory):
  """A run whose folder is called like markup."""
  folder = tmp_path_factory.mktemp("runs") / '<b>"run"&'
  return run_folders.make(folder, images)


@pytest.fixture(scope="module")
def judged(run):
  resolved = resolving.resolve(json.loads((run / "config.json").read_text()))
  name, judged = mistakes.judge(vitjax.load(run), resolved)
  assert name == "val"
  return judged


@pytest.fixture(scope="module")
def page(run, tmp_path_factory):
  folder = tmp_path_factory.mktemp("page")
  written = reporting.write(
    history.read([run]), folder / "report.html", folder / "png"
  )
  return (folder / "report.html").read_text(encoding="utf-8"), written


def by_hand(run, judged):
  """(label, prediction, confidence) of each example, without the pipeline."""
  trained = vitjax.load(run)
  apply = jax.jit(trained.model.apply)
  for i in range(judged.total):
    file = judged.data.source.describe(i)
    image = cv2.imread(file)[..., ::-1]
    logits, _ = apply(
      {"params": trained.params}, jnp.asarray(image[None] / 127.5 - 1)
    )
    logits = np.asarray(logits[0], np.float64)
    shares = np.exp(logits - logits.max()) / np.exp(logits - logits.max()).sum()
    label = run_folders.CLASSES.index(pathlib.Path(file).parent.name)
    yield label, int(shares.argmax()), shares.max()


def test_every_example_is_judged(run, judged):
  label, prediction, confidence = map(np.array, zip(*by_hand(run, judged)))
  np.testing.assert_array_equal(judged.label, label)
  np.testing.assert_array_equal(judged.prediction, prediction)
  np.testing.assert_allclose(judged.confidence, confidence, rtol=1e-4)
  assert 0 < judged.accuracy == (label == prediction).mean() < 1
  assert list(judged.names) == list(run_folders.CLASSES)


def test_the_first_examples_alone(run, judged):
  resolved = resolving.resolve(json.loads((run / "config.json").read_text()))
  _, first = mistakes.judge(vitjax.load(run), resolved, 5)
  np.testing.assert_array_equal(first.label, judged.label[:5])
  np.testing.assert_array_equal(first.prediction, judged.prediction[:5])
  assert first.total == judged.total == 21


def test_the_image_of_a_mistake_is_that_of_its_number(judged):
  for i in judged.worst(2):
    file = judged.data.source.describe(int(i))
    want = cv2.imread(file)[..., ::-1]
    np.testing.assert_array_equal(judged.image(int(i)), want)


def made_up(num_classes=50, n=2000):
  rng = np.random.default_rng(0)
  label = rng.integers(0, num_classes, n)
  wrong = rng.random(n) < 0.3
  other = rng.choice(num_classes, n, p=rng.dirichlet(np.full(num_classes, 0.3)))
  return mistakes.Judged(
    label=label,
    prediction=np.where(wrong, other, label),
    confidence=rng.random(n).astype(np.float32),
    names=[f"class {i}" for i in range(num_classes)],
    data=None,
    total=n,
    ranked={},
  )


def test_confusion_against_scikit_learn():
  judged = made_up()
  want = sklearn.metrics.confusion_matrix(judged.label, judged.prediction)
  got = judged.confusion(np.arange(50))
  np.testing.assert_array_equal(got[:, :-1], want)
  assert not got[:, -1].any()

  wrong = want - np.diag(np.diag(want))
  chosen = judged.most_confused(8)
  involved = wrong.sum(0) + wrong.sum(1)
  assert involved[chosen].min() >= np.delete(involved, chosen).max()
  part = judged.confusion(chosen)
  np.testing.assert_array_equal(part[:, :-1], want[np.ix_(chosen, chosen)])
  np.testing.assert_array_equal(part.sum(1), want[chosen].sum(1))

  (label, prediction, count), *_, last = judged.pairs(10)
  assert count == wrong.max() == wrong[label, prediction]
  assert last[2] == np.sort(wrong.ravel())[-10]


def test_classes_against_scikit_learn():
  judged = made_up()
  judged.prediction[judged.prediction == 3] = 4  # 3 is never predicted
  label, prediction = judged.label, judged.prediction
  args = {"labels": range(50), "average": None, "zero_division": 0}
  got = judged.measures
  np.testing.assert_array_equal(got["support"], np.bincount(label))
  for name in ("precision", "recall", "f1"):
    want = getattr(sklearn.metrics, f"{name}_score")(label, prediction, **args)
    np.testing.assert_allclose(got[name], want)
  assert got["precision"][3] == 0
  assert got["balanced_acc"] == pytest.approx(
    sklearn.metrics.balanced_accuracy_score(label, prediction)
  )


def test_the_report_has_the_numbers_of_the_eval(run, judged):
  """One evaluator for training, one for the report: the same numbers."""
  sections = {"val": {"data": judged.data.source.data, "split": "val"}}
  sections["val"]["metrics"] = ["all"]
  (result,) = evaluation.evaluate(run, sections)
  found = tables.by_class(result.metrics)
  assert judged.accuracy == found.whole["acc@1"]
  for name, value in judged.measures.items():
    want = found.single.get(name)
    want = found.whole[name] if want is None else [*want.values()]
    np.testing.assert_array_equal(value, want, err_msg=name)
  assert judged.confusion(np.arange(3)).tolist() == found.confusion


def test_a_collapsed_model_is_named(run, judged):
  one = np.zeros_like(judged.prediction)
  collapsed = dataclasses.replace(judged, prediction=one, ranked={})
  section = model.Section("x")
  model._add_mistakes(section, "x", "val", collapsed, 2)
  assert f"Every example is predicted as {judged.names[0]}." in section.notes
  _, (columns, rows), *_ = section.tables
  assert columns == ["class", "examples", "precision", "recall", "F1"]
  assert rows[0][1:] == ["7", "0.3333", "1.0000", "0.5000"]
  assert rows[1][1:] == ["7", "0.0000", "0.0000", "0.0000"]


def test_equal_logits_are_predictions_of_no_class(judged):
  none = np.full_like(judged.prediction, len(judged.names))
  collapsed = dataclasses.replace(judged, prediction=none, ranked={})
  section = model.Section("x")
  model._add_mistakes(section, "x", "val", collapsed, 2)
  assert collapsed.accuracy == 0
  assert "Every example is predicted as no class." in section.notes
  assert section.tables[-1][1][0][1:] == ["no class", "7"]
  assert section.pictures[0].figure.svg().count(">7<") == 3


def test_examples_that_are_no_files_have_numbers(judged):
  source = copy.copy(judged.data.source)
  source.describe = lambda i: f"example {i} of 'cifar10', split 'test'"
  data = dataclasses.replace(judged.data, source=source)
  assert mistakes.file_of(data, 3) is None


def test_data_without_classes_can_be_looked_at(judged):
  source = AbsentSource("captions.csv", "val", num_examples=3)
  data = dataclasses.replace(judged.data, source=source)
  assert answers.Evaluator(None, data, num_examples=2).data.batch_size
  with pytest.raises(ValueError, match="has no class labels"):
    answers.Evaluator(None, data).answers({})


def test_empty_cells_of_a_confusion_matrix_say_so():
  matrix = np.pad(np.diag([3, 4]), ((0, 0), (0, 1)))
  text = grids.confusion("t", matrix, ["a", "b"], others=None).svg()
  assert text.count(">0<") == 2


def test_the_worst_mistakes_are_wrong_and_most_confident():
  judged = made_up()
  worst = judged.worst(20)
  assert (judged.label[worst] != judged.prediction[worst]).all()
  everything = sorted(
    (-judged.confidence[i], i)
    for i in range(len(judged.label))
    if judged.label[i] != judged.prediction[i]
  )
  assert [i for _, i in everything[:20]] == list(worst)


class Reader(html.parser.HTMLParser):
  """Tags, addresses and text of a page."""

  def __init__(self, text):
    super().__init__()
    self.tags, self.addresses, self.text, self.open = [], [], "", []
    self.feed(text)
    self.close()

  def handle_starttag(self, tag, attrs):
    self.tags.append((tag, dict(attrs)))
    self.addresses += [
      value for name, value in attrs if name in ("src", "href", "xlink:href")
    ]

  handle_startendtag = handle_starttag

  def handle_data(self, data):
    self.text += data


def test_the_page_is_whole_in_itself(page):
  text, _ = page
  reader = Reader(text)
  assert reader.addresses
  for address in reader.addresses:
    assert address.startswith(("#", "data:", "file:///")), address
  shown = [attrs for tag, attrs in reader.tags if tag in ("img", "image")]
  assert not any("file:" in str(attrs) for attrs in shown)
  assert "@import" not in text
  assert all(x.startswith("(#") for x in re.findall(r"url(\([^)]*)", text))
  names = [tag for tag, _ in reader.tags]
  assert {"script", "iframe", "link"} & {*names} <= {"link"}
  viewport = {
    "name": "viewport",
    "content": "width=device-width, initial-scale=1",
  }
  assert ("meta", viewport) in reader.tags
  assert all(attrs["alt"] for tag, attrs in reader.tags if tag == "img")
  headings = re.findall("<h2>(.*?)</h2>", text)
  assert headings[:4] == [
    "Last values",
    "Curves",
    "Config differences",
    "Speed",
  ]


def test_names_are_not_markup(page):
  text, _ = page
  reader = Reader(text)
  assert '<b>"run"&' in reader.text
  assert run_folders.CLASSES[0] in reader.text  # nor formulas
  assert run_folders.CLASSES[1] in reader.text
  assert not any("onerror" in attrs for _, attrs in reader.tags)
  assert not any(tag == "b" for tag, _ in reader.tags)


def test_what_is_on_the_page(page, judged):
  text, written = page
  wrong = (judged.label != judged.prediction).sum()
  reader = Reader(text)
  assert f"{wrong} of 21 examples are wrong" in reader.text
  whole = [judged.accuracy, *map(judged.measures.get, model._OF_ALL)]
  assert "".join(f"{x:.4f}" for x in whole) in reader.text
  assert "0.2500 (n = 21)" in reader.text
  assert "50.0%" in reader.text  # goodput
  for label, prediction, count in judged.pairs(10):
    row = [judged.names[label], judged.names[prediction], str(count)]
    assert "".join(row) in reader.text
  # The worst mistakes lead to their files.
  files = [mistakes.file_of(judged.data, i) for i in judged.worst(12)]
  files += [mistakes.file_of(judged.data, i) for i in range(4)]  # attention
  links = [x for x in reader.addresses if x.startswith("file:")]
  assert links == [file.as_uri() for file in files]
  assert all(file.is_file() for file in files)
  names = re.findall(r"^(.*\.png)</figcaption>", text, re.MULTILINE)
  assert names == [file.name for file in files]
  assert "balanced accuracy (mean recall)" in reader.text
  names = {path.name for path in written}
  assert {"curve_train_loss.png", "speed.png", "time.png"} <= names
  kinds = ("confusion", "mistakes", "positions", "rollout", "heads")
  assert all(any(n.endswith(f"_{k}.png") for n in names) for k in kinds)
  for path in written[1:]:
    assert cv2.imread(str(path)) is not None
    assert (path.parent, path.suffix) == (written[1].parent, ".png")


def test_recorded_metrics_of_classes_are_tables(run, images, tmp_path):
  """Not a curve of each class and of each cell of the matrix."""
  folder = run_folders.make(tmp_path / "run", images)
  row = {f"val/recall[{name}]": 0.5 for name in ("a/b", "c")}
  row |= {f"val/confusion[{x}]": 2 for x in ("a/b->a/b", "a/b->c", "a/b->none")}
  row |= {f"val/confusion[{x}]": 3 for x in ("c->a/b", "c->c", "c->none")}
  with open(folder / "metrics.jsonl", "a", encoding="utf-8") as file:
    file.write(json.dumps({"step": 30, **row}) + "\n")
  out = tmp_path / "report.html"
  written = reporting.write(
    history.read([folder]), out, tmp_path / "png", with_models=False
  )
  text = Reader(out.read_text(encoding="utf-8")).text
  assert re.search(r"val\s*recall\s*a/b\s*0.5000\s*c\s*0.5000", text), text
  names = [path.name for path in written]
  assert "val_matrix.png" in names and not any("recall" in n for n in names)


def test_runs_over_each_other(run, images, tmp_path):
  other = run_folders.make(
    tmp_path / "other", images, batch_size=4, losses=(math.inf, 3, 2)
  )
  text = (other / "metrics.jsonl").read_text()
  (other / "metrics.jsonl").write_text(text.replace("Infinity", '"inf"'))
  (other / "timing.jsonl").unlink()
  records = history.read([run, other])
  assert [record.name for record in records] == ['<b>"run"&', "other"]
  out = tmp_path / "report.html"
  reporting.write(records, out, None, with_models=False)
  read = Reader(out.read_text(encoding="utf-8")).text
  assert "the batch sizes differ: " in read
  assert "other: not finite at some steps: train/loss." in read
  assert "other: no timing.jsonl." in read
  assert "input.batch_size84" in read.replace("\n", "")
  assert "model.width" not in read  # the same in both
  assert not list(tmp_path.glob(".*"))  # nothing half-written


def test_models_without_attention_and_runs_without_weights(
  images, run, tmp_path
):
  options = {"name": "mixer", "width": 8, "depth": 1, "patch_size": 4}
  options |= {"tokens_mlp_dim": 4, "mlp_dim": 8}
  mixer = run_folders.make(tmp_path / "mixer", images, model=options)
  bare = tmp_path / "bare"
  bare.mkdir()
  (bare / "metrics.jsonl").write_text('{"step": 1, "train/loss": 2.0}\n')
  moved = tmp_path / "moved"
  moved.mkdir()
  for name in ("metrics.jsonl", "model.json", "checkpoints"):
    (moved / name).symlink_to(run / name)
  plain = (run / "config.json").read_text().replace(str(images), "/nowhere")
  (moved / "config.json").write_text(plain)

  def notes(path):
    return model.model_section(history.read([path])[0]).notes

  found = notes(mixer)
  assert "No attention: a mixer has no attention to show." in found
  assert any("position embedding" in note for note in found)
  assert any("examples are wrong" in note for note in found)
  (note,) = notes(bare)
  assert note.startswith("No pictures of the model:") and "model.json" in note
  found = notes(moved)
  assert any(n.startswith("No mistakes:") and "/nowhere" in n for n in found)
  assert any(n.startswith("No attention:") for n in found)
  assert not any("position similarity" in n for n in found)


def test_long_curves_are_thinned_and_keep_their_peaks():
  rng = np.random.default_rng(0)
  x = np.arange(1, 100_001)
  y = rng.normal(size=x.size)
  y[54_321], y[777], y[99_000] = 50, -50, np.nan
  thin_x, thin_y = history.thin((x, y))
  assert len(thin_x) <= history.MOST_POINTS
  assert (np.diff(thin_x) > 0).all()
  assert {1, 54_322, 778, 99_001, 100_000} <= {*thin_x.tolist()}
  np.testing.assert_array_equal(thin_y, y[thin_x - 1])
  short = (x[:800], y[:800])
  assert history.thin(short) is short
  assert len(history.thin((x[:801], y[:801]))[0]) <= history.MOST_POINTS


def test_old_configs_get_the_defaults():
  given = {"a": {"b": 1, "c": [1]}, "d": "x"}
  assert history.differences([given, {"a": {"b": 2, "c": [1]}}]) == [
    ("a.b", ["1", "2"]),
    ("d", ["x", "(absent)"]),
  ]


def test_curves_are_drawn_where_they_are_finite():
  x = np.array([1, 2, 3])
  figure = charts.curves("t", {"a": (x, np.array([1.0, np.nan, 1e5]))}, "step")
  assert "nan" not in figure.svg().lower()
  assert "currentColor" in figure.svg()
  charts.curves("t", {"a": (x, np.full(3, np.nan))}, "step").png()


def test_names_in_figures_are_no_formulas():
  names = ["$x_1$", "<b>&", "c"]
  matrix = np.pad(np.eye(3, dtype=int), ((0, 0), (0, 1)))
  text = grids.confusion("t", matrix, names, others=None).svg()
  assert text.count(">$x_1$<") == text.count(">&lt;b&gt;&amp;<") == 2
  curve = {name: (np.arange(3), np.arange(3.0)) for name in names}
  assert ">$x_1$<" in charts.curves("t", curve, "step").svg()


def test_overlay_is_bright_where_the_map_is():
  heat = np.zeros((2, 2))
  heat[0, 1] = 1
  shown = pixels.overlay(np.full((8, 8, 1), 128, np.uint8), heat, least=8)
  assert shown.shape == (8, 8, 3)
  light = shown.sum(-1, dtype=int)
  assert light[:2, 6:].min() > light[6:, :2].max()


def command(*arguments):
  return subprocess.run(
    [sys.executable, "-m", "vitjax.report", *map(str, arguments)],
    cwd=ROOT,
    capture_output=True,
    text=True,
  )


def test_wrong_use_is_one_line(tmp_path, run):
  found = command()
  assert found.returncode == 1
  assert found.stderr == "vitjax.report: give at least one RUN.\n"
  for wrong in (tmp_path, tmp_path / "absent", run / "model.json"):
    with pytest.raises(FileNotFoundError, match="is not a run; give run"):
      history.read([wrong])
  with pytest.raises(ValueError, match="given twice"):
    history.read([run, run / "metrics.jsonl"])


def test_help_is_quick():
  found = command("--help")
  assert found.returncode == 0
  for part in ("python -m vitjax.report", "--out", "--png", "--examples"):
    assert part in found.stdout
