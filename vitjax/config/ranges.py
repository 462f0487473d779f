"""Ranges of numbers: what an option may be, written beside its type.

  dropout_rate: Rate = 0.0
  depth: Annotated[int, Range(ge=1)] = 12

The annotation of an option is all there is to declare: `problem` reads it,
and a type checker sees a plain number.
"""

import dataclasses
import math
import typing
from collections.abc import Iterator
from typing import Annotated, Any


@dataclasses.dataclass(frozen=True, kw_only=True)
class Range:
  """The finite numbers between two ends; an end of None is open.

  Attributes:
    ge, gt: smallest number, allowed (greater or equal) or just not allowed.
    le, lt: largest number, likewise.
  """

  ge: float | None = None
  gt: float | None = None
  le: float | None = None
  lt: float | None = None

  def __contains__(self, value: float) -> bool:
    return (
      math.isfinite(value)
      and (self.ge is None or value >= self.ge)
      and (self.gt is None or value > self.gt)
      and (self.le is None or value <= self.le)
      and (self.lt is None or value < self.lt)
    )

  def __str__(self) -> str:
    ends = {
      "at least": self.ge,
      "above": self.gt,
      "at most": self.le,
      "below": self.lt,
    }
    given = [f"{word} {end}" for word, end in ends.items() if end is not None]
    return " and ".join(given)


Count = Annotated[int, Range(ge=1)]
Index = Annotated[int, Range(ge=0)]
Positive = Annotated[float, Range(gt=0)]
NonNegative = Annotated[float, Range(ge=0)]
Probability = Annotated[float, Range(ge=0, le=1)]
# A probability of dropping, or the weight of the past in an average; at 1
# nothing would remain, or change.
Rate = Annotated[float, Range(ge=0, lt=1)]
Finite = Annotated[float, Range()]


# Shapes and steps are numbers of 32 bits.
_LIMIT = 2**31


def problem(path: str, value: Any, bounds: Any) -> str | None:
  """Why a value is not allowed, as a sentence; None if it is.

  Args:
    path: name of the value in the sentence, such as "config.model.depth".
    value: what the user gave. None, booleans and text always pass; of a list,
      each number is checked.
    bounds: a `Range`, or an annotation that may contain some, such as `Count`,
      `Rate | None` or `tuple[Count, ...]`; one without any allows everything.
  """
  for allowed in _ranges(bounds):
    for number in _numbers(value):
      if number not in allowed:
        is_list = isinstance(value, tuple | list)
        what = ": each number must be" if is_list else " must be"
        finite = "" if math.isfinite(number) else "finite"
        must = " and ".join(filter(None, (finite, str(allowed))))
        return f"{path}={value!r}{what} {must}."
      if allowed.le is allowed.lt is None and isinstance(number, int):
        if number >= _LIMIT:
          return f"{path}={value!r}: whole numbers must be below {_LIMIT}."
  return None


def _ranges(bounds: Any) -> Iterator[Range]:
  if isinstance(bounds, Range):
    yield bounds
  for part in typing.get_args(bounds):
    yield from _ranges(part)


def _numbers(value: Any) -> Iterator[float]:
  if isinstance(value, tuple | list):
    for item in value:
      yield from _numbers(item)
  elif isinstance(value, int | float) and not isinstance(value, bool):
    yield value
