"""Feeding devices: values, errors, waiting time, and shutting down."""

import threading
import time

import jax
import numpy as np
import pytest
from jax.sharding import NamedSharding, PartitionSpec

from vitjax.data import device


@pytest.fixture
def sharding():
  mesh = jax.make_mesh(
    (8,), ("data",), axis_types=(jax.sharding.AxisType.Auto,)
  )
  return NamedSharding(mesh, PartitionSpec("data"))


def batches(count, closed=None):
  try:
    for i in range(count):
      yield {"image": np.full((16, 2), i), "index": np.arange(16) + i}
  finally:
    if closed is not None:
      closed.set()


def test_batches_arrive_in_order_and_sharded(sharding):
  feed = device.to_device(batches(5), sharding)
  for i, batch in enumerate(feed):
    assert batch["image"].sharding == sharding
    np.testing.assert_array_equal(batch["index"], np.arange(16) + i)
  assert i == 4
  assert list(feed) == []


def test_types_on_arrival_are_those_of_the_arrays(sharding):
  (host,) = batches(1)
  host |= {"mask": np.ones(16, bool), "weight": np.ones(16, np.float64)}
  spec = {k: jax.ShapeDtypeStruct(x.shape, x.dtype) for k, x in host.items()}
  expected = device.on_arrival(spec)
  (batch,) = device.to_device([host], sharding)
  assert {k: (x.shape, x.dtype) for k, x in batch.items()} == {
    k: (x.shape, x.dtype) for k, x in expected.items()
  }
  assert expected["index"].dtype == np.int32


def test_errors_of_the_input_reach_the_loop(sharding):
  def failing():
    yield from batches(1)
    raise ValueError("example 7 is broken")

  feed = device.to_device(failing(), sharding)
  next(feed)
  with pytest.raises(ValueError, match="example 7 is broken"):
    next(feed)
  assert not feed._thread.is_alive()


def test_closing_ends_the_thread_and_the_input(sharding):
  closed = threading.Event()
  with device.to_device(batches(10**9, closed), sharding) as feed:
    next(feed)
  assert closed.is_set() and not feed._thread.is_alive()
  assert list(feed) == []


def test_waiting_is_counted(sharding):
  def slow():
    for batch in batches(2):
      time.sleep(0.2)
      yield batch

  with device.to_device(slow(), sharding) as feed:
    next(feed)
    assert 0.1 < feed.wait_seconds
    time.sleep(0.5)
    waited = feed.wait_seconds
    next(feed)
    assert feed.wait_seconds - waited < 0.15


def test_prefetch_must_be_positive(sharding):
  with pytest.raises(ValueError, match="prefetch=0"):
    device.to_device(batches(1), sharding, prefetch=0)
