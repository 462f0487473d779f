"""Ops on labels and features, eagerly and in tf.data, one and in chunks."""

import numpy as np
import pytest
import tensorflow as tf

from vitjax.data.pp import ops_general as ops

SEED = tf.constant([1, 2])


@pytest.mark.parametrize(
  ("label", "expected"),
  [
    (2, [0, 0, 1, 0]),
    (-1, [0, 0, 0, 0]),
    (4, [0, 0, 0, 0]),
    ([0, 2, 2], [1, 0, 1, 0]),
  ],
)
def test_onehot(label, expected):
  features = {"label": tf.constant(label, tf.int32), "seed": SEED}
  op = ops.onehot(4)
  np.testing.assert_array_equal(op(features)["labels"], expected)
  dataset = tf.data.Dataset.from_tensors(features).map(op)
  for out in dataset.as_numpy_iterator():
    np.testing.assert_array_equal(out["labels"], expected)
    assert out["labels"].dtype == np.float32


def test_onehot_of_a_chunk_is_not_multi_hot():
  features = {
    "label": tf.constant([1, 0]),
    "seed": tf.zeros([2, 2], tf.int32),
  }
  out = ops.onehot(3, on=0.9, off=0.05)(features)["labels"]
  np.testing.assert_allclose(out, [[0.05, 0.9, 0.05], [0.9, 0.05, 0.05]])


def test_keep_drop_and_copy():
  features = {"a": 1, "b": 2, "index": 3, "seed": SEED}
  assert ops.keep("b")(features).keys() == {"b", "index", "seed"}
  assert ops.drop("b")(features).keys() == {"a", "index", "seed"}
  assert ops.copy("a", "c")(features)["c"] == 1
  with pytest.raises(ValueError, match=r"no feature 'x'; there are.*'a', 'b'"):
    ops.keep("x")(features)
  with pytest.raises(ValueError, match="cannot be dropped"):
    ops.drop("index")
  with pytest.raises(ValueError, match="at least one"):
    ops.keep()
