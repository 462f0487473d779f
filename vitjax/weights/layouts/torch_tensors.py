"""How PyTorch lays tensors out, and layouts as tables of names.

A row of a table is (their name, our name, kind). A kind is a pair of
functions on arrays, theirs to ours and back; each undoes the other exactly.
"""

from collections.abc import Callable, Iterable
from typing import NamedTuple

import numpy as np

Flat = dict[str, np.ndarray]


def linear(w: np.ndarray) -> np.ndarray:
  """(out, in), or a 1x1 convolution (out, in, 1, 1), to (in, out)."""
  return w.reshape(w.shape[:2]).T


def conv(w: np.ndarray) -> np.ndarray:
  """Convolution kernel, out-in-height-width to height-width-in-out."""
  return w.transpose(2, 3, 1, 0)


class Kind(NamedTuple):
  to_vitjax: Callable[[np.ndarray], np.ndarray]
  from_vitjax: Callable[[np.ndarray], np.ndarray]


SAME = Kind(lambda x: x, lambda x: x)
LINEAR = Kind(linear, lambda w: w.T)
LINEAR_1X1 = Kind(linear, lambda w: w.T[:, :, None, None])
CONV = Kind(conv, lambda w: w.transpose(3, 2, 0, 1))

Row = tuple[str, str, Kind]


def layer(theirs: str, ours: str, kind: Kind) -> list[Row]:
  """Rows of the kernel and the bias of a layer."""
  return [
    (f"{theirs}.weight", f"{ours}/kernel", kind),
    (f"{theirs}.bias", f"{ours}/bias", SAME),
  ]


def norm(theirs: str, ours: str) -> list[Row]:
  """Rows of the scale and the bias of a norm."""
  return [
    (f"{theirs}.weight", f"{ours}/scale", SAME),
    (f"{theirs}.bias", f"{ours}/bias", SAME),
  ]


def to_vitjax(flat: Flat, rows: Iterable[Row]) -> Flat:
  """Renames and transforms what the rows know, and passes on the rest."""
  flat = dict(flat)
  found = [
    (ours, kind.to_vitjax(np.asarray(flat.pop(theirs))))
    for theirs, ours, kind in rows
    if theirs in flat
  ]
  return {**flat, **dict(found)}


def from_vitjax(flat: Flat, rows: Iterable[Row], layout: str) -> Flat:
  """Inverse of `to_vitjax`.

  Raises:
    ValueError: if there are arrays that the rows do not know.
  """
  flat = dict(flat)
  out = {
    theirs: kind.from_vitjax(np.asarray(flat.pop(ours)))
    for theirs, ours, kind in rows
    if ours in flat
  }
  if flat:
    raise ValueError(
      f"layout {layout!r} has no place for {', '.join(sorted(flat)[:5])}"
      f"{' and more' * (len(flat) > 5)}."
    )
  return out


def require(model, family: str, layout: str) -> None:
  """Says that `layout` only fits models of `family`.

  Raises:
    ValueError: if `model` is not one.
  """
  module = type(model).__module__
  if module != f"vitjax.models.{family}":
    raise ValueError(
      f"layout {layout!r} holds models of 'vitjax.models.{family}', and this "
      f"one is of {module!r}. Create it with models.create({family!r}, ...)."
    )
