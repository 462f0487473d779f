"""Mixtures: which part is shown when, and what its classes are called."""

import numpy as np
import pytest

from tests import packing
from vitjax.data import order, pipeline, sources
from vitjax.data.pp import builder
from vitjax.data.sources import mixture
from vitjax.data.sources.arrays import ArraySource
from vitjax.data.tf import tf

SIZES, WEIGHTS = (50, 30, 7), (0.5, 0.2, 0.3)
TOTAL = sum(SIZES)
PART = np.repeat(np.arange(3), SIZES)


def shown(epochs, seed=0, sizes=SIZES, weights=WEIGHTS):
  orders = [order.by_epoch(size, seed + i) for i, size in enumerate(sizes)]
  positions = tf.range(epochs * sum(sizes), dtype=tf.int64)
  return order.mixed(orders, sizes, weights, seed)(positions).numpy()


def test_an_epoch_has_the_share_of_each_part_spread_evenly():
  counts = np.array([44, 17, 26])  # 87 times the weights, rounded
  for parts in PART[shown(4)].reshape(4, TOTAL):
    assert np.bincount(parts).tolist() == counts.tolist()
    due = np.arange(1, TOTAL + 1)[:, None] * counts / TOTAL
    got = np.cumsum(parts[:, None] == np.arange(3), axis=0)
    assert np.abs(got - due).max() < 3


