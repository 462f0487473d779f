"""WebDataset's tar files as numbered examples: "wds:/data/{000..099}.tar".

    000123.jpg    an image
    000123.cls    the id of its class, or the name

Members with the same name up to its first dot belong to one example. In place
of `.cls` there may be a `.json` with a "label", or a `.txt` with the name of
the class. A file `classes.txt` beside the shards has the names of the classes
by id, one on each line.

With ":group=KEY" images stay together whose `.json` have the same value of this
key, see `held_out.Rule`.

An index of each file, see `kept_index`, is made by one walk over its headers.
"""

import dataclasses
import json
import tarfile
from typing import Any

import numpy as np

from vitjax.config import messages
from vitjax.data.sources import files, folder, kept_index, shards

_IMAGES = {name.removeprefix(".") for name in folder.EXTENSIONS}
_BLOCK = 512  # bytes of a header
_CLASSES = "classes.txt"
_MANY = 100  # labels

_Sample = dict[str, tarfile.TarInfo]


def read(data: str) -> folder.Listing:
  """The images of each split, in the order of the shards and their members.

  Raises:
    DatasetNotPreparedError: if there is no such file.
    ValueError: if a shard is damaged, or an image has no label.
  """
  skipped: list[str] = []

  def members(path: str, name: str) -> list[shards.Member]:
    found, others = _members(path, name)
    skipped.extend(others)
    return found

  listing = shards.listing(data, ".tar", members, _groups)
  notes = [*listing.notes]
  if skipped:
    notes.append(
      f"skipped member(s) without an image: {messages.shorten(skipped)}."
    )
  names = [x.class_name for images in listing.splits.values() for x in images]
  if len({*names}) > max(_MANY, len(names) / 2):
    notes.append(
      f"{len(names)} images have {len({*names})} different labels: are these "
      "captions? A classifier needs classes."
    )
  listing = dataclasses.replace(listing, notes=notes)
  path = str(listing.root / _CLASSES)
  if not files.matching(path, _CLASSES):
    return listing
  with files.open_file(path) as file:
    text = file.read(0, file.size).decode("utf-8-sig")
  classes = tuple(text.splitlines())
  name_of = {str(i): name for i, name in enumerate(classes)}
  splits = {
    split: [
      dataclasses.replace(x, class_name=name_of.get(x.class_name, x.class_name))
      for x in images
    ]
    for split, images in listing.splits.items()
  }
  return dataclasses.replace(listing, splits=splits, class_names=classes)


def _members(path: str, name: str) -> tuple[list[shards.Member], list[str]]:
  """The images of a shard, and the paths of members without one."""
  with files.open_file(path) as file:
    index = kept_index.load(file, "tar", make_index)
  found = [
    shards.Member(f"{name}/{member.decode()}", size, label.decode(), path, at)
    for member, size, label, at in zip(
      index["name"].tolist(),
      index["size"].tolist(),
      index["label"].tolist(),
      index["offset"].tolist(),
    )
  ]
  others = [repr(f"{name}/{x.decode()}") for x in index["skipped"].tolist()]
  return found, others


def _groups(path: str, key: str) -> list[str]:
  """What the `.json` of each image says of a key, "" where it does not."""

  def make(file: files.File) -> kept_index.Index:
    groups = {}
    for sample in _samples(file).values():
      facts = _json(file, sample["json"]) if "json" in sample else {}
      group = facts.get(key)
      text = "" if group is None else str(group).strip()
      groups |= {x.name: text for x in _images(sample)}
    return {
      "name": np.array([name.encode() for name in groups]),
      "group": np.array([x.encode() for x in groups.values()]),
    }

  with files.open_file(path) as file:
    names = kept_index.load(file, "tar", make_index)["name"]
    found = kept_index.load(file, kept_index.of_column("tar", key), make)
  group_of = dict(zip(found["name"].tolist(), found["group"].tolist()))
  return [group_of[name].decode() for name in names.tolist()]


