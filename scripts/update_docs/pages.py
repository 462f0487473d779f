"""The pages with generated parts, and how the parts are inserted."""

import pathlib
import re
from collections.abc import Callable

from scripts.update_docs import (
  accelerator,
  choose,
  commands,
  config,
  evaluators,
  ops,
  pareto,
  rules,
)

DOCS = pathlib.Path(__file__).parents[2] / "docs"

# Page -> a function that gives the text of each of its parts.
PARTS: dict[str, Callable[[], dict[str, str]]] = {
  "choose.md": choose.parts,
  "finetune.md": rules.parts,
  "performance.md": lambda: pareto.parts() | accelerator.parts(),
  "reference/commands.md": commands.parts,
  "reference/config.md": config.parts,
  "reference/evaluators.md": evaluators.parts,
  "reference/ops.md": ops.parts,
}


def updated(page: str, text: str) -> str:
  """The text of a page with its generated parts as the code is now.

  Raises:
    ValueError: if the page does not have one place for each part.
  """
  for name, new in PARTS[page]().items():
    begin, end = f"<!-- {name}: begin -->", f"<!-- {name}: end -->"
    pattern = f"{re.escape(begin)}.*?{re.escape(end)}"
    if len(re.findall(pattern, text, re.DOTALL)) != 1:
      raise ValueError(f"docs/{page} needs {begin!r} and {end!r} once.")
    whole = f"{begin}\n{new}\n{end}"
    text = re.sub(pattern, lambda _, x=whole: x, text, flags=re.DOTALL)
  return text
