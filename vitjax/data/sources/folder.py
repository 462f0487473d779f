"""A folder of class folders as a data set: "folder:/path".

    /path/train/cat/1.jpg        or, without train/ and val/,
    /path/val/cat/2.jpg          /path/cat/1.jpg

Without split folders, a tenth of each class is held back as `val`: the images
whose names have the smallest hashes, see `held_out`. A name may end in
":group=RULE" and ":fold=I/K", see `held_out.Rule`. Images may lie in folders
below the class folder.

Classes are numbered in natural order (0, 1, 2, 10; not 0, 1, 10, 2) of the
folders in train, so that a split which lacks a class has the same labels.
"""

import dataclasses
import hashlib
import os
import pathlib
import re
from collections import Counter
from collections.abc import Collection, Mapping, Sequence, Set

import numpy as np

from vitjax.config import messages
from vitjax.data.pp import image_files
from vitjax.data.pp.kinds import Features
from vitjax.data.sources import held_out
from vitjax.data.sources.held_out import File
from vitjax.data.sources.source import (
  SPLIT_NAMES,
  DatasetNotPreparedError,
  Source,
  log_once,
  split_indices,
  warn_once,
)
from vitjax.data.sources.targets import Targets
from vitjax.data.tf import tf

_HEIF_EXTENSIONS = (".heic", ".heif")
EXTENSIONS = (
  *(".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp", ".bmp", ".gif"),
  *(".tif", ".tiff", ".avif", *_HEIF_EXTENSIONS, ".npy"),
)


@dataclasses.dataclass(frozen=True)
class Listing:
  """The files of a data set.

  Attributes:
    root: folder to which paths are relative.
    splits: files of each split.
    notes: sentences about files that were left out or look odd.
    missing: paths, below the root, of broken links, and of files that a table
      names but that do not exist.
    class_names: names of the classes by id, if the data set says them.
    summary: a sentence about the splits that were made here; empty if the data
      has splits of its own.
    targets: what the images have in place of one class, see `targets`.
  """

  root: pathlib.Path
  splits: Mapping[str, Sequence[File]]
  notes: Sequence[str] = ()
  missing: Sequence[str] = ()
  class_names: Sequence[str] | None = None
  summary: str = ""
  targets: Targets | None = None


class LabelledFiles(Source):
  """Image files with one class each, read when their example is used.

  The name of an unknown class is empty.
  """

  def __init__(
    self, data: str, split: str, listing: Listing, class_names: Sequence[str]
  ):
    """Takes the files of every split.

    Raises:
      ValueError: if there is no such split, a class of it is unknown, or a file
        needs a plug-in.
    """
    root, splits = listing.root, listing.splits
    for note in listing.notes:
      warn_once(f"{data}: {note}")
    if listing.summary:
      log_once(f"{data}: {listing.summary}")
    self.class_names = tuple(class_names)
    self.num_classes = len(self.class_names)
    parts = split_indices(
      data, split, {name: len(files) for name, files in splits.items()}
    )
    for name, _ in parts:
      unknown = {f.class_name for f in splits[name]} - {"", *self.class_names}
      if unknown:
        listed = [repr(x) for x in sorted(unknown, key=natural)]
        raise ValueError(
          f"{data!r}: split {name!r} has class folders or labels that are not "
          f"among the {self.num_classes} classes of training: "
          f"{messages.shorten(listed)}. Classes are those of the "
          f"training images: add some of these, or remove them from {name!r}."
        )
    files = [splits[name][i] for name, indices in parts for i in indices]
    check_plug_in(data, root, files)
    label_of = {name: i for i, name in enumerate(self.class_names)} | {"": -1}
    self.data, self.split = data, split
    self.num_examples = len(files)
    content = hashlib.sha256(repr(self.class_names).encode())
    for file in sorted(files, key=lambda file: file.path):
      content.update(f"{file.path}\0{file.size}\0".encode())
    self.fingerprint = content.hexdigest()
    self.labels = np.array([label_of[file.class_name] for file in files])
    self.has_unknown = bool((self.labels < 0).any())
    self._labels = tf.constant(self.labels, tf.int32)
    self._files = files
    self._keep(root, files)

  def _keep(self, root: pathlib.Path, files: Sequence[File]) -> None:
    """Keeps what `fetch` needs of the file of each example."""
    self._paths = tf.constant([str(root / file.path) for file in files])

  def fetch(self, indices: tf.Tensor) -> Features:
    return {
      "path": tf.gather(self._paths, indices),
      "label": tf.gather(self._labels, indices),
    }

  def parse(self, features: Features) -> Features:
    return {
      "image": tf.io.read_file(features["path"]),
      "label": features["label"],
    }

  def describe(self, index: int) -> str:
    return self._paths[index].numpy().decode()


