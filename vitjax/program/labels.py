"""What the labels of the training data ask of the config, and give to a run.

The width of the head, the weights of classes, the scale of targets, and the
sentences about them in the log.
"""

from collections.abc import Collection, Iterator, Mapping, Sequence

import numpy as np

from vitjax import losses
from vitjax.config.schema import ConfigError, RunConfig
from vitjax.data import order
from vitjax.data.sources.source import KINDS, Source

# Classes that are all named in a line of the log.
_MOST_NAMED = 10


def number_of_classes(run: RunConfig, source: Source) -> int | None:
  """Width of the head: the config's, or the number of classes of the data.

  None for a run without labels: on images and texts, or on images alone.

  Raises:
    ConfigError: if neither says, the data has more classes than that, or
      `config.model` has another number.
  """
  if not losses.needs_labels(run.loss):
    return None
  num_classes = run.num_classes or source.num_classes
  if source.kind != "single_label" and num_classes != source.num_classes:
    raise ConfigError(
      f"config.num_classes={run.num_classes}, but {source.data} has "
      f"{source.num_classes} columns of labels. Remove config.num_classes."
    )
  if not num_classes or num_classes < (source.num_classes or 0):
    raise ConfigError(
      f"config.num_classes={run.num_classes}, but {source.data} has "
      f"{source.num_classes or 'no known number of'} classes."
    )
  of_model = run.model.get("num_classes", num_classes)
  if of_model != num_classes:
    raise ConfigError(
      f"config.model.num_classes={of_model}, but the run has {num_classes} "
      f"classes ({source.data} has {source.num_classes}). Remove it; "
      "config.num_classes makes the head wider than the data need."
    )
  return num_classes


# Kind of labels -> settings without a meaning, and why.
_UNFIT = {
  "soft_label": {"target_threshold": "its targets are probabilities"},
  "regression": {
    "class_weights": "its targets are numbers, not classes",
    "mixing.label_smoothing": "its targets are numbers, not classes",
    "target_threshold": "its targets are numbers, not classes",
  },
}


def check_labels(run: RunConfig, source: Source) -> None:
  """Raises ConfigError if the config does not fit the labels of the data."""
  if not losses.needs_labels(run.loss):
    return
  kind, what = source.kind, KINDS[source.kind]
  if run.loss not in losses.OF_KIND[kind]:
    hint = ""
    if kind == "single_label" and losses.is_regression(run.loss):
      hint = (
        " If its labels are numbers, in a column label of a table, add "
        ":regression=label to the name of the data."
      )
    raise ConfigError(
      f"config.loss={run.loss!r} does not fit {source.data}, where each image "
      f"has {what}. Use one of {', '.join(losses.OF_KIND[kind])}.{hint}"
    )
  settings = {
    "class_weights": run.class_weights,
    "mixing.label_smoothing": run.mixing.label_smoothing or None,
    "target_threshold": run.target_threshold,
    "input.sampling": run.input.sampling,
  }
  unfit = dict(_UNFIT.get(kind, {}))
  if source.has_unknown:
    unfit["input.sampling"] = "some images have an unknown class"
  for key, why in unfit.items():
    if settings[key] is not None:
      raise ConfigError(
        f"config.{key}={settings[key]!r} does not fit {source.data}: {why}. "
        "Remove it."
      )
  for key in ("class_weights", "input.sampling"):
    by_target = key == "class_weights" and kind == "multi_label"
    if isinstance(settings[key], str) and not by_target:
      try:
        source.known_labels()
      except ValueError as e:
        raise ConfigError(f"config.{key}={settings[key]!r}: {e}") from e


def check_features(
  run: RunConfig, source: Source, found: Collection[str]
) -> None:
  """Raises ConfigError if the ops have removed the labels of the images.

  Args:
    run: the config.
    source: the training data.
    found: names of the features after the ops.
  """
  if not losses.needs_labels(run.loss):
    return
  needed = [] if source.kind == "single_label" else ["labels"]
  if source.has_unknown and source.labels is not None:
    needed.append("label")
  for name in needed:
    if name not in found:
      raise ConfigError(
        f"config.input.pp={run.input.pp!r} removes the feature {name!r}, which "
        f"the loss of {source.data} needs. Keep it."
      )


