"""Parquet files as Hugging Face writes them: "parquet:/data/train-*.parquet".

    image    {bytes, path} or bytes: the image as in a file
    label    the id of its class, or the name

Names of classes are those of `datasets.ClassLabel` in the schema. The path may
also be a data set's folder in the hub's cache, .../datasets--OWNER--NAME.

With ":group=COLUMN" images stay together that have the same value in this
column, see `held_out.Rule`.

An index of each file, see `kept_index`, is made by reading it once. It says
where the bytes of each image are, if they lie in the file as they are. Else
(compression, mostly) reading an image reads its row group.
"""

import collections
import dataclasses
import functools
import json
import pathlib
import threading
from collections.abc import Sequence

import numpy as np
import psutil
import pyarrow as pa
import pyarrow.parquet as pq

from vitjax.config import messages, places
from vitjax.data.sources import (
  files,
  folder,
  held_out,
  kept_index,
  shards,
)
from vitjax.data.sources.held_out import File
from vitjax.data.sources.source import DatasetNotPreparedError

_HEAD = 64  # bytes of an image by which it is looked for
_CACHED_SHARE = 0.25  # of the memory that is free


@dataclasses.dataclass(frozen=True, slots=True)
class Row(File):
  """An image that is in row `row` of a row group of the file `shard`."""

  shard: str
  row_group: int
  row: int

  def read(self, root: pathlib.Path) -> bytes:
    images = _row_groups().read(self.shard, self.row_group)
    return images[self.row].as_py()


def read(data: str) -> folder.Listing:
  """The images of each split, in the order of the files and their rows.

  Raises:
    DatasetNotPreparedError: if there is no such file.
    ValueError: if a file is damaged or has other columns, or an image or a
      label is missing.
  """
  _, rule = held_out.split_rule(data)
  if rule.group == held_out.PARENT:
    raise ValueError(
      f"{data!r}: images in Parquet files lie in no folder, so group=parent "
      "has no meaning. Name a column, such as group=patient."
    )
  class_names: dict[str, Sequence[str]] = {}
  compressed: list[str] = []

  def rows(path: str, name: str) -> list[File]:
    found, class_names[name] = _rows(path, name)
    if isinstance(found[0], Row):
      compressed.append(repr(name))
    return found

  listing = shards.listing(data, ".parquet", rows, _groups, _revision)
  first, *others = class_names
  for other in others:
    if class_names[other] != class_names[first]:
      raise ValueError(
        f"{data!r}: {other} has other classes than {first}. Give files of one "
        "data set."
      )
  notes = [*listing.notes]
  if compressed:
    notes.append(
      f"images are compressed in {messages.shorten(compressed)}: reading one "
      "reads its row group, unless that is in memory. Write them with "
      'pyarrow.parquet.write_table(table, path, compression="none").'
    )
  return dataclasses.replace(
    listing, notes=notes, class_names=class_names[first] or None
  )


def _revision(path: str) -> str:
  """The folder of the files, if the path is a data set in the hub's cache.

  Raises:
    DatasetNotPreparedError: if there is not exactly one revision of it.
  """
  if places.is_remote(path):
    return path
  root = pathlib.Path(path).expanduser()
  if not (root / "snapshots").is_dir():
    return path
  main = root / "refs" / "main"
  revisions = sorted(x.name for x in (root / "snapshots").iterdir())
  if main.is_file():
    revisions = [main.read_text().strip()]
  if len(revisions) != 1:
    raise DatasetNotPreparedError(
      f"{str(root)!r} has {len(revisions)} revisions in {root / 'snapshots'}: "
      f"{', '.join(revisions)}. Give the folder of one of them."
    )
  return str(root / "snapshots" / revisions[0])


def _rows(path: str, name: str) -> tuple[list[File], Sequence[str]]:
  """The images of a file, and the names of its classes."""
  with files.open_file(path) as file:
    index = kept_index.load(file, "parquet", make_index)
  groups = np.repeat(np.arange(len(index["rows"])), index["rows"])
  in_group = np.concatenate([np.arange(n) for n in index["rows"].tolist()])
  class_names = tuple(x.decode() for x in index["classes"].tolist())
  name_of = {str(i): x for i, x in enumerate(class_names)}
  is_plain = bool((index["offset"] >= 0).all())
  found: list[File] = []
  for number, (image, size, label, offset) in enumerate(
    zip(*(index[key].tolist() for key in ("name", "size", "label", "offset")))
  ):
    # The names of images need not differ.
    file_name = f"{name}/{number:08}/{image.decode() or 'image'}"
    class_name = name_of.get(label.decode(), label.decode())
    if is_plain:
      member = shards.Member(file_name, size, class_name, path, offset)
    else:
      place = int(groups[number]), int(in_group[number])
      member = Row(file_name, size, class_name, path, *place)
    found.append(member)
  return found, class_names


def _groups(path: str, column: str) -> list[str]:
  """What each row has in a column, "" for null."""

  def make(file: files.File) -> kept_index.Index:
    with pq.ParquetFile(files.stream(file)) as table:
      known = table.schema_arrow.names
      if column not in known:
        raise ValueError(
          f"{file.path} has no column {column!r}, which :group= names."
          f"{messages.did_you_mean(column, known)} It has: {', '.join(known)}."
        )
      values = table.read(columns=[column])[column].to_pylist()
    texts = ("" if x is None else str(x).strip() for x in values)
    return {"group": np.array([x.encode() for x in texts])}

  with files.open_file(path) as file:
    kind = kept_index.of_column("parquet", column)
    groups = kept_index.load(file, kind, make)["group"]
  return [group.decode() for group in groups.tolist()]


