"""Tables that name images: CSV, TSV and JSON lines, read row by row."""

import csv
import json
import pathlib
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from vitjax.config import messages
from vitjax.data.sources.source import DatasetNotPreparedError

EXTENSIONS = (".jsonl", ".csv", ".tsv")
# A column this similar to "split" is a misspelling of it, such as "spilt" and
# "Split"; "site" and "spot" are other columns.
_MISSPELT = 0.8


def find(data: str) -> pathlib.Path:
  """The path of the table that "captions:/path" or "labels:/path" names.

  Raises:
    DatasetNotPreparedError: if there is no such file, or it is of another
      kind.
  """
  kind, _, name = data.partition(":")
  path = pathlib.Path(name).expanduser()
  if path.suffix not in EXTENSIONS or not path.is_file():
    raise DatasetNotPreparedError(
      f"{data!r}: {str(path)!r} is not a {kind} file. Give the path of a file "
      f"that ends in {', '.join(EXTENSIONS)}; see docs/prepare_data.md."
    )
  return path


def rows(path: pathlib.Path) -> Iterator[tuple[int, Any]]:
  """Each row with the number of its last line; of JSON lines any value.

  Raises:
    ValueError: if the file is not such a table or not in UTF-8; says where.
  """
  number = 0
  try:
    with open(path, encoding="utf-8-sig", newline="") as file:
      if path.suffix == ".jsonl":
        for number, line in enumerate(file, 1):
          if line.strip():
            yield number, json.loads(line)
      else:
        tab = path.suffix == ".tsv"
        reader = csv.DictReader(file, delimiter="\t" if tab else ",")
        for row in reader:
          number = reader.line_num
          yield number, row
  except json.JSONDecodeError as e:
    raise ValueError(f"{path}, line {number}: not JSON: {e}.") from None
  except UnicodeDecodeError as e:
    raise ValueError(f"{path}, after line {number}: not UTF-8: {e}.") from None
  except csv.Error as e:
    raise ValueError(f"{path}, after line {number}: {e}.") from None


def check_columns(
  columns: Sequence[str | None], known: Sequence[str], where: str
) -> None:
  """Raises ValueError for a misspelt column, or a row with too many cells."""
  if None in columns:
    raise ValueError(
      f"{where}: the row has more cells than the header. Put a text that has a "
      "comma into double quotes."
    )
  absent = [name for name in known if name not in columns]
  for name in filter(None, columns):
    hint = messages.did_you_mean(name, absent, cutoff=_MISSPELT)
    if name not in known and hint:
      raise ValueError(f"{where}: there is a column {name!r}.{hint}")


def unused(columns: Iterable[str], known: Sequence[str]) -> list[str]:
  """Says which columns are ignored, if there are any."""
  names = [x for x in columns if x not in known]
  if not names:
    return []
  # In a table written by pandas, this is the index.
  listed = [repr(x) if x else "one without a name" for x in names]
  return [
    f"ignored column(s): {messages.shorten(listed)}. The columns that are "
    f"used are {', '.join(known)}."
  ]


def sizes(
  path: pathlib.Path, files: Sequence[str]
) -> tuple[dict[str, int], list[str]]:
  """Bytes of the files that a table names, relative to its folder.

  Returns:
    The sizes by file, and the files that do not exist.
  """
  found, missing = {}, []
  for file in files:
    try:
      found[file] = (path.parent / file).stat().st_size
    except OSError:
      missing.append(file)
  return found, missing
