"""Groups of files that may show the same: by content, by name, by look."""

import dataclasses
import pathlib
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence

from vitjax.data.checking import near
from vitjax.data.checking.images import Found

# What programs add to the name of a changed copy: " (1)", "_copy", "-rot90".
_CHANGED = re.compile(
  r"([ _-]*(\(\d+\)|copy|flip(ped)?|rot(ated)?\d*|crop(ped)?\d*|aug\d*))+$",
  re.IGNORECASE,
)
# If more of the images of a split share their name, names mean nothing.
_MOST_SHARED = 0.5


@dataclasses.dataclass(frozen=True)
class File:
  """An image of a data set.

  Attributes:
    path: path of the image.
    split: name of its split.
    class_name: its class, if it has one.
    classes: all that it has, of any number.
    read: gives its bytes.
  """

  path: pathlib.Path
  split: str
  class_name: str | None
  classes: tuple[str, ...]
  read: Callable[[], bytes] = dataclasses.field(compare=False)


Group = list[File]


def same_content(files: Sequence[File], found: Sequence[Found]) -> list[Group]:
  """Groups of files with the same bytes."""
  by_digest = defaultdict(list)
  for file, x in zip(files, found):
    by_digest[x.digest].append(file)
  return [group for group in by_digest.values() if len(group) > 1]


def same_look(
  files: Sequence[File], found: Sequence[Found], most_bits: int
) -> list[Group]:
  """Groups of files that look alike; of the same files only the first."""
  first = {}
  for file, x in zip(files, found):
    if x.likeness is not None:
      first.setdefault(x.digest, (file, x.likeness))
  chosen = list(first.values())
  numbers = near.groups([x for _, x in chosen], most_bits)
  return [[chosen[i][0] for i in group] for group in numbers]


def same_name(files: Sequence[File]) -> list[Group]:
  """Groups of files with the same name in more than one split.

  Names that are only a number are not compared, nor are any if most images of a
  split share their name, as splits that are numbered from 1 do.
  """
  by_name = defaultdict(list)
  for file in files:
    stem = _CHANGED.sub("", file.path.stem) or file.path.stem
    if not stem.isdecimal():
      by_name[stem].append(file)
  groups = [x for x in by_name.values() if is_leak(x)]
  shared = Counter(file.split for group in groups for file in group)
  sizes = Counter(file.split for file in files)
  if any(n > _MOST_SHARED * sizes[split] for split, n in shared.items()):
    return []
  return groups


def is_leak(group: Group) -> bool:
  """Whether the files are in more than one split."""
  return len({file.split for file in group}) > 1


def is_conflict(group: Group) -> bool:
  """Whether the files have more than one label."""
  return len({file.class_name for file in group}) > 1