def target_scale(source: Source) -> tuple[np.ndarray, np.ndarray] | None:
  """Mean and deviation (n,) float32 of each target of a regression.

  Of the training data, without unknown ones; None for other kinds of labels. A
  target that is always the same has deviation 1.

  Raises:
    ConfigError: if a target is unknown for all images.
  """
  if source.kind != "regression":
    return None
  assert source.targets is not None  # of all kinds but single labels
  values = source.targets.astype(np.float64)
  absent = np.isnan(values).all(axis=0)
  if absent.any():
    name = (source.class_names or ())[int(absent.argmax())]
    raise ConfigError(
      f"{source.data} {source.split}: {name} is unknown for all images."
    )
  mean, deviation = np.nanmean(values, axis=0), np.nanstd(values, axis=0)
  deviation = np.where(deviation > 0, deviation, 1.0)
  return mean.astype(np.float32), deviation.astype(np.float32)


def weights_of_classes(
  run: RunConfig, source: Source, num_classes: int | None
) -> Sequence[float] | None:
  """`config.class_weights` as one number for each class; None without any.

  "balanced" is n / (classes * images of the class); where images have several
  classes, the weight of its positive images is negative / positive.

  Args:
    run: the config.
    source: the training data, which passes `check_labels`.
    num_classes: width of the head.

  Raises:
    ConfigError: if there is not one for each class.
  """
  given = run.class_weights
  if given is None:
    return None
  if given == "balanced" and source.kind == "multi_label":
    assert source.targets is not None  # of all kinds but single labels
    positive = (source.targets == 1).sum(axis=0).tolist()
    negative = (source.targets == 0).sum(axis=0).tolist()
    return [n / p if p and n else 1.0 for p, n in zip(positive, negative)]
  if given == "balanced":
    labels = source.known_labels()
    labels = labels[labels >= 0]
    counts = np.bincount(labels, minlength=num_classes or 0)
    # As scikit-learn's; a class without images has no use for a weight.
    mean = len(labels) / np.count_nonzero(counts)
    return [mean / count if count else 0.0 for count in counts.tolist()]
  if len(given) != num_classes:
    raise ConfigError(
      f"config.class_weights={given!r} has {len(given)} weights, and the run "
      f"has {num_classes} classes. Give one for each class, or 'balanced'."
    )
  return given


def describe_labels(
  run: RunConfig, source: Source, num_classes: int | None
) -> str:
  """What the images of the training data have, for the log."""
  if run.loss in losses.MASKED:
    return "whose labels are not used"
  if num_classes is None:
    return "with texts"
  what = {
    "single_label": "classes",
    "multi_label": "classes, of which an image has any number",
    "soft_label": "classes with probabilities",
    "regression": "targets",
  }[source.kind]
  return f"{num_classes} {what}"


def describe_classes(
  run: RunConfig, source: Source, num_classes: int | None
) -> Iterator[str]:
  """Sentences about how much each class counts, for the start of a run.

  Args:
    run: the config.
    source: the training data.
    num_classes: width of the head; None without classes.
  """
  if num_classes is None or source.num_classes is None:
    return
  names = [str(x) for x in source.class_names or range(source.num_classes)]
  sampling = f"Sampling: {run.input.sampling or 'uniform'}"
  if source.labels is None:
    yield f"{sampling}."
  else:
    of_images = order.shares(source.labels, None, len(names)) * 100
    shown = source.shares(run.input.sampling) * 100
    parts = {
      name: f"{a:.3g} -> {b:.3g} %"
      for name, a, b in zip(names, of_images, shown)
    }
    meaning = "share of the images -> share of what is shown"
    if np.array_equal(of_images, shown):
      parts = {name: f"{x:.3g} %" for name, x in zip(names, shown)}
      meaning = "each image once in each epoch; share of the images"
    yield f"{sampling}; {meaning}: {_extremes(parts, of_images)}."
  if (weights := weights_of_classes(run, source, num_classes)) is not None:
    how = " (balanced)" if run.class_weights == "balanced" else ""
    parts = {name: f"{x:.3g}" for name, x in zip(names, weights)}
    yield f"Class weights{how}: {_extremes(parts, np.asarray(weights))}."


def _extremes(parts: Mapping[str, str], values: np.ndarray) -> str:
  """A text for each class, or for those with the largest and smallest value."""
  texts = [f"{name}: {text}" for name, text in parts.items()]
  if len(texts) <= _MOST_NAMED:
    return ", ".join(texts)
  down = np.argsort(-values, kind="stable")
  first, last = ([texts[i] for i in x] for x in (down[:3], down[-3:]))
  more = f"... {len(texts) - 6:,} more ..."
  return ", ".join([*first, more, *last])
