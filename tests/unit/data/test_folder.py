"""Folders of images: layouts, classes, odd files."""

import logging

import numpy as np
import pytest
from PIL import Image

from vitjax.data import sources
from vitjax.data.pp import image_files
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


def files(source):
  return {source.describe(i) for i in range(source.num_examples)}


def split_of(root, split):
  return files(sources.open_source(f"folder:{root}", split))


def test_a_tenth_of_each_class_is_held_back(tmp_path):
  sizes = {"a": 200, "b": 40, "c": 9, "d": 2, "e": 1}
  for name, size in sizes.items():
    write(tmp_path, *(f"{name}/{name}{i}.png" for i in range(size)))
  train, val = split_of(tmp_path, "train"), split_of(tmp_path, "val")
  assert not train & val and len(train | val) == sum(sizes.values())
  assert {name: sum(f"/{name}/" in x for x in val) for name in sizes} == {
    "a": 20,
    "b": 4,
    "c": 1,
    "d": 1,
    "e": 0,
  }
  # It is none of the order of the names.
  assert max(int(x[-7:-4].strip("/a")) for x in val if "/a/" in x) > 100
  # Other classes move nothing, and more files move as many at most.
  write(tmp_path, *(f"f/{i}.png" for i in range(30)))
  assert {x for x in split_of(tmp_path, "val") if "/f/" not in x} == val
  write(tmp_path, *(f"b/{i}.png" for i in range(5)))
  assert len(val - split_of(tmp_path, "val")) <= 5
  assert (
    len({x for x in val if "/b/" not in x} - split_of(tmp_path, "val")) == 0
  )


def test_equal_names_are_told_apart_by_their_folders(tmp_path):
  """Each photograph in a folder of its own, all called alike."""
  write(tmp_path, *(f"cat/{i:03}/photo.jpg" for i in range(100)))
  write(tmp_path, *(f"dog/{i:03}.jpg" for i in range(10)))
  val = [x for x in split_of(tmp_path, "val") if "/cat/" in x]
  assert len(val) == 10
  assert max(val) > f"{tmp_path}/cat/050"


@pytest.mark.parametrize(
  ("train", "val", "test"),
  [
    ("Training", "Valid", "Testing"),
    ("TRAIN", "validation", "test"),
    ("train", "dev", "Test"),
  ],
)
def test_names_of_split_folders(tmp_path, train, val, test):
  write(tmp_path, f"{train}/a/1.png", f"{train}/b/2.png", f"{val}/a/3.png")
  write(tmp_path, f"{test}/b/4.png")
  for split, name in ((train, "train"), (val, "val"), (test, "test")):
    asked = sources.open_source(f"folder:{tmp_path}", name)
    assert asked.class_names == ("a", "b")
    assert files(asked) == split_of(tmp_path, split)
    assert all(f"/{split}/" in x for x in files(asked))


def test_folders_beside_split_folders_are_named(tmp_path, caplog):
  write(tmp_path, "train/a/1.png", "train/b/2.png", "holdout/a/3.png")
  write(tmp_path, "test/4.png")
  sources.open_source(f"folder:{tmp_path}", "train")
  assert "ignored folder(s) beside the split folders: 'holdout', 'test'" in (
    caplog.text
  )
  caplog.clear()
  sources.open_source(f"folder:{tmp_path}", "train")
  assert not caplog.text  # said once


@pytest.mark.parametrize(
  ("paths", "message"),
  [
    (
      ["images/cat/1.png", "images/dog/2.png"],
      r"only class folder, 'images', .*'cat', 'dog'.*Use folder:.*/images",
    ),
    (["set/train/cat/1.png", "set/val/cat/1.png"], "Use folder:.*/set if"),
    (
      ["train/set/cat/1.png", "train/set/dog/1.png"],
      "only class folder, 'set'",
    ),
    (
      ["cat/train/1.png", "cat/Test/1.png", "dog/train/1.png"],
      r"'cat', 'dog' hold the split folders .*such as train/cat/1\.jpg",
    ),
    (
      ["train/1.png", "val/2.png"],
      "split folders without class folders: train",
    ),
  ],
)
def test_class_folders_that_are_none(tmp_path, paths, message):
  write(tmp_path, *paths)
  with pytest.raises(ValueError, match=message):
    sources.open_source(f"folder:{tmp_path}", "train")


def test_class_folders_that_may_be_splits_are_named(tmp_path, caplog):
  write(tmp_path, *(f"{x}/{y}/1.png" for x in ("A", "B") for y in "pq"))
  source = sources.open_source(f"folder:{tmp_path}", "train")
  assert source.class_names == ("A", "B")
  assert "'A', 'B' hold no images but the same folders: 'p', 'q'" in caplog.text


