"""Images without labels in a folder: "images:/path".

All images below the folder are its split `train`, in the order of their paths.
They have no other feature than `image`, so they serve the losses that read no
labels, and no eval.
"""

import hashlib
import pathlib

from vitjax.data.pp.kinds import Features
from vitjax.data.sources import folder, held_out
from vitjax.data.sources.source import (
  DatasetNotPreparedError,
  Source,
  split_indices,
  warn_once,
)
from vitjax.data.tf import tf


class UnlabelledSource(Source):
  """See the module. Images are read when their example is used."""

  def __init__(self, data: str, split: str):
    listing = read(data)
    for note in listing.notes:
      warn_once(f"{data}: {note}")
    folder.check_missing(data, listing.missing)
    found = listing.splits["train"]
    parts = split_indices(data, split, {"train": len(found)})
    files = [found[i] for _, indices in parts for i in indices]
    folder.check_plug_in(data, listing.root, files)
    self.data, self.split = data, split
    self.num_examples = len(files)
    content = hashlib.sha256()
    for file in files:
      content.update(f"{file.path}\0{file.size}\0".encode())
    self.fingerprint = content.hexdigest()
    self._paths = tf.constant([str(listing.root / file.path) for file in files])

  def fetch(self, indices: tf.Tensor) -> Features:
    return {"path": tf.gather(self._paths, indices)}

  def parse(self, features: Features) -> Features:
    return {"image": tf.io.read_file(features["path"])}

  def describe(self, index: int) -> str:
    return self._paths[index].numpy().decode()


def read(data: str) -> folder.Listing:
  """The images below the folder that "images:/path" names.

  Raises:
    DatasetNotPreparedError: if there is no such folder.
    ValueError: if there are no images.
  """
  root = pathlib.Path(data.removeprefix("images:")).expanduser()
  if not root.is_dir():
    kind = "is not a folder" if root.exists() else "does not exist"
    raise DatasetNotPreparedError(f"{data!r}: {str(root)!r} {kind}.")
  images, others = folder.walk(root)
  files, missing = [], []
  for path in images:
    relative = path.relative_to(root).as_posix()
    try:
      files.append(held_out.File(relative, path.stat().st_size, ""))
    except OSError:
      missing.append(relative)
  if not images:
    raise ValueError(
      f"No images below {str(root)!r}; the extensions are "
      f"{' '.join(folder.EXTENSIONS)}."
    )
  notes = []
  if others:
    skipped = folder.by_kind(others)
    notes.append(f"skipped file(s) that are not images: {skipped}.")
  return folder.Listing(root, {"train": files}, notes, missing)
