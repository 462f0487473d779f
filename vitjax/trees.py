"""Names of the leaves of a pytree: flattening, rules, comparison.

Owns: flattening to `{"a/b/kernel": leaf}` and back, regex masks and rules
over those names, and the comparison of two trees. It does not own files,
devices or anything about a particular model.

A name is the path of a leaf joined with "/", e.g.
`Transformer/encoderblock_0/MlpBlock_0/Dense_0/kernel` in parameters or
`0/mu/head/kernel` in an optax state. Regular expressions must match the whole
name (`re.fullmatch`), so that "head" does not also mean "forehead". `None`
and empty containers hold no leaf and so have no name.
"""

import dataclasses
import difflib
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import numpy as np

from vitjax.config import messages

PyTree = Any


def _name(path: tuple[Any, ...]) -> str:
  return jax.tree_util.keystr(path, simple=True, separator="/")


def names(tree: PyTree) -> list[str]:
  """Returns the name of each leaf, in the order of `jax.tree.leaves`."""
  return [_name(path) for path, _ in jax.tree_util.tree_leaves_with_path(tree)]


def flatten(tree: PyTree) -> dict[str, Any]:
  """Returns `{name: leaf}` of any pytree, in the order of its leaves.

  Raises:
    ValueError: if two leaves have one name (a dict key that contains "/").
  """
  flat = {}
  for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
    name = _name(path)
    if name in flat:
      raise ValueError(
        f"two leaves are called {name!r}; a dict key that contains '/' "
        "collides with a nested dict: rename one of them."
      )
    flat[name] = leaf
  return flat


def unflatten(flat: Mapping[str, Any]) -> dict[str, Any]:
  """Returns nested dicts for `{"a/b": leaf}`; undoes `flatten` for dicts.

  Raises:
    ValueError: if one name is the beginning of another ("a" and "a/b"), or
      the only leaf has the empty name of a tree that is a bare leaf.
  """
  tree: dict[str, Any] = {}
  inner = {id(tree)}
  for name, leaf in flat.items():
    *parents, last = name.split("/")
    node = tree
    for depth, key in enumerate(parents):
      if key not in node:
        node[key] = {}
        inner.add(id(node[key]))
      node = node[key]
      if id(node) not in inner:
        taken = "/".join(parents[: depth + 1])
        raise ValueError(f"{taken!r} is a leaf and the parent of {name!r}.")
    if not name:
      raise ValueError("a tree that is one bare leaf has no name to unflatten.")
    if last in node:
      raise ValueError(f"{name!r} is a leaf and the parent of other leaves.")
    node[last] = leaf
  return tree


def map_with_names(
  fn: Callable[..., Any], tree: PyTree, *rest: PyTree
) -> PyTree:
  """Returns the tree of `fn(name, leaf, *leaves_of_rest)`."""
  return jax.tree_util.tree_map_with_path(
    lambda path, *leaves: fn(_name(path), *leaves), tree, *rest
  )


def is_stacked(name: str) -> bool:
  """Whether the first axis of the parameter `name` counts blocks.

  Blocks that are stacked into one array are below a module "encoderblock".
  """
  return "encoderblock" in name.split("/")[:-1]


def _compiled(regex: str) -> re.Pattern[str]:
  try:
    return re.compile(regex)
  except re.error as e:
    raise ValueError(f"{regex!r} is not a regular expression: {e}.") from e


def mask(tree: PyTree, regexes: str | Sequence[str]) -> PyTree:
  """Returns a tree of bool: does any of the regexes match the leaf's name?"""
  regexes = [regexes] if isinstance(regexes, str) else regexes
  patterns = [_compiled(regex) for regex in regexes]
  return map_with_names(
    lambda name, _: any(p.fullmatch(name) for p in patterns), tree
  )


