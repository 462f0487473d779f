"""Sums over an eval set in which every example counts exactly once.

The last batch is padded to the full size, so that one compiled program serves
all batches, and a mask removes the padding. Sums and the number of examples
come from the device; the host divides once, in float64.
"""

import dataclasses
import functools
import pathlib
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from vitjax.data import device, pipeline
from vitjax.data.pp import builder
from vitjax.data.sources.source import KINDS, Source, split_indices
from vitjax.parallel import sharding

Params = Mapping[str, Any]


@dataclasses.dataclass(frozen=True)
class EvalData:
  """An eval set, how to read it, and where its batches go.

  Attributes:
    source: data source of the examples.
    preprocess: preprocessing ops.
    batch_size: images per step, over all devices.
    mesh: mesh of the devices.
    open_split: opens another split of the same data set, if there are any.
  """

  source: Source
  preprocess: builder.Preprocess
  batch_size: int
  mesh: Mesh
  open_split: Callable[[str], Source] | None = None

  def of_split(self, split: str) -> "EvalData":
    """Another split of the same data set, read in the same way.

    Raises:
      ValueError: if there is no such split, or it is this one.
    """
    if self.open_split is None:
      raise ValueError(f"{self.source.data!r} has no other splits.")
    source = self.open_split(split)
    shared = overlap([self.source.split, split], self.open_split)
    if source.fingerprint == self.source.fingerprint:
      shared = source.num_examples
    if shared:
      raise ValueError(
        f"train_split={split!r} of {source.data!r} has {shared} examples in "
        f"common with the evaluated split {self.source.split!r}. Give two "
        "splits without common examples."
      )
    return dataclasses.replace(self, source=source)

  def with_ops(self, ops: str) -> "EvalData":
    """The same set with more ops after those of its preprocessing."""
    spec = f"{self.preprocess.spec}|{ops}" if self.preprocess.spec else ops
    names = self.source.class_names
    return dataclasses.replace(
      self, preprocess=builder.build(spec, class_names=names)
    )

  @functools.cached_property
  def _local(self) -> Iterable[dict[str, np.ndarray]]:
    """This process's rows; made once, as each evaluation reads the same."""
    return pipeline.eval_batches(
      self.source,
      self.preprocess,
      batch_size=self.batch_size,
      process_index=jax.process_index(),
      process_count=jax.process_count(),
    )

  @functools.cached_property
  def abstract_batch(self) -> dict[str, jax.ShapeDtypeStruct]:
    """What `batches` gives, without reading any example.

    Raises:
      ValueError: if the ops do not make images of one size.
    """
    spec = pipeline.example_spec(self.source, self.preprocess, self.batch_size)
    spec["mask"] = jax.ShapeDtypeStruct((self.batch_size,), np.bool_)
    placed = sharding.over_batch(self.mesh)  # avoids a second trace
    return {
      name: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=placed)
      for name, x in device.on_arrival(spec).items()
    }

  def batches(self) -> device.DeviceFeed:
    """Batches on the device, the last one padded; see `pipeline`."""
    return device.to_device(self._local, sharding.over_batch(self.mesh))


class MaskedSums:
  """Runs `sums_fn` over an eval set and adds up what it returns.

  Attributes:
    data: the eval set.
  """

  def __init__(
    self,
    sums_fn: Callable[[Params, Mapping[str, jax.Array]], dict[str, Any]],
    data: EvalData,
  ):
    """Compiles `sums_fn(params, batch) -> {name: sum over unmasked rows}`.

    A sum is an array of any shape, or a dict of sums.
    """
    self.data = data

    def with_count(params, batch):
      return {**sums_fn(params, batch), "n_seen": batch["mask"].sum()}

    self._fn = jax.jit(with_count, out_shardings=sharding.replicated(data.mesh))

  def trace(self, params: Params) -> None:
    """Raises what the computation would raise; `params` may be abstract."""
    jax.eval_shape(self._fn, params, self.data.abstract_batch)

  def __call__(self, params: Params) -> dict[str, Any]:
    """The sums, and `n_seen`, over the whole set.

    Raises:
      RuntimeError: if not every example was seen exactly once.
    """
    total: dict[str, Any] = {}
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

  def trace(self, params: Params) -> None:
    """Raises what the computation would raise; `params` may be abstract."""
    jax.eval_shape(self._fn, params, self.data.abstract_batch)

  def __call__(self, params: Params) -> dict[str, np.ndarray]:
    """The rows of every example, in the order of the set.

    Raises:
      RuntimeError: if not every example was seen exactly once.
    """
    total: dict[str, np.ndarray] = {}
    n_seen, pending = 0, None

    def keep(rows, mask):
      nonlocal n_seen
      start, n_seen = n_seen, n_seen + int(mask.sum())
      for name, x in rows.items():
        if name not in total:
          shape = (self.data.source.num_examples, *x.shape[1:])
          total[name] = np.empty(shape, x.dtype)
        # Rows beyond the expected number are reported below.
        total[name][start:n_seen] = x[mask][: len(total[name]) - start]

    for batch in self.data.batches():
      rows = self._fn(params, batch)
      if pending is not None:  # fetch one batch late: the device stays busy
        keep(*jax.device_get(pending))
      pending = rows
    if pending is not None:
      keep(*jax.device_get(pending))
    _check_seen(self.data.source, n_seen)
    return total


