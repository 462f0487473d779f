"""Docstrings as Markdown: Google's sections, indented by two spaces."""

import re


def summary(docs: str) -> str:
  """A docstring up to its first section, as Markdown."""
  text = re.split(r"^(?:Args|Attributes|Returns|Raises):$", docs, flags=re.M)
  return with_code(text[0].strip())


def with_code(docs: str) -> str:
  """A docstring in which indented paragraphs are code, as Markdown has it.

  Two spaces in the source become four. Sections such as `Args:` stay as they
  are: there the indented lines follow the title at once.
  """
  return re.sub(
    r"(?:(?<=\n\n)|\A)(?:  .*(?:\n|\Z))+",
    lambda code: re.sub("(?m)^(?=.)", "  ", code[0]),
    docs,
  )


def described(docs: str) -> dict[str, str]:
  """Name -> meaning, from the section `Args:` or `Attributes:`."""
  section = re.search(
    r"^(?:Args|Attributes):\n((?:(?:  .*)?\n)+)", f"{docs}\n", re.MULTILINE
  )
  found = {}
  if section:
    for names, text in re.findall(
      r"^  ([*\w]+(?:, [*\w]+)*): (.*(?:\n+    .*)*)", section[1], re.MULTILINE
    ):
      found |= dict.fromkeys(names.replace("*", "").split(", "), cell(text))
  return found


def cell(text: str) -> str:
  """`text` on one line of a table."""
  return " ".join(text.split()).replace("|", r"\|")
