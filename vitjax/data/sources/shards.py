"""Images that lie in larger files, called shards: tar and Parquet files.

Shards are named by a path with braces and wildcards, or by a folder:

    /data/train-{000..099}.tar      /data/*/*.tar      /data

The name of a shard says its split: train-000.tar, data/test/0.parquet,
birds-validation-00000-of-00003.parquet. Where no name does, a tenth of each
class is `val`, see `held_out`.
"""

import dataclasses
import glob
import hashlib
import itertools
import pathlib
import re
from collections.abc import Callable, Sequence

import numpy as np

from vitjax.config import messages, places
from vitjax.data.pp.kinds import Features
from vitjax.data.sources import files, folder, held_out, labels
from vitjax.data.sources.held_out import File
from vitjax.data.sources.source import SPLIT_NAMES, DatasetNotPreparedError
from vitjax.data.tf import tf

# Ends of the names of compressed tar files.
_COMPRESSED = (".tar.gz", ".tgz", ".tar.bz2", ".tar.xz", ".tar.zst")
_RANGE = re.compile(r"(\d+)\.\.(\d+)")


@dataclasses.dataclass(frozen=True, slots=True)
class Member(File):
  """An image that is `size` bytes at `offset` of the file `shard`."""

  shard: str
  offset: int

  def read(self, root: pathlib.Path) -> bytes:
    [data] = read_members([self])
    return data


def read_members(members: Sequence[Member]) -> list[bytes]:
  """The bytes of some images, of an object store all at once.

  Raises:
    ValueError: if a shard has become shorter.
  """
  found = files.read_parts([(x.shard, x.offset, x.size) for x in members])
  for member, data in zip(members, found):
    if len(data) != member.size:
      raise ValueError(
        f"{member.shard} is shorter than at the start of the run"
      )
  return found


class ShardSource(folder.LabelledFiles):
  """Labelled images in shards, read when their chunk is used.

  Attributes:
    files: that of each example.
  """

  def __init__(
    self,
    data: str,
    split: str,
    listing: folder.Listing,
    class_names: Sequence[str] | None = None,
  ):
    splits, class_names = labels.with_class_names(
      data, listing.splits, class_names or listing.class_names
    )
    listing = dataclasses.replace(listing, splits=splits)
    super().__init__(data, split, listing, class_names)
    # Paths do not contain the labels.
    content = self.fingerprint.encode() + self._labels.numpy().tobytes()
    self.fingerprint = hashlib.sha256(content).hexdigest()

  def _keep(self, root: pathlib.Path, files: Sequence[File]) -> None:
    self._root, self.files = root, files

  def fetch(self, indices: tf.Tensor) -> Features:
    images = tf.numpy_function(self._read, [indices], tf.string, stateful=False)
    return {
      "image": tf.ensure_shape(images, indices.shape),
      "label": tf.gather(self._labels, indices),
    }

  def _read(self, indices: np.ndarray) -> np.ndarray:
    chunk = [self.files[index] for index in indices]
    members = [x for x in chunk if isinstance(x, Member)]
    images = np.empty(len(indices), object)
    if len(members) == len(chunk):
      images[:] = read_members(members)
    else:
      images[:] = [file.read(self._root) for file in chunk]
    return images

  def parse(self, features: Features) -> Features:
    return features

  def describe(self, index: int) -> str:
    return str(self._root / self.files[index].path)


