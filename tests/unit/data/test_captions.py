"""Captions files: order, several captions of an image, what is wrong."""

import csv
import json
import pathlib

import cv2
import numpy as np
import pytest
import tensorflow as tf
import tensorflow_datasets as tfds

from vitjax.data import pipeline, sources
from vitjax.data.pp import builder
from vitjax.data.sources import records

ROWS = [
  ("b.png", "two"),
  ("deep/a.png", "one, with a comma"),
  ("b.png", "zwei é"),
  ("c.png", "three"),
]
CAPTIONS = {
  "b.png": ["two", "zwei é"],
  "deep/a.png": ["one, with a comma"],
  "c.png": ["three"],
}


@pytest.fixture
def root(tmp_path):
  (tmp_path / "deep").mkdir()
  for i, file in enumerate(CAPTIONS):
    image = np.full((4, 5 + i, 3), 10 * i, np.uint8)
    assert cv2.imwrite(str(tmp_path / file), image)
  return tmp_path


def write(root, suffix, rows=ROWS, columns=("file", "caption")):
  path = root / f"captions{suffix}"
  rows = [dict(zip(columns, row)) for row in rows]
  if suffix == ".jsonl":
    path.write_text("\n".join(map(json.dumps, rows)) + "\n\n")
  else:
    with open(path, "w", newline="", encoding="utf-8") as file:
      tab = "\t" if suffix == ".tsv" else ","
      writer = csv.DictWriter(file, columns, delimiter=tab)
      writer.writeheader()
      writer.writerows(rows)
  return f"captions:{path}"


def contents(source):
  """File -> captions in order, read as the pipeline reads them."""
  found = {}
  for i in range(source.num_examples):
    fetched = source.fetch(tf.constant([i], tf.int64))
    features = source.parse({k: v[0] for k, v in fetched.items()})
    file = pathlib.Path(source.describe(i))
    assert features["image"] == file.read_bytes()
    found[file.name] = [x.decode() for x in features["captions"].numpy()]
  return found


@pytest.mark.parametrize("suffix", [".jsonl", ".csv", ".tsv"])
def test_formats(root, suffix):
  data = write(
    root,
    suffix,
    [(*row, "train") for row in ROWS],
    ("file", "caption", "split"),
  )
  source = sources.open_source(data, "train")
  want = {pathlib.Path(k).name: v for k, v in CAPTIONS.items()}
  assert contents(source) == want
  assert list(contents(source)) == list(want)  # in the order of the file
  assert source.num_classes is None and source.class_names is None
  assert list(contents(sources.open_source(data, "train[1:]"))) == [
    "a.png",
    "c.png",
  ]


def test_a_list_of_captions(root):
  path = root / "captions.jsonl"
  rows = [
    {"file": file, "captions": texts, "split": "test"}
    for file, texts in CAPTIONS.items()
  ]
  path.write_text("\n".join(map(json.dumps, rows)))
  found = contents(sources.open_source(f"captions:{path}", "test"))
  assert [*found.values()] == [*CAPTIONS.values()]


def test_splits_by_a_hash_or_by_name(root):
  rows = [(f"{i}.png", "x") for i in range(200)]
  for file, _ in rows:
    (root / file).write_bytes(b"")
  data = write(root, ".csv", rows)
  sizes = {
    name: sources.open_source(data, name).num_examples
    for name in ("train", "val")
  }
  assert sizes == {"train": 180, "val": 20}
  rows = [(*row, "test" if i % 4 else "dev") for i, row in enumerate(rows)]
  data = write(root, ".tsv", rows, ("file", "caption", "split"))
  assert sources.open_source(data, "test").num_examples == 150
  assert sources.open_source(data, "val").num_examples == 50
  with pytest.raises(ValueError, match=r"no split 'train'.*dev \(50\)"):
    sources.open_source(data, "train")


def test_the_fingerprint_changes_with_a_caption(root):
  def fingerprint(text):
    data = write(
      root, ".csv", [("b.png", text, "train")], ("file", "caption", "split")
    )
    return sources.open_source(data, "train").fingerprint

  assert fingerprint("one") == fingerprint("one") != fingerprint("two")


