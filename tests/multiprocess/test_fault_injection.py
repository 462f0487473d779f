"""Three faults at random in two processes; the script itself has more."""

import json
import pathlib
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).parents[2]

pytestmark = [pytest.mark.multiprocess, pytest.mark.slow]


def test_killed_at_random_the_end_is_the_same(tmp_path):
  options = ("--kills=3", "--steps=60", "--save_every=5")
  done = subprocess.run(
    [sys.executable, "-m", "scripts.fault_injection", *options]
    + [f"--workdir={tmp_path / 'runs'}"],
    cwd=ROOT,
    capture_output=True,
    text=True,
    timeout=900,
  )
  assert done.returncode == 0, done.stdout + done.stderr
  summary = json.loads(done.stdout.splitlines()[-1])
  assert summary["faults"] == 3 and summary["different"] == []
  assert 0 < summary["goodput"] < 1
