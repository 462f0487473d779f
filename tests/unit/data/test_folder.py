"""Folders of images: layouts, classes, odd files."""

import logging

import numpy as np
import pytest
from PIL import Image

from vitjax.data import sources
from vitjax.data.sources import folder


def write(root, *paths):
  for number, path in enumerate(paths):
    (root / path).parent.mkdir(parents=True, exist_ok=True)
    image = Image.fromarray(np.full((4, 5, 3), number % 256, np.uint8))
    if (root / path).suffix.lower() == ".gif":
      image = image.convert("P")
    image.save(root / path)


def labels(source):
  return source.fetch(np.arange(source.num_examples))["label"].numpy().tolist()


def test_natural_order_and_any_extension(tmp_path, caplog):
  write(
    tmp_path,
    "train/10/a.JPEG",
    "train/2/b.png",
    "train/2/deep/er/c.WebP",
    "train/1/d.Jpg",
    "train/1/e.bmp",
    "train/1/f.gif",
    "val/10/g.jpg",
  )
  (tmp_path / "train" / "1" / "notes.txt").write_text("x")
  (tmp_path / "train" / "1" / ".hidden.jpg").write_text("x")
  with caplog.at_level(logging.WARNING):
    source = sources.open_source(f"folder:{tmp_path}", "train")
  assert source.class_names == ("1", "2", "10")
  assert labels(source) == [0, 0, 0, 1, 1, 2]
  assert "1 x .txt" in caplog.text
  assert source.describe(5) == str(tmp_path / "train" / "10" / "a.JPEG")
  # Absent classes do not shift labels.
  assert labels(sources.open_source(f"folder:{tmp_path}", "val")) == [2]


def test_unknown_class_in_val(tmp_path):
  write(tmp_path, "train/cat/a.jpg", "val/cat/b.jpg", "val/dog/c.jpg")
  data = f"folder:{tmp_path}"
  assert sources.open_source(data, "train").num_examples == 1
  with pytest.raises(ValueError, match=r"split 'val' has class folders.*'dog'"):
    sources.open_source(data, "val")
  source = sources.open_source(data, "val", class_names=["dog", "cat"])
  assert sorted(labels(source)) == [0, 1]
  with pytest.raises(ValueError, match="'cat'"):
    sources.open_source(data, "train", class_names=["dog"])


def test_plain_class_folders_are_split_by_a_hash(tmp_path):
  write(tmp_path, *(f"{'ab'[i % 2]}/{i}.png" for i in range(200)))
  data = f"folder:{tmp_path}"

  def names(split):
    source = sources.open_source(data, split)
    return {source.describe(i) for i in range(source.num_examples)}

  train, val = names("train"), names("val")
  assert not train & val and len(train | val) == 200
  assert 8 < len(val) < 35
  # More files do not move others.
  write(tmp_path, *(f"{'ab'[i % 2]}/{i}.png" for i in range(200, 220)))
  assert train <= names("train") and val <= names("val")


def test_a_class_of_trains_is_no_split(tmp_path):
  write(tmp_path, *(f"bus/{i}.png" for i in range(30)))
  write(tmp_path, *(f"train/{i}.png" for i in range(30)))
  source = sources.open_source(f"folder:{tmp_path}", "train")
  assert source.class_names == ("bus", "train")


def test_fingerprint_follows_the_files(tmp_path):
  write(tmp_path, "train/a/1.png", "train/b/2.png")
  data = f"folder:{tmp_path}"
  before = sources.open_source(data, "train").fingerprint
  assert before == sources.open_source(data, "train").fingerprint
  write(tmp_path, "train/b/3.png")
  assert before != sources.open_source(data, "train").fingerprint


@pytest.mark.parametrize(
  ("paths", "empty", "message"),
  [
    (["train/a/1.png"], "train/b", r"No images in class folder\(s\).*'b'"),
    ([], "train/b", "No images in class folders below"),
    (["val/a/1.png"], None, "has no training images"),
  ],
)
def test_errors(tmp_path, paths, empty, message):
  write(tmp_path, *paths)
  if empty:
    (tmp_path / empty).mkdir(parents=True)
  with pytest.raises(ValueError, match=message):
    sources.open_source(f"folder:{tmp_path}", "train")


def test_not_a_folder(tmp_path):
  with pytest.raises(ValueError, match="does not exist"):
    sources.open_source(f"folder:{tmp_path}/x", "train")
  (tmp_path / "file").write_text("")
  with pytest.raises(ValueError, match="is not a folder"):
    sources.open_source(f"folder:{tmp_path}/file", "train")


def test_natural_order_is_total():
  names = ["b", "a10", "a2", "10", "9", "01", "1", "a"]
  assert sorted(names, key=folder.natural) == [
    "01", "1", "9", "10", "a", "a2", "a10", "b",
  ]  # fmt: skip