def listing(
  data: str,
  extension: str,
  read: Callable[[str, str], Sequence[File]],
  read_groups: Callable[[str, str], Sequence[str]],
  locate: Callable[[str], str] = str,
) -> folder.Listing:
  """The images of all shards that "KIND:/path" names, by split.

  Args:
    data: with or without a fold and groups.
    extension: that of shards in a folder, such as ".tar".
    read: gives the images of a shard by its path and by its name below the
      root, with which the paths of its images begin.
    read_groups: gives the group of each of these images, by the path of the
      shard and the name of the column or key that says it.
    locate: maps the path in `data` to that of the shards.

  Raises:
    DatasetNotPreparedError: if there is no such file.
    ValueError: if some shards have a split and others none.
  """
  name, rule = held_out.split_rule(data)
  root, paths = find(data, locate(name.partition(":")[2]), extension)
  names = [path.relative_to(root).as_posix() for path in paths]
  split_of = {name: _split_of(name) for name in names}
  without = [repr(name) for name, split in split_of.items() if split is None]
  if without and len(without) < len(split_of):
    raise ValueError(
      f"{data!r}: {len(without)} of {len(split_of)} files have no split in "
      f"their names: {messages.shorten(without)}. Name each file, or its "
      "folder, by its split, as in train-000" + extension + ", or none."
    )
  by_key = bool(rule.group) and not held_out.is_of_path(rule.group)
  splits: dict[str, list[File]] = {}
  for path, name in sorted(
    zip(paths, names), key=lambda x: split_of[x[1]] != "train"
  ):
    images, column = read(str(path), name), None
    if by_key:
      groups = read_groups(str(path), rule.group)
      column = dict(zip((x.path for x in images), groups, strict=True))
    images = held_out.with_groups(images, rule.group, column)
    splits.setdefault(split_of[name] or "", []).extend(images)
  divided = held_out.by_hash(splits[""]) if without else splits
  made = bool(without)
  return folder.held_out_listing(root, divided, rule, [], [], made=made)


def find(
  data: str, pattern: str, extension: str
) -> tuple[pathlib.Path, list[pathlib.Path]]:
  """The folder that has no wildcard in its name, and the files below it.

  Raises:
    DatasetNotPreparedError: if there is no such file, or one is missing.
  """
  found, missing = [], []
  if not places.is_remote(pattern):
    pattern = str(pathlib.Path(pattern).expanduser())
  for path in expand(pattern):
    matches = sorted(files.matching(path, extension), key=folder.natural)
    found += matches
    if not matches:
      _check_compressed(data, path, extension)
      missing.append(repr(path))
  if missing:
    raise DatasetNotPreparedError(
      f"{data!r}: no such file: {messages.shorten(missing)}. Write the path of "
      f"{extension} files, such as /data/train-{{000..099}}{extension}, "
      f"/data/*{extension} or /data."
    )
  root = places.of(pattern)
  while glob.has_magic(str(root)) or "{" in str(root) or str(root) in found:
    root = root.parent
  return root, list(map(places.of, dict.fromkeys(found)))


def _check_compressed(data: str, root: str, extension: str) -> None:
  """Raises ValueError if a folder without shards has compressed ones."""
  names = sorted(x.rpartition("/")[2] for x in files.matching(root, ""))
  packed = [x for x in names if x.lower().endswith(_COMPRESSED)]
  if packed:
    raise ValueError(
      f"{data!r}: {root} has no {extension} files, but {len(packed)} "
      f"compressed ones: {messages.shorten(list(map(repr, packed)))}. A "
      "compressed file has no random access: decompress them first, such as "
      "with gunzip *.gz."
    )


def expand(pattern: str) -> list[str]:
  """["a-08", "a-09", "a-10"] for "a-{08..10}"; {b,c} is b and c."""
  match = re.search(r"\{([^{}]*)\}", pattern)
  if match is None:
    return [pattern]
  options = match[1].split(",")
  if bounds := _RANGE.fullmatch(match[1]):
    first, last = bounds.groups()
    width = len(first) if first.startswith("0") else 0
    options = [f"{i:0{width}}" for i in range(int(first), int(last) + 1)]
  ends = expand(pattern[match.end() :])
  return [
    pattern[: match.start()] + option + end
    for option, end in itertools.product(options, ends)
  ]


def _split_of(name: str) -> str | None:
  """The split that a file's name says, or else the nearest folder's."""
  for part in reversed(name.split("/")):
    words = re.split("[^a-z]+", part.lower())
    found = {SPLIT_NAMES[word] for word in words if word in SPLIT_NAMES}
    if len(found) == 1:
      return found.pop()
  return None
