"""Where examples come from, as random access to numbered examples.

`open_source` is the table: the form of a data set's name -> the file here that
reads it. `source.py` has what a source is.
"""

from collections.abc import Sequence

from absl import logging

from vitjax.data.sources import arrays, captions, folder, labels
from vitjax.data.sources.source import Source


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
      class folders ("folder:/path"), a file of labels
      ("labels:/path/labels.csv") or of captions
      ("captions:/path/captions.jsonl"), "digits" (scikit-learn's 1797 images
      of 8x8), or random images ("fake:NUM,HxWxC,CLASSES").
    split: in TFDS notation: "train", "train[:99%]", "train[10:20]+test".
    data_dir: where TFDS looks for prepared data sets; its default if none.
    class_names: the classes that the model knows, by class id; if given, the
      source labels examples with these or refuses.
    cache: keeps decoded images in memory once they are read, if they are
      records of one size: decoding is nearly all the work for small ones.
      Others are not kept; see docs/data.md.

  Returns:
    The source. Nothing is downloaded.

  Raises:
    DatasetNotPreparedError: if a TFDS data set has to be prepared first.
    ValueError: if there is no such data set or split, its classes differ, or
      the images that are to be kept do not fit into the memory.
  """
  if data.startswith("folder:"):
    source = folder.FolderSource(data, split, class_names)
  elif data.startswith("labels:"):
    source = labels.LabelsSource(data, split, class_names)
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
    logging.warning("%s: input.cache keeps no images of various sizes.", data)
  if class_names is not None:
    _check_class_names(source, tuple(class_names))
  return source


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
    f"{difference}. Labels would mean something else; use matching data."
  )
