"""Sections of a report: notes, tables and pictures."""

import contextlib
import dataclasses
import functools
from collections.abc import Generator, Sequence

from vitjax.config import extras
from vitjax.plots import figures

with extras.needed("plots", "reports"):
  import markupsafe

_EXPECTED = (ValueError, OSError, RuntimeError, ImportError)


@dataclasses.dataclass(frozen=True)
class Image:
  """An image of a page.

  Attributes:
    address: data URI with the image.
    caption: lines below it.
    link: URI of the file that it was made of, if there is one.
  """

  address: str
  caption: str
  link: str | None = None


@dataclasses.dataclass
class Picture:
  """A figure of a page: drawn, or images with captions.

  Attributes:
    key: name of its PNG file.
    figure: the figure; for the PNG file only, if there are images.
    hint: how to read it.
    images: shown instead of the figure.
  """

  key: str
  figure: figures.Figure
  hint: str = ""
  images: Sequence[Image] = ()

  @functools.cached_property
  def svg(self) -> markupsafe.Markup:
    return markupsafe.Markup(self.figure.svg())


@dataclasses.dataclass
class Section:
  """A heading and its content.

  Attributes:
    title: the heading.
    pictures: shown below the tables.
    more: pictures that are folded away.
    tables: (column names, rows of cells).
    notes: sentences.
  """

  title: str
  pictures: list[Picture] = dataclasses.field(default_factory=list)
  more: list[Picture] = dataclasses.field(default_factory=list)
  tables: list[tuple[Sequence[str], Sequence[Sequence[str]]]] = (
    dataclasses.field(default_factory=list)
  )
  notes: list[str] = dataclasses.field(default_factory=list)

  @contextlib.contextmanager
  def attempt(self, what: str) -> Generator[None]:
    """Turns an error inside into a note that there is no `what`."""
    try:
      yield
    except _EXPECTED as e:
      reason = str(e).strip() or type(e).__name__
      self.notes.append(f"No {what}: {reason.splitlines()[0]}")
