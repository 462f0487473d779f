"""Private names of other packages: few, and each in one place."""

import ast
import functools
import pathlib
from collections.abc import Iterable, Iterator

ROOT = pathlib.Path(__file__).parents[2]
SOURCES = sorted(
  path
  for folder in ("vitjax", "configs", "scripts")
  for path in ROOT.glob(f"{folder}/**/*.py")
)
# Imported once each. JAX has no public way to detect the launcher without
# joining the run, nor to the key-value store that its processes share.
IMPORTED = [
  "jax._src.cloud_tpu_init",
  "jax._src.clusters",
  "jax._src.distributed",
]
_DEFINITIONS = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
DOCUMENTED = {"_exit"}  # of os, which has it in its reference


def is_private(name: str) -> bool:
  return any(
    part.startswith("_") and not part.endswith("__") for part in name.split(".")
  )


@functools.cache
def nodes_of(path: pathlib.Path) -> list[ast.AST]:
  """All nodes of a file, which are many: no test walks over them twice."""
  return list(ast.walk(ast.parse(path.read_text(encoding="utf-8"))))


def imported(nodes: Iterable[ast.AST]) -> Iterator[str]:
  for node in nodes:
    if isinstance(node, ast.Import):
      yield from (alias.name for alias in node.names)
    elif isinstance(node, ast.ImportFrom):
      yield from (f"{node.module}.{alias.name}" for alias in node.names)


def own_names(nodes: Iterable[ast.AST]) -> Iterator[str]:
  """All that a file defines or assigns, also as an attribute."""
  for node in nodes:
    if isinstance(node, _DEFINITIONS):
      yield node.name
    elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
      yield node.id
    elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store):
      yield node.attr


def foreign_attributes(files: dict[str, list[ast.AST]]) -> list[str]:
  """Private attributes that are read and that no file here defines."""
  own = {name for nodes in files.values() for name in own_names(nodes)}
  known = own | DOCUMENTED
  return [
    f"{path}:{node.lineno}: {node.attr}"
    for path, nodes in files.items()
    for node in nodes
    if isinstance(node, ast.Attribute)
    and is_private(node.attr)
    and node.attr not in known
  ]


def test_private_names_of_others_are_imported_in_one_place():
  names = [
    name
    for path in SOURCES
    for name in imported(nodes_of(path))
    if is_private(name) and not name.startswith("vitjax")
  ]
  assert sorted(names) == IMPORTED


def test_no_private_attribute_of_others():
  bad = ast.parse("class A:\n  def _f(self): return self._f, tfds.x()._g")
  assert foreign_attributes({"a.py": [*ast.walk(bad)]}) == ["a.py:2: _g"]
  files = {str(path.relative_to(ROOT)): nodes_of(path) for path in SOURCES}
  assert not foreign_attributes(files)
