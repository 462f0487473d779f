"""Fields of the JSON files of a repository, read strictly."""

from collections.abc import Mapping
from typing import Any


class Fields:
  """A JSON object whose fields are read with a default and a type.

  What is absent or null has its default, which is that of the program that
  wrote the file. `unread` lists the fields that were never asked for.
  """

  def __init__(self, content: Mapping[str, Any], where: str):
    self.content = content
    self.where = where
    self._read: set[str] = set()

  def get(self, name: str, default: Any) -> Any:
    """The value of a field.

    Raises:
      ValueError: if it is not of the type of its default.
    """
    self._read.add(name)
    value = self.content.get(name)
    if value is None:
      return default
    if isinstance(default, float) and type(value) is int:
      value = float(value)
    if isinstance(value, list):
      value = tuple(value)
    if default is not None and type(value) is not type(default):
      raise ValueError(
        f"{self.where}: {name}={value!r} should be like {default!r}."
      )
    return value

  def choose(self, name: str, known: Mapping[Any, Any], default: Any) -> Any:
    """What `known` has for the value of a field.

    Raises:
      ValueError: if it has nothing for it.
    """
    value = self.get(name, default)
    if not any(type(value) is type(x) and value == x for x in known):
      raise ValueError(
        f"{self.where}: {name}={value!r} is not implemented here. Known: "
        f"{', '.join(map(repr, known))}. Name another repository, or convert "
        "the weights to a model of vitjax.models.list()."
      )
    return known[value]

  def require(self, name: str, *known: Any) -> None:
    """Checks that a field has one of the values that are implemented.

    The first is the default. Raises as `choose`.
    """
    self.choose(name, {value: value for value in known}, known[0])

  def unread(self) -> list[str]:
    """Names of the fields that were not asked for."""
    return sorted(self.content.keys() - self._read)
