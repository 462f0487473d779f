"""Tables that name images: CSV, TSV and JSON lines, read row by row."""

import csv
import json
import pathlib
from collections.abc import Iterator, Sequence
from typing import Any

from vitjax.config import messages
from vitjax.data.sources.source import DatasetNotPreparedError

EXTENSIONS = (".jsonl", ".csv", ".tsv")


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
      f"that ends in {', '.join(EXTENSIONS)}; see vitjax.data.{kind}."
    )
  return path


def rows(path: pathlib.Path) -> Iterator[tuple[int, Any]]:
  """Each row with the number of its last line; of JSON lines any value.

  Raises:
    ValueError: if the file is none, or not in UTF-8; says where.
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


def sizes(path: pathlib.Path, files: Sequence[str]) -> list[int]:
  """Bytes of the files that a table names, relative to its folder.

  Raises:
    ValueError: if any of them is missing.
  """
  root, found, missing = path.parent, [], []
  for file in files:
    if (root / file).is_file():
      found.append((root / file).stat().st_size)
    else:
      missing.append(file)
  if missing:
    raise ValueError(
      f"{path} names {len(missing)} image(s) that are not in {root}: "
      f"{messages.shorten(list(map(repr, missing)))}."
    )
  return found
