"""Measures in turns, because machines change their speed meanwhile.

Contestants run one after the other, again and again; ratios are taken within
a turn, and their median and spread are what is reported.
"""

import time
from collections.abc import Callable, Mapping

import numpy as np


def seconds(
  contestants: Mapping[str, Callable[[], object]], repetitions: int
) -> dict[str, list[float]]:
  """Name -> wall-clock seconds of each call.

  Three calls before are not counted: the first compiles, and memory that the
  process gets from the system for the first time is slow.
  """
  for _ in range(3):
    for call in contestants.values():
      call()
  found: dict[str, list[float]] = {name: [] for name in contestants}
  for _ in range(repetitions):
    for name, call in contestants.items():
      start = time.perf_counter()
      call()
      found[name].append(time.perf_counter() - start)
  return found


def summary(values) -> dict:
  """Median, and all of them as the spread."""
  values = np.asarray(values, np.float64)
  return {
    "median": float(np.round(np.median(values), 4)),
    "all": values.round(4).tolist(),
  }


def ratios(found: Mapping[str, list[float]], name: str, baseline: str) -> dict:
  """How many times as fast as the baseline, turn by turn."""
  return summary(np.divide(found[baseline], found[name]))


def figures(row: dict) -> dict[str, dict]:
  """The measured ones among the entries of a row."""
  return {k: x for k, x in row.items() if isinstance(x, dict) and "all" in x}


def slower(rows: list[dict], before: list[dict]) -> list[str]:
  """Ratios that are below all of before, in the median and turn by turn."""
  old = {(x["benchmark"], x["contestant"]): x for x in before}
  found = []
  for row in rows:
    key = row["benchmark"], row["contestant"]
    for name, now in figures(row).items():
      then = old.get(key, {}).get(name)
      if not name.startswith("times_") or then is None:
        continue
      if max(now["all"]) < then["median"] and now["median"] < min(then["all"]):
        found.append(
          f"{' '.join(key)} {name}: {now['median']:.3f}, was "
          f"{then['median']:.3f} ({min(then['all']):.3f} .. "
          f"{max(then['all']):.3f})"
        )
  return found