def test_the_caption_of_a_training_step_is_drawn_by_its_seed(root):
  data = write(
    root,
    ".csv",
    [("b.png", f"text {i}", "train") for i in range(4)],
    ("file", "caption", "split"),
  )
  vocab = root / "vocab.txt"
  vocab.write_text("[PAD]\n[UNK]\n[CLS]\ntext\n0\n1\n2\n3\n")
  pp = f"decode|resize(4)|choice()|tokenize('bert', '{vocab}', max_len=3)"

  def drawn(start, seed=0):
    batches = pipeline.train_batches(
      sources.open_source(data, "train"),
      builder.build(pp),
      batch_size=2,
      seed=seed,
      start_step=start,
      total_steps=30,
    )
    return np.concatenate([batch["text"][:, 2] for batch in batches])

  whole = drawn(0)
  assert {*whole} == {4, 5, 6, 7}
  np.testing.assert_array_equal(drawn(20), whole[40:])  # resumed
  assert (drawn(0, seed=1) != whole).any()


@pytest.mark.parametrize(
  ("rows", "message"),
  [
    (
      [("x.png", "a"), ("y.png", "b")],
      r"2 image\(s\) do not exist.*'x.png', 'y.p",
    ),
    ([("b.png", "a"), ("b.png", " ")], "line 3: .*a 'caption' that is not emp"),
    ([("", "a")], "line 2: .* needs 'file'"),
  ],
)
def test_rows_that_are_wrong(root, rows, message):
  rows = [(*row, "train") for row in rows]
  data = write(root, ".csv", rows, ("file", "caption", "split"))
  with pytest.raises(ValueError, match=message):
    sources.open_source(data, "train")


def test_other_columns_are_named(root, caplog):
  data = write(root, ".csv", [("b.png", "a", 7)], ("file", "caption", "site"))
  assert sources.open_source(data, "train").num_examples == 1
  assert "ignored column(s): 'site'." in caplog.text
  data = write(root, ".csv", [("b.png", "a", 7)], ("file", "caption", "Split"))
  with pytest.raises(ValueError, match=r"'Split'\. Did you mean 'split'"):
    sources.open_source(data, "train")


def test_files_that_are_wrong(root):
  (root / "bad.jsonl").write_text('{"file": "b.png", "caption": "x"}\n{')
  (root / "list.jsonl").write_text("[1]")
  for name, message in (
    ("missing.csv", "missing.csv' is not a captions file"),
    ("b.png", "ends in .jsonl, .csv, .tsv"),
    ("bad.jsonl", "line 2: not JSON"),
    ("list.jsonl", r"line 1: \[1\] needs 'file'"),
  ):
    with pytest.raises(ValueError, match=message):
      sources.open_source(f"captions:{root / name}", "train")
  rows = [("b.png", "a", "train"), ("b.png", "b", "val")]
  data = write(root, ".csv", rows, ("file", "caption", "split"))
  with pytest.raises(ValueError, match="in split 'val', and above in 'train'"):
    sources.open_source(data, "train")


class TinyCaptions(tfds.core.GeneratorBasedBuilder):
  """Features as those of COCO."""

  VERSION = tfds.core.Version("1.0.0")

  def _info(self):
    caption = {"id": np.int64, "text": tfds.features.Text()}
    return tfds.core.DatasetInfo(
      builder=self,
      features=tfds.features.FeaturesDict(
        {
          "image": tfds.features.Image(encoding_format="png"),
          "captions": tfds.features.Sequence(caption),
          "objects": tfds.features.Sequence({"area": np.int64}),
        }
      ),
    )

  def _split_generators(self, dl_manager):
    return {"train": self._generate_examples()}

  def _generate_examples(self):
    for i in range(5):
      captions = [{"id": j, "text": f"{i} {j}"} for j in range(1 + i % 3)]
      image = np.full((4, 4 + i, 3), i, np.uint8)
      yield i, {"image": image, "captions": captions, "objects": []}


def test_captions_of_tfds(tmp_path):
  tfds.disable_progress_bar()
  tfds.builder(
    "tiny_captions", data_dir=tmp_path, file_format="array_record"
  ).download_and_prepare()
  vocab = tmp_path / "vocab.txt"
  vocab.write_text("[PAD]\n[UNK]\n[CLS]\n0\n1\n2\n3\n4\n")
  pp = "decode|resize(4)|tokenize('bert', '{}', max_len=3, {})"
  source = sources.open_source("tiny_captions", "train", data_dir=str(tmp_path))
  (batch,) = pipeline.eval_batches(
    source,
    builder.build(pp.format(vocab, "inkey='captions', num_texts=3")),
    batch_size=5,
  )
  for image, text, mask in zip(
    batch["image"], batch["text"], batch["text_mask"]
  ):
    i = int(image[0, 0, 0])
    want = [[2, 3 + i, 3 + j] for j in range(1 + i % 3)]
    assert text[mask].tolist() == want


def test_captions_of_coco():
  features = tfds.builder("coco_captions").info.features
  assert records._caption_key(features) == "captions/text"
