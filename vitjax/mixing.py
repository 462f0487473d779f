"""Mixing and erasing of examples on the device, over the global batch.

Partners, weights and boxes depend on the key alone, so one device and 256
devices train on the same images.
"""

import math
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

MODES = ("batch", "elem")
PARTNERS = ("roll", "flip")

# Numbers to fold into the key of `mix`. Mixup's weight is drawn from the key
# itself, so 0 and 1 are not used.
_CUTMIX, _SWITCH, _PROB, _ROW, _COLUMN, _ERASE = range(2, 8)
# Random erasing as in timm: shares of the image, the largest aspect ratio
# (the inverse of the smallest), and the number of boxes to try.
_ERASED_AREA = (0.02, 1 / 3)
_ERASED_ASPECT = 1 / 0.3
_ERASE_ATTEMPTS = 10


def augment(
  image: Float[Array, "b h w c"],
  labels: Float[Array, "b n"],
  key: jax.Array,
  *,
  mixup_alpha: float = 0.0,
  cutmix_alpha: float = 0.0,
  prob: float = 1.0,
  switch_prob: float = 0.5,
  mode: str = "batch",
  partner: str = "roll",
  erase_prob: float = 0.0,
  label_smoothing: float = 0.0,
  target_threshold: float | None = None,
) -> tuple[Float[Array, "b h w c"], Float[Array, "b n"]]:
  """Erases, smooths labels, mixes and thresholds a normalised batch.

  In this order; each is off by default. See the functions below for the
  arguments.
  """
  if erase_prob:
    erase_key = jax.random.fold_in(key, _ERASE)
    image = random_erasing(image, erase_prob, erase_key)
  if label_smoothing:
    labels = smooth_labels(labels, label_smoothing)
  image, labels = mix(
    image,
    labels,
    key,
    mixup_alpha=mixup_alpha,
    cutmix_alpha=cutmix_alpha,
    prob=prob,
    switch_prob=switch_prob,
    mode=mode,
    partner=partner,
  )
  if target_threshold is not None:
    labels = threshold(labels, target_threshold)
  return image, labels


def augment_known(
  image: Float[Array, "b h w c"],
  labels: Float[Array, "b n"],
  weights: Float[Array, "b m"],
  key: jax.Array,
  *,
  binary: bool,
  label_smoothing: float = 0.0,
  target_threshold: float | None = None,
  **options: Any,
) -> tuple[Float[Array, "b h w c"], Float[Array, "b n"], Float[Array, "b m"]]:
  """`augment` for targets of which some are unknown: those of weight 0.

  The loss of a mixed image is the mixed loss of its images, in which unknown
  targets have no part: where only one of the two is known, it is the target,
  and its weight is its share of the image.

  Args:
    image: normalised images.
    labels: targets; finite also where they are unknown.
    weights: 1 for known targets, 0 for unknown ones; one for each target, or
      with m = 1 one for each example.
    key: PRNG key of this step.
    binary: whether each target is 0 or 1 on its own, and smoothed towards 1/2.
    label_smoothing, target_threshold, options: see `augment`.

  Returns:
    Images, targets and their weights.
  """
  if label_smoothing:
    uniform = 0.5 if binary else 1.0 / labels.shape[-1]
    labels = labels * (1.0 - label_smoothing) + label_smoothing * uniform
  both = jnp.concatenate([labels * weights, weights], axis=1)
  image, both = augment(image, both, key, **options)
  n = labels.shape[1]
  weights = both[:, n:]
  labels = jnp.where(weights > 0, both[:, :n] / weights, 0.0)
  if target_threshold is not None:
    labels = threshold(labels, target_threshold)
  return image, labels, weights


