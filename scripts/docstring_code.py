"""Code blocks in docstrings: an extension of griffe, for zensical.toml."""

import griffe

from scripts.update_docs import docstrings


class DocstringCode(griffe.Extension):
  """Indents code in docstrings as Markdown needs it."""

  def on_object(self, *, obj: griffe.Object, **kwargs) -> None:
    """Changes the docstring of one object."""
    del kwargs
    if obj.docstring:
      obj.docstring.value = docstrings.with_code(obj.docstring.value)
