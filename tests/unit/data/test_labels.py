"""Label files: formats, classes by name or id, splits, what is wrong."""

import csv
import json
import posixpath

import cv2
import numpy as np
import pytest

from vitjax.data import pipeline, sources
from vitjax.data.pp import builder

LABELS = {"b.png": "cat 10", "deep/a.png": "cat 9", "c.png": "ant"}


@pytest.fixture
def root(tmp_path):
  (tmp_path / "deep").mkdir()
  for i, file in enumerate(LABELS):
    image = np.full((4, 5 + i, 3), 10 * i, np.uint8)
    assert cv2.imwrite(str(tmp_path / file), image)
  return tmp_path


def write(root, rows, suffix=".csv", columns=("file", "label", "split")):
  path = root / f"labels{suffix}"
  rows = [dict(zip(columns, row)) for row in rows]
  if suffix == ".jsonl":
    path.write_text("\n".join(map(json.dumps, rows)) + "\n\n")
  else:
    with open(path, "w", newline="", encoding="utf-8") as file:
      tab = "\t" if suffix == ".tsv" else ","
      names = columns[: max(map(len, rows))]
      writer = csv.DictWriter(file, names, delimiter=tab)
      writer.writeheader()
      writer.writerows(rows)
  return f"labels:{path}"


def rows_of(labels=LABELS, split="train"):
  return [(file, label, split) for file, label in labels.items()]


def contents(source):
  """(file below the root, label) in order, as the pipeline reads them."""
  fetched = source.fetch(np.arange(source.num_examples))
  return list(zip(map(source.describe, range(3)), fetched["label"].numpy()))


@pytest.mark.parametrize("suffix", [".csv", ".tsv", ".jsonl"])
def test_formats(root, suffix):
  source = sources.open_source(write(root, rows_of(), suffix), "train")
  assert source.class_names == ("ant", "cat 9", "cat 10")
  assert contents(source) == [
    (f"{root}/b.png", 2),
    (f"{root}/deep/a.png", 1),
    (f"{root}/c.png", 0),
  ]


def test_batches(root):
  source = sources.open_source(write(root, rows_of()), "train")
  preprocess = builder.build("decode|resize(2)|keep('image', 'label')")
  (batch,) = pipeline.eval_batches(source, preprocess, batch_size=4)
  assert batch["label"][:3].tolist() == [2, 1, 0]
  assert batch["image"][:3, 0, 0, 0].tolist() == [0, 10, 20]
  assert batch["mask"].tolist() == [True] * 3 + [False]


@pytest.mark.parametrize("suffix", [".csv", ".jsonl"])
def test_integers_are_class_ids(root, suffix, caplog):
  labels = dict(zip(LABELS, (3, 10, 0)))
  data = write(root, rows_of(labels), suffix)
  source = sources.open_source(data, "train")
  assert [label for _, label in contents(source)] == [3, 10, 0]
  assert source.num_classes == 11 and source.class_names[10] == "10"
  assert "8 of the 11 classes have no training image: '1', '2'" in caplog.text
  # Of a model, they are the ids of its classes.
  names = [f"c{i}" for i in range(12)]
  source = sources.open_source(data, "train", class_names=names)
  assert [label for _, label in contents(source)] == [3, 10, 0]
  assert source.num_classes == 12
  with pytest.raises(ValueError, match=r"'10'\. Classes are those of"):
    sources.open_source(data, "train", class_names=names[:10])
  # Names that are numbers are names first.
  names = ["0", "10", "3"]
  source = sources.open_source(data, "train", class_names=names)
  assert [label for _, label in contents(source)] == [2, 1, 0]


def test_leading_zeros_are_names(root):
  labels = dict(zip(LABELS, ("03", "10", "09")))
  source = sources.open_source(write(root, rows_of(labels)), "train")
  assert source.class_names == ("03", "09", "10")


def test_integers_that_are_no_ids(root):
  labels = dict(zip(LABELS, (20261124, 1, 2)))
  with pytest.raises(ValueError, match="make 20261125 classes, of which 3 occ"):
    sources.open_source(write(root, rows_of(labels)), "train")


def test_splits(root):
  rows = [
    (f"{i}.png", "x", "Validation" if i % 4 else "train") for i in range(8)
  ]
  for file, *_ in rows:
    (root / file).write_bytes(b"")
  data = write(root, rows)
  assert sources.open_source(data, "train").num_examples == 2
  half = sources.open_source(data, "val[:50%]")
  assert [half.describe(i)[-5:] for i in range(3)] == [
    "1.png",
    "2.png",
    "3.png",
  ]
  with pytest.raises(ValueError, match=r"no split 'test'. It has: train \(2\)"):
    sources.open_source(data, "test")


