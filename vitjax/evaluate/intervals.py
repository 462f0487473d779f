"""Confidence intervals of metrics by the percentile bootstrap.

Bootstrap methods, Efron 1979: a metric on as many examples as there are, drawn
with replacement, again and again.
"""

from collections.abc import Callable, Mapping

import numpy as np

_PERCENTILES = (2.5, 97.5)


def bootstrap(
  measure: Callable[[np.ndarray], Mapping[str, float]],
  count: int,
  resamples: int,
) -> dict[str, tuple[float, float]]:
  """95 % confidence interval of each metric.

  Args:
    measure: gives the metrics of the examples of some indices.
    count: number of examples.
    resamples: how often examples are drawn, from a fixed seed.

  Returns:
    The interval of the values that are not NaN, such as those of a class that
    was drawn; metrics that are always NaN have none.
  """
  rng = np.random.default_rng(0)
  found: dict[str, list[float]] = {}
  for _ in range(resamples):
    for name, value in measure(rng.integers(count, size=count)).items():
      if not np.isnan(value):
        found.setdefault(name, []).append(value)
  intervals = {}
  for name, values in found.items():
    low, high = np.percentile(values, _PERCENTILES)
    intervals[name] = float(low), float(high)
  return intervals
