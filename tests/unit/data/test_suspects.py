"""Labels that may be wrong, from probabilities made to say so."""

import csv
import json

import numpy as np
import pytest

from vitjax.data.checking import suspects
from vitjax.data.checking.suspects import Prediction


def prediction(file, label, **top):
  return Prediction(file, label, top)


def test_confident_learning():
  rows = [
    prediction("1", "a", a=0.9, b=0.1),
    prediction("2", "a", a=0.7, b=0.3),
    prediction("3", "b", a=0.2, b=0.8),
    prediction("4", "b", a=0.4, b=0.6),
    # The means are 0.55 for a and 0.5 for b.
    prediction("5", "a", a=0.05, b=0.95),
    prediction("6", "b", a=0.9, b=0.1),
    # Another class is more probable, but below its mean.
    prediction("7", "b", a=0.51, b=0.49),
  ]
  first, second = suspects.find(rows)
  assert (first.file, first.label, first.suggested) == ("5", "a", "b")
  assert first.self_confidence == pytest.approx(0.05)
  assert first.margin == pytest.approx(0.9)
  assert (second.file, second.suggested) == ("6", "a")


def test_a_class_that_is_not_among_the_most_probable():
  row = prediction("1", "z", a=0.5, b=0.2, c=0.1)
  # At most the least of the most probable, and no more than is left.
  assert row.probability("z") == pytest.approx(0.1)
  assert prediction("1", "z", a=0.6, b=0.39).probability("z") == pytest.approx(
    0.01
  )


def test_planted_labels_come_first():
  rng = np.random.default_rng(0)
  rows, wrong = [], set()
  for i in range(2000):
    label = f"c{i % 3}"
    if rng.random() < 0.05:
      label = f"c{(i + 1 + rng.integers(2)) % 3}"
      wrong.add(str(i))
    p = rng.dirichlet([0.3] * 3) * 0.4
    p[i % 3] += 0.6
    rows.append(
      Prediction(str(i), label, {f"c{k}": float(x) for k, x in enumerate(p)})
    )
  found = [x.file for x in suspects.find(rows)]
  # Those of which the model is less sure than of most are found, too.
  assert len({*found} & wrong) >= 0.9 * len(wrong)
  assert len(found) <= 1.1 * len(wrong)


ROWS = [
  {
    "eval": "val",
    "file": "/x/1.png",
    "label": "a",
    "top": [
      {"label": "a", "probability": 0.9},
      {"label": "b, c", "probability": 0.1},
    ],
  },
  {
    "eval": "val",
    "file": "/x/2.png",
    "label": "b, c",
    "top": [{"label": "a", "probability": 1.0}],
  },
]


def write(tmp_path, name):
  path = tmp_path / name
  if name.endswith(".jsonl"):
    path.write_text("\n".join(map(json.dumps, ROWS)))
  else:
    with open(path, "w", newline="") as file:
      out = csv.writer(file)
      tops = [f"{x}{i}" for i in (1, 2) for x in ("top", "probability")]
      out.writerow(["eval", "file", "label", *tops])
      for row in ROWS:
        cells = [x for top in row["top"] for x in top.values()]
        out.writerow([row["eval"], row["file"], row["label"], *cells])
  return str(path)


@pytest.mark.parametrize("name", ["x.jsonl", "x.csv"])
def test_files_of_predictions(tmp_path, name):
  first, second = suspects.read([write(tmp_path, name)])
  assert first == Prediction("/x/1.png", "a", {"a": 0.9, "b, c": 0.1})
  assert second == Prediction("/x/2.png", "b, c", {"a": 1.0})


def test_an_image_is_predicted_once(tmp_path):
  paths = [write(tmp_path, name) for name in ("x.jsonl", "x.csv")]
  with pytest.raises(
    ValueError, match=r"x\.csv: /x/1\.png is predicted already, in .*x\.jsonl"
  ):
    suspects.read(paths)


@pytest.mark.parametrize(
  ("name", "text"),
  [("x.jsonl", "{}"), ("x.jsonl", "?"), ("x.csv", "a,b\n1,2\n")],
)
def test_files_that_are_no_predictions(tmp_path, name, text):
  (tmp_path / name).write_text(text)
  with pytest.raises(ValueError, match=r"is no file of predictions .*--exampl"):
    suspects.read([str(tmp_path / name)])


def test_labels_are_those_of_the_data():
  rows = [prediction("1", "a", a=1.0), prediction("9", "a", a=1.0)]
  kept, notes = suspects.for_files(rows, {"1": "b", "2": "a"})
  assert [(x.file, x.label) for x in kept] == [("1", "b")]
  assert notes == [
    "1 image(s) without a prediction, whose labels were not judged: 2"
  ]
  with pytest.raises(ValueError, match=r"none of the images .* but 1\. Give"):
    suspects.for_files(rows, {"3": "a"})
