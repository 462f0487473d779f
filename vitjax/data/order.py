"""Which example is shown when, as a function of the seed alone.

An order maps positions in training, 0, 1, 2 and so on without end, to numbers
of examples. An epoch is as many positions as there are examples.
"""

import math
from collections.abc import Callable, Sequence

import numpy as np

from vitjax.data import seeds
from vitjax.data.tf import tf

# int64 [n] to int64 [n], in graph mode or eagerly.
Order = Callable[[tf.Tensor], tf.Tensor]

# Rounds of the shuffle's block cipher. With the default of 4, the permutations
# of two epochs of 60000 examples correlate (by 70 standard deviations).
_SHUFFLE_ROUNDS = 12
# How often a class is shown, by its number of examples.
_FREQUENCIES = {"balanced": np.ones_like, "sqrt": np.sqrt}


def by_epoch(num_examples: int, seed: int) -> Order:
  """Shows each example once in each epoch."""

  def order(positions: tf.Tensor) -> tf.Tensor:
    epoch = positions // num_examples
    return _shuffled(
      positions % num_examples,
      tf.constant(num_examples, tf.int64),
      seeds.example_seeds(seed, epoch, seeds.PERMUTATION),
    )

  return order


def by_class(labels: np.ndarray, sampling: str, seed: int) -> Order:
  """Shows classes as often as `sampling` says, in each epoch.

  Each class shows all its examples, in a random order of each pass, before it
  repeats one. Its positions are spread evenly over an epoch: one at a random
  place in each of as many equal parts as it has positions. They are the same in
  each epoch.

  Args:
    labels: class of each example.
    sampling: "balanced": each class as often as another; "sqrt": in proportion
      to the square root of its number of examples.
    seed: seed of the order.
  """
  _, class_of, sizes = np.unique(
    labels, return_inverse=True, return_counts=True
  )
  total, num_classes = len(labels), len(sizes)
  members = np.argsort(class_of, kind="stable")
  starts = np.cumsum(sizes) - sizes
  shown = _apportion(_FREQUENCIES[sampling](sizes.astype(np.float64)), total)
  classes, ranks = _spread(shown, seed)
  members, starts, sizes, shown, classes, ranks = (
    tf.constant(x, tf.int64)
    for x in (members, starts, sizes, shown, classes, ranks)
  )

  def order(positions: tf.Tensor) -> tf.Tensor:
    epoch, place = positions // total, positions % total
    label = tf.gather(classes, place)
    size = tf.gather(sizes, label)
    # How often the class was shown before, in all epochs.
    before = epoch * tf.gather(shown, label) + tf.gather(ranks, place)
    passes = before // size * num_classes + label
    member = _shuffled(
      before % size,
      size,
      seeds.example_seeds(seed, passes, seeds.PERMUTATION),
    )
    return tf.gather(members, tf.gather(starts, label) + member)

  return order


def mixed(
  orders: Sequence[Order],
  sizes: Sequence[int],
  weights: Sequence[float],
  seed: int,
) -> Order:
  """Shows examples of several parts as often as their weights say.

  An epoch is as many positions as all parts have examples. In each epoch
  the share of a part is its weight, to rounding. Its positions are spread
  evenly, as those of `by_class`, and show its examples in the order of the part
  itself: the part ends an epoch of its own before it repeats an example.

  Args:
    orders: order of each part.
    sizes: number of examples of each part. Those of the second part are
      numbered after those of the first, and so on.
    weights: share of each part; their sum is one.
    seed: seed of the order.

  Raises:
    ValueError: if a weight is too small to show any example.
  """
  total = sum(sizes)
  shown = _apportion(np.array(weights, np.float64), total)
  if not shown.all():
    raise ValueError(
      f"Weight {weights[int(np.argmin(shown))]:g} is too small: an epoch of "
      f"the mixture shows {total} examples, and none of that part."
    )
  parts, ranks = _spread(shown, seed)
  starts = np.cumsum([0, *sizes[:-1]])
  starts, shown, parts, ranks = (
    tf.constant(x, tf.int64) for x in (starts, shown, parts, ranks)
  )

  def order(positions: tf.Tensor) -> tf.Tensor:
    epoch, place = positions // total, positions % total
    part = tf.gather(parts, place)
    # How often the part was shown before, in all epochs.
    before = epoch * tf.gather(shown, part) + tf.gather(ranks, place)
    rows = tf.stack([order_of(before) for order_of in orders], axis=1)
    row = tf.gather(rows, part, axis=1, batch_dims=1)
    return tf.gather(starts, part) + row

  return order


def _spread(shown: np.ndarray, seed: int) -> tuple[np.ndarray, np.ndarray]:
  """Spreads the positions of each group evenly over an epoch.

  Returns:
    For each position its group, and how many of the group come before.
  """
  total = int(shown.sum())
  groups = np.repeat(np.arange(len(shown)), shown)
  ranks = np.arange(total) - np.repeat(np.cumsum(shown) - shown, shown)
  jitter = seeds.uniform(
    seeds.example_seeds(seed, tf.range(total, dtype=tf.int64), seeds.PLACES)
  )
  times = (ranks + jitter.numpy().astype(np.float64)) / shown[groups]
  in_time = np.argsort(times, kind="stable")
  return groups[in_time], ranks[in_time]


def _shuffled(
  places: tf.Tensor, sizes: tf.Tensor, seed: tf.Tensor
) -> tf.Tensor:
  """The number at each place of a permutation; each may have its own."""
  # The op of tf.random.experimental.index_shuffle, which cannot take a seed for
  # each index because it pads the wrong axis to the three words needed here.
  return tf.raw_ops.RandomIndexShuffle(
    index=places,
    seed=tf.pad(seed, [[0, 0], [1, 0]]),
    max_index=sizes - 1,
    rounds=_SHUFFLE_ROUNDS,
  )


def _apportion(shares: np.ndarray, total: int) -> np.ndarray:
  """Integers in proportion to `shares` that sum to `total`.

  Rounded down, and one more for those that lose most.
  """
  exact = shares * (total / math.fsum(shares))
  counts = exact.astype(np.int64)
  most = np.argsort(counts - exact, kind="stable")
  counts[most[: total - counts.sum()]] += 1
  return counts


def shares(
  labels: np.ndarray, sampling: str | None, num_classes: int
) -> np.ndarray:
  """(num_classes,): the share of each class among the images that are shown.

  Args:
    labels: class of each example; one below 0 is unknown, and not counted.
    sampling: see `by_class`; None: each example once in each epoch.
    num_classes: number of classes, of which some may be absent.
  """
  labels = labels[labels >= 0]
  shown = np.bincount(labels, minlength=num_classes)
  if sampling is not None:
    sizes = shown[shown > 0].astype(np.float64)
    shown[shown > 0] = _apportion(_FREQUENCIES[sampling](sizes), len(labels))
  return shown / max(len(labels), 1)
