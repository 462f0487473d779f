"""Sums over an eval set in which every example counts exactly once.

The last batch is padded to the full size, so that one compiled program serves
all batches, and a mask takes the padding out again. What is summed, and how
many examples were seen, comes from the device; the division happens once, on
the host, in float64.
"""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from vitjax import sharding
from vitjax.data import device, pipeline

Params = Mapping[str, Any]


@dataclasses.dataclass(frozen=True)
class EvalData:
  """An eval set, how to read it, and where its batches go."""

  source: Any  # vitjax.data.sources.Source
  preprocess: Any  # vitjax.data.pp.builder.Preprocess
  batch_size: int
  mesh: Mesh

  def batches(self):
    """Batches on the device, the last one padded; see `pipeline`."""
    local = pipeline.eval_batches(
      self.source,
      self.preprocess,
      batch_size=self.batch_size,
      process_index=jax.process_index(),
      process_count=jax.process_count(),
    )
    return device.to_device(local, sharding.over_batch(self.mesh))


class MaskedSums:
  """Runs `sums_fn` over an eval set and adds up what it returns.

  Attributes:
    data: the eval set.
  """

  def __init__(
    self,
    sums_fn: Callable[[Params, Mapping[str, jax.Array]], dict[str, jax.Array]],
    data: EvalData,
  ):
    """Compiles `sums_fn(params, batch) -> {name: sum over unmasked rows}`."""
    self.data = data

    def with_count(params, batch):
      return {**sums_fn(params, batch), "n_seen": batch["mask"].sum()}

    self._fn = jax.jit(with_count, out_shardings=sharding.replicated(data.mesh))

  def __call__(self, params: Params) -> dict[str, float]:
    """The sums, and `n_seen`, over the whole set.

    Raises:
      RuntimeError: if not every example was seen exactly once.
    """
    total: dict[str, float] = {}
    pending = None
    feed = self.data.batches()
    for batch in feed:
      sums = self._fn(params, batch)
      if pending is not None:  # fetch one batch late: the device stays busy
        _add(total, pending)
      pending = sums
    if pending is not None:
      _add(total, pending)
    _check_seen(self.data.source, total.get("n_seen", 0))
    return total


class Collected:
  """Runs `rows_fn` over an eval set and keeps what it returns, on the host."""

  def __init__(
    self,
    rows_fn: Callable[[Params, Mapping[str, jax.Array]], dict[str, jax.Array]],
    data: EvalData,
  ):
    """Compiles `rows_fn(params, batch) -> {name: (b, ...)}`."""
    self.data = data

    def with_mask(params, batch):
      return rows_fn(params, batch), batch["mask"]

    # Each process gets all rows, in the order of the set.
    self._fn = jax.jit(with_mask, out_shardings=sharding.replicated(data.mesh))

  def __call__(self, params: Params) -> dict[str, np.ndarray]:
    """The rows of every example, in the order of the set.

    Raises:
      RuntimeError: if not every example was seen exactly once.
    """
    parts: list[dict[str, np.ndarray]] = []
    pending = None
    for batch in self.data.batches():
      rows = self._fn(params, batch)
      if pending is not None:  # fetch one batch late: the device stays busy
        parts.append(_unmasked(*jax.device_get(pending)))
      pending = rows
    if pending is not None:
      parts.append(_unmasked(*jax.device_get(pending)))
    names = parts[0] if parts else {}
    total = {n: np.concatenate([part[n] for part in parts]) for n in names}
    _check_seen(self.data.source, len(next(iter(total.values()), ())))
    return total


def _unmasked(rows: Mapping[str, np.ndarray], mask: np.ndarray):
  return {name: x[mask] for name, x in rows.items()}


def _check_seen(source: Any, n_seen: float) -> None:
  """Raises RuntimeError unless every example was seen exactly once."""
  expected = source.num_examples
  if n_seen != expected or not expected:
    raise RuntimeError(
      f"evaluation of {source.data} {source.split} saw {n_seen:g} examples "
      f"instead of {expected}: no metric is reported."
    )


def _add(total: dict[str, float], sums: Mapping[str, jax.Array]) -> None:
  for name, value in jax.device_get(sums).items():
    total[name] = total.get(name, 0.0) + np.float64(value)