class FolderSource(LabelledFiles):
  """See the module."""

  def __init__(
    self, data: str, split: str, class_names: Sequence[str] | None = None
  ):
    listing = read(data)
    check_missing(data, listing.missing)
    if class_names is None:
      class_names = classes_of(data, listing.splits)
    super().__init__(data, split, listing, class_names)


def read(data: str) -> Listing:
  """The files of the folder that "folder:/path" names.

  Raises:
    DatasetNotPreparedError: if there is no such folder.
    ValueError: if it has no images in class folders.
  """
  name, rule = held_out.split_rule(data.removeprefix("folder:"))
  root = pathlib.Path(name).expanduser()
  if not root.is_dir():
    kind = "is not a folder" if root.exists() else "does not exist"
    raise DatasetNotPreparedError(f"{data!r}: {str(root)!r} {kind}.")
  layout, others = _split_folders(root)
  scans = {
    name: _scan(root, folder, is_train=name == "train")
    for name, folder in layout.items()
  }
  if not layout:
    scans = {"": _scan(root, root, is_train=True)}
  splits = {
    name: held_out.with_groups(scan.files, rule.group)
    for name, scan in scans.items()
  }
  if not layout:
    splits = held_out.by_hash(splits[""])
  notes = [note for scan in scans.values() for note in scan.notes]
  if layout and others:
    listed = messages.shorten([repr(x.name) for x in others])
    notes.append(
      f"ignored folder(s) beside the split folders: {listed}. Split folders "
      f"hold class folders and are called {', '.join(SPLIT_NAMES)}."
    )
  missing = [path for scan in scans.values() for path in scan.missing]
  return held_out_listing(root, splits, rule, notes, missing, made=not layout)


def held_out_listing(
  root: pathlib.Path,
  splits: Mapping[str, Sequence[File]],
  rule: held_out.Rule,
  notes: Sequence[str],
  missing: Sequence[str],
  *,
  made: bool,
) -> Listing:
  """The listing of files that are split by a rule.

  Args:
    root: see `Listing`.
    splits: files before the rule's fold is taken.
    rule: the rule.
    notes: see `Listing`.
    missing: see `Listing`.
    made: whether the data has no splits of its own.
  """
  splits, odd = held_out.by_fold(splits, rule.fold)
  summary = ""
  if rule.fold or (made and rule.group):
    summary = held_out.describe(splits, rule)
  odd = [*notes, *odd, *held_out.shared_groups(splits)]
  return Listing(root, splits, odd, missing, summary=summary)


def check_missing(data: str, missing: Sequence[str]) -> None:
  """Raises ValueError if there are any."""
  if missing:
    raise ValueError(
      f"{data!r}: {len(missing)} image(s) do not exist, or are broken links: "
      f"{messages.shorten(list(map(repr, missing)))}. Restore them, or remove "
      "their links or rows."
    )


