"""How a part says that it is not possible here."""

import importlib.util


class Skip(Exception):
  """A part is not possible; the message is a sentence that says why."""


def without(package: str, what: str) -> None:
  """Raises Skip if `what` needs a package that is not installed."""
  if importlib.util.find_spec(package) is None:
    raise Skip(f"{package} is not installed, which {what} needs.")
