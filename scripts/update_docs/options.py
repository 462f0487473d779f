"""Options of a callable or a dataclass as rows of a Markdown table.

Names, types, ranges and defaults come from the signature, meanings from the
docstring.
"""

import inspect
import types
import typing
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Annotated, Any, Literal

import jax

from scripts.update_docs import docstrings


def table(rows: Sequence[Mapping[str, str]]) -> str:
  """A Markdown table; the keys of the rows are its columns."""
  lines = [rows[0].keys(), ["---"] * len(rows[0])]
  lines += [row.values() for row in rows]
  return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def row(key: str, kind: str, default: str | None, meaning: str) -> dict:
  """A row of a table of options: two columns, so that it fits a phone."""
  if default is not None:
    kind += f", {default}" if default == "required" else f"; default {default}"
  return {"name": key, "meaning": "<br>".join(filter(None, (kind, meaning)))}


def rows(
  call: Callable, *, docs: str = "", hidden: Iterable[str] = ()
) -> list[dict[str, str]]:
  """A row for each option of `call`.

  Args:
    call: a function, or a class by its constructor.
    docs: a docstring that describes the options; that of `call` if empty.
    hidden: options that a user does not set.
  """
  meanings = docstrings.described(docs or inspect.getdoc(call) or "")
  found = []
  for name, option in inspect.signature(call).parameters.items():
    if name in hidden or option.kind == option.VAR_KEYWORD:
      continue
    key, default = f"`{name}`", "required"
    if option.kind == option.VAR_POSITIONAL:
      key, default = f"`{name}`, ...", None
    elif option.default is not option.empty:
      default = value(option.default)
    kind_of = kind(option.annotation)
    found.append(row(key, kind_of, default, meanings.get(name, "")))
  return found


def kind(annotation: Any) -> str:
  """A type as readers know it, with the range or the choices of its values."""
  origin, args = typing.get_origin(annotation), typing.get_args(annotation)
  if annotation in (Any, inspect.Parameter.empty):
    return "any"
  if annotation == jax.typing.DTypeLike:
    return "dtype"
  if annotation in (None, types.NoneType):
    return "None"
  if origin is Annotated:
    return ", ".join([kind(args[0]), *filter(None, map(str, args[1:]))])
  if origin is Literal:
    return " or ".join(map(value, args))
  if origin in (typing.Union, types.UnionType):
    kinds = dict.fromkeys(map(kind, args))
    return (", or " if any("," in x for x in kinds) else " or ").join(kinds)
  if origin is not None and issubclass(origin, Mapping):
    return "dict"
  if origin is not None and issubclass(origin, Sequence):
    parts = [x for x in args if x is not ...]
    fixed = origin is tuple and ... not in args
    inner = " and ".join(map(kind, parts))
    return f"({', '.join(map(kind, parts))})" if fixed else f"list of {inner}"
  return getattr(annotation, "__name__", str(annotation))


def value(x: Any) -> str:
  """A default as code, numbers to four digits; long lists are cut."""
  return f"`{_text(x)}`"


def _text(x: Any) -> str:
  if isinstance(x, float):
    return f"{x:.4g}"
  if isinstance(x, str):
    return f'"{x}"'
  if isinstance(x, tuple | list):
    parts = [_text(part) for part in x]
    if len(parts) > 4 and len("".join(parts)) > 60:
      parts = [*parts[:3], "...", parts[-1]]
    return f"({', '.join(parts)}{',' * (len(parts) == 1)})"
  return "empty" if repr(x) == "<factory>" else getattr(x, "__name__", repr(x))
