"""Reading the record of a run, without JAX: `metrics.jsonl`, `timing.jsonl`.

`vitjax.run_folder.writer` writes them and says what is in them.
"""

import json
import os
import pathlib
from typing import Any

METRICS_FILE = "metrics.jsonl"
TIMING_FILE = "timing.jsonl"


def read_metrics(path: str | os.PathLike) -> list[dict[str, Any]]:
  """Reads `metrics.jsonl` or `timing.jsonl`, also of a run under way.

  Args:
    path: the file, or the workdir for its `metrics.jsonl`.

  Returns:
    One dict per line; "nan", "inf" and "-inf" are floats again. A last line
    that is cut short is left out.

  Raises:
    ValueError: if another line is not JSON.
  """
  path = pathlib.Path(path)
  if path.is_dir():
    path = path / METRICS_FILE
  rows = []
  for number, line in enumerate(whole_lines(path.read_bytes()), 1):
    try:
      row = json.loads(line)
    except ValueError as error:
      raise ValueError(f"{path}, line {number} is not JSON: {error}") from error
    rows.append(
      {k: float(v) if isinstance(v, str) else v for k, v in row.items()}
    )
  return rows


def seconds_spent(workdir: str | os.PathLike, step: int) -> dict[str, float]:
  """What a run has spent by kind, of which "lost" what came after `step`.

  Call it before a `MetricsWriter` that goes on from `step` drops that part.
  """
  try:
    rows = read_metrics(pathlib.Path(workdir) / TIMING_FILE)
  except (FileNotFoundError, ValueError):  # broken lines are dropped, too
    return {}
  prefix = "seconds/"
  spent = [
    {k.removeprefix(prefix): v for k, v in row.items() if k.startswith(prefix)}
    for row in rows
  ]
  kept = [seconds for row, seconds in zip(rows, spent) if row["step"] <= step]
  result = dict(kept[-1]) if kept else {}
  if spent:
    lost = sum(spent[-1].values()) - sum(result.values())
    result["lost"] = result.get("lost", 0.0) + lost
  return result


def whole_lines(data: bytes) -> list[bytes]:
  """The lines that end; a kill may have cut the last one short."""
  return [line for line in data.splitlines(True) if line.endswith(b"\n")]
