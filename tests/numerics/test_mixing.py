"""Mixing and erasing against NumPy: pixels, label shares, distributions.

Every pixel of `pixels` is unlike any other, so an output tells where each of
its pixels comes from.
"""

import functools
import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from vitjax import losses, mixing

OPTIONS = {
  "mixup_alpha": 0.0,
  "cutmix_alpha": 0.0,
  "prob": 1.0,
  "switch_prob": 0.5,
  "mode": "elem",
  "partner": "roll",
}


def over_modes_and_partners(*quick):
  """All of them; those that are not named here are slow to compile."""
  return pytest.mark.parametrize(
    "mode, partner",
    [
      pytest.param(*pair, marks=() if pair in quick else pytest.mark.slow)
      for pair in itertools.product(mixing.MODES, mixing.PARTNERS)
    ],
  )


def pixels(batch, height, width):
  image = np.arange(batch * height * width * 3, dtype=np.float32)
  return image.reshape(batch, height, width, 3)


def mix(image, seed=0, **options):
  labels = jnp.eye(len(image))
  run = jax.jit(functools.partial(mixing.mix, **OPTIONS | options))
  mixed, targets = run(jnp.asarray(image), labels, jax.random.key(seed))
  return np.asarray(mixed), np.asarray(targets)


def other_of(image, partner):
  return image[::-1] if partner == "flip" else image[np.arange(len(image)) - 1]


def spans(inside):
  """(rows, columns) of boxes of pixels; fails if one is not a rectangle."""
  for mask in inside:
    rows, columns = mask.any(axis=1), mask.any(axis=0)
    np.testing.assert_array_equal(mask, np.outer(rows, columns))
    for span in (rows, columns):  # Without a gap.
      assert np.abs(np.diff(span.astype(int))).sum() <= 2
  return inside.any(axis=2), inside.any(axis=1)


def test_mixup_is_what_it_was_to_the_last_bit():
  def published(image, labels, key):
    weight = jax.random.beta(key, 0.4, 0.4)
    weight = jnp.maximum(weight, 1.0 - weight)

    def blend(x):
      w = weight.astype(x.dtype)
      return w * x + (1 - w) * jnp.roll(x, 1, axis=0)

    return blend(image), blend(labels)

  image = jax.random.normal(jax.random.key(9), (6, 5, 7, 3))
  labels = jax.nn.softmax(jax.random.normal(jax.random.key(8), (6, 4)))
  options = OPTIONS | {"mixup_alpha": 0.4, "mode": "batch"}
  ours = jax.jit(functools.partial(mixing.mix, **options))
  want = jax.jit(published)
  for seed in range(3):
    key = jax.random.key(seed)
    for a, b in zip(ours(image, labels, key), want(image, labels, key)):
      np.testing.assert_array_equal(a, b)


@over_modes_and_partners(("batch", "roll"), ("elem", "flip"))
def test_mixup_against_a_loop(mode, partner):
  image = np.random.default_rng(0).normal(size=(9, 2, 3, 3)).astype(np.float32)
  mixed, targets = mix(image, mixup_alpha=0.8, mode=mode, partner=partner)
  other = other_of(np.arange(9), partner)
  weights = set()
  for i, j in enumerate(other):
    weight = targets[i, i]
    want = np.zeros(9, np.float32)
    want[i] += weight
    want[j] += 1 - weight
    if i != j:  # In the middle of an odd batch.
      assert 0.5 <= weight <= 1
      weights.add(float(weight))
      np.testing.assert_allclose(
        mixed[i], weight * image[i] + (1 - weight) * image[j], atol=1e-6
      )
      np.testing.assert_allclose(targets[i], want, atol=1e-6)
  assert len(weights) == 1 if mode == "batch" else len(weights) > 5


@over_modes_and_partners(("batch", "flip"), ("elem", "roll"))
def test_cutmix_puts_boxes_in_place_and_weighs_labels_by_pixels(mode, partner):
  image = pixels(16, 12, 9)
  mixed, targets = mix(image, cutmix_alpha=1.0, mode=mode, partner=partner)
  other = other_of(image, partner)
  inside = (mixed == other).all(axis=-1)
  np.testing.assert_array_equal(
    mixed, np.where(inside[..., None], other, image)
  )
  rows, columns = spans(inside)
  boxes = {r.tobytes() + c.tobytes() for r, c in zip(rows, columns)}
  assert len(boxes) == 1 if mode == "batch" else len(boxes) > 10
  share = 1 - inside.mean(axis=(1, 2))
  eye = np.eye(16)
  want = share[:, None] * eye + (1 - share)[:, None] * other_of(eye, partner)
  np.testing.assert_allclose(targets, want, atol=1e-6)


