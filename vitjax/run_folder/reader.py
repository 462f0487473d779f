"""Reads the files of a run folder, without JAX.

`vitjax.run_folder.writer` writes `metrics.jsonl` and `timing.jsonl` and says
what is in them; `vitjax.run_folder.files` writes the others.
"""

import json
import os
from typing import Any

from vitjax.config import places

METRICS_FILE = "metrics.jsonl"
TIMING_FILE = "timing.jsonl"
EARLY_END = "ended.json"


def read_metrics(path: str | os.PathLike) -> list[dict[str, Any]]:
  """Reads `metrics.jsonl` or `timing.jsonl`, also while the run writes it.

  Args:
    path: the file, or the workdir for its `metrics.jsonl`.

  Returns:
    One dict per line, each with its "step"; "nan", "inf" and "-inf" are
    floats again. A last line that is cut short is left out.

  Raises:
    ValueError: if another line is not such an object; names file and line.
  """
  file = places.of(path)
  if file.is_dir():
    file = file / METRICS_FILE
  rows = []
  for number, line in enumerate(whole_lines(file.read_bytes()), 1):
    try:
      rows.append(_read_row(line))
    except ValueError as error:
      raise ValueError(
        f"{file}, line {number} is damaged: {error}. Delete the line, or "
        "restore the file."
      ) from error
  return rows


def _read_row(line: bytes) -> dict[str, Any]:
  row = json.loads(line)
  if not isinstance(row, dict) or not _is_number(row.get("step")):
    raise ValueError("it is not a JSON object with a step")
  row = {k: float(v) if isinstance(v, str) else v for k, v in row.items()}
  if wrong := [name for name, value in row.items() if not _is_number(value)]:
    raise ValueError(f"{wrong[0]} is not a number")
  return row


def _is_number(value: Any) -> bool:
  return isinstance(value, int | float) and not isinstance(value, bool)


def read_json(path: str | os.PathLike) -> dict[str, Any]:
  """Reads `config.json` or another file of one JSON object.

  Raises:
    FileNotFoundError: if there is none.
    ValueError: if it holds something else; names the file.
  """
  try:
    content = json.loads(places.of(path).read_bytes())
    if not isinstance(content, dict):
      raise ValueError(f"it holds a {type(content).__name__}, not an object")
  except ValueError as error:
    raise ValueError(
      f"{path} is damaged: {error}. Restore the file."
    ) from error
  return content


def read_config(path: str | os.PathLike) -> dict[str, Any]:
  """Reads `config.json`, as it was written.

  Raises:
    FileNotFoundError: if there is none.
    ValueError: if it is not the config of a run; names the file.
  """
  config = read_json(path)
  inputs = config.get("input")
  if not isinstance(inputs, dict) or not _is_number(inputs.get("batch_size")):
    raise ValueError(
      f"{path} is damaged: it has no input.batch_size. Restore the file."
    )
  return config


def seconds_spent(workdir: str | os.PathLike, step: int) -> dict[str, float]:
  """Seconds that a run has spent, by kind; "lost" are those after `step`.

  Call it before a `MetricsWriter` that resumes from `step` drops that part.
  """
  try:
    rows = read_metrics(places.of(workdir) / TIMING_FILE)
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
