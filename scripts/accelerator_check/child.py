"""Runs parts in this process and adds a row of JSON for each when it ends.

python -m scripts.accelerator_check.child FILE tiny|full PART [PART ...]
"""

import json
import pathlib
import sys
import time
import traceback

from scripts.accelerator_check import parts, skip


def row_of(part: parts.Part, tiny: bool) -> dict:
  """What a part found, or why it did not."""
  start = time.monotonic()
  try:
    row = {"status": "ok", **part.run(tiny)}
  except skip.Skip as e:
    row = {"status": "skipped", "reason": str(e)}
  except Exception as e:  # also of the compiler; the next part is tried
    traceback.print_exc()
    first = (str(e).strip().splitlines() or [""])[0][:300]
    row = {"status": "failed", "reason": f"{type(e).__name__}: {first}"}
  seconds = round(time.monotonic() - start, 1)
  return {"part": part.name, "tiny": tiny, "seconds": seconds, **row}


def add(file: pathlib.Path, row: dict) -> None:
  with file.open("a", encoding="utf-8") as f:
    f.write(json.dumps(row) + "\n")


def main() -> None:
  file, size, *names = sys.argv[1:]
  known = {part.name: part for part in parts.every()}
  for name in names:
    add(pathlib.Path(file), row_of(known[name], size == "tiny"))


if __name__ == "__main__":
  main()
