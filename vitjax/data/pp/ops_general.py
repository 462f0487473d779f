"""Ops on labels and on the dict of features itself."""

from vitjax.data.pp.kinds import AnyOp, Features, is_chunk
from vitjax.data.tf import tf

# Owned by the pipeline: index of the example, whether it is real, its seed and
# the number of its view, see `pipeline.train_batches`.
RESERVED = ("index", "mask", "seed", "view")


def onehot(
  num_classes: int,
  *,
  key: str = "label",
  key_result: str = "labels",
  on: float = 1.0,
  off: float = 0.0,
) -> AnyOp:
  """Turns class ids into float32 targets of length `num_classes`.

  A vector of ids gives a multi-hot target. Ids outside 0..num_classes-1 are
  ignored: an example without a valid id gets `off` everywhere.

  Args:
    num_classes: length of the target.
    key: feature with the class id, or with several.
    key_result: feature for the target; the loss reads "labels".
    on: value of the example's classes.
    off: value of all other classes.
  """

  def run(features: Features) -> Features:
    ids = features[key]
    hot = tf.one_hot(ids, num_classes, on_value=True, off_value=False)
    if ids.shape.rank > is_chunk(features):
      hot = tf.reduce_any(hot, axis=-2)
    return {**features, key_result: tf.where(hot, float(on), float(off))}

  return AnyOp(run)


def keep(*names: str) -> AnyOp:
  """Keeps the named features and the pipeline's own; removes all others.

  Args:
    *names: features to keep, such as "image", "labels".
  """
  if not names:
    raise ValueError("keep needs the name of at least one feature")

  def run(features: Features) -> Features:
    require(features, names)
    kept = (*names, *RESERVED)
    return {name: value for name, value in features.items() if name in kept}

  return AnyOp(run)


def drop(*names: str) -> AnyOp:
  """Removes the named features.

  Args:
    *names: features to remove.
  """
  if bad := set(names) & set(RESERVED):
    raise ValueError(f"{sorted(bad)} cannot be dropped")

  def run(features: Features) -> Features:
    require(features, names)
    return {k: v for k, v in features.items() if k not in names}

  return AnyOp(run)


def copy(inkey: str, outkey: str) -> AnyOp:
  """Copies a feature.

  Args:
    inkey: feature to copy.
    outkey: feature for the copy.
  """

  def run(features: Features) -> Features:
    require(features, (inkey,))
    return {**features, outkey: features[inkey]}

  return AnyOp(run)


def require(features: Features, names: tuple[str, ...]) -> None:
  """Raises ValueError unless there are features of these names."""
  if missing := [name for name in names if name not in features]:
    raise ValueError(
      f"Preprocessing: no feature {missing[0]!r}; there are "
      f"{sorted(set(features) - {'seed'})}."
    )


OPS = {"onehot": onehot, "keep": keep, "drop": drop, "copy": copy}