def test_a_part_is_shown_completely_before_an_example_repeats():
  examples = shown(12)
  for part, size in enumerate(SIZES):
    own = examples[PART[examples] == part]
    passes = own[: len(own) // size * size].reshape(-1, size)
    assert len(passes) > 5
    for numbers in passes:
      np.testing.assert_array_equal(
        np.sort(numbers), np.flatnonzero(PART == part)
      )
    assert len({numbers.tobytes() for numbers in passes}) == len(passes)


def test_a_weight_that_shows_nothing_is_refused():
  with pytest.raises(ValueError, match=r"Weight 0.001 is too small: .* 87 ex"):
    shown(1, weights=(0.5, 0.499, 0.001))


@pytest.mark.parametrize(
  ("data", "expected"),
  [
    (
      "mixture:0.7*folder:/a+b+0.3*wds:/c/{0..9}.tar",
      [(0.7, "folder:/a+b"), (0.3, "wds:/c/{0..9}.tar")],
    ),
    (
      "mixture:3*folder:/a:fold=2/5 + 1*parquet:/b/train-*",
      [(0.75, "folder:/a:fold=2/5"), (0.25, "parquet:/b/train-*")],
    ),
  ],
)
def test_notation(data, expected):
  assert mixture.parse(data) == expected


@pytest.mark.parametrize(
  ("data", "message"),
  [
    ("mixture:", "malformed at ''"),
    ("mixture:digits+0.3*cifar10", r"malformed at 'digits'"),
    ("mixture:0*digits+1*cifar10", r"malformed at '0\*digits'"),
    ("mixture:1..2*digits", "positive weights"),
    ("mixture:1*mixture:1*digits", "malformed at"),
    ("mixture:1*digits+2*digits", "has 'digits' twice"),
  ],
)
def test_malformed(data, message):
  with pytest.raises(ValueError, match=message):
    sources.open_source(data, "train")


@pytest.fixture
def parts(tmp_path, monkeypatch):
  """Two data sets that share a class; one with 12 images, one with 20."""
  monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
  for split, start in (("train", 0), ("val", 50)):
    for i in range(12):
      path = tmp_path / "a" / split / ("bee", "ant")[i % 2] / f"{i}.png"
      path.parent.mkdir(parents=True, exist_ok=True)
      path.write_bytes(packing.picture(start + i, "png"))
    packing.write_parquet(
      tmp_path / "b" / f"{split}.parquet",
      {
        "image": [packing.picture(start + 12 + i) for i in range(20)],
        "label": [i // 15 for i in range(20)],
      },
      ["cow", "bee"],
    )
  return f"mixture:0.25*folder:{tmp_path}/a+0.75*parquet:{tmp_path}/b"


def batches(data, split="train", **options):
  defaults = {"batch_size": 8, "seed": 3, "start_step": 0, "total_steps": 8}
  return list(
    pipeline.train_batches(
      sources.open_source(data, split),
      builder.build("decode|resize(8)|random_crop(6)|flip_lr"),
      **(defaults | options),
    )
  )


def assert_same(got, want):
  assert len(got) == len(want)
  for x, y in zip(got, want):
    assert x.keys() == y.keys()
    for name in y:
      np.testing.assert_array_equal(x[name], y[name])


@pytest.mark.parametrize(
  "sampling", [pytest.param(None, marks=pytest.mark.slow), "balanced"]
)
def test_resuming_and_processes_change_nothing(parts, sampling):
  """8 steps are two epochs of 32."""
  whole = batches(parts, sampling=sampling)
  halves = [
    batches(
      parts,
      sampling=sampling,
      start_step=3,
      process_index=i,
      process_count=2,
    )
    for i in range(2)
  ]
  joined = [
    {name: np.concatenate([a[name], b[name]]) for name in a}
    for a, b in zip(*halves)
  ]
  assert_same(joined, whole[3:])
  numbers = np.concatenate([batch["index"] for batch in whole])
  labels = np.concatenate([batch["label"] for batch in whole])
  for epoch in np.split(numbers, 2):
    assert (epoch < 12).sum() == 8
  # Within a part its classes are balanced: 15 of cow and 5 of bee are not so.
  rare = (labels[numbers >= 12] == 1).mean()
  assert abs(rare - (0.5 if sampling else 0.25)) < 0.06


def test_classes_are_joined_by_name(parts, tmp_path):
  source = sources.open_source(parts, "train")
  assert source.class_names == ("ant", "bee", "cow")
  assert np.bincount(source.labels).tolist() == [6, 6 + 5, 15]
  assert source.image_shape is None
  # As the parts have them, one after another.
  first, second = (
    sources.open_source(part, "train") for _, part in mixture.parse(parts)
  )
  for index in range(32):
    part, row = (first, index) if index < 12 else (second, index - 12)
    got, want = (
      x.parse({k: v[0] for k, v in x.fetch(tf.constant([i], tf.int64)).items()})
      for x, i in ((source, index), (part, row))
    )
    assert got["image"] == want["image"]
    name = part.class_names[int(want["label"])]
    assert source.class_names[int(got["label"])] == name
    assert source.describe(index) == part.describe(row)
  # With the ids of a model, if it has them all.
  names = ["cow", "dog", "bee", "ant"]
  source = sources.open_source(parts, "val", class_names=names)
  assert np.bincount(source.labels).tolist() == [15, 0, 11, 6]
  with pytest.raises(ValueError, match="'cow'"):
    sources.open_source(parts, "val", class_names=["ant", "bee"])


def test_evaluation_has_each_example_of_each_part_once(parts):
  source = sources.open_source(parts, "val")
  found = pipeline.eval_batches(
    source, builder.build("decode|resize(8)"), batch_size=10
  )
  batches = list(found)
  index, label, mask = (
    np.concatenate([batch[name] for batch in batches])
    for name in ("index", "label", "mask")
  )
  assert index[mask].tolist() == list(range(32))
  np.testing.assert_array_equal(label[mask], source.labels)


def test_arrays_become_files(parts):
  data = f"{parts}+1*digits"
  source = sources.open_source(data, "train")
  assert source.num_classes == 13
  digits = sources.open_source("digits", "train")
  image = pipeline.example(source, builder.build("decode(channels=1)"), 32 + 7)
  expected = digits.fetch(tf.constant([7], tf.int64))["image"][0]
  np.testing.assert_array_equal(image["image"], expected)
  assert source.class_names[int(image["label"])] == str(digits.labels[7])


def test_parts_need_names_of_classes():
  images = np.zeros((2, 1, 1, 1), np.uint8)
  named = ArraySource("a", "train", images, np.zeros(2, int), ["x"])
  other = ArraySource("b", "train", images, np.zeros(2, int), ["x"])
  other.class_names = None
  with pytest.raises(ValueError, match="'b' has no names of classes"):
    mixture.MixtureSource("mixture:1*a+1*b", "train", [named, other])


def test_the_fingerprint_is_that_of_the_parts(parts, tmp_path):
  before = sources.open_source(parts, "train").fingerprint
  assert sources.open_source(parts, "train").fingerprint == before
  path = tmp_path / "a" / "train" / "ant" / "new.png"
  path.write_bytes(packing.picture(99, "png"))
  assert sources.open_source(parts, "train").fingerprint != before
