"""Hides messages of Orbax that no user can act on.

Filters the loggers of absl and asyncio, and hooks into exceptions that are
never raised. All that is hidden is routine, or reaches the caller as one error.
"""

import logging as python_logging
import os
import sys
import traceback
from collections.abc import Callable
from typing import Any

from absl import logging


class _OrbaxFilter(python_logging.Filter):
  """Hides what Orbax reports of its work, some thirty lines per save.

  Its errors go too: they reach the caller as a CheckpointError, and are
  logged up to five times on the way there, with tracebacks. So does a warning
  about steps that are in a store, see `staging`.
  """

  def filter(self, record: python_logging.LogRecord) -> bool:
    if f"{os.sep}orbax{os.sep}" not in record.pathname:
      return True
    is_sent = str(record.msg).startswith("Metadata file does not exist")
    return record.levelno == python_logging.WARNING and not is_sent


class _AsyncioFilter(python_logging.Filter):
  """Hides asyncio's reports of failed writes whose errors were not fetched.

  The first write that fails is raised; asyncio logs the others, with their
  tracebacks, when they are collected.
  """

  def filter(self, record: python_logging.LogRecord) -> bool:
    text = record.getMessage()
    if record.exc_info:
      text += "".join(traceback.format_exception(*record.exc_info))
    return f"{os.sep}orbax{os.sep}" not in text


class _UnraisableHook:
  """Drops the tracebacks of work that Orbax abandons after a failure.

  Each write still queued prints "Event loop is closed", and each read still
  pending prints its error when it is collected: up to thousands of
  tracebacks, of a failure that is raised as one CheckpointError already.
  """

  def __init__(self, previous: Callable[[Any], Any]):
    self._previous = previous

  def __call__(self, unraisable: Any) -> None:
    error, code = (
      unraisable.exc_value,
      getattr(unraisable.object, "cr_code", None),
    )
    queued = (
      unraisable.object is None
      and isinstance(error, RuntimeError)
      and str(error) == "Event loop is closed"
    )
    pending = code is not None and f"{os.sep}orbax{os.sep}" in code.co_filename
    if not queued and not pending:
      self._previous(unraisable)


def quieten() -> None:
  """Installs the filters once per process; other messages are not touched."""
  asyncio_logger = python_logging.getLogger("asyncio")
  if not any(isinstance(f, _AsyncioFilter) for f in asyncio_logger.filters):
    asyncio_logger.addFilter(_AsyncioFilter())
  logger = logging.get_absl_logger()
  if not any(isinstance(f, _OrbaxFilter) for f in logger.filters):
    logger.addFilter(_OrbaxFilter())
  if not isinstance(sys.unraisablehook, _UnraisableHook):
    sys.unraisablehook = _UnraisableHook(sys.unraisablehook)
