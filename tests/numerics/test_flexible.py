"""Models at other patch sizes and image sizes than their parameters' own.

FlexiViT is compared with its published code at five patch sizes, NaFlex with
transformers on images that are not square; the cases are made by
`python -m scripts.reference_flexible`.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.numerics import reference
from vitjax import models, weights
from vitjax.models import batch_norm, flexible, naflex, resizing

NAME = "mini_flexivit"
FLEXIVIT = {
  "width": 32,
  "depth": 2,
  "mlp_dim": 64,
  "num_heads": 2,
  "pool_type": "tok",
  "patch_kernel": 16,
  "posemb_grid": 7,
  "posemb_resize": "linear",
}


def operator(old: int, new: int) -> np.ndarray:
  """B, (new * new, old * old): bilinear resizing of patches, by JAX."""
  basis = jnp.eye(old * old).reshape(-1, old, old)
  shape = (old * old, new, new)
  rows = jax.image.resize(basis, shape, "linear", antialias=False)
  return np.asarray(rows.reshape(old * old, -1), np.float64).T


@pytest.mark.parametrize(
  ("old", "new"), [(4, 4), (4, 6), (4, 7), (6, 4), (7, 3)]
)
def test_pi_resize_is_the_least_squares_solution(old, new):
  kernel = np.random.default_rng(0).normal(size=(old, old, 3, 5))
  kernel = kernel.astype(np.float32)
  resized = flexible.resize_kernel(kernel, new)
  want, *_ = np.linalg.lstsq(
    operator(old, new).T, kernel.reshape(old * old, -1), rcond=None
  )
  np.testing.assert_allclose(
    resized.reshape(new * new, -1), want, rtol=1e-5, atol=1e-5
  )


def test_tokens_of_enlarged_patches_stay_the_same():
  """What PI-resize is for: <w', B x> = <w, x>, and plain resizing fails."""
  rng = np.random.default_rng(1)
  kernel, patch = rng.normal(size=(2, 5, 5, 1, 1)).astype(np.float32)
  b = operator(5, 8)
  larger = b @ patch.reshape(-1)
  resized = flexible.resize_kernel(kernel, 8).reshape(-1)
  token = float(kernel.reshape(-1) @ patch.reshape(-1))
  assert abs(float(resized @ larger) - token) < 1e-4
  assert abs(float((b @ kernel.reshape(-1)) @ larger) - token) > 0.1


@pytest.mark.parametrize(("old", "new"), [(7, 12), (7, 5), (7, 2), (3, 7)])
def test_linear_tables_are_resized_as_by_jax(old, new):
  table = np.random.default_rng(2).normal(size=(old, old, 4))
  rows = resizing.matrix(old, new, "linear")
  got = np.einsum("Hh,Ww,hwd->HWd", rows, rows, table)
  want = jax.image.resize(jnp.asarray(table), (new, new, 4), "linear")
  np.testing.assert_allclose(got, want, atol=1e-5)


@pytest.fixture(scope="module")
def published(tmp_path_factory):
  """Patch size -> logits of our model with the weights of the case."""
  model = reference.create(NAME, "vit", **FLEXIVIT)
  params = reference.load(NAME, model, tmp_path_factory.mktemp("case"))
  images = reference.functions["images"](reference.case(NAME))

  def logits(patch_size, **changes):
    changed = model.clone(patch_size=patch_size, **changes)
    apply = jax.jit(lambda v, x: changed.apply(v, x)[0])
    return np.asarray(apply(batch_norm.split(params), images))

  return logits


def distance(size: int, logits: np.ndarray) -> float:
  want = np.asarray(reference.case(NAME)["outputs"][str(size)], np.float32)
  return float(np.abs(logits - want).max() / np.abs(want).max())


SLOW = pytest.mark.slow


@pytest.mark.parametrize(
  "size", [4, 12, 24, *(pytest.param(n, marks=SLOW) for n in (6, 16))]
)
def test_flexivit_is_the_published_one(published, size):
  assert distance(size, published(size)) < reference.TOLERANCE


@SLOW
def test_another_resizing_of_the_table_is_seen(published):
  for method in ("corners", "antialias"):
    logits = published(12, posemb_resize=method)
    assert distance(12, logits) > 2 * reference.TOLERANCE


SHAPE = {n: FLEXIVIT[n] for n in ("width", "depth", "mlp_dim", "num_heads")}
NAFLEX = {
  **SHAPE,
  "patch_size": 8,
  "posemb_grid": 4,
  "posemb_resize": "linear",
}


def published_naflex(folder, **changes):
  """The model and the parameters of the case."""
  fields = {**NAFLEX, "pool_type": "map", **changes}
  model = reference.create("mini_naflex", "vit", **fields)
  flat = reference.arrays("mini_naflex")
  flat = {f"vision_model.{n}": x for n, x in flat.items()}  # as in Siglip2Model
  return model, reference.load("mini_naflex", model, folder, flat)


