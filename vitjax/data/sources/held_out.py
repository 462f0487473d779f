"""Which images are held back as `val`, where the data does not say.

A hash of the name decides, so the same images are held back by a folder and by
a table, on every machine.
"""

import dataclasses
import hashlib
import pathlib
import posixpath
import re
import unicodedata
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence

from vitjax.config import messages

_VAL_PERCENT = 10


@dataclasses.dataclass(frozen=True, slots=True)
class File:
  """An image with the class that it is of; `size` is in bytes."""

  path: str  # Below the root, with forward slashes.
  size: int
  class_name: str

  def read(self, root: pathlib.Path) -> bytes:
    """The bytes of the image."""
    return (root / self.path).read_bytes()


@dataclasses.dataclass(frozen=True)
class Fold:
  """The part `index`, from 1 on, of `count` for cross-validation."""

  index: int
  count: int


def split_fold(data: str) -> tuple[str, Fold | None]:
  """("folder:/path", Fold(2, 5)) for "folder:/path:fold=2/5".

  Raises:
    ValueError: if there is no such fold.
  """
  name, mark, text = data.partition(":fold=")
  if not mark:
    return data, None
  match = re.fullmatch(r"(\d+)/(\d+)", text)
  index, count = map(int, match.groups()) if match else (0, 0)
  if not 1 <= index <= count or count < 2:
    raise ValueError(
      f"{data!r}: fold={text} is no fold. Write fold=I/K, with I from 1 to K "
      "and K at least 2, such as fold=2/5."
    )
  return name, Fold(index, count)


def by_hash(files: Sequence[File]) -> dict[str, list[File]]:
  """Holds a tenth of each class back as `val`, and at least one of two images.

  These are the images whose hashes are smallest. The hash is of the name of the
  file; the folders above it decide only between equal names. So the split is
  the same for a folder and for a table anywhere above it, and other classes do
  not matter. As a class grows, at most as many of its images change their split
  as were added.
  """
  held_back = set()
  for members in _ranked(files).values():
    count = (len(members) * _VAL_PERCENT + 50) // 100
    count = min(max(count, 1), len(members) - 1)
    held_back.update(members[:count])
  return _split(files, held_back)


def by_fold(
  splits: Mapping[str, Sequence[File]], fold: Fold | None
) -> tuple[Mapping[str, Sequence[File]], list[str]]:
  """Splits the images of train and val anew: `val` is the fold, train the rest.

  The images of a class in the order of their hashes are cut into `fold.count`
  parts. Their sizes differ by at most one; the name of the class decides which
  folds get more. Other splits stay as they are, as do all without a fold.

  Returns:
    The files of each split, and sentences about what looks odd.
  """
  if fold is None:
    return splits, []
  files = [file for x in ("train", "val") for file in splits.get(x, ())]
  held_back, single = set(), []
  for name, members in _ranked(files).items():
    if len(members) == 1:
      single.append(repr(name))
      continue
    first = int.from_bytes(hashlib.sha256(name.encode()).digest())
    parts = (
      (first + i * fold.count // len(members)) % fold.count
      for i in range(len(members))
    )
    held_back.update(
      file for file, part in zip(members, parts) if part == fold.index - 1
    )
  notes = []
  if single:
    notes.append(
      "class(es) with a single image, which is in train and never in val: "
      f"{messages.shorten(single)}."
    )
  return {**splits, **_split(files, held_back)}, notes


def _split(
  files: Iterable[File], held_back: set[File]
) -> dict[str, list[File]]:
  return {
    "train": [file for file in files if file not in held_back],
    "val": [file for file in files if file in held_back],
  }


def _ranked(files: Iterable[File]) -> dict[str, list[File]]:
  """The files of each class in the order of their hashes."""
  classes = defaultdict(list)
  for file in files:
    classes[file.class_name].append(file)
  return {name: sorted(x, key=_rank) for name, x in classes.items()}


def _rank(file: File) -> tuple[bytes, ...]:
  """Hashes of the name, of the folder and the name, and so on."""
  path = posixpath.normpath(unicodedata.normalize("NFC", file.path))
  parts = path.split("/")
  return tuple(
    hashlib.sha256("/".join(parts[i:]).encode()).digest()
    for i in reversed(range(len(parts)))
  )