def check_plug_in(data: str, root: pathlib.Path, files: Sequence[File]) -> None:
  """Raises ValueError for HEIC without its plug-in, before a run begins."""
  if image_files.can_read_heif():
    return
  found = []
  for file in files:
    if file.path.lower().endswith(_HEIF_EXTENSIONS):
      if image_files.kind_of(file.read(root)) == "HEIF":
        found.append(file.path)
  if found:
    raise ValueError(
      f"{data!r} has {len(found)} HEIC image(s), which need a plug-in: pip "
      'install "vitjax[heic]". Or convert them to JPEG, or remove them: '
      f"{messages.shorten(list(map(repr, found)))}."
    )


def classes_of(data: str, splits: Mapping[str, Sequence[File]]) -> list[str]:
  """The classes of the training images, in natural order.

  Raises:
    ValueError: if there are no training images.
  """
  train = {file.class_name for file in splits.get("train", ())} - {""}
  if not train:
    raise ValueError(
      f"{data!r} has no training images, so its classes are unknown. Add a "
      "train split, or give class_names."
    )
  if len(train) == 1:
    warn_once(f"{data}: {one_class(train)}")
  return sorted(train, key=natural)


def one_class(names: Collection[str]) -> str:
  """A warning about a data set with one class."""
  return (
    f"the only class is {next(iter(names))!r}: a classifier has nothing to "
    "learn, and is always right."
  )


def _split_folders(
  root: pathlib.Path,
) -> tuple[dict[str, pathlib.Path], list[pathlib.Path]]:
  """The split folders and the other folders; {} if the folders are classes.

  A split folder has folders of its own, so a class of trains is none.

  Raises:
    ValueError: if two are of the same split, or all lack class folders.
  """
  found, others = {}, []
  folders = _sub_folders(root)
  names = [SPLIT_NAMES.get(folder.name.lower()) for folder in folders]
  for name, folder in zip(names, folders):
    if name is None or not _sub_folders(folder):
      others.append(folder)
    elif name in found:
      raise ValueError(
        f"{str(root)!r} has two folders for split {name!r}: "
        f"{found[name].name} and {folder.name}."
      )
    else:
      found[name] = folder
  if folders and not found and None not in names:
    listed = ", ".join(folder.name for folder in folders)
    raise ValueError(
      f"{str(root)!r} has split folders without class folders: {listed}. Put "
      f"the images into one folder per class, as in {folders[0]}/cat/1.jpg, "
      "or write a table of labels, labels:/path/labels.csv."
    )
  return dict(
    sorted(found.items(), key=lambda item: item[0] != "train")
  ), others


def _sub_folders(folder: pathlib.Path) -> list[pathlib.Path]:
  return sorted(
    path
    for path in folder.iterdir()
    if path.is_dir() and not path.name.startswith(".")
  )


def walk(
  folder: pathlib.Path,
) -> tuple[list[pathlib.Path], list[pathlib.Path]]:
  """The images below a folder, and the other files; hidden ones are neither.

  What is an image is told by its name; both lists are sorted. Links to folders
  are followed, but no folder is entered twice, nor one that is above.

  Raises:
    ValueError: if a folder cannot be read.
  """

  def fail(error: OSError):
    raise ValueError(f"{error.filename}: {error.strerror}.") from error

  real = folder.resolve()
  images, others, seen = [], [], {real, *real.parents}
  for parent, folders, names in os.walk(folder, onerror=fail, followlinks=True):
    entered = []
    for name in sorted(folders):
      real = pathlib.Path(parent, name).resolve()
      if not name.startswith(".") and real not in seen:
        seen.add(real)
        entered.append(name)
    folders[:] = entered
    for name in names:
      if not name.startswith("."):
        path = pathlib.Path(parent, name)
        known = path.suffix.lower() in EXTENSIONS
        (images if known else others).append(path)
  return sorted(images), sorted(others)


@dataclasses.dataclass(frozen=True)
class _Scan:
  files: list[File]
  notes: list[str]
  missing: list[str]


