"""Where examples come from, as random access to numbered examples.

`open_source` chooses the file here that reads a data set, by the form of its
name. `source.py` defines what a source is.
"""

import pathlib
from collections.abc import Sequence

from vitjax.config import places
from vitjax.data.sources import (
  arrays,
  captions,
  folder,
  held_out,
  labels,
  mixture,
  shards,
  tables,
  targets,
  unlabelled,
  wds,
)
from vitjax.data.sources.source import Source, warn_once

# Kinds of data whose labels are names of classes; they have folds and groups.
NAMED = ("folder", "labels", "wds", "parquet")
# Of a path alone, by its extension.
_KINDS = {
  **dict.fromkeys(tables.EXTENSIONS, "labels"),
  ".tar": "wds",
  ".parquet": "parquet",
}
# Kinds of data whose files must be local or mounted.
_LOCAL = ("folder", "labels", "captions", "images")


def open_source(
  data: str,
  split: str,
  *,
  data_dir: str | None = None,
  class_names: Sequence[str] | None = None,
  cache: bool = False,
) -> Source:
  """Opens a split of a data set.

  Args:
    data: a TFDS name ("imagenet2012", "name/config:version"), a folder of
      class folders ("folder:/path"), a folder of images without labels
      ("images:/path"), a file of labels
      ("labels:/path/labels.csv"), a folder of label files ("labels:/path"), a
      file of captions ("captions:/path/captions.jsonl"), tar files of
      WebDataset ("wds:/path/{000..099}.tar") or Parquet files
      ("parquet:/path/*.parquet"), several data sets
      ("mixture:0.7*folder:/path+0.3*wds:/path"), "digits" (scikit-learn's 1797
      images of 8x8), or random images ("fake:NUM,HxWxC,CLASSES"). A path alone
      is that of a folder, or of a file by its extension. A kind of `NAMED` may
      end in ":fold=I/K" and ":group=RULE", see `held_out.Rule`; columns of
      a table of labels are chosen before it by ":multi_label=A+B" and so on,
      see `targets`.
    split: split in TFDS notation: "train", "train[:99%]", "train[10:20]+test".
    data_dir: folder in which TFDS looks for prepared data sets. None: its
      default.
    class_names: names of the model's classes, in the order of their ids. The
      source labels its examples with these ids, or is refused.
    cache: keep decoded images in memory after they are first read, if they are
      records of TFDS that all have one size. Others are decoded each time; see
      docs/data.md.

  Returns:
    The source. Nothing is downloaded.

  Raises:
    DatasetNotPreparedError: if a TFDS data set must be prepared first.
    ValueError: if there is no such data set or split, its classes differ, or
      the images to keep do not fit into the memory.
  """
  data = with_kind(data)
  kind = data.partition(":")[0]
  rule = held_out.Rule()
  if kind != "mixture":  # each part has its own
    _, rule = held_out.split_rule(data)
  if (rule.fold or rule.group) and kind not in NAMED:
    raise ValueError(
      f"{data!r}: only folder:, labels:, wds: and parquet: have folds and "
      "groups."
    )
  if kind in _LOCAL and places.is_remote(data):
    raise ValueError(
      f"{data!r}: of object stores, only wds: and parquet: are read. Pack the "
      "images into tar shards, which also read faster; or copy them (`gcloud "
      "storage cp -r`, `aws s3 sync`), or mount the bucket (gcsfuse, "
      "mountpoint-s3)."
    )
  if data.startswith("mixture:"):
    parts = [
      open_source(
        part,
        split,
        data_dir=data_dir,
        class_names=class_names if is_named(part) else None,
        cache=cache,
      )
      for _, part in mixture.parse(data)
    ]
    return mixture.MixtureSource(data, split, parts, class_names)
  if data.startswith("folder:"):
    source = folder.FolderSource(data, split, class_names)
  elif data.startswith("labels:"):
    source = labels.LabelsSource(data, split, class_names)
  elif data.startswith("wds:"):
    source = shards.ShardSource(data, split, wds.read(data), class_names)
  elif data.startswith("parquet:"):
    from vitjax.data.sources import parquet  # PyArrow takes half a second

    source = shards.ShardSource(data, split, parquet.read(data), class_names)
  elif data.startswith("images:"):
    source = unlabelled.UnlabelledSource(data, split)
  elif data.startswith("captions:"):
    source = captions.CaptionsSource(data, split)
  elif data.startswith("fake:"):
    source = arrays.FakeSource(data, split)
  elif data == "digits":
    source = arrays.digits(split)
  else:
    from vitjax.data.sources import records  # TFDS takes a second to import

    source = records.TfdsSource(data, split, data_dir, cache)
  if cache and source.image_shape is None:
    warn_once(
      f"{data}: input.cache has no effect. It is for TFDS records whose images "
      "all have one size; these images are files, or differ in size."
    )
  if class_names is not None:
    _check_class_names(source, tuple(class_names))
  return source


def is_named(data: str) -> bool:
  """Whether labels are names of classes, so that a model's ids can be used."""
  return with_kind(data).partition(":")[0] in (*NAMED, "mixture")


def with_kind(data: str) -> str:
  """`data` with its kind: "folder:/path" for "/path", and so on."""
  if data.startswith(("/", "./", "../", "~")) or data in (".", ".."):
    name, _ = targets.split_options(held_out.split_rule(data)[0])
    return f"{_KINDS.get(pathlib.Path(name).suffix, 'folder')}:{data}"
  return data


def _check_class_names(source: Source, expected: tuple[str, ...]) -> None:
  found = source.class_names
  if found is None or found == expected:
    return
  if len(found) != len(expected):
    difference = f"{len(found)} classes instead of {len(expected)}"
  else:
    at = next(i for i, (a, b) in enumerate(zip(found, expected)) if a != b)
    difference = f"class {at} is {found[at]!r} instead of {expected[at]!r}"
  raise ValueError(
    f"{source.data!r} has other classes than the model was trained with: "
    f"{difference}. Its labels would mean other classes. Use data with the "
    "classes of training."
  )
