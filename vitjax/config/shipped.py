"""The config files that come with vitjax: find, load, list and copy them."""

import ast
import importlib.util
import pathlib
import shutil

import ml_collections

from vitjax.config import messages


def folder() -> pathlib.Path:
  """The folder of the shipped configs.

  In a checkout that is `configs/`; an installed package contains a copy.
  """
  package = pathlib.Path(__file__).parents[1]
  inside = package / "configs"
  return inside if inside.is_dir() else package.parent / "configs"


def find(path: str) -> pathlib.Path:
  """The file that the user means by `path`.

  `NAME` and `configs/NAME` mean the shipped file of that name, unless there is
  such a file in the working folder.
  """
  given = pathlib.Path(path)
  if given.parent in (pathlib.Path(), pathlib.Path("configs")):
    shipped = folder() / given.name
    if not given.exists() and shipped.is_file():
      return shipped
  return given


def load(config: str) -> ml_collections.ConfigDict:
  """The config of "FILE:OPTIONS", as in --config, for use in Python."""
  name, _, options = config.partition(":")
  file = find(name)
  spec = importlib.util.spec_from_file_location(file.stem, file)
  assert spec and spec.loader  # the file is there
  module = importlib.util.module_from_spec(spec)
  spec.loader.exec_module(module)
  return module.get_config(options or None)


def summaries() -> dict[str, str]:
  """File name -> first line of the docstring, for each shipped config."""
  found = {}
  for file in sorted(folder().glob("[!_]*.py")):
    text = ast.get_docstring(ast.parse(file.read_text(encoding="utf-8"))) or ""
    found[file.name] = text.partition("\n")[0]
  return found


def copy(name: str, target: str) -> pathlib.Path:
  """Copies a shipped config.

  Args:
    name: its file name; ".py" may be left out.
    target: folder for the copy, or path of the new file.

  Returns:
    The new file.

  Raises:
    ValueError: if no shipped config has this name.
    OSError: if the new file exists already or cannot be written.
  """
  known = summaries()
  file = name if name in known else f"{name}.py"
  if file not in known:
    hint = messages.did_you_mean(file, known)
    raise ValueError(
      f"{name!r} is not a shipped config.{hint} Known: {', '.join(known)}."
    )
  copied = pathlib.Path(target)
  if copied.is_dir():
    copied = copied / file
  with (
    open(folder() / file, "rb") as source,
    open(copied, "xb") as destination,
  ):
    shutil.copyfileobj(source, destination)
  return copied
