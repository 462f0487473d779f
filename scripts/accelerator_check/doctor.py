"""`python -m vitjax.doctor`; without TensorFlow only its report."""

import importlib.util
import subprocess
import sys

from scripts.bench import environment


def run(case: str, tiny: bool) -> dict:
  del case, tiny
  command = [sys.executable, "-m", "vitjax.doctor"]
  if importlib.util.find_spec("tensorflow") is None:
    command.append("--noself_test")
  done = subprocess.run(command, capture_output=True, text=True)
  lines = done.stdout.splitlines()
  print(done.stdout, done.stderr)
  if done.returncode:
    raise RuntimeError((lines or done.stderr.splitlines() or ["no output"])[-1])
  said = [x for x in lines if x.startswith(("- ", "Self-test"))]
  return {
    "said": said or ["No known conflicts. Without TensorFlow no self-test."],
    "environment": environment.facts(),
  }
