"""The generated parts of the documentation follow the code."""

import dataclasses
import re
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal

import jax
import pytest

from scripts.update_docs import (
  config,
  docstrings,
  evaluators,
  ops,
  options,
  pages,
)


@pytest.mark.parametrize("page", pages.PARTS)
def test_it_is_current(page):
  text = (pages.DOCS / page).read_text(encoding="utf-8")
  assert text == pages.updated(page, text), "run python -m scripts.update_docs"


@pytest.mark.parametrize(
  ("page", "least"), [(config, 180), (ops, 90), (evaluators, 18)]
)
def test_every_option_has_a_meaning(page, least):
  text = "\n".join(page.parts().values())
  rows = re.findall(r"^\| .*`.*$", text, re.MULTILINE)
  assert len(rows) >= least
  assert not [row for row in rows if "<br>" not in row]


def test_a_page_without_a_place_for_its_part_is_refused():
  with pytest.raises(ValueError, match=r"docs/reference/ops\.md needs '<!-- o"):
    pages.updated("reference/ops.md", "# Ops\n")


@dataclasses.dataclass(frozen=True)
class AtLeast:
  low: int

  def __str__(self):
    return f"at least {self.low}"


@pytest.mark.parametrize(
  "annotation, text",
  [
    (int, "int"),
    (str | None, "str or None"),
    (Annotated[int, AtLeast(1)], "int, at least 1"),
    (Annotated[int, AtLeast(1)] | None, "int, at least 1, or None"),
    (Literal["max", "min"], '`"max"` or `"min"`'),
    (Sequence[str], "list of str"),
    (tuple[int, ...], "list of int"),
    (Sequence[tuple[str, float]], "list of (str, float)"),
    (str | Mapping[str, str], "str or dict"),
    (jax.typing.DTypeLike, "dtype"),
    (Any, "any"),
  ],
)
def test_types_are_written_for_readers(annotation, text):
  assert options.kind(annotation) == text


def test_a_row_has_range_default_and_meaning():
  def resize(
    size: Annotated[int, AtLeast(1)], *names: str, l2: float = 1 / 3, **rest
  ):
    """Resizes.

      resize(224)

    Args:
      size: pixels | points, see
        https://example.org/a_b.
      names, l2: more.

    Returns:
      Nothing.
    """

  assert options.table(options.rows(resize)) == (
    "| name | meaning |\n"
    "| --- | --- |\n"
    r"| `size` | int, at least 1, required<br>pixels \| points, see "
    "https://example.org/a_b. |\n"
    "| `names`, ... | str<br>more. |\n"
    "| `l2` | float; default `0.3333`<br>more. |"
  )


def test_long_defaults_are_cut():
  assert options.value(tuple(0.1 * i for i in range(30))).count(",") < 6
  assert options.value(("a", 1)) == '`("a", 1)`'
  assert options.value(("head",)) == '`("head",)`'


def test_indented_paragraphs_are_code_and_sections_are_not():
  docs = "Loads.\n\n  a = 1\n    b\n\nArgs:\n  x: of it,\n    in pixels."
  assert docstrings.with_code(docs) == (
    "Loads.\n\n    a = 1\n      b\n\nArgs:\n  x: of it,\n    in pixels."
  )
  assert docstrings.summary(docs) == "Loads.\n\n    a = 1\n      b"