def make_index(file: files.File) -> kept_index.Index:
  """Reads a Parquet file once.

  Returns:
    "name", "size", "label" and "offset" of each image, the "rows" of each row
    group, and the names of all "classes". An offset is -1 if the bytes of the
    image are not in the file as they are.

  Raises:
    ValueError: if it is damaged, has other columns, or lacks an image or a
      label.
  """
  try:
    with pq.ParquetFile(files.stream(file)) as table:
      return _index(file, table)
  except (pa.ArrowException, OSError) as e:
    why = str(e).splitlines()[0].rstrip(".")
    raise ValueError(
      f"{file.path} is not a Parquet file, or is damaged: {why}. Copy it again."
    ) from None


def _index(file: files.File, table: pq.ParquetFile) -> kept_index.Index:
  class_names = _check_columns(file.path, table.schema_arrow)
  names, sizes, labels, offsets, rows = [], [], [], [], []
  for group in range(table.num_row_groups):
    content = table.read_row_group(group, columns=["image", "label"])
    images, paths = _images(content["image"])
    for column, values in (("image", images), ("label", content["label"])):
      if values.null_count:
        at = sum(rows) + values.is_null().index(True).as_py()
        raise ValueError(f"{file.path}: row {at} has no {column} (null).")
    names += [path.encode() for path in paths]
    contents = images.to_pylist()
    sizes += map(len, contents)
    labels += [str(x).encode() for x in content["label"].to_pylist()]
    offsets += _offsets(file, table.metadata.row_group(group), contents)
    rows.append(len(contents))
  if not names:
    raise ValueError(f"{file.path} has no rows.")
  return {
    "name": np.array(names),
    "size": np.array(sizes, np.int64),
    "label": np.array(labels),
    "offset": np.array(offsets, np.int64),
    "rows": np.array(rows, np.int64),
    "classes": np.array([x.encode() for x in class_names], np.bytes_),
  }


def _check_columns(path: str, schema: pa.Schema) -> Sequence[str]:
  """The names of the classes, () if the schema does not say them."""
  types = {field.name: field.type for field in schema}
  image, label = types.get("image"), types.get("label")
  if image is not None and pa.types.is_struct(image):
    image = {x.name: x.type for x in image.fields}.get("bytes")
  is_binary = image is not None and (
    pa.types.is_binary(image) or pa.types.is_large_binary(image)
  )
  is_label = label is not None and (
    pa.types.is_integer(label)
    or pa.types.is_string(label)
    or pa.types.is_large_string(label)
  )
  if not (is_binary and is_label):
    listed = ", ".join(f"{name} ({type_})" for name, type_ in types.items())
    raise ValueError(
      f"{path} has the columns {listed}. It needs 'image', bytes or a struct "
      "{bytes, path}, and 'label', an integer or a string; rename them."
    )
  facts = json.loads((schema.metadata or {}).get(b"huggingface", b"{}"))
  feature = facts.get("info", {}).get("features", {}).get("label", {})
  return feature.get("names", ()) if isinstance(feature, dict) else ()


def _images(column: pa.ChunkedArray) -> tuple[pa.ChunkedArray, list[str]]:
  """The bytes of images, and their names, "" for those that have none."""
  if not pa.types.is_struct(column.type):
    return column, [""] * len(column)
  names = [field.name for field in column.type.fields]
  fields = dict(zip(names, column.flatten()))
  paths = fields["path"].to_pylist() if "path" in fields else []
  paths = [(path or "").rpartition("/")[2] for path in paths]
  return fields["bytes"], paths or [""] * len(column)


def _offsets(file: files.File, group, images: Sequence[bytes]) -> list[int]:
  """Where in the file the bytes of each image are; -1s if they are not."""
  columns = (group.column(i) for i in range(group.num_columns))
  names = ("image", "image.bytes")
  column = next(x for x in columns if x.path_in_schema in names)
  if column.compression != "UNCOMPRESSED":
    return [-1] * len(images)
  start = column.data_page_offset
  if column.has_dictionary_page:
    start = min(start, column.dictionary_page_offset)
  content = file.read(start, column.total_compressed_size)
  offsets, end = [], 0
  for image in images:
    at = _find(content, image, end)
    if at < 0:  # The same image as one before.
      at = _find(content, image, 0)
    if at < 0:
      return [-1] * len(images)
    end = max(end, at + len(image))
    offsets.append(start + at)
  return offsets


def _find(content: bytes, image: bytes, start: int) -> int:
  at = content.find(image[:_HEAD], start)
  while at >= 0 and not content.startswith(image, at):
    at = content.find(image[:_HEAD], at + 1)
  return at


class _RowGroups:
  """The images of row groups; the last ones used stay in memory."""

  def __init__(self, max_bytes: int):
    self._max_bytes, self._bytes = max_bytes, 0
    self._kept: collections.OrderedDict = collections.OrderedDict()
    self._lock = threading.Lock()

  def read(self, path: str, group: int) -> pa.ChunkedArray:
    with self._lock:
      if (path, group) in self._kept:
        self._kept.move_to_end((path, group))
        return self._kept[path, group]
    with files.open_file(path) as file:
      with pq.ParquetFile(files.stream(file)) as table:
        content = table.read_row_group(group, columns=["image"])
    images, _ = _images(content["image"])
    with self._lock:
      if (path, group) not in self._kept:
        self._kept[path, group] = images
        self._bytes += images.nbytes
      while self._bytes > self._max_bytes and len(self._kept) > 1:
        _, dropped = self._kept.popitem(last=False)
        self._bytes -= dropped.nbytes
    return images


@functools.cache
def _row_groups() -> _RowGroups:
  return _RowGroups(int(psutil.virtual_memory().available * _CACHED_SHARE))
