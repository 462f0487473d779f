"""Folders with a label file for each image."""

import numpy as np
import pytest

from tests import packing
from vitjax.data import pipeline, sources
from vitjax.data.checking import check
from vitjax.data.pp import builder

LABELS = {"1": "dog 10\ndog 9\n", "2": "", "3": "\ufeffant\r\n\r\ndog 9\r\n"}
SPLITS = ("train", "val")
# Path of an image and of its label file, by split and name.
LAYOUTS = {
  "beside": ("{0}/{1}.jpg", "{0}/{1}.txt"),
  "outside": ("{0}/images/x/{1}.jpg", "{0}/labels/x/{1}.txt"),
  "inside": ("images/{0}/{1}.jpg", "labels/{0}/{1}.txt"),
}


def write(path, content):
  path.parent.mkdir(parents=True, exist_ok=True)
  path.write_bytes(content)


def fill(root, layout, splits=SPLITS):
  image, label = LAYOUTS[layout]
  for split in splits:
    for name, text in LABELS.items():
      write(root / image.format(split, name), packing.picture(int(name)))
      write(root / label.format(split, name), text.encode())


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("option", ["", ":multi_label=labels"])
def test_layouts(tmp_path, layout, option):
  fill(tmp_path, layout)
  for split in SPLITS:
    source = sources.open_source(f"labels:{tmp_path}{option}", split)
    assert source.kind == "multi_label" and not source.has_unknown
    assert source.class_names == ("ant", "dog 9", "dog 10")
    assert source.targets.tolist() == [[0, 1, 1], [0, 0, 0], [1, 1, 0]]
    assert f"/{split}/" in source.describe(0)
  preprocess = builder.build("decode|resize(4)")
  [batch] = pipeline.eval_batches(source, preprocess, batch_size=3)
  np.testing.assert_array_equal(batch["labels"], source.targets)
  report = check.check(f"labels:{tmp_path}")
  assert not report.problems
  assert report.splits["val"].classes == {"ant": 1, "dog 9": 2, "dog 10": 1}


def test_without_splits_with_folds_and_groups(tmp_path):
  for i in range(40):
    write(tmp_path / "images" / f"{i // 4}_{i % 4}.png", b"")
    write(tmp_path / "labels" / f"{i // 4}_{i % 4}.txt", b"%d" % (i % 3))

  def names(option, split="val"):
    source = sources.open_source(f"labels:{tmp_path}{option}", split)
    return {source.describe(i)[-7:-4] for i in range(source.num_examples)}

  assert len(names("")) == 4 and len(names("", "train")) == 36
  folds = [names(f":fold={i}/4") for i in range(1, 5)]
  assert sum(map(len, folds)) == len(set().union(*folds)) == 40
  grouped = names(r":group=(\d)_")
  assert len(grouped) == 4 and len({x[:2] for x in grouped}) == 1


def test_names_by_id(tmp_path):
  fill(tmp_path, "beside", ["train"])
  for name, text in (("1", "2\n0"), ("2", "1"), ("3", "")):
    write(tmp_path / "train" / f"{name}.txt", text.encode())
  write(tmp_path / "classes.txt", b"sun\nrain\nsnow\nfog\n")
  data = f"labels:{tmp_path}"
  source = sources.open_source(data, "train")
  assert source.class_names == ("sun", "rain", "snow", "fog")
  assert source.targets.tolist() == [[1, 0, 1, 0], [0, 1, 0, 0], [0] * 4]
  order = ("fog", "rain", "snow", "sun")  # of a model
  source = sources.open_source(data, "train", class_names=order)
  assert source.targets[0].tolist() == [0, 0, 1, 1]
  write(tmp_path / "train" / "1.txt", b"hail")
  with pytest.raises(ValueError, match="'hail', which is not one of the 4"):
    sources.open_source(data, "train")


def test_unknown_labels(tmp_path):
  fill(tmp_path, "inside", ["train"])
  write(tmp_path / "labels" / "train" / "3.txt", b"ant\n?\n")
  write(tmp_path / "images" / "train" / "4.jpg", packing.picture(4))
  write(tmp_path / "labels" / "train" / "5.txt", b"ant")
  data = f"labels:{tmp_path}"
  with pytest.raises(ValueError, match=r"1 image.s. have no label file: 'im"):
    sources.open_source(data, "train")
  source = sources.open_source(f"{data}:ignore=empty+?", "train")
  assert source.class_names == ("dog 9", "dog 10") and source.has_unknown
  assert np.isnan(source.targets).all(axis=1).tolist() == [False] + [True] * 3
  report = check.check(f"{data}:ignore=empty+?")
  assert "3 image(s) with an unknown label" in report.notes
  assert any("without an image: labels/train/5" in x for x in report.warnings)


@pytest.mark.parametrize(
  ("files", "option", "message"),
  [
    ({"a/1.jpg": b""}, "", "has no label files.*write folder:/"),
    ({"1.jpg": b"", "1.txt": b"x"}, ":regression=x", "in place of :regression"),
    (
      {"1.jpg": b"", "1.txt": b"0 .5 0.5 1 1\n2 0.1 0.1 0.2 0.3"},
      "",
      "has boxes of an object detector",
    ),
    (
      {"images/1.jpg": b"", "images/1.txt": b"a", "labels/1.txt": b"b"},
      "",
      "two label files, images/1.txt and labels/1.txt",
    ),
    ({"1.jpg": b"", "1.txt": b"\xff"}, "", "1.txt: not UTF-8"),
    (
      {"train/1.jpg": b"", "train/1.txt": b"a", "2.jpg": b"", "2.txt": b""},
      "",
      "1 of 2 images are in no split folder: '2.jpg'",
    ),
  ],
)
def test_refusals(tmp_path, files, option, message):
  for name, content in files.items():
    write(tmp_path / name, content)
  with pytest.raises(ValueError, match=message):
    sources.open_source(f"labels:{tmp_path}{option}", "train")