def test_one_class_is_nothing_to_learn(tmp_path, caplog):
  write(tmp_path, "cat/1.png", "cat/2.png")
  sources.open_source(f"folder:{tmp_path}", "train")
  assert "the only class is 'cat'" in caplog.text


def test_links_are_followed_once(tmp_path):
  write(tmp_path, *(f"train/{x}/{i}.png" for x in "ab" for i in range(3)))
  write(tmp_path / "elsewhere", "c/1.png", "more/2.png")
  train = tmp_path / "train"
  (train / "a" / "self").symlink_to(".")
  (train / "a" / "up").symlink_to("..")
  (train / "a" / "more").symlink_to(tmp_path / "elsewhere" / "more")
  (train / "a" / "again").symlink_to("more")
  (train / "c").symlink_to(tmp_path / "elsewhere" / "c")
  (tmp_path / "elsewhere" / "c" / "back").symlink_to(train)
  source = sources.open_source(f"folder:{tmp_path}", "train")
  assert np.bincount(labels(source)).tolist()[:2] == [4, 3]
  # What lies behind a link to other classes is entered, and once.
  assert np.bincount(labels(source))[2] <= 1 + 7


def test_all_dangling_links_are_named(tmp_path):
  write(tmp_path, "train/a/1.png", "train/b/1.png")
  for name in ("x.jpg", "y.jpg"):
    (tmp_path / "train" / "a" / name).symlink_to("/nonexistent/image.jpg")
  with pytest.raises(
    ValueError, match=r"2 image.*'train/a/x\.jpg', 'train/a/y\.jpg'"
  ):
    sources.open_source(f"folder:{tmp_path}", "train")


def test_an_empty_class_in_val_counts_for_nothing(tmp_path, caplog):
  write(tmp_path, "train/a/1.png", "train/b/1.png", "val/a/2.png")
  (tmp_path / "val" / "b").mkdir()
  source = sources.open_source(f"folder:{tmp_path}", "val")
  assert source.class_names == ("a", "b")
  assert "class folder(s) of 'val' without images: 'b'" in caplog.text


def test_heic_is_refused_before_a_run_without_its_plug_in(
  tmp_path, monkeypatch
):
  write(tmp_path, "a/1.jpg", "b/2.jpg", "b/4.jpg", "a/5.jpg")
  (tmp_path / "b" / "2.jpg").rename(tmp_path / "b" / "2.HEIC")  # but a JPEG
  monkeypatch.setattr(image_files, "can_read_heif", lambda: False)
  assert len(split_of(tmp_path, "train+val")) == 4
  for name in ("6.heic", "7.heic"):
    (tmp_path / "a" / name).write_bytes(b"\0\0\0\x18ftypheic\0\0\0\0")
  with pytest.raises(
    ValueError, match=r"2 HEIC image.*vitjax\[heic\].*'a/6\.heic'"
  ):
    split_of(tmp_path, "train+val")


def test_a_path_alone_is_that_of_a_folder(tmp_path, monkeypatch):
  write(tmp_path, "set/a/1.png", "set/b/2.png")
  (tmp_path / "set" / "labels.csv").write_text("file,label\na/1.png,x\n")
  monkeypatch.chdir(tmp_path)
  for data in (f"{tmp_path}/set", "./set"):
    assert sources.open_source(data, "train").class_names == ("a", "b")
  assert sources.open_source("./set/labels.csv", "train").class_names == ("x",)
  with pytest.raises(ValueError, match="'/no/such/folder' does not exist"):
    sources.open_source("/no/such/folder", "train")
  for data in ("my images", "mnist/x=(", "mnist:99"):
    with pytest.raises(
      ValueError, match=r"not a TFDS name, such as .*folder:/"
    ):
      sources.open_source(data, "train")
  with pytest.raises(
    ValueError, match=r"not a TFDS data set.*write folder:set"
  ):
    sources.open_source("set", "train")


def test_the_cache_says_once_that_it_has_no_effect(tmp_path, caplog):
  write(tmp_path, "a/1.png", "a/2.png", "b/3.png", "b/4.png")
  for split in ("train", "val", "train"):
    sources.open_source(f"folder:{tmp_path}", split, cache=True)
  assert caplog.text.count("input.cache has no effect") == 1


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
    (
      ["train/a/1.png", "Training/b/1.png"],
      None,
      "two folders for split 'train",
    ),
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