def _scan(root: pathlib.Path, folder: pathlib.Path, *, is_train: bool) -> _Scan:
  """All images of the class folders in `folder`, by class and path."""
  classes = sorted(_sub_folders(folder), key=lambda path: natural(path.name))
  files, empty, missing, below = [], [], [], {}
  skipped = [
    path
    for path in folder.iterdir()
    if not path.is_dir() and not path.name.startswith(".")
  ]
  for class_folder in classes:
    images, others = walk(class_folder)
    skipped += others
    found = []
    for path in images:
      relative = path.relative_to(root).as_posix()
      try:
        found.append(File(relative, path.stat().st_size, class_folder.name))
      except OSError:
        missing.append(relative)
    if not images:
      empty.append(repr(class_folder.name))
    parts = [path.relative_to(class_folder).parts for path in images]
    below[class_folder.name] = {x[0] if len(x) > 1 else None for x in parts}
    files += sorted(found, key=lambda file: file.path)
  if not files and not missing:
    raise ValueError(
      f"No images in class folders below {str(folder)!r}. Put them into one "
      f"folder per class; the extensions are {' '.join(EXTENSIONS)}."
    )
  notes = _check_depth(folder, below) if is_train else []
  if empty and is_train:
    raise ValueError(
      f"No images in class folder(s) of {str(folder)!r}: "
      f"{messages.shorten(empty)}. "
      "Remove these folders or fill them: they would count as classes."
    )
  if empty:
    notes.append(
      f"class folder(s) of {folder.name!r} without images: "
      f"{messages.shorten(empty)}."
    )
  if skipped:
    notes.append(
      f"skipped file(s) in {str(folder)!r} that are not images in a class "
      f"folder: {by_kind(skipped)}."
    )
  return _Scan(files, notes, missing)


def _check_depth(
  folder: pathlib.Path, below: Mapping[str, Set[str | None]]
) -> list[str]:
  """Checks whether class folders can be classes.

  Args:
    folder: folder of the class folders.
    below: class -> folders within its folder that have images; contains None if
      the class folder has images itself.

  Returns:
    Sentences about what looks odd.

  Raises:
    ValueError: if they cannot be classes.
  """
  found = set().union(*below.values())
  names = {x for x in found if x is not None}
  if names != found:
    return []
  classes, listed = (
    messages.shorten([repr(x) for x in sorted(group, key=natural)], 5)
    for group in (below, names)
  )
  if len(below) == 1:
    raise ValueError(
      f"{str(folder)!r}: the only class folder, {classes}, holds no images but "
      f"the folders {listed}. Images are labelled by the outermost folder. Use "
      f"folder:{folder / next(iter(below))} if the data set begins there."
    )
  splits = {SPLIT_NAMES.get(name.lower()) for name in names}
  if len(splits) > 1 and None not in splits:
    raise ValueError(
      f"{str(folder)!r}: the class folders {classes} hold the split folders "
      f"{listed}. Put the split folders outside, such as train/"
      f"{next(iter(below))}/1.jpg."
    )
  if len(names) > 1 and all(x == names for x in below.values()):
    return [
      f"the folders {classes} hold no images but the same folders: {listed}. "
      "Images are labelled by the outermost folder. If these are splits, call "
      f"them {', '.join(SPLIT_NAMES)}."
    ]
  return []


def by_kind(paths: Sequence[pathlib.Path]) -> str:
  """Number of files of each extension: "3 x .txt, 1 x .raw"."""
  counts = Counter(path.suffix or path.name for path in paths)
  return ", ".join(f"{n} x {kind}" for kind, n in counts.most_common(10))


def natural(name: str) -> list:
  """Sorts names as people do: 0, 1, 2, 10."""
  parts = re.split(r"(\d+)", name)
  # Odd items are numbers; the name itself distinguishes 01 from 1.
  return [
    (0, int(part), "") if i % 2 else (1, 0, part)
    for i, part in enumerate(parts)
  ] + [(-1, 0, name)]
