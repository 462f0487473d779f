"""Pieces of error messages: the nearest known name, lists of limited length."""

import difflib
from collections.abc import Iterable, Sequence


def did_you_mean(
  given: object, known: Iterable[str], most: int = 1, cutoff: float = 0.6
) -> str:
  """ " Did you mean 'vit'?", or nothing if no known name is near.

  Args:
    given: what the user wrote; the key of a config may be a number.
    known: what is allowed.
    most: how many names to offer.
    cutoff: how near a name must be, from 0 (any) to 1 (equal).
  """
  near = difflib.get_close_matches(str(given), list(known), most, cutoff)
  return f" Did you mean {' or '.join(map(repr, near))}?" if near else ""


def shorten(items: Sequence[str], most: int = 10, between: str = ", ") -> str:
  """The first items, and how many more there are."""
  more = f" and {len(items) - most} more" if len(items) > most else ""
  return between.join(items[:most]) + more


def at(path: str, error: Exception) -> str:
  """The error with the path of its key in front, unless it begins with one."""
  text = str(error)
  return text if text.startswith("config.") else f"{path}: {text}"
