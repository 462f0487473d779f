"""Packages that only some commands need: the error names the extra."""

import ast
import importlib
import importlib.metadata
import pathlib
import re
import sys
import tomllib

import pytest

from vitjax.config import extras

ROOT = pathlib.Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
INSTALLED = importlib.metadata.packages_distributions()
# What an extra brings only because a package of it needs it.
BROUGHT = {"libtpu": "jax", "markupsafe": "jinja2"}


def names_of(requirements: list[str]) -> set[str]:
  """["jax[tpu]>=0.10"] -> {"jax"}, in the spelling of distributions."""
  found = [re.match(r"[\w.-]+", x)[0] for x in requirements]
  return {x.lower().replace("_", "-") for x in found}


def distributions(module: str) -> set[str]:
  return {x.lower().replace("_", "-") for x in INSTALLED.get(module, [module])}


def extra_of(node: ast.AST) -> str | None:
  """The extra of `with extras.needed(EXTRA, ...)`; None for other nodes."""
  if isinstance(node, ast.With):
    call = node.items[0].context_expr
    if ast.unparse(call).startswith("extras.needed("):
      return call.args[0].value
  return None


def imports(node: ast.AST, extra=None):
  """(module, the extra that is named around its import or None)."""
  for child in ast.iter_child_nodes(node):
    if isinstance(child, ast.Import):
      yield from ((alias.name.split(".")[0], extra) for alias in child.names)
    elif isinstance(child, ast.ImportFrom):
      yield child.module.split(".")[0], extra
    yield from imports(child, extra_of(child) or extra)


def test_each_optional_import_names_its_extra():
  base = names_of(PROJECT["dependencies"])
  own = {"vitjax", *sys.stdlib_module_names}
  brought_by_base = {"ml_dtypes", "scipy", "etils", "fsspec"}
  seen = set()
  for path in sorted((ROOT / "vitjax").rglob("*.py")):
    for module, extra in imports(ast.parse(path.read_text())):
      if extra is None:
        assert (
          module in own | brought_by_base or distributions(module) & base
        ), f"{path}: import {module} outside of `with extras.needed(...)`"
      else:
        listed = names_of(PROJECT["optional-dependencies"][extra])
        package = BROUGHT.get(module)
        assert package in listed or distributions(module) & listed, (
          f"{path}: the extra {extra!r} does not bring {module}"
        )
        seen.add(module)
  assert seen >= {
    *("gradio", "jinja2", "libtpu", "matplotlib"),
    *("ftfy", "sentencepiece", "tokenizers"),
  }


@pytest.mark.parametrize(
  ("module", "package", "extra"),
  [
    ("vitjax.plots.figures", "matplotlib", "plots"),
    ("vitjax.report.reporting", "jinja2", "plots"),
  ],
)
def test_a_module_without_its_package(monkeypatch, module, package, extra):
  monkeypatch.delitem(sys.modules, module, raising=False)
  for name in [x for x in sys.modules if x.split(".")[0] == package]:
    monkeypatch.delitem(sys.modules, name)
  monkeypatch.setattr(sys, "meta_path", [Absent(package), *sys.meta_path])
  with pytest.raises(ImportError) as error:
    importlib.import_module(module)
  assert f"{package!r}" in str(error.value)
  assert f'pip install "vitjax[{extra}]"' in str(error.value)


class Absent:
  """A finder for which a package is not installed."""

  def __init__(self, package: str):
    self._package = package

  def find_spec(self, name, path=None, target=None):
    if name.split(".")[0] == self._package:
      raise ModuleNotFoundError(f"No module named {name!r}", name=name)
    return None


def test_other_errors_of_an_import_stay():
  with pytest.raises(ZeroDivisionError), extras.needed("plots", "pictures"):
    _ = 1 / 0
