"""Which numbers a range allows, and the sentence about those it does not."""

from collections.abc import Sequence
from typing import Annotated

import pytest

from vitjax.config import ranges
from vitjax.config.ranges import Count, Finite, Positive, Range, Rate

nan, inf = float("nan"), float("inf")


@pytest.mark.parametrize(
  "value, bounds",
  [
    (1, Count),
    (0, Rate),
    (0.999, Rate),
    (None, Rate | None),
    (True, Count),  # rep_size=True
    ("all", Count | str),
    ((2, 3), tuple[Count, ...]),
    ([("head", 0.1)], Sequence[tuple[str, Positive]]),
    (-5, int),
    (-5, Finite),
    (1, Range(ge=0, le=1)),
  ],
)
def test_allowed(value, bounds):
  assert ranges.problem("config.x", value, bounds) is None


@pytest.mark.parametrize(
  "value, bounds, sentence",
  [
    (0, Count, "config.x=0 must be at least 1."),
    (1, Rate, "config.x=1 must be at least 0 and below 1."),
    (nan, Rate, "config.x=nan must be finite and at least 0 and below 1."),
    (inf, Positive | None, "config.x=inf must be finite and above 0."),
    (0.0, Positive, "config.x=0.0 must be above 0."),
    (
      2**31,
      Count,
      "config.x=2147483648: whole numbers must be below 2147483648.",
    ),
    (nan, Finite, "config.x=nan must be finite."),
    (
      (3, 0),
      tuple[Count, ...],
      "config.x=(3, 0): each number must be at least 1.",
    ),
    (
      [("head", 0)],
      Sequence[tuple[str, Positive]],
      "config.x=[('head', 0)]: each number must be above 0.",
    ),
    (
      2**32,
      Annotated[int, Range(ge=0, lt=2**32)],
      "config.x=4294967296 must be at least 0 and below 4294967296.",
    ),
  ],
)
def test_the_sentence_gives_the_value_and_what_is_allowed(
  value, bounds, sentence
):
  assert ranges.problem("config.x", value, bounds) == sentence
