"""Families beside ViT: sizes, regularisers, initial values."""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vitjax import models, trees
from vitjax.models import (
  coatnet,
  common,
  convnext,
  efficientnet,
  maxxvit,
  metaformer,
  mixer,
  nfnet,
  regnet,
  resnet,
  resnet_bn,
  swin,
)
from vitjax.weights import layouts

FAMILIES = {
  "coatnet": coatnet,
  "convnext": convnext,
  "efficientnet": efficientnet,
  "maxxvit": maxxvit,
  "metaformer": metaformer,
  "mixer": mixer,
  "nfnet": nfnet,
  "regnet": regnet,
  "resnet": resnet,
  "resnet_bn": resnet_bn,
  "swin": swin,
}
TINY = {
  "coatnet": {
    "stem_widths": (4, 8),
    "widths": (8, 32, 32, 64),
    "depths": (1, 1, 1, 1),
  },
  "maxxvit": {
    "stem_widths": (8, 32),
    "widths": (32, 64),
    "depths": (1, 1),
  },
  "convnext": {"depths": (1, 2), "widths": (8, 16)},
  "metaformer": {
    "depths": (1, 2),
    "widths": (8, 32),
    "mixers": ("conv", "attention"),
  },
  "mixer": {
    "width": 8,
    "depth": 3,
    "tokens_mlp_dim": 4,
    "mlp_dim": 6,
    "patch_size": 8,
  },
  "nfnet": {"depths": (1, 2), "widths": (256, 256)},
  "regnet": {"depths": (1, 2), "widths": (8, 16), "group_width": 4},
  "resnet": {"stages": (1, 1)},
  "resnet_bn": {"depths": (1, 2), "widths": (4, 8)},
  "bit": {"stages": (1, 1), "preact": True},
  "swin": {"width": 8, "depths": (1, 2), "num_heads": (1, 2), "window": 3},
  "swin v2": {
    "version": 2,
    "width": 8,
    "depths": (1, 2),
    "num_heads": (1, 2),
    "window": 3,
  },
}


@functools.cache
def shapes(model, image_size):
  image = jax.ShapeDtypeStruct((1, image_size, image_size, 3), jnp.float32)
  tree = jax.eval_shape(model.init, jax.random.key(0), image)["params"]
  return trees.flatten(tree)


def tiny(kind, **options):
  family = "resnet" if kind == "bit" else kind.partition(" ")[0]
  return models.create(family, **{"num_classes": 3, **TINY[kind], **options})


def random_params(module, x):
  """Random arrays of the right shapes; compiling `init` takes seconds."""
  return random_variables(module, x)["params"]


def random_variables(module, x):
  tree = jax.eval_shape(module.init, jax.random.key(0), x)
  rng = np.random.default_rng(0)

  def draw(path, leaf):
    values = rng.normal(0.1, 0.1, size=leaf.shape).astype(np.float32)
    is_variance = jax.tree_util.keystr(path).endswith("['var']")
    return np.abs(values) if is_variance else values

  return jax.tree_util.tree_map_with_path(draw, tree)


def published():
  """One name of each size; the largest are slow to trace."""
  params = []
  seen = set()
  for family, module in FAMILIES.items():
    for name, facts in module.PUBLISHED.items():
      variant = facts["fields"]["variant"]
      if (family, variant) not in seen:
        seen.add((family, variant))
        slow = family == "nfnet" and variant not in ("F0", "F1")
        slow |= family == "resnet" and variant != "BiT-R50x1"
        slow |= family == "efficientnet" and variant != "lite0"
        slow |= variant in ("L/32", "B", "L", "XL", "iso-L")
        slow |= variant in ("v2-S", "v2-B", "v2-L")
        slow |= family == "swin" and variant == "S"
        slow |= family == "coatnet" and variant != "0"
        slow |= variant == "rmlp-base"
        slow |= family == "metaformer" and not variant.endswith("S18")
        slow |= family in ("regnet", "resnet_bn")
        marks = pytest.mark.slow if slow else ()
        params.append(pytest.param(name, marks=marks))
  return params


@pytest.mark.parametrize("name", published())
def test_number_of_parameters(name):
  facts = models.list()[name]
  fixed = facts["model"] in ("coatnet", "maxxvit", "mixer", "swin")
  image_size = facts["image_size"] if fixed else 64
  model = models.create(name, num_classes=1000)
  total = sum(math.prod(x.shape) for x in shapes(model, image_size).values())
  assert total == facts["params"]


def test_published_names_are_complete():
  for family, module in FAMILIES.items():
    for name in module.PUBLISHED:
      assert models.list()[name]["model"] == family
      models.create(name)


