"""Ops on labels and on the dict of features itself."""

from vitjax.data.pp.kinds import AnyOp, Features, is_chunk
from vitjax.data.tf import tf

# Owned by the pipeline: which example this is, whether it is one, its seed.
RESERVED = ("index", "mask", "seed")


def onehot(
  num_classes: int,
  *,
  key: str = "label",
  key_result: str = "labels",
  on: float = 1.0,
  off: float = 0.0,
) -> AnyOp:
  """Turns class ids into float32 targets of length `num_classes`.

  A vector of ids gives a multi-hot target. Ids outside of the classes are
  ignored, so an example of which no id is valid gets `off` everywhere.
  """

  def run(features: Features) -> Features:
    ids = features[key]
    hot = tf.one_hot(ids, num_classes, on_value=True, off_value=False)
    if ids.shape.rank > is_chunk(features):
      hot = tf.reduce_any(hot, axis=-2)
    return {**features, key_result: tf.where(hot, float(on), float(off))}

  return AnyOp(run)


def keep(*names: str) -> AnyOp:
  """Keeps only the named features (and those that the pipeline owns)."""
  if not names:
    raise ValueError("keep needs the name of at least one feature")

  def run(features: Features) -> Features:
    require(features, names)
    kept = (*names, *RESERVED)
    return {name: value for name, value in features.items() if name in kept}

  return AnyOp(run)


def drop(*names: str) -> AnyOp:
  """Removes the named features."""
  if bad := set(names) & set(RESERVED):
    raise ValueError(f"{sorted(bad)} cannot be dropped")

  def run(features: Features) -> Features:
    require(features, names)
    return {k: v for k, v in features.items() if k not in names}

  return AnyOp(run)


def copy(inkey: str, outkey: str) -> AnyOp:
  """Copies the feature `inkey` to `outkey`."""

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
