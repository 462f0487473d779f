"""Commands and their flags, for docs/reference/commands.md."""

import importlib
import importlib.util

from absl import app, flags

from scripts.update_docs import docstrings, options
from vitjax import __main__ as entry_point

app.define_help_flags()  # they are not those of a command


def parts() -> dict[str, str]:
  """Part of the page -> its text."""
  text = [
    _command(command, module, what)
    for command, (module, what) in entry_point.COMMANDS.items()
  ]
  return {"commands": "\n\n".join(text)}


def _command(command: str, name: str, what: str) -> str:
  is_package = importlib.util.find_spec(name).submodule_search_locations
  module = importlib.import_module(f"{name}.__main__" if is_package else name)
  rows = _flags(module)
  table = options.table(rows) if rows else "No flags."
  return f"## `{command}`\n\n`python -m {name}`: {what}\n\n{table}"


def _flags(module) -> list[dict[str, str]]:
  """A row for each flag. All commands share one set, so it is emptied again."""
  known = set(flags.FLAGS)
  getattr(module, "define_flags", lambda: None)()
  rows = []
  for name in sorted(set(flags.FLAGS) - known):
    flag = flags.FLAGS[name]
    default = options.value(flag.default)
    if any("other than None" in check.message for check in flag.validators):
      default = "required"  # absl has no other sign of it
    meaning = docstrings.cell(flag.help).partition("; repeat this")[0]
    rows.append(options.row(f"`--{name}`", flag.flag_type(), default, meaning))
    delattr(flags.FLAGS, name)
  return rows