@pytest.mark.parametrize(
  ("family", "variant"),
  [
    ("mixer", "X/16"),
    ("mixer", "B/x"),
    ("convnext", "tiny"),
    ("efficientnet", "b8"),
    ("nfnet", "F8"),
    ("resnet", "R51"),
    ("resnet", "50"),
    ("coatnet", "9"),
    ("maxxvit", "base"),
    ("metaformer", "Pool-S12"),
    ("regnet", "999"),
    ("resnet_bn", "resnet51"),
    ("swin", "v3-T"),
    ("vit", "R26+L/32"),
  ],
)
def test_unknown_variant(family, variant):
  with pytest.raises(ValueError, match="variant="):
    models.create(family, variant=variant)


@pytest.mark.slow
@pytest.mark.parametrize("kind", TINY)
def test_bfloat16(kind):
  """Logits and parameters stay in float32, the rest is close to float32."""
  image = np.random.default_rng(1).normal(size=(2, 32, 32, 3))
  image = image.astype(np.float32)
  options = {"depths": (1,), "widths": (256,)} if kind == "nfnet" else {}
  weights = random_variables(tiny(kind, **options), image)
  want, _ = jax.jit(tiny(kind, **options).apply)(weights, image)
  model = tiny(kind, dtype=jnp.bfloat16, **options)
  variables = jax.eval_shape(model.init, jax.random.key(0), image)
  assert all(x.dtype == jnp.float32 for x in jax.tree.leaves(variables))
  logits, out = jax.jit(model.apply)(weights, image)
  assert logits.dtype == out["pre_logits"].dtype == jnp.float32
  gap = jnp.abs(logits - want).max() / jnp.abs(want).max()
  assert 0 < gap < 3e-2


@pytest.mark.parametrize("kind", TINY)
def test_without_head(kind):
  names = shapes(tiny(kind, num_classes=None), 32)
  assert names
  assert not any(name.startswith("head/") for name in names)


# The published ramp: Mixer's two branches and ConvNeXt's block of i of n have
# rate i / (n - 1), NFNet's i / n; the first block is never dropped.
DROP_PATHS = {
  "mixer": ([0.2, 0.2, 0.4, 0.4], False),
  "convnext": ([0.2, 0.4], True),
  "nfnet": ([0.4 / 3, 0.8 / 3], False),
  "coatnet": ([0.4 / 3, 0.8 / 3, 0.8 / 3, 0.4, 0.4], True),
  "maxxvit": ([0.4, 0.4, 0.4], True),
  "metaformer": ([0.2, 0.2, 0.4, 0.4], True),
  "regnet": ([0.2, 0.4], True),
  "resnet_bn": ([0.2, 0.4], True),
  "swin": ([0.2, 0.2, 0.4, 0.4], True),
}


@pytest.mark.parametrize("kind", DROP_PATHS)
def test_drop_path(kind, monkeypatch):
  seen = []

  def record(x, rate, key, *, rescale=True):
    seen.append((rate, rescale))
    return x

  model = tiny(kind, drop_path_rate=0.4)
  image = jnp.zeros((2, 32, 32, 3))
  params = jax.eval_shape(model.init, jax.random.key(0), image)
  monkeypatch.setattr(common, "drop_path", record)

  def apply(params, train):
    return model.apply(
      params, image, train=train, rngs={"dropout": jax.random.key(0)}
    )

  jax.eval_shape(functools.partial(apply, train=False), params)
  assert seen == []
  jax.eval_shape(functools.partial(apply, train=True), params)
  rates, rescale = DROP_PATHS[kind]
  np.testing.assert_allclose([rate for rate, _ in seen], rates)
  assert {r for _, r in seen} == {rescale}


@pytest.mark.parametrize("rescale", [False, True])
def test_drop_path_rescales(rescale):
  x = jnp.ones((1000, 2))
  y = common.drop_path(x, 0.25, jax.random.key(0), rescale=rescale)
  kept = np.asarray(y[:, 0]) > 0
  np.testing.assert_allclose(y[kept], 4 / 3 if rescale else 1.0, rtol=1e-6)
  assert 0.7 < kept.mean() < 0.8


@pytest.mark.slow
def test_dropout_of_nfnet():
  """In front of the head, in training only."""
  model = tiny("nfnet", depths=(1,), widths=(256,), dropout_rate=0.5)
  image = jnp.ones((1, 32, 32, 3))
  params = random_params(model, image)

  @jax.jit
  def apply(params, key):
    rngs = {"dropout": key}
    return [
      model.apply({"params": params}, image, train=train, rngs=rngs)
      for train in (False, True)
    ]

  (logits, out), (dropped, more) = apply(params, jax.random.key(1))
  np.testing.assert_allclose(out["pre_logits"], more["pre_logits"], rtol=1e-6)
  assert np.abs(logits - dropped).max() > 0.01 * np.abs(logits).max()


