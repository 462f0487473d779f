"""Commands and their flags, for docs/reference/commands.md.

Several commands define the same flags, so this module is a program of its own
that imports one after the other: python -m scripts.update_docs.commands
"""

import importlib
import importlib.util
import inspect
import subprocess
import sys

from absl import flags

from scripts.update_docs import docstrings, options

COMMANDS = (
  "vitjax.main",
  "vitjax.predict",
  "vitjax.evaluate",
  "vitjax.export",
  "vitjax.data",
  "vitjax.plan",
  "vitjax.compare",
  "vitjax.report",
  "vitjax.pareto",
  "vitjax.demo",
  "vitjax.doctor",
)


def parts() -> dict[str, str]:
  """Part of the page -> its text."""
  command = [sys.executable, "-m", "scripts.update_docs.commands"]
  done = subprocess.run(command, capture_output=True, text=True, check=True)
  return {"commands": done.stdout.strip()}


def _command(name: str) -> str:
  is_package = importlib.util.find_spec(name).submodule_search_locations
  known = set(flags.FLAGS)
  module = importlib.import_module(f"{name}.__main__" if is_package else name)
  rows = []
  for key in sorted(set(flags.FLAGS) - known):
    flag = flags.FLAGS[key]
    default = options.value(flag.default)
    if any("other than None" in check.message for check in flag.validators):
      default = "required"  # absl has no other sign of it
    meaning = docstrings.cell(flag.help.partition("; repeat this")[0])
    rows.append(options.row(f"`--{key}`", flag.flag_type(), default, meaning))
    delattr(flags.FLAGS, key)
  docs = docstrings.summary(inspect.getdoc(module).partition("\n")[0])
  return f"## `{name}`\n\n{docs}\n\n{options.table(rows)}"


def main() -> None:
  importlib.import_module("absl.app")  # its flags are not those of a command
  print("\n\n".join(map(_command, COMMANDS)))


if __name__ == "__main__":
  main()
