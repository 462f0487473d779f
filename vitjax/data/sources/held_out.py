"""Which images are held back as `val`, where the data does not say.

A hash of the name decides, so the same images are held back by a folder and by
a table, on every machine. Images of one group, such as those of a patient, stay
together.
"""

import collections
import dataclasses
import hashlib
import pathlib
import posixpath
import re
import unicodedata
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence

from vitjax.config import messages

_VAL_PERCENT = 10
PARENT = "parent"


@dataclasses.dataclass(frozen=True, slots=True)
class File:
  """An image with the class that it is of.

  Attributes:
    path: path below the root, with forward slashes.
    size: size in bytes.
    class_name: name of the class.
    group: images of one group are never split; empty if there are no groups.
  """

  path: str
  size: int
  class_name: str
  group: str = dataclasses.field(default="", kw_only=True)

  def read(self, root: pathlib.Path) -> bytes:
    """The bytes of the image."""
    return (root / self.path).read_bytes()


@dataclasses.dataclass(frozen=True)
class Fold:
  """The part `index`, from 1 on, of `count` for cross-validation."""

  index: int
  count: int


@dataclasses.dataclass(frozen=True)
class Rule:
  """How images are split, as the name of a data set says.

  Attributes:
    fold: the fold that is `val`; None: a tenth of each class.
    group: "parent", a regex of paths with a group in parentheses, or the name
      of a column or key; empty: each image is split on its own.
  """

  fold: Fold | None = None
  group: str = ""

  def __str__(self) -> str:
    fold = f"fold={self.fold.index}/{self.fold.count}" if self.fold else ""
    group = f"group={self.group}" if self.group else ""
    return " and ".join(filter(None, (fold, group)))


def split_rule(data: str) -> tuple[str, Rule]:
  """("folder:/path", Rule(Fold(2, 5))) for "folder:/path:fold=2/5".

  Raises:
    ValueError: if there is no such fold, or an option is given twice.
  """
  name, *rest = re.split(r":(fold|group)=", data)
  options = dict(zip(rest[::2], rest[1::2]))
  if 2 * len(options) != len(rest):
    raise ValueError(f"{data!r} has an option twice: give each of them once.")
  fold = None
  if "fold" in options:
    text = options["fold"]
    match = re.fullmatch(r"(\d+)/(\d+)", text)
    index, count = map(int, match.groups()) if match else (0, 0)
    if not 1 <= index <= count or count < 2:
      raise ValueError(
        f"{data!r}: fold={text} is no fold. Write fold=I/K, with I from 1 to K "
        "and K at least 2, such as fold=2/5."
      )
    fold = Fold(index, count)
  group = options.get("group", "")
  if "group" in options and not group:
    raise ValueError(f"{data!r}: group= is empty. {_GROUPS}")
  return name, Rule(fold, group)


_GROUPS = (
  "Write group=parent for the folder of an image, or a regex of paths with "
  r"parentheses around the name of the group, such as group=(patient\d+). "
  "Tables of labels and Parquet files may also name a column, and tar shards a "
  "key of the .json files."
)


def is_of_path(group: str) -> bool:
  """Whether a `Rule.group` is about paths, or else names a column or key."""
  return group == PARENT or "(" in group


def group_by_path(group: str) -> Callable[[str], str]:
  """Maps the path of an image to its group.

  Args:
    group: see `Rule.group`.

  Raises:
    ValueError: if it is neither "parent" nor such a regex.
  """
  if group == PARENT:
    return lambda path: posixpath.basename(posixpath.dirname(path))
  try:
    pattern = re.compile(group)
  except re.error as e:
    raise ValueError(f"group={group} is no regex: {e}. {_GROUPS}") from None
  if not pattern.groups:
    raise ValueError(f"group={group} has no parentheses. {_GROUPS}")

  def find(path: str) -> str:
    match = pattern.search(path)
    return "/".join(x or "" for x in match.groups()) if match else ""

  return find


def with_groups(
  files: Iterable[File], group: str, column: Mapping[str, str] | None = None
) -> list[File]:
  """The files with their groups; unchanged if `group` is empty.

  Args:
    files: the files.
    group: see `Rule.group`.
    column: group by path, where the data has a column or key of this name.

  Raises:
    ValueError: if an image has no group, or `group` is wrong.
  """
  files = list(files)
  if not group:
    return files
  find = group_by_path(group) if column is None else column.__getitem__
  files = [dataclasses.replace(x, group=find(x.path)) for x in files]
  if absent := [repr(file.path) for file in files if not file.group]:
    raise ValueError(
      f"group={group}: {len(absent)} image(s) have no group: "
      f"{messages.shorten(absent)}. Each image needs one. {_GROUPS}"
    )
  return files


