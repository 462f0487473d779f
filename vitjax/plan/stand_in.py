"""Training data of a plan, or a stand-in where the data is not here."""

import re
from collections.abc import Mapping

from vitjax import losses
from vitjax.config.schema import ConfigError, RunConfig
from vitjax.data import sources
from vitjax.data.sources import held_out, targets
from vitjax.data.sources.arrays import AbsentSource
from vitjax.data.sources.source import (
  DatasetNotPreparedError,
  Source,
  split_indices,
)

# Data sets of the recipes, which need not exist for a plan: examples of each
# split, number of classes, and the shape of all images if they have one.
_IMAGENET = {"train": 1_281_167, "validation": 50_000}
_CIFAR = {"train": 50_000, "test": 10_000}
_MNIST = {"train": 60_000, "test": 10_000}
DATA: dict[str, tuple[Mapping[str, int], int, tuple[int, int, int] | None]] = {
  "imagenet2012": (_IMAGENET, 1000, None),
  "cifar10": (_CIFAR, 10, (32, 32, 3)),
  "cifar100": (_CIFAR, 100, (32, 32, 3)),
  "fashion_mnist": (_MNIST, 10, (28, 28, 1)),
  "mnist": (_MNIST, 10, (28, 28, 1)),
}


def find_source(
  run: RunConfig, num_examples: int | None
) -> tuple[Source, int | None]:
  """The training data, or a stand-in of the same shapes.

  Args:
    run: a config.
    num_examples: examples of an epoch, if the user knows them.

  Returns:
    The source, and its number of examples; None if that is not known.

  Raises:
    ConfigError: if the data is not here and its classes are not known.
  """
  data, split = run.input.data, run.input.split
  known = DATA.get(re.split("[/:]", data)[0])
  if known is not None:
    sizes, num_classes, image_shape = known
    parts = split_indices(data, split, sizes)
    total = num_examples or sum(len(indices) for _, indices in parts)
    source = AbsentSource(
      data,
      split,
      num_examples=total,
      num_classes=num_classes,
      image_shape=image_shape,
    )
    return source, total
  try:
    source = sources.open_source(data, split, data_dir=run.input.data_dir)
    return source, source.num_examples
  except (DatasetNotPreparedError, OSError, ValueError) as e:
    kind, columns = _columns(data)
    known_width = run.num_classes or columns
    if losses.needs_labels(run.loss) and not known_width:
      raise ConfigError(
        "The data is not here, so its classes cannot be counted: set "
        f"config.num_classes. ({e})"
      ) from e
    # Shapes do not depend on the number.
    source = AbsentSource(
      data,
      split,
      num_examples=num_examples or 1,
      num_classes=columns or None,
      kind=kind,
    )
    return source, num_examples


def _columns(data: str) -> tuple[str, int]:
  """Kind of the labels, and number of the columns that `data` names."""
  _, options = targets.split_options(held_out.split_rule(data)[0])
  count = 0 if options.columns == ("*",) else len(options.columns)
  return options.kind or "single_label", count
