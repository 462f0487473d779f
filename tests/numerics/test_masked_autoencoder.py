"""Masked autoencoders: the published code, their masks, and their encoder."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from tests.numerics import reference
from vitjax import losses, models, objectives, step, trees, weights
from vitjax.weights import layouts

NAME = "mini_mae"
# The encoder and the decoder of the case.
ENCODER = {
  "patch_size": 8,
  "width": 32,
  "depth": 2,
  "num_heads": 2,
  "pool_type": "tok",
  "posemb": "learn",
  "gelu": "erf",
}
DECODER = {"decoder_width": 16, "decoder_depth": 1, "decoder_num_heads": 2}
TINY = {
  "patch_size": 4,
  "width": 8,
  "depth": 1,
  "num_heads": 2,
  "decoder_width": 8,
  "decoder_depth": 1,
  "decoder_num_heads": 2,
}


def published() -> tuple[dict, dict]:
  """The arrays of the encoder and of the decoder, by names of timm's ViT."""
  flat = reference.arrays(NAME)
  encoder = {k: v for k, v in flat.items() if k.split(".")[0] in TIMM_NAMES}
  return encoder, {k: v for k, v in flat.items() if k not in encoder}


TIMM_NAMES = ("cls_token", "pos_embed", "patch_embed", "blocks", "norm")


def decoder(flat: dict) -> dict:
  """The published decoder by our names; its blocks are those of a ViT."""
  vit = models.create("vit", width=16, depth=1, num_heads=2)
  renamed = {
    k.replace("decoder_blocks", "blocks").replace("decoder_norm", "norm"): v
    for k, v in flat.items()
    if k.startswith(("decoder_blocks", "decoder_norm"))
  }
  found = layouts.get("timm_vit").to_vitjax(renamed, vit)
  found["mask_token"] = flat["mask_token"]
  for theirs, ours in (("embed", "embedding"), ("pred", "pixels")):
    found[f"{ours}/kernel"] = flat[f"decoder_{theirs}.weight"].T
    found[f"{ours}/bias"] = flat[f"decoder_{theirs}.bias"]
  return trees.unflatten(found)


def test_loss_and_predictions_are_those_of_the_published_code(tmp_path):
  case = reference.case(NAME)
  ours, theirs = published()
  vit = models.create("vit", **ENCODER)
  params = {
    **reference.load(NAME, vit, tmp_path, flat=ours),
    "decoder": decoder(theirs),
  }
  model = models.create("mae", **ENCODER, **DECODER)
  image = jnp.asarray(reference.functions["images"](case))
  order = jnp.asarray(case["order"])

  @jax.jit
  def apply(params):
    objectives_of = {
      name: objectives.masked(model, loss_fn=fn)
      for name, fn in losses.MASKED.items()
    }
    batch, key = {"image": image, "order": order}, jax.random.key(0)
    found = {
      name: objective.loss({"params": params}, batch, key)[0]
      for name, objective in objectives_of.items()
    }
    return found, model.apply({"params": params}, image, order=order)

  found, (predictions, out) = apply(params)
  for name, value in found.items():
    np.testing.assert_allclose(value, case["outputs"][name], rtol=1e-5)
  np.testing.assert_array_equal(out["is_masked"], case["outputs"]["is_masked"])
  want = np.array(case["outputs"]["predictions"])
  np.testing.assert_allclose(
    predictions[:, ::5, ::17],
    want,
    atol=reference.TOLERANCE * np.abs(want).max(),
  )


def tiny(**options):
  return models.create("mae", **{**TINY, **options})


@functools.cache
def variables(model, side=16):
  """Random arrays of the right shapes; compiling `init` takes seconds."""
  image = jax.ShapeDtypeStruct((1, side, side, 1), jnp.float32)
  rng = np.random.default_rng(0)
  return jax.tree.map(
    lambda x: rng.normal(0.1, 0.3, x.shape).astype(np.float32),
    jax.eval_shape(model.init, jax.random.key(0), image),
  )


def images(count=4):
  rng = np.random.default_rng(1)
  return rng.normal(size=(count, 16, 16, 1)).astype(np.float32)


@pytest.mark.parametrize(
  "options",
  [
    pytest.param({"posemb": "sincos2d"}, marks=pytest.mark.slow),
    {"pool_type": "tok", "num_registers": 2, "posemb_prefix": True},
  ],
  ids=str,
)
def test_no_prediction_depends_on_a_masked_pixel(options):
  model = tiny(**options)
  image = images(2)
  order = model.draw_order(jax.random.key(3), image.shape)
  apply = jax.jit(model.apply)
  predictions, out = apply(variables(model), image, order=order)
  hidden = jnp.repeat(
    jnp.repeat(out["is_masked"].reshape(2, 4, 4), 4, 1), 4, 2
  )[..., None]
  assert hidden.mean() == 0.75
  noise = jnp.where(hidden, 7.0, image)
  again, _ = apply(variables(model), noise, order=order)
  np.testing.assert_array_equal(predictions, again)
  # And it depends on each that is seen.
  seen = jnp.where(hidden, image, image + 1)
  other, _ = apply(variables(model), seen, order=order)
  assert (np.abs(other - predictions).max(axis=(1, 2)) > 1e-3).all()


