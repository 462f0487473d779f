"""The tests that are marked `accelerator`."""

import re
import subprocess
import sys

from scripts.accelerator_check import skip

_FILE = "tests/numerics/test_accelerator.py"


def run(case: str, tiny: bool) -> dict:
  del case, tiny
  for package in ("pytest", "beartype"):
    skip.without(package, "a test")
  command = [sys.executable, "-m", "pytest", "-m", "accelerator", _FILE]
  command += ["-p", "no:cacheprovider", "-o", "addopts="]
  done = subprocess.run(command, capture_output=True, text=True)
  print(done.stdout, done.stderr)
  last = done.stdout.strip().splitlines()[-1].strip("= ")
  if done.returncode:
    raise RuntimeError(last)
  passed = re.search(r"(\d+) passed", last)
  return {"passed": int(passed[1]) if passed else 0}