def match_rules(
  tree: PyTree,
  rules: Sequence[tuple[str, Any]],
  *,
  every_leaf: bool = True,
  every_rule: bool = True,
  what: str = "rules",
) -> PyTree:
  """Returns the tree of the value of the first rule that matches each leaf.

  Args:
    tree: any pytree; its leaves are not looked at.
    rules: pairs (regex, value) in the order of precedence.
    every_leaf: raise if a leaf matches no rule; else it gets None.
    every_rule: raise if a rule matches no leaf at all (a typo, or a rule for
      another model). A rule whose leaves were all taken by earlier ones is
      fine: it is how a closing ".*" is written.
    what: how error messages call the rules, e.g. "config.sharding".

  Raises:
    ValueError: as above; lists all leaves and all rules at fault.
  """
  patterns = [(_compiled(regex), value) for regex, value in rules]
  used = [False] * len(patterns)
  unmatched = []

  def first_match(name: str, _: Any) -> Any:
    matches = [i for i, (p, _) in enumerate(patterns) if p.fullmatch(name)]
    for i in matches:
      used[i] = True
    if matches:
      return patterns[matches[0]][1]
    unmatched.append(name)
    return None

  result = map_with_names(first_match, tree)
  problems = []
  if every_leaf and unmatched:
    problems.append(
      f"No rule matches: {messages.shorten(unmatched)}; end with a rule '.*'."
    )
  unused = [regex for (regex, _), was in zip(rules, used) if not was]
  if every_rule and unused:
    listed = messages.shorten([_with_hint(r, tree) for r in unused])
    problems.append(
      f"No leaf matches: {listed}; a regex must match the whole name."
    )
  if problems:
    raise ValueError(f"{what} do not fit the tree. " + " ".join(problems))
  return result


def _with_hint(regex: str, tree: PyTree) -> str:
  near = difflib.get_close_matches(regex, names(tree), n=1, cutoff=0.3)
  return f"{regex!r}" + (f" (nearest name: {near[0]})" if near else "")


def shape_and_dtype(leaf: Any) -> tuple[tuple[int, ...], np.dtype]:
  """Returns what `compare` looks at; a Python number counts as JAX's dtype."""
  dtype = getattr(leaf, "dtype", None)
  if dtype is None:
    dtype = jax.dtypes.result_type(leaf)
  return tuple(np.shape(leaf)), dtype


@dataclasses.dataclass(frozen=True)
class Difference:
  """How a given tree differs from the expected one; false if it does not.

  Attributes:
    missing: names that are expected and not given.
    extra: names that are given and not expected.
    shape: `{name: (expected, given)}` where the shapes differ.
    dtype: `{name: (expected, given)}` where the dtypes differ.
  """

  missing: tuple[str, ...] = ()
  extra: tuple[str, ...] = ()
  shape: Mapping[str, tuple[Any, Any]] = dataclasses.field(default_factory=dict)
  dtype: Mapping[str, tuple[Any, Any]] = dataclasses.field(default_factory=dict)

  def __bool__(self) -> bool:
    return bool(self.missing or self.extra or self.shape or self.dtype)

  def message(self, limit: int = 12) -> str:
    """Returns e.g. `Missing: head/bias. Shape: posemb (1, 4) vs (1, 9).`

    Args:
      limit: how many names to list under each heading.
    """
    parts = []
    for title, found in (("Missing", self.missing), ("Extra", self.extra)):
      if found:
        parts.append(f"{title}: {messages.shorten(found, limit)}.")
    for title, pairs in (("Shape", self.shape), ("Dtype", self.dtype)):
      if pairs:
        lines = [f"{name} {a} vs {b}" for name, (a, b) in pairs.items()]
        parts.append(f"{title}: {messages.shorten(lines, limit)}.")
    return " ".join(parts) or "No difference."


def compare(expected: PyTree, given: PyTree) -> Difference:
  """Compares names, shapes and dtypes of two trees; never the values.

  Args:
    expected: arrays, `jax.ShapeDtypeStruct`s or Python numbers.
    given: the same; its containers need not be of the same types.

  Returns:
    The `Difference`, each pair in the order (expected, given).
  """
  wanted, found = flatten(expected), flatten(given)
  shape, dtype = {}, {}
  for name in [n for n in wanted if n in found]:
    (shape_a, dtype_a), (shape_b, dtype_b) = (
      shape_and_dtype(wanted[name]),
      shape_and_dtype(found[name]),
    )
    if shape_a != shape_b:
      shape[name] = (shape_a, shape_b)
    if dtype_a != dtype_b:
      dtype[name] = (str(dtype_a), str(dtype_b))
  return Difference(
    missing=tuple(n for n in wanted if n not in found),
    extra=tuple(n for n in found if n not in wanted),
    shape=shape,
    dtype=dtype,
  )
