"""A progress bar at the foot of a terminal; log lines scroll above it."""

import contextlib
import logging
import os
import sys
from collections.abc import Mapping
from typing import Any, TextIO

from absl import logging as absl_logging

_FORMAT = "{bar} {desc}"  # the bar takes the width that the text leaves


def is_wanted(
  stream: TextIO, environment: Mapping[str, str] = os.environ
) -> bool:
  """Whether a bar can be drawn on a stream, and somebody sees it.

  Not in files and pipes, in notebooks, on terminals that have no width or
  cannot move the cursor, and in continuous integration, which keeps every
  redrawn line.
  """
  return (
    stream.isatty()
    and environment.get("TERM") != "dumb"
    and not environment.get("CI")
    and os.get_terminal_size(stream.fileno()).columns > 0
  )


class Bar:
  """A bar with a line of text, redrawn at most ten times a second.

  While it is there, what this process writes to stderr, its log lines
  included, appears above it.

  Args:
    total: the last step of the run.
    first: the step before the first one of this process.
  """

  def __init__(self, total: int, first: int):
    # tqdm is needed for nothing else.
    import tqdm

    self._stack = contextlib.ExitStack()
    stream = sys.stderr
    self._bar = tqdm.tqdm(
      total=total,
      initial=first,
      bar_format=_FORMAT,
      file=stream,
      dynamic_ncols=True,
    )
    self._stack.callback(self._bar.close)
    above: Any = _Above(stream, tqdm.tqdm)
    self._stack.enter_context(contextlib.redirect_stderr(above))
    handler = absl_logging.get_absl_handler().python_handler
    if isinstance(handler, logging.StreamHandler) and handler.stream is stream:
      handler.setStream(above)
      self._stack.callback(handler.setStream, stream)

  def show(self, step: int, text: str) -> None:
    self._bar.set_description_str(text, refresh=False)
    self._bar.update(step - self._bar.n)

  def close(self) -> None:
    """Leaves the bar where it is; later lines come below it."""
    self._bar.refresh()
    self._stack.close()


class _Above:
  """A stream whose lines appear above the bar; `print` writes them in parts."""

  def __init__(self, stream: TextIO, bars: Any):
    self._stream, self._bars = stream, bars
    self._rest = ""  # of a line that has not ended

  def write(self, text: str) -> int:
    lines, newline, self._rest = (self._rest + text).rpartition("\n")
    if newline:
      with self._bars.external_write_mode(file=self._stream):
        self._stream.write(lines + newline)
    return len(text)

  def __getattr__(self, name: str) -> Any:
    return getattr(self._stream, name)
