"""Splits, digits, fake images and errors without files."""

import time

import numpy as np
import pytest

from vitjax.data import sources
from vitjax.data.sources.source import DatasetNotPreparedError, split_indices


def test_digits_are_split_once_and_for_all():
  splits = {s: sources.open_source("digits", s) for s in ("train", "test")}
  assert [s.num_examples for s in splits.values()] == [1437, 360]
  whole = sources.open_source("digits", "train+test")
  assert whole.fingerprint == sources.open_source("digits", "all").fingerprint
  # Of the arrays that scikit-learn's `load_digits` gives, in our order.
  assert whole.fingerprint.startswith("6f96806238f6fb7d71395880ab99f51e")
  images = whole.fetch(np.arange(1797))["image"].numpy()
  assert images.shape == (1797, 8, 8, 1) and images.max() == 255
  labels = whole.fetch(np.arange(1797))["label"].numpy()
  assert np.bincount(labels).min() > 170
  test_labels = splits["test"].fetch(np.arange(360))["label"].numpy()
  np.testing.assert_array_equal(labels[1437:], test_labels)
  assert np.bincount(test_labels).min() > 20


@pytest.mark.parametrize(
  ("split", "expected"),
  [
    ("a", range(10)),
    ("a[:25%]", range(2)),  # 2.5 rounds to even, as in TFDS.
    ("a[2:4]+b", [2, 3, 0, 1]),
    ("a[-3:]", [7, 8, 9]),
    ("a[90%:]", [9]),
  ],
)
def test_split_notation(split, expected):
  parts = split_indices("data", split, {"a": 10, "b": 2})
  assert np.concatenate([i for _, i in parts]).tolist() == list(expected)


@pytest.mark.parametrize(
  ("split", "message"),
  [
    ("val", r"no split 'val'. It has: train \(1437\), test"),
    ("train[1:2:3]", "malformed at"),
    ("train[5:5]", "no examples"),
  ],
)
def test_split_errors(split, message):
  with pytest.raises(ValueError, match=message):
    sources.open_source("digits", split)


def test_fake_images_are_the_same_each_time():
  first, second = (
    sources.open_source("fake:100,8x9x3,7", "train[10:20]") for _ in range(2)
  )
  whole = sources.open_source("fake:100,8x9x3,7", "train")
  a, b = (s.fetch(np.arange(10)) for s in (first, second))
  np.testing.assert_array_equal(a["image"], b["image"])
  np.testing.assert_array_equal(
    a["image"], whole.fetch(np.arange(10, 20))["image"]
  )
  images = whole.fetch(np.arange(100))["image"].numpy()
  assert len({image.tobytes() for image in images}) == 100
  assert sources.open_source("fake:100,8x9x3,7", "val").num_examples == 10


def test_class_names_must_be_those_of_the_model():
  names = [str(i) for i in range(10)]
  sources.open_source("digits", "test", class_names=names)
  with pytest.raises(ValueError, match="class 9 is '9' instead of 'x'"):
    sources.open_source("digits", "test", class_names=[*names[:9], "x"])
  with pytest.raises(ValueError, match="10 classes instead of 3"):
    sources.open_source("digits", "test", class_names=names[:3])


@pytest.mark.parametrize(
  ("data", "message"),
  [
    ("fake:10", "fake:NUM,HxWxC,CLASSES"),
    ("fake:0,8x8x3,2", "fake:NUM,HxWxC,CLASSES"),
    ("huggingface:mnist", "'huggingface' is not a kind of data"),
    ("fashon_mnist", "Did you mean 'fashion_mnist'"),
  ],
)
def test_unknown_data(data, message, tmp_path):
  with pytest.raises(ValueError, match=message):
    sources.open_source(data, "train", data_dir=str(tmp_path))


def test_unprepared_data_sets_are_refused_at_once(tmp_path):
  start = time.perf_counter()
  with pytest.raises(DatasetNotPreparedError) as error:
    sources.open_source("imagenet2012", "train", data_dir=str(tmp_path))
  assert time.perf_counter() - start < 20
  for hint in ("tfds build imagenet2012", "data_dir", "folder:/path"):
    assert hint in str(error.value)


@pytest.mark.parametrize("kind", sources._LOCAL)
def test_files_in_an_object_store_are_refused_with_what_to_do(kind):
  for store in ("gs", "s3"):
    with pytest.raises(ValueError, match="or mount the bucket"):
      sources.open_source(f"{kind}:{store}://bucket/images", "train")
