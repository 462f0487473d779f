"""EfficientNet against timm, in float32, and its depth-wise convolutions.

Each case is loaded in the published layout, and is paired with a plausible
mistake that must be seen.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.numerics import reference
from tests.numerics.reference import (
  TOLERANCE,
  arrays,
  case,
  distance,
  load,
)
from vitjax import models, trees, weights
from vitjax.models import batch_norm, common, efficientnet

# Case -> options that are wrong.
CASES = {
  "mini_tf_efficientnet": {"padding": "symmetric"},
  "timm_efficientnet_b0": {"batch_norm_eps": 1e-3},
  "timm_efficientnet_b1": {"padding": "same"},
  "timm_tf_efficientnet_b0": {"batch_norm_eps": 1e-5},
  "timm_efficientnet_lite0": {"activation": "silu"},
  "timm_tf_efficientnet_lite1": {"padding": "symmetric"},
}


def build(name, **options):
  about = case(name)["model"]
  if about["name"]:
    return reference.create(name, about["name"], **options)
  fields = efficientnet.scaled(
    about["channel_multiplier"], about["depth_multiplier"]
  )
  fields |= efficientnet.TENSORFLOW
  return reference.create(name, "efficientnet", **{**fields, **options})


@pytest.mark.parametrize("name", reference.names(CASES))
def test_logits(name, tmp_path):
  model = build(name)
  assert distance(name, model, load(name, model, tmp_path)) < TOLERANCE


@pytest.mark.slow
@pytest.mark.parametrize("name", CASES)
def test_a_wrong_option_is_seen(name, tmp_path):
  params = load(name, build(name), tmp_path)
  assert distance(name, build(name, **CASES[name]), params) > 1e-3


def test_a_gate_of_another_width_is_refused(tmp_path):
  """Its width is a quarter of the block's input, in multiples of nothing."""
  name = "mini_tf_efficientnet"
  key = "blocks.1.0.se.conv_reduce.weight"
  (width, *rest) = case(name)["shapes"][key]
  assert width == 2
  flat = {**arrays(name), key: np.zeros((8, *rest), np.float32)}
  with pytest.raises(ValueError, match=r"Shape: stage1/block00/squeeze_excite"):
    load(name, build(name), tmp_path, flat)


def test_files_without_statistics_are_refused(tmp_path):
  name = "mini_tf_efficientnet"
  flat = {n: x for n, x in arrays(name).items() if "running" not in n}
  with pytest.raises(ValueError, match=r"Missing: .*/mean, .*/var"):
    load(name, build(name), tmp_path, flat)


def test_running_statistics_move_by_a_tenth(tmp_path):
  """PyTorch's momentum 0.1 is 0.9 here; TensorFlow's decay of 0.9 as well."""
  name = "mini_tf_efficientnet"
  params = load(name, build(name), tmp_path)
  variables = jax.device_put(batch_norm.split(params))
  image = reference.functions["images"](case(name))

  @functools.partial(jax.jit, static_argnums=0)
  def means(momentum):
    _, new = build(name, batch_norm_momentum=momentum).apply(
      variables, image, train=True, mutable=[batch_norm.STATISTICS]
    )
    return new[batch_norm.STATISTICS]["stem_norm"]["mean"]

  old = variables[batch_norm.STATISTICS]["stem_norm"]["mean"]
  of_batch = means(0.0)
  assert np.abs(of_batch - old).max() > 0.01
  np.testing.assert_allclose(
    means(0.9), 0.9 * old + 0.1 * of_batch, rtol=1e-4, atol=1e-6
  )


@pytest.mark.parametrize(
  "layout", ["timm_efficientnet", "efficientnet_pytorch"]
)
@pytest.mark.parametrize(
  ("lite", "depth"),
  [
    (False, 0.5),  # one or two blocks in each stage
    pytest.param(False, 1.1, marks=pytest.mark.slow),
    (True, 0.5),
    pytest.param(True, 1.1, marks=pytest.mark.slow),
  ],
)
def test_layouts_hold_every_array(layout, lite, depth, tmp_path):
  fields = efficientnet.scaled(0.1, depth, lite=lite)
  model = models.create("efficientnet", num_classes=3, **fields)
  rng = np.random.default_rng(0)
  shapes = weights.fitting.shapes(model, model.example_inputs((32, 32)))
  flat = {n: rng.normal(size=x.shape).astype("f") for n, x in shapes.items()}
  file = tmp_path / "x.npz"
  weights.save(file, trees.unflatten(flat), model, layout=layout)
  theirs = dict(np.load(file))
  assert weights.layouts.recognise(theirs).NAME == layout
  counters = [n.replace("running_var", "num_batches_tracked") for n in theirs]
  theirs |= {n: np.int64(3) for n in counters if n.endswith("tracked")}
  np.savez(file, **theirs)
  file.with_suffix(".json").unlink()
  got = trees.flatten(weights.load(file, model, image_size=32))
  assert got.keys() == flat.keys()
  for name, x in flat.items():
    np.testing.assert_array_equal(got[name], x, err_msg=name)


def test_only_blocks_with_a_shortcut_are_dropped(monkeypatch):
  """Block i of 16 with rate i / 16, so that the last has 15 / 16."""
  seen = []

  def record(x, rate, key, *, rescale=True):
    seen.append(rate)
    assert rescale
    return x

  monkeypatch.setattr(common, "drop_path", record)
  model = models.create("efficientnet", variant="b0", drop_path_rate=0.16)
  image = jnp.zeros((1, 32, 32, 3))

  def apply(train):
    return model.init_with_output(
      {"params": jax.random.key(0), "dropout": jax.random.key(1)},
      image,
      train=train,
    )

  jax.eval_shape(functools.partial(apply, False))
  assert seen == []
  jax.eval_shape(functools.partial(apply, True))
  dropped = [2, 4, 6, 7, 9, 10, 12, 13, 14]
  np.testing.assert_allclose(seen, [i / 100 for i in dropped])


@pytest.mark.slow
def test_bfloat16():
  """Logits, parameters and statistics stay float32; the rest is close."""
  fields = efficientnet.scaled(0.25, 0.5)
  image = np.random.default_rng(0).normal(size=(2, 48, 48, 3)).astype("f")
  make = functools.partial(models.create, "efficientnet", num_classes=3)
  model = make(**fields, dtype="bfloat16")
  variables = jax.jit(model.init)(jax.random.key(0), image)
  assert all(x.dtype == jnp.float32 for x in jax.tree.leaves(variables))
  logits, out = jax.jit(model.apply)(variables, image)
  want, _ = jax.jit(make(**fields).apply)(variables, image)
  assert logits.dtype == out["pre_logits"].dtype == jnp.float32
  assert out["stage3"].dtype == jnp.bfloat16
  assert 0 < np.abs(logits - want).max() / np.abs(want).max() < 5e-2