def make_index(file: files.File) -> kept_index.Index:
  """Walks the headers of a tar file, and reads its labels.

  Returns:
    "name", "size", "offset" and "label" of each image, and the names of the
    members that were "skipped".

  Raises:
    ValueError: if it is damaged, two members have the same name, or an image
      has no label.
  """
  rows, skipped, unlabelled = [], [], []
  for key, sample in _samples(file).items():
    images = _images(sample)
    if not images:
      skipped += [member.name for member in sample.values()]
      continue
    if len(images) > 1:
      raise ValueError(
        f"{file.path}: {key!r} has {len(images)} images: "
        f"{', '.join(repr(x.name) for x in images)}. An example has one."
      )
    label = _label(file, sample)
    if label is None:
      unlabelled.append(repr(images[0].name))
    else:
      rows.append((images[0], label))
  if unlabelled:
    raise ValueError(
      f"{file.path}: {len(unlabelled)} image(s) without a label: "
      f"{messages.shorten(unlabelled)}. Each KEY.jpg needs a KEY.cls with the "
      'id or name of its class, a KEY.json with a "label", or a KEY.txt.'
    )
  if not rows:
    raise ValueError(
      f"{file.path} has no images: no member ends in one of "
      f"{', '.join(sorted(_IMAGES))}."
    )
  return {
    "name": np.array([member.name.encode() for member, _ in rows]),
    "label": np.array([label.encode() for _, label in rows]),
    "size": np.array([member.size for member, _ in rows], np.int64),
    "offset": np.array([member.offset_data for member, _ in rows], np.int64),
    "skipped": np.array([name.encode() for name in skipped], np.bytes_),
  }


def _samples(file: files.File) -> dict[str, _Sample]:
  """The members of each example by their extensions, from the headers.

  Raises:
    ValueError: if the file is damaged, or two members have the same name.
  """
  samples: dict[str, _Sample] = {}
  last = "its begin"
  try:
    with tarfile.open(fileobj=files.stream(file), mode="r:") as tar:
      for member in tar:
        last = repr(member.name)
        place, _, name = member.name.rpartition("/")
        key, dot, extension = name.partition(".")
        if not (member.isfile() and key and dot):
          continue
        sample = samples.setdefault(f"{place}/{key}" if place else key, {})
        if extension.lower() in sample:
          raise ValueError(
            f"{file.path} has two members {member.name!r}. Each file of an "
            "example must have a name of its own."
          )
        sample[extension.lower()] = member
      end = tar.offset
  except tarfile.TarError as e:
    raise _damaged(file.path, last, str(e)) from None
  # A tar file ends with blocks of zeros.
  if file.read(end, _BLOCK) != bytes(_BLOCK):
    raise _damaged(file.path, last, "it has no end mark")
  return samples


def _images(sample: _Sample) -> list[tarfile.TarInfo]:
  return [member for name, member in sample.items() if name in _IMAGES]


def _damaged(path: str, last: str, why: str) -> ValueError:
  return ValueError(
    f"{path} is not a tar file, is compressed or is cut off after {last}: "
    f"{why}. Copy it again, or decompress it: a compressed file has no random "
    "access."
  )


def _label(file: files.File, sample: _Sample) -> str | None:
  """The label of an example as text; None if it has none."""
  for name in ("cls", "json", "txt"):
    if name in sample:
      text: Any
      if name == "json":
        text = _json(file, sample[name]).get("label")
      else:
        text = _text(file, sample[name])
      if isinstance(text, int) and not isinstance(text, bool):
        text = str(text)
      if isinstance(text, str) and text.strip():
        return text.strip()
  return None


def _json(file: files.File, member: tarfile.TarInfo) -> dict[str, Any]:
  """The object in a JSON file; {} if it holds something else."""
  try:
    value = json.loads(_text(file, member))
  except json.JSONDecodeError as e:
    raise ValueError(f"{file.path}: {member.name!r}: {e}.") from None
  return value if isinstance(value, dict) else {}


def _text(file: files.File, member: tarfile.TarInfo) -> str:
  try:
    return file.read(member.offset_data, member.size).decode("utf-8-sig")
  except UnicodeDecodeError as e:
    raise ValueError(f"{file.path}: {member.name!r}: {e}.") from None
