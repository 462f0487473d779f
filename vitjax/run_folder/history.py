"""The records of runs as curves and tables; without JAX."""

import array
import dataclasses
import json
import os
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from vitjax.config import places, plain
from vitjax.run_folder import reader
from vitjax.run_folder.reader import (
  EARLY_END,
  METRICS_FILE,
  TIMING_FILE,
  read_metrics,
)

Curve = tuple[np.ndarray, np.ndarray]  # steps and values

MOST_POINTS = 800  # points of a thinned curve


@dataclasses.dataclass(frozen=True)
class Record:
  """The record of a run.

  Attributes:
    name: name of the run, unique in a report.
    path: the run folder.
    metrics: name -> curve, without numbers of examples.
    num_seen: name of an eval -> number of its examples.
    timing: name -> curve, of `timing.jsonl`.
    config: content of config.json, or None.
    environment: content of environment.json, or None.
    early_end: why the run ended before its last step, in a sentence, or None.
  """

  name: str
  path: pathlib.Path
  metrics: Mapping[str, Curve]
  num_seen: Mapping[str, int]
  timing: Mapping[str, Curve]
  config: Mapping[str, Any] | None
  environment: Mapping[str, Any] | None
  early_end: str | None = None

  @property
  def last_step(self) -> int:
    return max((int(x[-1]) for x, _ in self.metrics.values()), default=0)

  @property
  def batch_size(self) -> int | None:
    return self.config["input"]["batch_size"] if self.config else None

  @property
  def model_name(self) -> str:
    """Name of the model in the config, such as "vit B/16"; empty if unknown."""
    model = (self.config or {}).get("model", {})
    return " ".join(model[k] for k in ("name", "variant") if k in model)

  @property
  def data_name(self) -> str:
    """Name of the training data; empty if unknown."""
    section = (self.config or {}).get("input", {})
    return " ".join(section[k] for k in ("data", "split") if k in section)


def read(paths: Sequence[str | os.PathLike]) -> list[Record]:
  """Reads the records of runs.

  Args:
    paths: paths of run folders, or of their metrics.jsonl.

  Raises:
    FileNotFoundError: if there is none.
    ValueError: if a record is broken, or a run is given twice.
  """
  folders = []
  for path in map(places.of, paths):
    file = path / METRICS_FILE if path.is_dir() else path
    if not file.exists() or file.name != METRICS_FILE:
      raise FileNotFoundError(
        f"{path} is not a run; give run folders, which have a {METRICS_FILE}."
      )
    folders.append(file.parent)
  if len({path.resolve() for path in folders}) < len(folders):
    raise ValueError("a run is given twice; give each once.")
  names = [path.resolve().name for path in folders]
  if len({*names}) < len(names):
    names = [str(path) for path in folders]
  return [_read(name, path) for name, path in zip(names, folders)]


def _read(name: str, path: pathlib.Path) -> Record:
  metrics, seen = {}, {}
  for row in read_metrics(path / METRICS_FILE):
    step = row.pop("step")
    for key, value in row.items():
      group, _, metric = key.partition("/")  # a class may have a slash
      if metric == "n_seen":
        seen[group] = int(value)
      elif not metric.startswith("n_"):
        _append(metrics, key, step, value)
  timing = {}
  if (path / TIMING_FILE).exists():
    for row in read_metrics(path / TIMING_FILE):
      for key, value in row.items():
        _append(timing, key, row["step"], value)
  return Record(
    name=name,
    path=path,
    metrics={key: _curve(points) for key, points in metrics.items()},
    num_seen=seen,
    timing={key: _curve(points) for key, points in timing.items()},
    config=_if_there(reader.read_config, path / "config.json"),
    environment=_if_there(reader.read_json, path / "environment.json"),
    early_end=(_if_there(reader.read_json, path / EARLY_END) or {}).get("why"),
  )


def _append(curves, name: str, step: int, value: float) -> None:
  x, y = curves.setdefault(name, (array.array("q"), array.array("d")))
  x.append(step)
  y.append(value)


def _curve(points: tuple[array.array, array.array]) -> Curve:
  x, y = points
  return np.array(x, np.int64), np.array(y, np.float64)


def _if_there(read, file: pathlib.Path) -> dict[str, Any] | None:
  return read(file) if file.exists() else None


def thin(curve: Curve, most: int = MOST_POINTS) -> Curve:
  """A curve of at most `most` points that looks the same.

  Of each stretch of steps the smallest and the largest value stay, so no
  peak is lost; where a stretch has a value that is not finite, one of them
  stays too.
  """
  x, y = curve
  if len(x) <= most:
    return curve
  kept = {0, len(x) - 1}
  for part in np.array_split(np.arange(len(x)), max(1, (most - 2) // 3)):
    values = y[part]
    finite = np.isfinite(values)
    if finite.any():
      kept.add(int(part[np.where(finite, values, np.inf).argmin()]))
      kept.add(int(part[np.where(finite, values, -np.inf).argmax()]))
    if not finite.all():
      kept.add(int(part[(~finite).argmax()]))
  chosen = np.array(sorted(kept))
  return x[chosen], y[chosen]


def differences(
  dicts: Sequence[Mapping[str, Any]],
) -> list[tuple[str, list[str]]]:
  """(key, value in each dict) for each key in which nested dicts differ."""
  flat = [plain.flatten(given) for given in dicts]
  missing = object()
  return [
    (key, [_text(one[key]) if key in one else "(absent)" for one in flat])
    for key in sorted({key for one in flat for key in one})
    if any(one.get(key, missing) != flat[0].get(key, missing) for one in flat)
  ]


def _text(value: Any) -> str:
  return value if isinstance(value, str) else json.dumps(value)