def by_hash(files: Sequence[File]) -> dict[str, list[File]]:
  """Holds a tenth of each class back as `val`, and at least one of two images.

  These are the images whose hashes are smallest. The hash is of the name of the
  file; the folders above it decide only between equal names. So the split is
  the same for a folder and for a table anywhere above it, and other classes do
  not matter. As a class grows, at most as many of its images change their split
  as were added. With groups read "group" for "image", see `_ranked`.
  """
  held_back = set()
  for members in _ranked(files).values():
    count = (len(members) * _VAL_PERCENT + 50) // 100
    count = min(max(count, 1), len(members) - 1)
    held_back.update(file for unit in members[:count] for file in unit)
  return _split(files, held_back)


def by_fold(
  splits: Mapping[str, Sequence[File]], fold: Fold | None
) -> tuple[Mapping[str, Sequence[File]], list[str]]:
  """Splits the images of train and val anew: `val` is the fold, train the rest.

  The images of a class in the order of their hashes are cut into `fold.count`
  parts. Their sizes differ by at most one; the name of the class decides which
  folds get more. Other splits stay as they are, as do all without a fold. With
  groups read "group" for "image", see `_ranked`.

  Returns:
    The files of each split, and sentences about what looks odd.
  """
  if fold is None:
    return splits, []
  files = [file for x in ("train", "val") for file in splits.get(x, ())]
  units = defaultdict(set)
  for file in files:
    units[file.class_name].add(file.group or file.path)
  held_back, single = set(), []
  for name, members in _ranked(files).items():
    if len(members) == 1:
      # Groups that rank with another class may have images of this one too.
      if len(units[name]) == 1:
        single.append(repr(name))
      continue
    first = int.from_bytes(hashlib.sha256(name.encode()).digest())
    parts = (
      (first + i * fold.count // len(members)) % fold.count
      for i in range(len(members))
    )
    held_back.update(
      file
      for unit, part in zip(members, parts)
      if part == fold.index - 1
      for file in unit
    )
  notes = []
  if single:
    what = "group" if files[0].group else "image"
    notes.append(
      f"class(es) with a single {what}, which is in train and never in val: "
      f"{messages.shorten(single)}."
    )
  return {**splits, **_split(files, held_back)}, notes


def shared_groups(splits: Mapping[str, Sequence[File]]) -> list[str]:
  """Says which groups are in more than one split, if there are any."""
  found = defaultdict(set)
  for name, files in splits.items():
    for file in files:
      found[file.group].add(name)
  shared = [
    f"{group!r} ({', '.join(names)})"
    for group, names in ((k, sorted(x)) for k, x in found.items() if k)
    if len(names) > 1
  ]
  return [
    f"{len(shared)} group(s) are in more than one split: "
    f"{messages.shorten(shared)}."
  ] * bool(shared)


def describe(splits: Mapping[str, Sequence[File]], rule: Rule) -> str:
  """Says how many images and groups of each class each split has."""
  parts = []
  for name, files in splits.items():
    counts = collections.Counter(file.class_name for file in files)
    listed = [f"{k} {n:,}" for k, n in sorted(counts.items())]
    groups = {file.group for file in files} - {""}
    of = f" of {len(groups):,} groups" if groups else ""
    parts.append(
      f"{name} {len(files):,} images{of} ({messages.shorten(listed, 10)})"
    )
  return f"split by {rule}: {'; '.join(parts)}."


def _split(
  files: Iterable[File], held_back: set[File]
) -> dict[str, list[File]]:
  return {
    "train": [file for file in files if file not in held_back],
    "val": [file for file in files if file in held_back],
  }


def _ranked(files: Iterable[File]) -> dict[str, list[list[File]]]:
  """What must stay together, by class in the order of hashes.

  Without groups that is each image. A group is ranked by the hash of its name,
  and among those of its rarest class: the one that occurs in the fewest groups.
  So a rare class is divided as evenly as groups allow.
  """
  units = defaultdict(list)
  for file in files:
    units[file.group, "" if file.group else file.path].append(file)
  count = collections.Counter(
    name for unit in units.values() for name in {x.class_name for x in unit}
  )
  classes = defaultdict(list)
  for unit in units.values():
    rarest = min({x.class_name for x in unit}, key=lambda x: (count[x], x))
    classes[rarest].append(unit)
  return {name: sorted(x, key=_rank) for name, x in classes.items()}


def _rank(unit: Sequence[File]) -> tuple[bytes, ...]:
  """Hashes of the name, of the folder and the name, and so on."""
  path = posixpath.normpath(unicodedata.normalize("NFC", unit[0].path))
  if group := unit[0].group:
    path = unicodedata.normalize("NFC", group)
  parts = path.split("/")
  return tuple(
    hashlib.sha256("/".join(parts[i:]).encode()).digest()
    for i in reversed(range(len(parts)))
  )
