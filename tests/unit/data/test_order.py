"""How often classes and their images are shown, and in which order."""

import numpy as np
import pytest
import tensorflow as tf

from vitjax.data import order, pipeline
from vitjax.data.pp import builder
from vitjax.data.sources.arrays import ArraySource

# 6 classes of these sizes; their images are in no order, and one id is unused.
SIZES = np.array([100, 49, 16, 9, 4, 0, 1])
LABELS = np.random.default_rng(0).permutation(np.repeat(np.arange(7), SIZES))
TOTAL = len(LABELS)
SHARES = {"balanced": (SIZES > 0).astype(float), "sqrt": np.sqrt(SIZES)}


def indices(sampling, epochs, seed=0):
  positions = tf.range(epochs * TOTAL, dtype=tf.int64)
  return order.by_class(LABELS, sampling, seed)(positions).numpy()


@pytest.mark.parametrize("sampling", SHARES)
def test_classes_have_their_shares_in_each_epoch(sampling):
  epochs = LABELS[indices(sampling, 5)].reshape(5, TOTAL)
  share = SHARES[sampling] / SHARES[sampling].sum()
  for labels in epochs:
    counts = np.bincount(labels, minlength=7)
    assert np.abs(counts - share * TOTAL).max() < 1
    # And evenly over the epoch: no stretch has too many or too few.
    shown = np.cumsum(labels[:, None] == np.arange(7), axis=0)
    due = np.arange(1, TOTAL + 1)[:, None] * counts / TOTAL
    assert np.abs(shown - due).max() < 4
  # Neighbours are random, not in turn.
  pairs = {tuple(pair) for pair in np.stack([epochs[0][1:], epochs[0][:-1]], 1)}
  assert len(pairs) > 2 * 6


@pytest.mark.parametrize("sampling", SHARES)
def test_a_class_shows_all_its_images_before_it_repeats_one(sampling):
  shown = indices(sampling, 12)
  for label in np.flatnonzero(SIZES):
    size, own = SIZES[label], shown[LABELS[shown] == label]
    assert len(own) > size
    passes = own[: len(own) // size * size].reshape(-1, size)
    members = np.flatnonzero(LABELS == label)
    for images in passes:
      np.testing.assert_array_equal(np.sort(images), members)
    if size == 4:  # of its 24 orders
      assert len({images.tobytes() for images in passes}) > 12


def test_seeds_differ_and_positions_decide_alone():
  whole = indices("sqrt", 3)
  assert (indices("sqrt", 3, seed=1) != whole).mean() > 0.5
  positions = np.random.default_rng(1).permutation(3 * TOTAL)
  got = order.by_class(LABELS, "sqrt", 0)(tf.constant(positions))
  np.testing.assert_array_equal(got, whole[positions])


def batches(**options):
  images = np.arange(TOTAL, dtype=np.uint8)[:, None, None, None]
  source = ArraySource("data", "train", images, LABELS, "abcdefg")
  defaults = {"batch_size": 24, "seed": 3, "start_step": 0, "total_steps": 20}
  options = defaults | {"sampling": "balanced"} | options
  return list(pipeline.train_batches(source, builder.build(""), **options))


@pytest.mark.parametrize("repeats", [1, 2])
def test_resuming_and_processes_change_nothing(repeats):
  """20 steps cross the end of two epochs of 179."""
  whole = batches(repeats=repeats)
  tail = batches(repeats=repeats, start_step=7)
  parts = [
    batches(repeats=repeats, process_index=i, process_count=2) for i in range(2)
  ]
  joined = [
    {name: np.concatenate([a[name], b[name]]) for name in a}
    for a, b in zip(*parts, strict=True)
  ]
  for got, want in ((tail, whole[7:]), (joined, whole)):
    for x, y in zip(got, want, strict=True):
      for name in y:
        np.testing.assert_array_equal(x[name], y[name])
  for batch in whole:
    counts = np.bincount(batch["label"], minlength=7) / repeats
    assert counts[5] == 0
    # 24 or 12 images of 6 classes; a part of an epoch has one of each.
    assert np.abs(np.delete(counts, 5) - 4 / repeats).max() <= 2


def test_the_labels_must_be_known():
  source = ArraySource("data", "train", np.zeros((2, 1, 1, 1)), LABELS[:2], "")
  source.labels = None
  with pytest.raises(
    ValueError, match="'data' are not known before its images"
  ):
    pipeline.train_batches(
      source,
      builder.build(""),
      batch_size=1,
      seed=0,
      start_step=0,
      total_steps=1,
      sampling="sqrt",
    )
