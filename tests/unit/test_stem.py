"""Weights for RGB in models of other channels, by three rules."""

import jax
import numpy as np
import pytest

from vitjax import models, pretrained, trees, weights
from vitjax.config import schema
from vitjax.weights import stem

VIT = {
  "name": "vit",
  "width": 8,
  "depth": 1,
  "num_heads": 2,
  "patch_size": 4,
  "num_classes": 3,
}
MIXER = {
  "name": "mixer",
  "width": 8,
  "depth": 1,
  "tokens_mlp_dim": 4,
  "mlp_dim": 4,
  "patch_size": 4,
  "num_classes": 3,
}
CONVNEXT = {
  "name": "convnext",
  "depths": (1, 1, 1, 1),
  "widths": (4, 4, 4, 4),
  "num_classes": 3,
}
TEXT = {"width": 8, "depth": 1, "num_heads": 2, "vocab_size": 9}
TWO_TOWERS = {
  "name": "two_tower",
  "image": {k: x for k, x in VIT.items() if k != "name"},
  "text": {**TEXT, "num_classes": 3},
}


def random_params(model, channels=3):
  rng = np.random.default_rng(0)
  inputs = model.example_inputs(32, channels)
  shapes = jax.eval_shape(model.init, jax.random.key(0), *inputs)["params"]
  return jax.tree.map(
    lambda x: rng.normal(size=x.shape).astype(np.float32), shapes
  )


def fit(model, params, channels, rule):
  return weights.fit(
    trees.flatten(params),
    model,
    source="'x'",
    metadata={"image_size": 32},
    channels=channels,
    channel_rule=rule,
  )


# What timm's `adapt_input_conv` makes of a kernel (1, 2, 4).
@pytest.mark.parametrize(
  ("channels", "rule", "want"),
  [
    (1, "sum", [7]),
    (2, "repeat", [1.5, 3]),
    (4, "repeat", [0.75, 1.5, 3, 0.75]),
    (6, "repeat", [0.5, 1, 2, 0.5, 1, 2]),
  ],
)
def test_the_rules_of_timm(channels, rule, want):
  kernel = np.array([1, 2, 4], np.float32)[None, None, :, None]
  got = stem.adapt(kernel, channels, rule)
  assert got.dtype == np.float32
  np.testing.assert_array_equal(got[0, 0, :, 0], want)


@pytest.mark.parametrize(
  ("channels", "rule", "want"),
  [
    (2, "sum", [3.5, 3.5]),
    (1, "repeat", [3]),
    (1, "first", [1]),
    (2, "first", [1, 2]),
    (5, "first", [1, 2, 4, 0, 0]),
  ],
)
def test_the_other_numbers_of_channels(channels, rule, want):
  kernel = np.array([1, 2, 4], np.float32)[None, None, :, None]
  got = stem.adapt(kernel, channels, rule)
  np.testing.assert_array_equal(got[0, 0, :, 0], want)


def test_the_model_sees_what_it_saw():
  model = models.create(**MIXER)
  params = random_params(model)
  image = np.random.default_rng(1).normal(size=(2, 32, 32, 3))
  grey = np.repeat(image[..., :1], 3, axis=-1)

  def logits(params, image):
    return model.apply({"params": params}, image.astype(np.float32))[0]

  for rule, channels, old, new in (
    ("repeat", 6, image, np.tile(image, 2)),
    ("sum", 5, grey, np.repeat(grey[..., :1], 5, axis=-1)),
    ("first", 4, image, np.concatenate([image, grey[..., :1]], axis=-1)),
  ):
    got = logits(fit(model, params, channels, rule), new)
    np.testing.assert_allclose(got, logits(params, old), atol=1e-4)


@pytest.mark.parametrize(
  ("options", "kernel"),
  [
    (VIT, "embedding/kernel"),
    (MIXER, "stem/kernel"),
    (CONVNEXT, "stem/conv/kernel"),
    (
      {"name": "nfnet", "depths": (1, 1, 1, 1), "widths": (256,) * 4},
      "stem_conv0/kernel",
    ),
    ({"name": "resnet", "stages": (1, 1, 1, 1)}, "conv_root/kernel"),
    ({"name": "vit", "variant": "R+Ti/16"}, "conv_root/kernel"),
    (TWO_TOWERS, "img/embedding/kernel"),
  ],
)
def test_only_the_stem_is_adapted(options, kernel, caplog):
  caplog.set_level("INFO")
  model = models.create(**options)
  params = trees.flatten(random_params(model))
  got = trees.flatten(fit(model, trees.unflatten(params), 6, "repeat"))
  assert got[kernel].shape[-2] == 6
  want = stem.adapt(params[kernel], 6, "repeat")
  np.testing.assert_array_equal(got[kernel], want)
  rest = [x for x in params if x != kernel]
  assert all(np.array_equal(got[x], params[x]) for x in rest)
  old, new = params[kernel].shape, got[kernel].shape
  row = f"adapted            1 arrays  {kernel} {old} -> {new} by 'repeat'"
  assert row in caplog.text


def test_without_a_rule_the_message_names_them():
  model = models.create(**VIT)
  params = random_params(model)
  with pytest.raises(
    ValueError,
    match=r"\(4, 4, 3, 8\) vs \(4, 4, 6, 8\).*config.init.channels .*"
    '"sum", "repeat" or "first"',
  ):
    fit(model, params, 6, None)
  with pytest.raises(ValueError, match="channel_rule='mean' is none of 'sum'"):
    fit(model, params, 6, "mean")


def test_a_kernel_of_another_width_is_not_adapted():
  params = random_params(models.create(**CONVNEXT))
  other = models.create(**{**CONVNEXT, "widths": (8, 4, 4, 4)})
  with pytest.raises(ValueError, match="Shape: ") as error:
    fit(other, params, 6, "repeat")
  assert "config.init.channels" not in str(error.value)


def test_a_run_names_the_rule(tmp_path):
  model = models.create(**VIT)
  params = random_params(model)
  weights.save(tmp_path / "x.npz", params, model, metadata={"image_size": 32})
  run = schema.RunConfig(
    total=schema.Duration(1, "steps"),
    input=schema.Input(data="digits", batch_size=8, pp=""),
    init=schema.Init(weights=str(tmp_path / "x.npz"), channels="sum"),
    model=VIT,
    optim={},
  )
  got = pretrained.load(run, model, (8, 32, 32, 1))
  want = params["embedding"]["kernel"].sum(axis=-2, keepdims=True)
  np.testing.assert_allclose(got["embedding"]["kernel"], want, rtol=1e-6)