def test_masks_are_drawn_once_for_the_whole_batch_from_its_key():
  model = tiny()
  objective = objectives.masked(model, loss_fn=losses.pixel_mse)
  batch = {"image": images(), "label": np.zeros(4, np.int32)}
  first, again, other = (
    objective.prepare(batch, jax.random.key(i)) for i in (0, 0, 1)
  )
  assert sorted(first) == ["image", "order"]
  np.testing.assert_array_equal(first["order"], again["order"])
  assert not np.array_equal(first["order"], other["order"])
  assert len({tuple(x.tolist()) for x in first["order"]}) == 4
  np.testing.assert_array_equal(
    jnp.sort(first["order"]), jnp.tile(jnp.arange(16), (4, 1))
  )


@pytest.mark.slow
def test_accumulation_is_the_whole_batch():
  model = tiny()
  weight = variables(model)["params"]
  objective = objectives.masked(model, loss_fn=losses.normalised_pixel_mse)
  tx = optax.sgd(1.0)

  def updated(parts):
    train_step = step.make_train_step(
      objective,
      tx,
      normalise=lambda batch: batch,
      seed=0,
      schedule=lambda _: 1.0,
      accumulation_steps=parts,
    )
    state = step.make_state({**weight}, tx)
    state, metrics = jax.jit(train_step)(state, {"image": images()})
    return state.params, metrics["train/loss"]

  (whole, loss), (parts, same) = updated(1), updated(4)
  np.testing.assert_allclose(same, loss, rtol=1e-6)
  for name, x in trees.flatten(whole).items():
    np.testing.assert_allclose(
      trees.flatten(parts)[name], x, rtol=1e-5, atol=1e-6, err_msg=name
    )


def test_the_encoder_of_a_run_fits_a_vit():
  model = tiny(posemb="sincos2d", num_registers=1, class_token=True)
  params = variables(model)["params"]
  about = {"model": {"name": "mae"}, "image_size": [16, 16]}
  encoder = {k: v for k, v in TINY.items() if not k.startswith("decoder")}
  vit = models.create(
    "vit",
    **encoder,
    posemb="sincos2d",
    num_registers=1,
    class_token=True,
    num_classes=3,
  )
  fitted = weights.fit(
    trees.flatten(params), vit, source="run", metadata=about, channels=1
  )
  assert "decoder" not in fitted
  assert not fitted["head"]["kernel"].any()
  features, _ = jax.jit(model.apply)({"params": params}, images())
  _, out = jax.jit(vit.apply)({"params": fitted}, images())
  np.testing.assert_array_equal(out["pre_logits"], features)
  # Other weights with a decoder are refused as before.
  with pytest.raises(ValueError, match="decoder"):
    weights.fit(
      trees.flatten(params), vit, source="run", metadata={}, channels=1
    )


@pytest.mark.slow
def test_a_published_encoder_begins_a_new_pre_training(tmp_path):
  model = models.create("mae", **ENCODER, **DECODER)
  flat, _ = published()
  params = reference.load(NAME, model, tmp_path, flat, reinit=["decoder"])
  kernel = params["embedding"]["kernel"]
  want = flat["patch_embed.proj.weight"].transpose(2, 3, 1, 0)
  np.testing.assert_array_equal(kernel, want)


@pytest.mark.parametrize(
  ("options", "sentence"),
  [
    ({"num_classes": 3}, "num_classes=3 does not fit a masked autoencoder"),
    ({"stem": ()}, "must not mix patches before it masks them"),
    ({"pool_type": "map"}, "has pool_type 'gap', 'tok' or 'tok"),
    ({"posemb": "rope"}, "posemb 'learn' or 'sincos2d'"),
    ({"mask_ratio": 1.0}, "mask_ratio=1.0 must be"),
    ({"decoder_width": 9}, "9"),
  ],
  ids=str,
)
def test_what_masked_training_cannot_use_is_refused(options, sentence):
  with pytest.raises(ValueError, match=sentence):
    tiny(**options)


def test_too_few_patches_are_refused():
  with pytest.raises(ValueError, match="leaves 0 of the 1 patches"):
    tiny().num_kept(1)
