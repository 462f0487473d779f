"""Packages that only some commands need, and the extras that install them."""

import contextlib
from collections.abc import Generator


@contextlib.contextmanager
def needed(extra: str, purpose: str) -> Generator[None]:
  """Context for imports of optional packages; an error names their extra.

    with extras.needed("plots", "plots"):
      import matplotlib

  Args:
    extra: name of the extra in pyproject.toml.
    purpose: what the packages are for; the subject of the message, plural.

  Raises:
    ImportError: with the command that installs what is missing.
  """
  try:
    yield
  except ModuleNotFoundError as e:
    package = (e.name or "").partition(".")[0]
    raise ImportError(
      f"{purpose} need the package {package!r}, which is not installed: "
      f'pip install "vitjax[{extra}]".',
      name=e.name,
    ) from e
