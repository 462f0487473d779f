"""Ctrl-C and SIGTERM are answered at once, whatever the main thread does."""

import signal
import subprocess
import sys
import textwrap
import time

import pytest

_CHILD = """
  import hashlib, signal, sys
  from vitjax.parallel import preemption
  before = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
  with preemption.StopRequest(4, 6) as stop:
    assert stop.after(5) is None
    print("ready", flush=True)
    # Like a compilation: no Python in the main thread until it is done.
    hashlib.pbkdf2_hmac("sha256", b"", b"", int(sys.argv[1]))
    print(stop.after(6), flush=True)
  after = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
  assert before == after
"""


@pytest.fixture
def start():
  children = []

  def start(iterations):
    child = subprocess.Popen(
      [sys.executable, "-c", textwrap.dedent(_CHILD), str(iterations)],
      stdout=subprocess.PIPE,
      stderr=subprocess.PIPE,
      text=True,
    )
    children.append(child)
    assert child.stdout.readline() == "ready\n"
    return child

  yield start
  for child in children:
    child.kill()
    child.communicate()


def test_the_second_ctrl_c_quits_at_once(start):
  child = start(2**30)  # an hour
  child.send_signal(signal.SIGINT)
  assert child.stderr.readline() == "\n"
  line = "saving step 6 ...; press Ctrl-C again to quit at once.\n"
  assert child.stderr.readline() == line
  time.sleep(0.1)
  assert child.poll() is None
  child.send_signal(signal.SIGINT)
  out, err = child.communicate(timeout=10)
  assert child.returncode == 130
  assert err.strip() == "stopped without saving." and not out


@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM"])
def test_one_signal_stops_after_the_step(start, name):
  child = start(2**21)  # a second
  child.send_signal(getattr(signal, name))
  if name == "SIGTERM":  # launchers send it twice
    child.send_signal(signal.SIGTERM)
  out, err = child.communicate(timeout=60)
  assert out == f"{name}\n" and child.returncode == 0
  assert err.count("saving step 6 ...") == 1 and "Traceback" not in err