def test_cutmix_boxes_have_the_distribution_of_the_paper():
  height, width, batch = 20, 30, 4096
  image = np.broadcast_to(
    np.arange(batch, dtype=np.float32)[:, None, None, None],
    (batch, height, width, 1),
  )
  run = functools.partial(
    mixing.mix, **OPTIONS | {"cutmix_alpha": 1.0, "partner": "flip"}
  )
  mixed, _ = jax.jit(run)(image, jnp.zeros((batch, 1)), jax.random.key(3))
  inside = np.asarray(mixed != image)[..., 0]
  rng = np.random.default_rng(0)
  expected = np.zeros_like(inside)
  for i in range(batch):
    side = math.sqrt(1 - rng.uniform())
    y, x = rng.integers(height), rng.integers(width)
    h, w = int(height * side) // 2, int(width * side) // 2
    expected[i, max(0, y - h) : y + h, max(0, x - w) : x + w] = True
  # Five standard deviations of a difference of two means.
  bound = 5 * math.sqrt(0.5 / batch)
  np.testing.assert_allclose(inside.mean(0), expected.mean(0), atol=bound)
  rows, columns = inside.any(2).sum(1), inside.any(1).sum(1)
  for got, want in (
    (rows, expected.any(2).sum(1)),
    (columns, expected.any(1).sum(1)),
  ):
    quantiles = np.linspace(0, 1, 11)
    gap = np.quantile(got, quantiles) - np.quantile(want, quantiles)
    assert np.abs(gap).max() <= 1
  # Both sides of a box follow from one weight.
  assert np.corrcoef(rows, columns)[0, 1] > 0.6


@pytest.mark.parametrize("mode", mixing.MODES)
def test_prob_and_switch_prob_are_frequencies(mode):
  image = pixels(512 if mode == "elem" else 2, 4, 4)
  kinds = []
  run = jax.jit(
    functools.partial(
      mixing.mix,
      **OPTIONS
      | {
        "mixup_alpha": 0.8,
        "cutmix_alpha": 1.0,
        "prob": 0.6,
        "switch_prob": 0.25,
        "mode": mode,
      },
    )
  )
  labels = jnp.eye(len(image))
  for seed in range(1 if mode == "elem" else 512):
    mixed, targets = run(image, labels, jax.random.key(seed))
    own = np.asarray(mixed == image).all(-1)
    other = np.asarray(mixed == other_of(image, "roll")).all(-1)
    share = np.diag(targets)
    for i in range(len(image) if mode == "elem" else 1):
      if (own[i] | other[i]).all():
        np.testing.assert_allclose(share[i], own[i].mean(), atol=1e-6)
        kinds.append("none" if own[i].all() else "cutmix")
      else:
        kinds.append("mixup")
  # Boxes without a pixel, and weights that round to 1, count as none.
  assert np.mean([kind == "mixup" for kind in kinds]) == pytest.approx(
    0.45, abs=0.07
  )
  assert 0.06 < np.mean([kind == "cutmix" for kind in kinds]) < 0.2
  assert mix(pixels(4, 2, 2), mixup_alpha=1.0, prob=0.0)[1].trace() == 4


def test_no_mixing_and_unknown_names():
  image = pixels(4, 2, 2)
  np.testing.assert_array_equal(mix(image)[0], image)
  with pytest.raises(ValueError, match=r"mode='pair' .* batch, elem and"):
    mix(image, mode="pair")
  with pytest.raises(ValueError, match=r"partner='next' .* roll, flip"):
    mix(image, partner="next")


_random_erasing = jax.jit(mixing.random_erasing, static_argnums=1)


def erase(image, prob):
  return np.asarray(_random_erasing(image, prob, jax.random.key(0)))


