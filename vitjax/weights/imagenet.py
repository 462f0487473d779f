"""The classes of ImageNet-1k: their ids and what they are called.

Models and data sets have the ids of WordNet, "n02099601", as class names, in
the order of the labels; people read "golden retriever", WordNet's first name
for it (https://wordnet.princeton.edu, version 3.0).
"""

import functools
import pathlib
from collections.abc import Sequence

NUM_CLASSES = 1000
_FILE = pathlib.Path(__file__).with_name("imagenet_classes.txt")


@functools.cache
def _names() -> dict[str, str]:
  lines = _FILE.read_text(encoding="utf-8").splitlines()
  return dict(line.split(" ", 1) for line in lines)


def class_names() -> tuple[str, ...]:
  """The WordNet ids by label, as in TFDS's imagenet2012."""
  return tuple(_names())


def readable(class_names: Sequence[str]) -> tuple[str, ...]:
  """Class names with those that are WordNet ids of ImageNet-1k in words."""
  return tuple(_names().get(name, name) for name in class_names)
