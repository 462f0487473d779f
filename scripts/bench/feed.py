"""The feed of the devices: how fast, and whether it hides behind the compute.

  transfer  gigabytes per second from arrays on the host to arrays on the
            device, in batches of 64 images; means little on a CPU, where an
            array may be taken as it is
  faster    input that takes half as long as the compute of a step
  slower    input that takes twice as long

`wait_share` is the share of the time in which the loop waits for input; a run's
`timing.jsonl` calls it input. `times_longer_part` is the rate of the steps
relative to the longer of the two alone: 1 if the shorter one is hidden.
"""

import time
from collections.abc import Iterator

import jax
import jax.numpy as jnp
import numpy as np

from scripts.bench import turns

_STEPS, _SECONDS = 20, 0.05


def _transfer(batch: dict[str, np.ndarray], place) -> float:
  """Gigabytes per second."""
  from vitjax.data import device

  with device.to_device([batch] * _STEPS, place) as feed:
    start = time.perf_counter()
    for arrays in feed:
      jax.block_until_ready(arrays)
    seconds = time.perf_counter() - start
  return _STEPS * sum(x.nbytes for x in batch.values()) / seconds / 1e9


def _compute_of(seconds: float):
  """A jitted function of a batch that takes about so long."""

  @jax.jit
  def run(x, count):
    return jax.lax.fori_loop(0, count, lambda _, x: jnp.tanh(x @ x), x)

  x = jnp.full((256, 256), 1e-3)
  run(x, 10).block_until_ready()
  start = time.perf_counter()
  run(x, 100).block_until_ready()
  count = max(1, round(100 * seconds / (time.perf_counter() - start)))
  return lambda: run(x, count).block_until_ready()


def _delayed(batch: dict[str, np.ndarray], seconds: float) -> Iterator[dict]:
  for _ in range(_STEPS + 1):
    time.sleep(seconds)
    yield batch


def _steps(batch, place, compute, input_seconds: float) -> tuple[float, float]:
  """Share of waiting, and rate in terms of the longer part's."""
  from vitjax.data import device

  start = time.perf_counter()
  for _ in range(_STEPS):
    compute()
  alone = time.perf_counter() - start
  with device.to_device(_delayed(batch, input_seconds), place) as feed:
    next(feed)  # The first one has nothing to hide behind.
    before, start = feed.wait_seconds, time.perf_counter()
    for _ in feed:
      compute()
    seconds = time.perf_counter() - start
    waited = feed.wait_seconds - before
  return waited / seconds, max(alone, _STEPS * input_seconds) / seconds


def measure(repetitions: int) -> list[dict]:
  """Rows: gigabytes per second, and the shares that the module names."""
  from vitjax.parallel import sharding

  place = sharding.over_batch(sharding.make_mesh(data=-1, fsdp=1, model=1))
  size = 64 + -64 % jax.device_count()
  batch = {
    "image": np.random.default_rng(0).integers(
      256, size=(size, 224, 224, 3), dtype="uint8"
    )
  }
  compute = _compute_of(_SECONDS)
  makers = {
    "faster": lambda: _steps(batch, place, compute, _SECONDS / 2),
    "slower": lambda: _steps(batch, place, compute, _SECONDS * 2),
  }
  rates, found = [], {name: [] for name in makers}
  _transfer(batch, place)
  for _ in range(repetitions):
    rates.append(_transfer(batch, place))
    for name, run in makers.items():
      found[name].append(run())
  rows = [
    {
      "benchmark": "feed",
      "contestant": "transfer",
      "gigabytes_per_second": turns.summary(rates),
    }
  ]
  for name, pairs in found.items():
    shares, parts = zip(*pairs)
    rows.append(
      {
        "benchmark": "feed",
        "contestant": name,
        "wait_share": turns.summary(shares),
        "times_longer_part": turns.summary(parts),
      }
    )
  return rows
