"""Types of config values: checks a value against an annotation."""

import inspect
import types
import typing
from collections.abc import Mapping, Sequence
from typing import Annotated, Any

from vitjax.config import messages, ranges


def is_a(value: Any, kind: Any) -> bool:
  """Whether `value` has the type that the annotation `kind` asks for."""
  if kind is Any or kind is inspect.Parameter.empty:
    return True
  origin, args = typing.get_origin(kind), typing.get_args(kind)
  if origin is Annotated:
    return is_a(value, args[0])
  if origin in (typing.Union, types.UnionType):
    return any(is_a(value, a) for a in args)
  if origin is typing.Literal:
    return value in args
  if kind is None or kind is type(None):
    return value is None
  if kind is bool or isinstance(value, bool):
    return kind is bool and isinstance(value, bool)
  if kind is float:
    return isinstance(value, int | float)
  if kind is int:
    return isinstance(value, int)
  if origin is Sequence:
    is_list = isinstance(value, tuple | list)
    return is_list and all(is_a(x, args[0]) for x in value)
  origin = origin or kind
  if origin in (tuple, list, Sequence):
    return isinstance(value, tuple | list)
  if isinstance(origin, type):
    return isinstance(value, origin)
  return True


def name(kind: Any) -> str:
  """The annotation in words, such as "int or None" or "a section"."""
  origin, args = typing.get_origin(kind), typing.get_args(kind)
  if origin is Annotated:
    return name(args[0])
  if origin in (typing.Union, types.UnionType):
    return " or ".join(map(name, args))
  if origin is typing.Literal:
    return " or ".join(map(repr, args))
  if kind is type(None):
    return "None"
  if origin is Sequence and args != (Any,):
    return f"a list of {name(args[0])}"
  origin = origin or kind
  if origin is Mapping:
    return "a section"
  if origin in (tuple, list, Sequence):
    return "a list"
  return getattr(origin, "__name__", str(origin))


def problem(path: str, value: Any, kind: Any) -> str | None:
  """The error of a value with a wrong type or out of range; None if it is fine.

  Args:
    path: of the key, such as "config.seed".
    value: what the user gave.
    kind: the annotation of the key.
  """
  if is_a(value, kind):
    return ranges.problem(path, value, kind)
  if typing.get_origin(kind) is typing.Literal:
    allowed = ", ".join(map(str, typing.get_args(kind)))
    return f"{path}={value!r} is not one of {allowed}."
  given = type(value).__name__
  hint = f" Write ({value!r},)." if is_a((value,), kind) else ""
  return f"{path}={value!r} ({given}) must be {name(kind)}.{hint}"


def unknown(path: str, key: str, known: Mapping | Sequence) -> str:
  """The error for a key that does not exist."""
  hint = messages.did_you_mean(key, known)
  return f"{path} is not a key.{hint} Known: {', '.join(sorted(known))}."