def test_erasing_draws_boxes_of_noise():
  batch, height, width = 2048, 16, 24
  out = erase(np.full((batch, height, width, 3), 99.0, np.float32), 0.75)
  inside = (out != 99).all(axis=-1)
  np.testing.assert_array_equal(inside, (out != 99).any(axis=-1))
  rows, columns = spans(inside)
  noise = out[inside]
  assert abs(noise.mean()) < 0.01 and abs(noise.std() - 1) < 0.01
  assert np.abs(np.corrcoef(noise.T)[np.triu_indices(3, 1)]).max() < 0.02

  rng = np.random.default_rng(0)
  expected = np.zeros_like(inside)
  for i in range(batch):
    if rng.uniform() > 0.75:
      continue
    for _ in range(10):
      area = rng.uniform(0.02, 1 / 3) * height * width
      aspect = math.exp(rng.uniform(math.log(0.3), math.log(1 / 0.3)))
      h, w = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
      if w < width and h < height:
        y, x = rng.integers(height - h + 1), rng.integers(width - w + 1)
        expected[i, y : y + h, x : x + w] = True
        break
  bound = 5 * math.sqrt(0.5 / batch)
  np.testing.assert_allclose(inside.mean(0), expected.mean(0), atol=bound)
  for got, want in (
    (rows.sum(1), expected.any(2).sum(1)),
    (columns.sum(1), expected.any(1).sum(1)),
    (inside.sum((1, 2)), expected.sum((1, 2))),
  ):
    quantiles = np.linspace(0, 1, 11)
    gap = np.quantile(got, quantiles) - np.quantile(want, quantiles)
    assert np.abs(gap).max() <= max(1, 0.08 * want.max())
  assert rows.sum(1).max() < height and columns.sum(1).max() < width


def test_erasing_never_or_always():
  image = pixels(8, 10, 10)
  np.testing.assert_array_equal(erase(image, 0.0), image)
  assert (erase(image, 1.0) != image).any(axis=(1, 2, 3)).all()
  # No box is smaller than an image of one pixel.
  np.testing.assert_array_equal(erase(image[:, :1, :1], 1.0), image[:, :1, :1])


@pytest.mark.parametrize(
  "partner, mixup_alpha",
  [pytest.param("roll", 0.8, marks=pytest.mark.slow), ("flip", 0)],
)
def test_devices_do_not_matter(partner, mixup_alpha):
  options = {
    "mixup_alpha": mixup_alpha,
    "cutmix_alpha": 1.0,
    "partner": partner,
  }

  @jax.jit
  def run(image, labels, key):
    image = mixing.random_erasing(image, 0.5, jax.random.fold_in(key, 9))
    return mixing.mix(image, labels, key, **OPTIONS | options)

  image, labels = pixels(16, 6, 5) / 1000, np.eye(16, dtype=np.float32)
  results = []
  for count in (1, 8):
    mesh = Mesh(
      np.array(jax.devices()[:count]), "data", axis_types=(AxisType.Auto,)
    )
    over = NamedSharding(mesh, PartitionSpec("data"))
    results.append(
      run(*jax.device_put((image, labels), over), jax.random.key(0))
    )
  for one, eight in zip(*results):
    assert len(eight.sharding.device_set) == 8
    np.testing.assert_allclose(one, eight, atol=1e-6)


def test_threshold_marks_both_classes_of_a_mixed_image():
  labels = jnp.array([[0.7, 0.3, 0.0], [1.0, 0.0, 0.0]])
  np.testing.assert_array_equal(
    mixing.threshold(labels, 0.0), [[1, 1, 0], [1, 0, 0]]
  )
  np.testing.assert_array_equal(
    mixing.threshold(labels, 0.3), [[1, 0, 0], [1, 0, 0]]
  )


def test_mean_of_binary_cross_entropy():
  rng = np.random.default_rng(0)
  logits = rng.normal(size=(3, 7)).astype(np.float32) * 4
  labels = rng.uniform(size=(3, 7)).astype(np.float32)
  q = 1 / (1 + np.exp(-logits.astype(np.float64)))
  want = -np.mean(labels * np.log(q) + (1 - labels) * np.log(1 - q), axis=1)
  got = jax.jit(losses.LOSSES["sigmoid_xent_mean"])(logits, labels)
  np.testing.assert_allclose(got, want, rtol=1e-5)