def strip_of(patches, grid, length):
  """Normalised patches (n, p, p, 3) of a grid as a padded strip."""
  p = patches.shape[1]
  strip = np.zeros(((1 + length) * p, p, 3), np.float32)
  digits = [0, 255, *divmod(grid[0], 256), *divmod(grid[1], 256)]
  strip[:p].reshape(-1, 3)[:6] = np.array(digits)[:, None]
  strip[:p] = strip[:p] / 127.5 - 1
  strip[p:] = -1  # black
  strip[p : p + patches.size // (3 * p)] = patches.reshape(-1, p, 3)
  return strip


def without_mask(grid, length):
  return jnp.ones((len(grid), length), bool)


def without_antialiasing(old, new, rows):
  at = (jnp.minimum(rows, new - 1) + 0.5) * old / new - 0.5
  at = jnp.clip(at, 0, old - 1)[..., None]
  return jnp.maximum(1 - jnp.abs(jnp.arange(old)[None, None] - at), 0)


@pytest.mark.parametrize(
  ("mutant", "is_swapped"),
  [
    ({}, False),
    pytest.param({}, True, marks=SLOW),
    pytest.param({"is_patch": without_mask}, False, marks=SLOW),
    pytest.param({"_linear": without_antialiasing}, False, marks=SLOW),
  ],
)
def test_a_batch_of_mixed_shapes_is_the_published_one(
  tmp_path, monkeypatch, mutant, is_swapped
):
  """Grids of 3x6, 5x2, 4x4 and 1x20 in sequences of 20 patches."""
  case = reference.case("mini_naflex")
  grids = [g[::-1] if is_swapped else g for g in case["grids"]]
  strips = np.stack(
    [
      strip_of(patches, grid, case["length"])
      for patches, grid in zip(reference.functions["grids"](case), grids)
    ]
  )
  plain, params = published_naflex(tmp_path)
  model = plain.clone(naflex=True)
  for name, function in mutant.items():
    monkeypatch.setattr(naflex, name, function)
  got = jax.jit(lambda v, x: model.apply(v, x)[0])({"params": params}, strips)
  want = np.asarray(case["outputs"]["mixed"], np.float32)
  wrong = np.abs(np.asarray(got) - want).max(axis=1) / np.abs(want).max()
  if not mutant and not is_swapped:
    assert wrong.max() < reference.TOLERANCE
  else:
    assert wrong.max() > 10 * reference.TOLERANCE


@SLOW
@pytest.mark.parametrize(
  "options",
  [
    {"pool_type": "gap", "scan_layers": True, "remat": "full"},
    {"pool_type": "tok+gap", "num_registers": 2, "patch_kernel": 4},
  ],
)
def test_strips_have_the_features_and_gradients_of_whole_images(options):
  rng = np.random.default_rng(5)
  grids = ((2, 3), (5, 1), (3, 3))
  whole = [
    rng.uniform(-1, 1, (1, 8 * h, 8 * w, 3)).astype(np.float32)
    for h, w in grids
  ]
  strips = np.stack(
    [
      strip_of(
        x.reshape(h, 8, w, 8, 3).swapaxes(1, 2).reshape(-1, 8, 8, 3), (h, w), 9
      )
      for x, (h, w) in zip(whole, grids)
    ]
  )
  plain = models.create("vit", **{**NAFLEX, **options})
  params = jax.jit(plain.init)(jax.random.key(0), whole[0])["params"]

  def loss(model):
    def sum_of_squares(params, x):
      return jnp.square(model.apply({"params": params}, x)[0]).sum()

    return jax.jit(jax.value_and_grad(sum_of_squares))

  got, got_grads = loss(plain.clone(naflex=True))(params, strips)
  found = [loss(plain)(params, x) for x in whole]
  want, want_grads = jax.tree.map(lambda *x: sum(x), *found)
  np.testing.assert_allclose(got, want, rtol=1e-5)
  jax.tree.map(
    lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4),
    got_grads,
    want_grads,
  )


@pytest.mark.parametrize(
  ("changes", "message"),
  [
    ({"posemb_grid": None}, "give the table's own rows and columns"),
    ({"posemb_resize": "corners"}, "implemented for posemb_resize='linear'"),
    ({"differential": True}, "implemented for differential=False"),
  ],
)
def test_options_that_strips_do_not_have_are_refused(changes, message):
  with pytest.raises(ValueError, match=message):
    models.create("vit", naflex=True, **{**NAFLEX, **changes})


def test_what_is_no_strip_is_refused():
  model = models.create("vit", naflex=True, **NAFLEX)
  image = jax.ShapeDtypeStruct((1, 32, 32, 3), jnp.float32)
  with pytest.raises(
    ValueError, match=r"of 32x32. Put naflex\(256, patch_size"
  ):
    jax.eval_shape(model.init, jax.random.key(0), image)
  with pytest.raises(ValueError, match="another number of patches instead"):
    flexible.at_size(model, (80, 8), patch_size=4)


