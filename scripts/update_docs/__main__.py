"""Writes the generated parts of the documentation.

python -m scripts.update_docs           # after a change of the code
python -m scripts.update_docs --check   # exit code 1 if a page is out of date
"""

import argparse
import sys

from scripts.update_docs import pages


def main() -> None:
  parser = argparse.ArgumentParser(description=__doc__)
  parser.add_argument("--check", action="store_true", help="write nothing")
  check = parser.parse_args().check
  stale = []
  for page in pages.PARTS:
    path = pages.DOCS / page
    old = path.read_text(encoding="utf-8")
    new = pages.updated(page, old)
    if new != old:
      stale.append(f"docs/{page}")
      if not check:
        path.write_text(new, encoding="utf-8")
  if check and stale:
    sys.exit(
      f"{', '.join(stale)}: out of date. Run python -m scripts.update_docs and "
      "commit the result."
    )
  print(f"{len(pages.PARTS)} pages, {len(stale)} of them written.")


if __name__ == "__main__":
  main()
