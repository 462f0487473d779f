"""What the labels of the training data ask of the config, and give to a run."""

import types

import numpy as np
import pytest
from sklearn.utils import class_weight

from vitjax.config.schema import ConfigError, Mixing
from vitjax.data import sources
from vitjax.data.sources import mixture
from vitjax.data.sources.arrays import AbsentSource, ArraySource
from vitjax.program.labels import (
  check_labels,
  describe_classes,
  weights_of_classes,
)


def labelled(labels, num_classes):
  images = np.zeros((len(labels), 2, 2, 1), np.uint8)
  names = [str(i) for i in range(num_classes)]
  return ArraySource("data", "train", images, np.array(labels), names)


def config(class_weights, sampling):
  section = types.SimpleNamespace(sampling=sampling)
  return types.SimpleNamespace(
    loss="softmax_xent",
    class_weights=class_weights,
    input=section,
    mixing=Mixing(),
    target_threshold=None,
  )


def weights(given, source, num_classes=None):
  num_classes = num_classes or source.num_classes
  return weights_of_classes(config(given, None), source, num_classes)


def test_balanced_weights_are_those_of_scikit_learn():
  labels = np.repeat([0, 1, 2], [1508, 715, 106])
  got = weights("balanced", labelled(labels, 3))
  want = class_weight.compute_class_weight(
    "balanced", classes=np.arange(3), y=labels
  )
  np.testing.assert_allclose(got, want, rtol=1e-6)


def test_classes_without_images_change_no_weight():
  """Those of a head that is wider than the data, or of a gap in the ids."""
  got = weights("balanced", labelled([0, 0, 0, 2], 3), num_classes=5)
  np.testing.assert_allclose(got, [4 / 6, 0, 2, 0, 0], rtol=1e-6)


def test_weights_as_given():
  source = labelled([0, 1], 2)
  np.testing.assert_array_equal(weights((1, 5), source), [1, 5])
  assert weights(None, source) is None
  with pytest.raises(ConfigError, match=r"\(1, 5, 2\) has 3 weights.* 2 class"):
    weights((1, 5, 2), source)


def test_labels_that_are_needed():
  source = labelled([0, 1], 2)
  source.labels = None
  with pytest.raises(ConfigError, match="weights='balanced': the classes of '"):
    check_labels(config("balanced", None), source)
  with pytest.raises(ConfigError, match="sampling='sqrt': the classes of 'da"):
    check_labels(config(None, "sqrt"), source)
  check_labels(config((1, 2), None), source)
  # A plan is made without the data.
  absent = AbsentSource("imagenet2012", "train", num_examples=9, num_classes=7)
  check_labels(config("balanced", "balanced"), absent)
  assert len(weights("balanced", absent)) == 7


@pytest.mark.parametrize(
  ("class_weights", "sampling", "lines"),
  [
    (
      None,
      None,
      [
        "Sampling: uniform; each image once in each epoch; share of the images:"
        " a: 90 %, b: 10 %, c: 0 %."
      ],
    ),
    (
      "balanced",
      "balanced",
      [
        "Sampling: balanced; share of the images -> share of what is shown: "
        "a: 90 -> 50 %, b: 10 -> 50 %, c: 0 -> 0 %.",
        "Class weights (balanced): a: 0.556, b: 5, c: 0.",
      ],
    ),
    (
      (1.0, 2.5, 4),
      "sqrt",
      [
        "Sampling: sqrt; share of the images -> share of what is shown: "
        "a: 90 -> 75 %, b: 10 -> 25 %, c: 0 -> 0 %.",
        "Class weights: a: 1, b: 2.5, c: 4.",
      ],
    ),
  ],
)
def test_how_much_a_class_counts_is_said(class_weights, sampling, lines):
  source = labelled(np.repeat([0, 1], [90, 10]), 3)
  source.class_names = ("a", "b", "c")
  found = describe_classes(config(class_weights, sampling), source, 3)
  assert list(found) == lines
  assert not list(describe_classes(config(None, None), source, None))


def test_a_mixture_shows_its_parts_by_their_weights():
  parts = [labelled([0, 0, 0, 1], 2), labelled([1] * 12, 2)]
  for part in parts:
    part.labels_read, part.labels = part.labels, None  # as of records
    part.known_labels = lambda part=part: part.labels_read
  data = "mixture:0.75*folder:/a+0.25*folder:/b"
  source = mixture.MixtureSource(data, "train", parts)
  assert source.labels is None
  assert source.known_labels().tolist() == [0, 0, 0, 1] + [1] * 12
  (line,) = describe_classes(config(None, None), source, 2)
  assert line.endswith("0: 18.8 -> 56.2 %, 1: 81.2 -> 43.8 %.")


def test_of_many_classes_the_largest_and_smallest_are_named():
  source = labelled(np.repeat(np.arange(20), np.arange(1, 21)), 20)
  (line,) = describe_classes(config(None, None), source, 20)
  assert line.endswith(
    ": 19: 9.52 %, 18: 9.05 %, 17: 8.57 %, ... 14 more ..., 2: 1.43 %, "
    "1: 0.952 %, 0: 0.476 %."
  )
  source.labels = None
  assert list(describe_classes(config(None, None), source, 20)) == [
    "Sampling: uniform."
  ]


def test_labels_of_random_images_are_those_that_it_gives():
  source = sources.open_source("fake:100,4x4x1,7", "train[20:]+val")
  got = source.fetch(np.arange(90))["label"]
  np.testing.assert_array_equal(got, source.labels)
