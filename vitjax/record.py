"""Reading the record of a run, without JAX: `metrics.jsonl`, `timing.jsonl`.

`vitjax.metrics` writes them and says what is in them.
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


def whole_lines(data: bytes) -> list[bytes]:
  """The lines that end; a kill may have cut the last one short."""
  return [line for line in data.splitlines(True) if line.endswith(b"\n")]