@pytest.mark.parametrize(
  ("changes", "is_equal"),
  [
    ({}, True),
    pytest.param({"posemb_resize": "corners"}, False, marks=SLOW),
    pytest.param({"gelu": "erf"}, False, marks=SLOW),
  ],
)
def test_naflex_is_the_published_one(tmp_path, changes, is_equal):
  """Images of 3x6 patches by weights of 4x4 patches."""
  model, params = published_naflex(tmp_path, **changes)
  found = reference.distance("mini_naflex", model, params)
  assert (found < reference.TOLERANCE) == is_equal


def test_kernels_of_another_size_are_resized_when_loaded(tmp_path, published):
  model = reference.create(NAME, "vit", **{**FLEXIVIT, "patch_kernel": 32})
  params = reference.load(NAME, model, tmp_path)
  kernel = params["embedding"]["kernel"]
  old = reference.arrays(NAME)["params/embedding/kernel"]
  # A patch of one colour has the token that it had.
  np.testing.assert_allclose(kernel.sum((0, 1)), old.sum((0, 1)), atol=1e-4)
  np.testing.assert_array_equal(kernel, flexible.resize_kernel(old, 32))
  fixed = reference.create(NAME, "vit", **{**FLEXIVIT, "patch_kernel": None})
  with pytest.raises(ValueError, match=r"Shape: embedding/kernel \(16, 16"):
    reference.load(NAME, fixed.clone(patch_size=8), tmp_path)


@SLOW
def test_any_vit_serves_other_sizes_with_its_own_parameters():
  model = models.create(
    "vit", variant="mu", patch_size=8, num_classes=3, posemb="learn"
  )
  image = np.random.default_rng(3).normal(size=(1, 32, 32, 3))
  image = image.astype(np.float32)
  variables = jax.jit(model.init)(jax.random.key(0), image)
  same = flexible.at_size(model, (32, 32), patch_size=8)

  def tokens(model, image):
    return model.apply(variables, image)[1]["encoded"]

  np.testing.assert_array_equal(
    jax.jit(functools.partial(tokens, same))(image),
    jax.jit(functools.partial(tokens, model))(image),
  )
  smaller = flexible.at_size(model, (32, 32), patch_size=4)
  found = jax.eval_shape(functools.partial(tokens, smaller), image)
  assert found.shape == (1, 64, 32)
  images = flexible.at_size(model, (32, 32))
  found = jax.eval_shape(functools.partial(tokens, images), image[:, :16, :24])
  assert found.shape == (1, 6, 32)


def test_what_cannot_change_is_said():
  convnet = models.create("resnet", num_classes=3)
  with pytest.raises(ValueError, match="no patches whose size can change"):
    flexible.at_size(convnet, (32, 32), patch_size=4)
  assert flexible.at_size(convnet, (32, 32)) is convnet
  vit = models.create("vit", variant="mu", patch_size=8, posemb="learn")
  with pytest.raises(ValueError, match="only square tables can be resized"):
    flexible.at_size(vit, (32, 48), patch_size=4)
  with pytest.raises(ValueError, match="posemb_grid=7 is the size of a learn"):
    models.create("vit", variant="mu", posemb="sincos2d", posemb_grid=7)


def test_two_towers_change_the_image_tower():
  image = {"variant": "mu/8", "num_classes": 8, "pool_type": "map"}
  text = {"width": 16, "depth": 1, "num_heads": 2, "vocab_size": 10}
  model = models.create(
    "two_tower", image=image, text={**text, "num_classes": 8}
  )
  tower = flexible.at_size(model, (32, 32), patch_size=4).image_tower()
  assert (tower.patch_size, tower.patch_kernel, tower.posemb_grid) == (4, 8, 4)


def test_weights_are_written_as_they_are_read(tmp_path):
  model = reference.create(NAME, "vit", **FLEXIVIT)
  params = reference.load(NAME, model, tmp_path)
  file = tmp_path / "out.npz"
  weights.save(file, params, model, metadata={"image_size": 48})
  again = weights.load(file, model)
  jax.tree.map(np.testing.assert_array_equal, again, params)


@SLOW
def test_other_layouts_get_one_size(tmp_path, published):
  model = reference.create(NAME, "vit", **{**FLEXIVIT, "patch_size": 12})
  params = reference.load(NAME, model, tmp_path)
  file = tmp_path / "out.safetensors"
  with pytest.raises(ValueError, match="written for images of one size"):
    weights.save(file, params, model)
  weights.save(file, params, model, metadata={"image_size": 48})
  fixed = model.clone(patch_kernel=None, posemb_grid=None)
  params = weights.load(file, fixed)
  assert params["pos_embedding"].shape == (1, 16, 32)
  images = reference.functions["images"](reference.case(NAME))
  apply = jax.jit(lambda v, x: fixed.apply(v, x)[0])
  logits = np.asarray(apply(batch_norm.split(params), images))
  assert distance(12, logits) < reference.TOLERANCE


def test_naflex_refuses_images_too_coarse_for_a_header():
  strip = jnp.zeros((1, 8, 4, 3), jnp.bfloat16)
  with pytest.raises(ValueError, match="give the model float32 images"):
    naflex.read(strip, 4)