def test_splits_by_a_hash_are_those_of_folders(root):
  """Wherever the table is, and however it writes the paths."""
  files = [f"set/{'ab'[i % 3 > 0]}/{i}.png" for i in range(100)]
  for file in files:
    (root / file).parent.mkdir(parents=True, exist_ok=True)
    (root / file).write_bytes(b"")

  def val(data):
    source = sources.open_source(data, "val")
    paths = map(source.describe, range(source.num_examples))
    return {posixpath.normpath(path) for path in paths}

  held_back = val(f"folder:{root}/set")
  assert len(held_back) == 10
  labelled = [(f"./{file}", file.split("/")[1]) for file in files]
  assert val(write(root, labelled)) == held_back
  labelled = [
    (f"{root}/{file}", label) for file, (_, label) in zip(files, labelled)
  ]
  assert val(write(root / "set", labelled[::-1])) == held_back


def test_other_columns_are_ignored_and_named(root, caplog):
  """As pandas writes them: an index without a name."""
  (root / "labels.csv").write_text(
    ",file,label,site,split\n0,b.png,cat,7,train\n1,c.png,dog,8,train\n"
  )
  source = sources.open_source(f"labels:{root}/labels.csv", "train")
  assert source.class_names == ("cat", "dog") and source.num_examples == 2
  assert "ignored column(s): one without a name, 'site'." in caplog.text
  # Nor is it a "split" that is misspelt.
  (root / "labels.csv").write_text(
    "file,label,site\nb.png,cat,7\nc.png,dog,8\n"
  )
  assert sources.open_source(f"labels:{root}/labels.csv", "train")


def test_a_class_that_train_does_not_have(root):
  rows = rows_of()
  rows[2] = (*rows[2][:2], "val")
  data = write(root, rows)
  assert sources.open_source(data, "train").class_names == ("cat 9", "cat 10")
  with pytest.raises(
    ValueError, match=r"split 'val' has .*2 classes .*: 'ant'"
  ):
    sources.open_source(data, "val")


def test_the_fingerprint_changes_with_a_label(root):
  prints = {
    sources.open_source(write(root, rows_of(labels)), "train").fingerprint
    for labels in (LABELS, dict(zip(LABELS, ("ant", "cat 9", "cat 10"))))
  }
  assert len(prints) == 2


@pytest.mark.parametrize(
  ("rows", "message"),
  [
    ([("b.png", "cat"), ("./b.png", "cat")], r"line 3: './b.png' has a label "),
    ([("b.png", "cat"), ("b.png", "dog")], "already, on line 2. Each image"),
    (
      [("b.png", "cat"), ("gone.png", "cat")],
      "1 image.* not exist, .*'gone.png'",
    ),
    ([("b.png", "")], "line 2: the label is ''. It must be a name or an"),
    ([("", "cat")], "line 2: the file is ''. It must be a path"),
    ([("b.png", "cat", "")], "line 2: the split is ''. Name one"),
    ([], "has no rows"),
  ],
)
def test_what_is_wrong_in_a_row(root, rows, message):
  if not rows:
    (root / "labels.csv").write_text("file,label\n")
    data = f"labels:{root}/labels.csv"
  else:
    data = write(root, rows)
  with pytest.raises(ValueError, match=message):
    sources.open_source(data, "train")


@pytest.mark.parametrize(
  ("name", "text", "message"),
  [
    ("x.csv", "file;label\nb.png;cat", "no file and no label; there is 'file;"),
    ("x.csv", "file,lable\nb.png,cat", "no label; there is 'lable'. The col"),
    (
      "x.csv",
      "file,label,spilt\nb.png,cat,val",
      "a column 'spilt'. Did you mean 'split'",
    ),
    ("x.csv", "file,label\nb.png,cat,dog", "line 2: the row has more cells"),
    ("x.csv", "file,label\nb.png", "line 2: the label is None"),
    ("x.jsonl", '{"file": "b.png", "label": "cat"}\n{', "line 2: not JSON"),
    ("x.jsonl", '{"file": "b.png", "label": true}', "the label is True"),
    ("x.jsonl", '{"file": "b.png", "label": -1.5}', "the label is -1.5"),
    ("x.jsonl", "[1]", "no file and no label; there is nothing"),
    (
      "x.jsonl",
      '{"file": "b.png", "label": "a", "split": "val"}\n'
      '{"file": "c.png", "label": "a"}',
      "line 2: no split, unlike the rows above",
    ),
    ("x.txt", "", "is not a labels file. Give the path of a file that ends in"),
  ],
)
def test_what_is_no_table_of_labels(root, name, text, message):
  (root / name).write_text(text)
  with pytest.raises(ValueError, match=message):
    sources.open_source(f"labels:{root / name}", "train")


def test_other_encodings(root):
  (root / "x.csv").write_bytes("file,label\nb.png,Käse\n".encode("latin-1"))
  with pytest.raises(ValueError, match=r"x\.csv, after line 0: not UTF-8"):
    sources.open_source(f"labels:{root / 'x.csv'}", "train")
  # What spreadsheets put in front.
  (root / "x.csv").write_bytes(b"\xef\xbb\xbffile,label,split\nb.png,cat,train")
  source = sources.open_source(f"labels:{root / 'x.csv'}", "train")
  assert source.num_examples == 1
