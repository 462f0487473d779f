"""The classes of ImageNet-1k: their ids and readable names.

Models and data sets use WordNet's ids, such as "n02099601", as class names, in
the order of the labels. The readable name, "golden retriever", is the first
one that WordNet gives (https://wordnet.princeton.edu, version 3.0).
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
  """Class names, with WordNet's ids of ImageNet-1k replaced by words."""
  return tuple(_names().get(name, name) for name in class_names)
