"""Moves batches from the host to global arrays on the devices.

A thread takes batches from the input while the devices compute, and starts
their transfer; the loop gets arrays whose transfer has started.
"""

import queue
import threading
import time
from collections.abc import Iterable, Iterator, Mapping

import jax
import numpy as np


class DeviceFeed(Iterator[dict[str, jax.Array]]):
  """An iterator over global arrays; `close` it, or use it in a `with`.

  Attributes:
    wait_seconds: total time in which the consumer waited for input. Compared
      with the time of the loop, it shows whether input is the bottleneck.
  """

  def __init__(
    self,
    batches: Iterable[dict[str, np.ndarray]],
    sharding: jax.sharding.NamedSharding,
    prefetch: int,
  ):
    if prefetch < 1:
      raise ValueError(f"prefetch={prefetch} must be at least 1.")
    self.wait_seconds = 0.0
    self._sharding = sharding
    self._queue = queue.Queue(maxsize=prefetch)
    self._closed = threading.Event()
    self._thread = threading.Thread(
      target=self._work, args=(iter(batches),), name="input", daemon=True
    )
    self._thread.start()

  def _work(self, batches: Iterator[dict[str, np.ndarray]]) -> None:
    try:
      for batch in batches:
        arrays = {
          name: jax.make_array_from_process_local_data(self._sharding, value)
          for name, value in batch.items()
        }
        if not self._put(arrays):
          return
      self._put(StopIteration())
    except BaseException as error:  # Raised again in the consumer.
      self._put(error)
    finally:
      if hasattr(batches, "close"):
        batches.close()

  def _put(self, item) -> bool:
    """Puts an item unless closed; returns whether it did."""
    while not self._closed.is_set():
      try:
        self._queue.put(item, timeout=0.1)
        return True
      except queue.Full:
        continue
    return False

  def __next__(self) -> dict[str, jax.Array]:
    if self._closed.is_set():
      raise StopIteration
    start = time.perf_counter()
    item = self._queue.get()
    self.wait_seconds += time.perf_counter() - start
    if isinstance(item, BaseException):
      self.close()
      raise item
    return item

  def close(self) -> None:
    """Ends the thread and frees its batches."""
    self._closed.set()
    while True:
      try:
        self._queue.get_nowait()
      except queue.Empty:
        break
    self._thread.join()

  def __enter__(self) -> "DeviceFeed":
    return self

  def __exit__(self, *_) -> None:
    self.close()


def to_device(
  batches: Iterable[dict[str, np.ndarray]],
  sharding: jax.sharding.NamedSharding,
  *,
  prefetch: int = 2,
) -> DeviceFeed:
  """Feeds batches to the devices of `sharding`, a few steps ahead.

  Args:
    batches: this process's rows of each global batch.
    sharding: sharding over the batch axis only.
    prefetch: batches buffered on the devices, in their memory.

  Returns:
    An iterator over dicts of global arrays. Errors of `batches` are raised
    from it.
  """
  return DeviceFeed(batches, sharding, prefetch)


def on_arrival(
  spec: Mapping[str, jax.ShapeDtypeStruct],
) -> dict[str, jax.ShapeDtypeStruct]:
  """Shapes and types of a host's batch once it is on the devices.

  JAX keeps 64-bit numbers in 32 bits there, unless jax_enable_x64 is set.
  """
  return {
    name: jax.ShapeDtypeStruct(x.shape, jax.dtypes.canonicalize_dtype(x.dtype))
    for name, x in spec.items()
  }