def _check_seen(source: Any, n_seen: float) -> None:
  """Raises RuntimeError unless every example was seen exactly once."""
  expected = source.num_examples
  if n_seen != expected or not expected:
    raise RuntimeError(
      f"evaluation of {source.data} {source.split} saw {n_seen:g} examples "
      f"instead of {expected}: no metric is reported."
    )


def _add(total: dict[str, Any], sums: Mapping[str, Any]) -> None:
  for name, value in jax.device_get(sums).items():
    if isinstance(value, Mapping):
      _add(total.setdefault(name, {}), value)
    else:
      total[name] = total.get(name, 0.0) + np.float64(value)


def overlap(splits: Sequence[str], open_split: Callable[[str], Source]) -> int:
  """How many examples occur more than once in some splits of a data set.

  Args:
    splits: in the notation of `sources.open_source`.
    open_split: opens a split of the data set.
  """
  parts = "+".join(splits).replace(" ", "").split("+")
  names = Counter(part.partition("[")[0] for part in parts)
  total = 0
  for name in (name for name, count in names.items() if count > 1):
    source = open_split(name)
    own = "+".join(part for part in parts if part.partition("[")[0] == name)
    found = split_indices(source.data, own, {name: source.num_examples})
    times = Counter(np.concatenate([rows for _, rows in found]).tolist())
    total += sum(count > 1 for count in times.values())
  return total


def number_of_classes(source: Source, *, unknown: bool = False) -> int:
  """The number of classes of a data set whose images have one class each.

  Args:
    source: the data set.
    unknown: whether some of the classes may be unknown.

  Raises:
    ValueError: if it has no labels, or labels of another kind.
  """
  count = count_of(source)
  if source.kind in ("multi_label", "regression"):
    raise ValueError(
      f"each image of {source.data!r} has {KINDS[source.kind]}, and not one "
      f"class: use type={source.kind!r}."
    )
  if source.has_unknown and not unknown:
    raise ValueError(
      f"{source.data!r} {source.split} has images of unknown class. Only the "
      "types classification, multi_label and regression leave them out."
    )
  return count


def count_of(source: Source) -> int:
  """The number of classes or targets of a labelled data set.

  Raises:
    ValueError: if it has no labels.
  """
  if source.num_classes is None:
    raise ValueError(f"{source.data!r} has no class labels.")
  return source.num_classes


def lines(given: str | Sequence[str] | None) -> tuple[str, ...]:
  """Texts as they are, or those in a text file, one on each line; () for None.

  Raises:
    ValueError: if the file cannot be read, or has an empty line.
  """
  if not isinstance(given, str):
    return tuple(given or ())
  try:
    text = pathlib.Path(given).expanduser().read_text(encoding="utf-8-sig")
  except (OSError, UnicodeDecodeError) as e:
    reason = getattr(e, "strerror", None) or "it is not UTF-8 text"
    raise ValueError(
      f"{given!r} cannot be read ({reason}). Give a list, or the path of a "
      "text file with one entry on each line."
    ) from None
  found = tuple(line.strip() for line in text.rstrip().splitlines())
  if not all(found):
    at = found.index("") + 1 if found else 1
    raise ValueError(f"{given!r}: line {at} is empty.")
  return found
