"""The tracker "csv": `metrics.csv`, a row for each step."""

import csv
import io
import os
import pathlib
from collections.abc import Mapping
from typing import Any

FILE = "metrics.csv"


class Tracker:
  """Writes a table: a row for each step, a column for each metric.

  A metric that appears later gets a new column at the right; the file is then
  replaced by one with the longer header. Cells of metrics that were not
  measured at a step are empty.
  """

  def __init__(self, folder: pathlib.Path, start_step: int):
    self._path = folder / FILE
    self._row: dict[str, Any] = {}  # of the current step, not written yet
    self._last: Any = None  # the step of the last row
    self._file: Any = None
    if self._path.exists() and not start_step:
      os.replace(self._path, self._path.with_name(FILE + ".old"))
    names, rows = self._read()
    self._replace(names, [x for x in rows if int(x["step"]) <= start_step])

  def write(self, step: int, values: Mapping[str, int | float]) -> None:
    if self._row.get("step") not in (None, step):
      self._deliver()
    self._row |= {"step": step, **values}

  def flush(self) -> None:
    self._deliver()
    self._file.flush()
    os.fsync(self._file.fileno())

  def close(self) -> None:
    self._deliver()
    self._file.close()

  def _deliver(self) -> None:
    row, self._row = self._row, {}
    if not row:
      return
    new = [name for name in row if name not in self._names]
    if new or row["step"] == self._last:
      names, rows = self._read()
      if rows and int(rows[-1]["step"]) == row["step"]:
        row = rows.pop() | row
      self._replace([*names, *new], [*rows, row])
    else:
      csv.DictWriter(self._file, self._names).writerow(row)
    self._last = row["step"]

  def _read(self) -> tuple[list[str], list[dict[str, Any]]]:
    """The columns and the whole rows; a kill may have cut the last one."""
    if not self._path.exists():
      return ["step"], []
    text = self._path.read_bytes().decode("utf-8")
    whole = text[: text.rfind("\n") + 1]
    reader = csv.DictReader(io.StringIO(whole, newline=""))
    rows = [row for row in reader if row["step"].isdecimal()]
    return list(reader.fieldnames or ["step"]), rows

  def _replace(self, names: list[str], rows: list[dict[str, Any]]) -> None:
    """Replaces the file, and opens the new one to append."""
    if self._file is not None:
      self._file.close()
    self._names = names
    temporary = self._path.with_name(f".{FILE}.{os.getpid()}")
    with open(temporary, "w", encoding="utf-8", newline="") as file:
      writer = csv.DictWriter(file, names, restval="")
      writer.writeheader()
      writer.writerows(rows)
    os.replace(temporary, self._path)
    # Line by line, so that a spreadsheet sees whole rows.
    self._file = open(
      self._path, "a", buffering=1, encoding="utf-8", newline=""
    )
