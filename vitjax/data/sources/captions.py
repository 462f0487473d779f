"""Images with captions in one file: "captions:/path/captions.jsonl".

    {"file": "images/1.jpg", "caption": "A cat on a mat."}
    {"file": "images/1.jpg", "caption": "A sleeping cat."}
    {"file": "images/2.jpg", "captions": ["A dog.", "A dog that runs."]}

or `.csv` or `.tsv` with columns `file` and `caption`. Files are relative to
the folder of the captions file. An image may have several captions, on lines
anywhere in the file; images are numbered in the order in which they appear.

With a key or column `split` each image belongs to the split that it names;
else a tenth of the images is `val`, see `held_out.by_hash`.
"""

import hashlib

from vitjax.data.pp.kinds import Features
from vitjax.data.sources import folder, held_out, tables
from vitjax.data.sources.source import Source, split_indices, warn_once
from vitjax.data.tf import tf

_COLUMNS = ("file", "caption", "captions", "split")


class CaptionsSource(Source):
  """See the module. Images are read when their example is used.

  Examples have the features `image` and `captions`, string [k], k >= 1.
  """

  def __init__(self, data: str, split: str):
    listing, captions = read(data)
    for note in listing.notes:
      warn_once(f"{data}: {note}")
    folder.check_missing(data, listing.missing)
    splits = listing.splits
    parts = split_indices(data, split, {k: len(v) for k, v in splits.items()})
    files = [splits[name][i] for name, indices in parts for i in indices]
    self.data, self.split = data, split
    self.num_examples = len(files)
    content = hashlib.sha256()
    for file in files:
      content.update(repr((file.path, file.size, captions[file.path])).encode())
    self.fingerprint = content.hexdigest()
    self._paths = tf.constant([str(listing.root / file.path) for file in files])
    self._captions = tf.ragged.constant([captions[file.path] for file in files])

  def fetch(self, indices: tf.Tensor) -> Features:
    return {"path": tf.gather(self._paths, indices), "row": indices}

  def parse(self, features: Features) -> Features:
    return {
      "image": tf.io.read_file(features["path"]),
      "captions": self._captions[features["row"]],
    }

  def describe(self, index: int) -> str:
    return self._paths[index].numpy().decode()


def read(data: str) -> tuple[folder.Listing, dict[str, list[str]]]:
  """The files of each split, without classes, and the captions of each file.

  Raises:
    ValueError: if there is no such table, or something in it is wrong.
  """
  path = tables.find(data)
  captions: dict[str, list[str]] = {}
  split_of: dict[str, str | None] = {}
  columns: dict[str, None] = {}
  for number, row in tables.rows(path):
    where = f"{path}, line {number}"
    file, texts, own = _checked(row, where)
    tables.check_columns(list(row), _COLUMNS, where)
    columns.update(dict.fromkeys(row))
    captions.setdefault(file, []).extend(texts)
    if split_of.setdefault(file, own) != own:
      raise ValueError(
        f"{where}: {file!r} is in split {own!r}, and above in "
        f"{split_of[file]!r}."
      )
  sizes, missing = tables.sizes(path, list(split_of))
  files = [held_out.File(file, size, "") for file, size in sizes.items()]
  unassigned = [file for file in files if split_of[file.path] is None]
  hashed = {
    file.path: name
    for name, members in held_out.by_hash(unassigned).items()
    for file in members
  }
  splits: dict[str, list[held_out.File]] = {}
  for file in files:
    name = split_of[file.path] or hashed[file.path]
    splits.setdefault(name, []).append(file)
  notes = tables.unused(columns, _COLUMNS)
  return folder.Listing(path.parent, splits, notes, missing), captions


def _checked(row: dict, where: str) -> tuple[str, list[str], str | None]:
  """File, captions and split of a row; None if a hash decides."""
  file = row.get("file") if isinstance(row, dict) else None
  texts = row.get("captions", [row.get("caption")]) if file else None
  texts = [t.strip() if isinstance(t, str) else "" for t in texts or [None]]
  if not file or not all(texts):
    raise ValueError(
      f"{where}: {row!r} needs 'file' and a 'caption' that is not empty."
    )
  return file, texts, row.get("split") or None
