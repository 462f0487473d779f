"""Error messages that several units give, and pieces of them."""

import difflib
import os
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


def no_device(error: Exception) -> str:
  """What to do if JAX raises `error` because it finds no device."""
  asked = os.environ.get("JAX_PLATFORMS")
  # JAX's error has no text if it is asked for a GPU and sees none.
  reason = (str(error).strip().splitlines() or ["it sees none"])[0]
  if asked:
    return (
      f"JAX finds no device for JAX_PLATFORMS={asked!r} ({reason}). Run "
      "`unset JAX_PLATFORMS` to use what there is, or install JAX for that "
      "device."
    )
  return (
    f"JAX finds no device ({reason}). Install JAX for a device of this machine."
  )
