"""What clients ask: bodies and options, and how they are refused."""

import base64
import binascii
import dataclasses
import json
from collections.abc import Mapping
from typing import Any

from vitjax.config import messages

_KEYS = ("image", "top")
_EXAMPLE = '{"image": "<base64>", "top": 5}'


class Refusal(Exception):
  """A request that gets no answer.

  Attributes:
    status: the HTTP status.
    message: what was given, what is allowed and what to do.
    headers: further headers of the response.
  """

  def __init__(
    self, status: int, message: str, headers: Mapping[str, str] | None = None
  ):
    super().__init__(message)
    self.status = status
    self.message = message
    self.headers = headers


@dataclasses.dataclass(frozen=True)
class Question:
  """An image file, and how many classes are asked for."""

  image: bytes
  top: int


def of_file(body: bytes, query: Mapping[str, str], top: int) -> Question:
  """Reads a request whose body is the image file.

  Args:
    body: the body.
    query: the options behind the question mark of the address.
    top: number of classes if none is given.

  Raises:
    Refusal: if an option is unknown or has no meaning.
  """
  _check_keys(query, ("top",), "options of the address")
  if not body:
    raise Refusal(
      400,
      "the body is empty: send the bytes of an image file, such as curl "
      "--data-binary @photo.jpg.",
    )
  given = query.get("top", top)
  if isinstance(given, str):
    given = int(given) if given.isascii() and given.isdecimal() else given
  return Question(body, _top(given))


def of_json(body: bytes, top: int) -> Question:
  """Reads a request whose body is a JSON object.

  Args:
    body: the body.
    top: number of classes if none is given.

  Raises:
    Refusal: if it is not such an object.
  """
  try:
    given = json.loads(body)
  except (ValueError, RecursionError) as e:
    raise Refusal(400, f"the body is not JSON ({e}): send {_EXAMPLE}.") from e
  if not isinstance(given, dict):
    kind = type(given).__name__
    raise Refusal(400, f"the body is a JSON {kind}: send {_EXAMPLE}.")
  _check_keys(given, _KEYS, "keys")
  image = given.get("image")
  if not isinstance(image, str) or not image:
    what = "is missing" if image is None else f"is {_shown(image)}"
    raise Refusal(
      400, f'"image" {what}: send the image file in base64, {_EXAMPLE}.'
    )
  try:
    data = base64.b64decode(image, validate=True)
  except (binascii.Error, ValueError) as e:
    raise Refusal(
      400,
      f'"image" is not base64 ({e}): send letters, digits, + / and = only, '
      "without line breaks or a data: prefix.",
    ) from e
  return Question(data, _top(given.get("top", top)))


def _top(given: Any) -> int:
  if type(given) is not int or given < 1:
    raise Refusal(
      400, f'"top" is {_shown(given)}: give the number of classes, 1 or more.'
    )
  return given


def _check_keys(given: Mapping[str, Any], known, what: str) -> None:
  unknown = sorted({*given} - {*known})
  if unknown:
    raise Refusal(
      400,
      f"{_shown(unknown[0])} is not one of the {what}."
      f"{messages.did_you_mean(unknown[0], known)} Known: {', '.join(known)}.",
    )


def _shown(value: Any) -> str:
  text = json.dumps(value)
  return text if len(text) <= 40 else f"{text[:40]}..."
