"""Groups images that arrive at the same time into batches.

Batches are padded to powers of two, so that few programs are compiled. All of
them are compiled before the first image is taken.
"""

import asyncio
import dataclasses
import time
from collections.abc import Callable, Sequence
from concurrent import futures
from typing import Any

import numpy as np
from absl import logging

Predict = Callable[[Sequence[np.ndarray], int], Sequence[Any]]


@dataclasses.dataclass(frozen=True)
class _Waiting:
  image: np.ndarray
  answer: asyncio.Future
  since: float


def sizes_up_to(max_batch: int) -> list[int]:
  """Powers of two below the largest batch, and the largest batch."""
  powers = (2**i for i in range(max_batch.bit_length()))
  return [x for x in powers if x < max_batch] + [max_batch]


class Batcher:
  """Runs a model on batches, in a thread of its own.

  Its coroutines belong to one event loop.

  Attributes:
    sizes: sizes of batches, in ascending order.
    is_ready: whether all programs are compiled.
  """

  def __init__(
    self,
    predict: Predict,
    compile: Callable[[int], None],
    *,
    max_batch: int,
    max_wait: float,
    observe: Callable[[int, float], None] = lambda count, seconds: None,
  ):
    """Makes a batcher that `run` starts.

    Args:
      predict: maps images and the size of the batch to one answer per image.
      compile: compiles the program for a size.
      max_batch: images that go through the model at once.
      max_wait: seconds that an image waits for others while the model is idle.
      observe: called with the images and the seconds of each batch.
    """
    self.sizes = sizes_up_to(max_batch)
    self.is_ready = False
    self._predict = predict
    self._compile = compile
    self._max_wait = max_wait
    self._observe = observe
    self._queue: asyncio.Queue[_Waiting] = asyncio.Queue()
    self._thread = futures.ThreadPoolExecutor(1, "model")

  async def answer(self, image: np.ndarray) -> Any:
    """The answer to an image; raises what the model raises."""
    loop = asyncio.get_running_loop()
    waiting = _Waiting(image, loop.create_future(), time.monotonic())
    self._queue.put_nowait(waiting)
    return await waiting.answer

  async def run(self) -> None:
    """Compiles, then answers until it is cancelled."""
    loop = asyncio.get_running_loop()
    start = time.monotonic()
    for size in self.sizes:
      await loop.run_in_executor(self._thread, self._compile, size)
    self.is_ready = True
    logging.info("Ready; compiling took %.1f s.", time.monotonic() - start)
    while True:
      batch = await self._next_batch()
      size = next(x for x in self.sizes if x >= len(batch))
      images = [x.image for x in batch]
      start = time.monotonic()
      try:
        found = await loop.run_in_executor(
          self._thread, self._predict, images, size
        )
      except Exception as e:  # the next batch may be fine
        for waiting in batch:
          if not waiting.answer.done():
            waiting.answer.set_exception(e)
        continue
      self._observe(len(batch), time.monotonic() - start)
      for waiting, answer in zip(batch, found, strict=True):
        if not waiting.answer.done():
          waiting.answer.set_result(answer)

  async def _next_batch(self) -> list[_Waiting]:
    """What waits, once it is enough or the first has waited long enough."""
    batch = [await self._queue.get()]
    while len(batch) < self.sizes[-1]:
      if not self._queue.empty():
        batch.append(self._queue.get_nowait())
        continue
      left = batch[0].since + self._max_wait - time.monotonic()
      if left <= 0:
        break
      try:
        batch.append(await asyncio.wait_for(self._queue.get(), left))
      except TimeoutError:
        break
    return batch
