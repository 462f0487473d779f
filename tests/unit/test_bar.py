"""The progress bar, in a terminal of its own."""

import io
import os
import pty
import re
import subprocess
import sys
import termios

from vitjax.run_folder import bar

# Steps in which everything may be written that a run writes.
STEPS = """
import sys, time
from absl import flags, logging
from vitjax.config import command_line
from vitjax.run_folder.bar import Bar, is_wanted
flags.FLAGS(["run"])
logging.use_absl_handler()
command_line.set_up_logging()
assert is_wanted(sys.stderr)
bar = Bar(200, 100)
for step in range(101, 201):
  bar.show(step, f"{step}/200 · loss 0.5000")
  if step % 25 == 0:
    time.sleep(0.11)
    logging.warning("step %d · val/acc@1 0.5", step)
    print("printed", step, file=sys.stderr)
bar.close()
logging.warning("Metrics: there")
"""


def screen(data: str, columns: int = 80) -> list[str]:
  """The lines that a terminal shows after `data`."""
  lines, row, column = [[]], 0, 0
  for part in re.findall(r"\x1b\[[\d;]*\w|.", data, re.DOTALL):
    if part == "\n":
      row += 1
    elif part == "\r":
      column = 0
    elif part == "\x1b[A":
      row -= 1
    elif not part.startswith("\x1b"):
      line = lines[row]
      line += " " * (column + 1 - len(line))
      line[column] = part
      column += 1
    lines += [[] for _ in range(row + 1 - len(lines))]
  text = ["".join(line).rstrip() for line in lines]
  assert all(len(line) <= columns for line in text)
  return [line for line in text if line]


def in_terminal(code: str) -> str:
  """Runs Python in a pseudo-terminal of 80 columns; returns its output."""
  ours, theirs = pty.openpty()
  termios.tcsetwinsize(theirs, (24, 80))
  environment = {k: v for k, v in os.environ.items() if k != "CI"}
  with subprocess.Popen(
    [sys.executable, "-c", code],
    stderr=theirs,
    stdout=theirs,
    env=environment | {"TERM": "xterm"},
  ) as process:
    os.close(theirs)
    data = b""
    try:
      while piece := os.read(ours, 65536):
        data += piece
    except OSError:  # how Linux says that the other end is closed
      pass
    os.close(ours)
  assert process.returncode == 0, data.decode()
  return data.decode()


def test_log_lines_scroll_above_the_bar():
  lines = screen(in_terminal(STEPS))
  expected = []
  for step in (125, 150, 175, 200):
    expected += [f"step {step} · val/acc@1 0.5", f"printed {step}"]
  assert lines[: len(expected)] == expected
  last, after = lines[len(expected) :]
  assert re.fullmatch(r"█+ 200/200 · loss 0\.5000", last)
  assert after == "Metrics: there"


def test_the_bar_is_redrawn_seldom():
  assert in_terminal(STEPS).count("loss 0.5000") < 30


def test_where_a_bar_is_wanted():
  ours, theirs = pty.openpty()
  with os.fdopen(ours), os.fdopen(theirs, "w") as terminal:
    assert not bar.is_wanted(terminal, {"TERM": "xterm"})  # has no width
    termios.tcsetwinsize(theirs, (24, 80))
    assert bar.is_wanted(terminal, {"TERM": "xterm"})
    assert not bar.is_wanted(terminal, {"TERM": "dumb"})
    assert not bar.is_wanted(terminal, {"TERM": "xterm", "CI": "true"})
  assert not bar.is_wanted(io.StringIO(), {"TERM": "xterm"})