def mix(
  image: Float[Array, "b h w c"],
  labels: Float[Array, "b n"],
  key: jax.Array,
  *,
  mixup_alpha: float,
  cutmix_alpha: float,
  prob: float,
  switch_prob: float,
  mode: str,
  partner: str,
) -> tuple[Float[Array, "b h w c"], Float[Array, "b n"]]:
  """Mixes each example with another one of the batch, by mixup or CutMix.

  mixup, https://arxiv.org/abs/1710.09412: a weighted mean, in which the
  example itself has the larger weight.

  CutMix, https://arxiv.org/abs/1905.04899: a box with the pixels of the other
  example. Its sides are `sqrt(1 - weight)` of the image's, its centre is
  uniform, and it is clipped at the border. Labels are mixed by the share of
  pixels that remain, as published.

  Args:
    image: normalised images.
    labels: targets.
    key: PRNG key of this step.
    mixup_alpha: both parameters of the Beta distribution of mixup's weight; 0
      turns mixup off.
    cutmix_alpha: the same for CutMix.
    prob: probability of mixing at all.
    switch_prob: probability of CutMix where both alphas are positive.
    mode: "batch" draws once for the whole batch, "elem" for each example.
    partner: "roll" mixes with the neighbour before, as big_vision does, "flip"
      with the batch in reverse order, as timm does.

  Returns:
    Mixed images and labels; the same ones if both alphas are 0.

  Raises:
    ValueError: if `mode` or `partner` is none of these.
  """
  if mode not in MODES or partner not in PARTNERS:
    raise ValueError(
      f"mode={mode!r} must be one of {', '.join(MODES)} and "
      f"partner={partner!r} one of {', '.join(PARTNERS)}."
    )
  if not (mixup_alpha or cutmix_alpha):
    return image, labels
  shape = (1,) if mode == "batch" else image.shape[:1]

  def key_of(use):
    return jax.random.fold_in(key, use)

  # A weight of 1 leaves an example as it is, also with CutMix.
  mixed = jax.random.uniform(key_of(_PROB), shape) < prob
  weight = pixel_weight = jnp.ones(shape)
  if mixup_alpha:
    weight = jax.random.beta(key, mixup_alpha, mixup_alpha, shape)
    weight = jnp.where(mixed, jnp.maximum(weight, 1.0 - weight), 1.0)
    pixel_weight = weight[:, None, None]
  if cutmix_alpha:
    lam = jax.random.beta(key_of(_CUTMIX), cutmix_alpha, cutmix_alpha, shape)
    side = jnp.sqrt(jnp.where(mixed, 1.0 - lam, 0.0))
    rows = _centred(side, image.shape[1], key_of(_ROW))
    columns = _centred(side, image.shape[2], key_of(_COLUMN))
    outside = ~_box(rows, columns)
    share = outside.mean(axis=(1, 2))
    if mixup_alpha:
      cut = jax.random.uniform(key_of(_SWITCH), shape) < switch_prob
      weight = jnp.where(cut, share, weight)
      pixel_weight = jnp.where(cut[:, None, None], outside, pixel_weight)
    else:
      weight, pixel_weight = share, outside.astype(share.dtype)

  def blend(x, w):
    other = jnp.roll(x, 1, axis=0) if partner == "roll" else x[::-1]
    w = w.astype(x.dtype)
    return w * x + (1 - w) * other

  return blend(image, pixel_weight[..., None]), blend(labels, weight[:, None])


def random_erasing(
  image: Float[Array, "b h w c"], prob: float, key: jax.Array
) -> Float[Array, "b h w c"]:
  """Replaces a box of an image by standard normal noise.

  Random Erasing Data Augmentation, https://arxiv.org/abs/1708.04896, with the
  defaults of timm: the box covers 2 % to a third of the pixels, and its aspect
  ratio is 0.3 to 1 / 0.3, uniform in the logarithm. Ten boxes are drawn; the
  first that is smaller than the image in both directions is used.

  Args:
    image: normalised images.
    prob: probability that an image gets a box.
    key: PRNG key of this step.
  """
  batch, height, width, _ = image.shape
  keys = jax.random.split(key, 6)
  candidates = (batch, _ERASE_ATTEMPTS)
  low, high = _ERASED_AREA
  area = jax.random.uniform(keys[0], candidates, minval=low, maxval=high)
  area = area * (height * width)
  most = math.log(_ERASED_ASPECT)
  aspect = jnp.exp(
    jax.random.uniform(keys[1], candidates, minval=-most, maxval=most)
  )
  heights = jnp.round(jnp.sqrt(area * aspect)).astype(jnp.int32)
  widths = jnp.round(jnp.sqrt(area / aspect)).astype(jnp.int32)
  fits = (heights < height) & (widths < width)
  first = jnp.argmax(fits, axis=1, keepdims=True)
  chosen = jax.random.uniform(keys[2], (batch,)) < prob
  chosen = chosen & fits.any(axis=1)

  def place(sizes, limit, key):
    size = jnp.take_along_axis(sizes, first, axis=1)[:, 0]
    size = jnp.where(chosen, size, 0)
    start = jax.random.randint(key, (batch,), 0, limit - size + 1)
    return _between(start, start + size, limit)

  box = _box(place(heights, height, keys[3]), place(widths, width, keys[4]))
  noise = jax.random.normal(keys[5], image.shape, image.dtype)
  return jnp.where(box[..., None], noise, image)


def smooth_labels(
  labels: Float[Array, "b n"], smoothing: float
) -> Float[Array, "b n"]:
  """Moves `smoothing` of the target's mass to the uniform distribution.

  Rethinking the Inception Architecture, https://arxiv.org/abs/1512.00567.
  """
  return labels * (1.0 - smoothing) + smoothing / labels.shape[-1]


def threshold(labels: Float[Array, "b n"], t: float) -> Float[Array, "b n"]:
  """1 where a target is above `t`, else 0.

  With binary cross-entropy, both classes of a mixed image then count as
  present: DeiT III, https://arxiv.org/abs/2204.07118, uses `t = 0`.
  """
  return (labels > t).astype(labels.dtype)


def _centred(
  side: Float[Array, "m"], limit: int, key: jax.Array
) -> Bool[Array, "m l"]:
  """Mask of a span with a uniformly drawn centre among `limit` places."""
  half = jnp.floor(side * (limit / 2)).astype(jnp.int32)
  centre = jax.random.randint(key, side.shape, 0, limit)
  return _between(centre - half, centre + half, limit)


def _between(
  start: Int[Array, "m"], stop: Int[Array, "m"], limit: int
) -> Bool[Array, "m l"]:
  places = jnp.arange(limit)[None]
  return (start[:, None] <= places) & (places < stop[:, None])


def _box(
  rows: Bool[Array, "m h"], columns: Bool[Array, "m w"]
) -> Bool[Array, "m h w"]:
  return rows[:, :, None] & columns[:, None, :]