@pytest.mark.parametrize("antialias", [False, True])
def test_the_stem_for_small_images_keeps_their_size(antialias):
  """A 3x3 convolution without a pool; the stages halve the size as before."""
  options = {"stem_widths": (6,), "antialias": antialias, "small_images": True}
  model = tiny("resnet_bn", **options)
  image = jax.ShapeDtypeStruct((2, 12, 8, 1), jnp.float32)
  params = jax.eval_shape(model.init, jax.random.key(0), image)
  _, out = jax.eval_shape(model.apply, params, image)
  assert params["params"]["stem"]["conv1"]["kernel"].shape == (3, 3, 1, 6)
  assert out["stem"].shape == (2, 12, 8, 6)
  assert out["stage0"].shape == (2, 12, 8, 16)
  assert out["stage1"].shape == (2, 6, 4, 32)


@pytest.mark.parametrize("layout", ["timm_resnet", "hf_resnet"])
def test_others_have_no_stem_for_small_images(layout):
  with pytest.raises(ValueError, match="small_images=False; this one has True"):
    layouts.get(layout).to_vitjax({}, tiny("resnet_bn", small_images=True))


def test_betas_of_nfnet():
  """One over the expected deviations of F0, from the released code."""
  first, second, third, fourth = 1.0, 0.98058, 0.96225, 0.94491
  want = [first, second, second, third, second, third, fourth]
  want += [0.92848, 0.91287, 0.89803, second, third]
  np.testing.assert_allclose(nfnet.betas((1, 2, 6, 3)), want, atol=1e-5)


def test_groups_of_nfnet():
  """Whole groups of 128 in half of the output: 192 becomes 128."""
  names = shapes(models.create("nfnet", variant="F0+"), 64)
  assert names["nf_block_0/conv1/kernel"].shape == (3, 3, 128, 128)
  assert names["nf_block_1/conv1/kernel"].shape == (3, 3, 128, 384)
  assert names["stem_conv3/kernel"].shape == (3, 3, 64, 192)


def test_scaled_standardisation():
  """Against NumPy; a gain or a mean left out is seen."""
  rng = np.random.default_rng(0)
  kernel = rng.normal(1.0, 2.0, size=(1, 1, 8, 16)).astype(np.float32)
  kernel[..., 0] *= 1e-4  # below the bound of the variance
  gain, bias = rng.normal(size=(2, 16)).astype(np.float32)
  x = rng.normal(size=(2, 3, 3, 8)).astype(np.float32)
  params = {"kernel": kernel, "gain": gain, "bias": bias}
  apply = jax.jit(nfnet.ScaledStdConv(16).apply)
  got = apply({"params": params}, x)
  centred = kernel - kernel.mean(axis=(0, 1, 2))
  scale = np.maximum(kernel.var(axis=(0, 1, 2)) * 8, 1e-4) ** -0.5
  want = x @ (centred * scale * gain)[0, 0] + bias
  np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-5)


def test_root_of_bit_pads_with_zeros():
  """Not with minus infinity: features below zero show the difference."""
  root = resnet.PreactRoot(2, 1e-10)
  kernel = np.zeros((7, 7, 1, 2), np.float32)
  kernel[3, 3] = -1.0  # the centre; standardised, it stays the smallest
  image = np.zeros((1, 8, 8, 1), np.float32)
  image[:, ::2, ::2] = 1.0
  params = {"params": {"conv_root": {"kernel": kernel}}}
  out = jax.jit(root.apply)(params, image)
  assert np.all(out[:, 0] == 0)
  assert np.all(out[:, 1:, 1:] < 0)


def test_shortcut_of_bit_is_normalised():
  """conv_proj sees the output of the first norm, not its input."""
  unit = resnet.PreactUnit(32, 1e-10)
  x = np.random.default_rng(1).normal(size=(1, 4, 4, 64)).astype(np.float32)
  params = {"params": random_params(unit, x)}
  apply = jax.jit(unit.apply)
  np.testing.assert_allclose(
    apply(params, x), apply(params, 10 * x), rtol=1e-3, atol=1e-3
  )


@pytest.mark.parametrize("scale", [0.0, 0.001])
def test_head_init_scale_of_convnext(scale):
  image = jnp.zeros((1, 32, 32, 3))

  def head(scale):
    model = tiny("convnext", head_init_scale=scale)
    # Only what is returned is compiled.
    init = jax.jit(lambda k: model.init(k, image)["params"]["head"]["kernel"])
    return init(jax.random.key(0))

  np.testing.assert_allclose(head(scale), scale * head(1.0), rtol=1e-6)


def test_small_image_of_convnext():
  with pytest.raises(ValueError, match="at least 32 pixels"):
    jax.eval_shape(
      models.create("convnext").init,
      jax.random.key(0),
      jax.ShapeDtypeStruct((1, 31, 64, 3), jnp.float32),
    )


def test_tokens_of_hybrids():
  """Strides are 32 for R+Ti/16 in spite of its name."""
  for variant, rows in (("R+Ti/16", 49), ("R26+S/32", 49), ("R50+B/16", 196)):
    names = shapes(models.create("vit", variant=variant, depth=1), 224)
    assert names["pos_embedding"].shape[1] == rows
