"""DINOv2, DINOv3 and EVA-02 against their published code.

Each case loads a file in the layout of that code: the authors', timm's or
that of transformers. Each is paired with plausible mistakes that must be seen.
Cases are made by `python -m scripts.reference_backbones`.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.numerics import reference
from tests.numerics.backbones import CASES, LAYOUTS, published
from tests.numerics.reference import TOLERANCE, distance
from vitjax import trees, weights
from vitjax.models import attention, resizing, vit
from vitjax.weights import layouts
from vitjax.weights.layouts import torch_tensors

build = functools.partial(reference.build, CASES)


def load(name: str, model, folder, flat=None):
  flat = published(name) if flat is None else flat
  return reference.load(name, model, folder, flat)


@pytest.mark.parametrize("name", reference.names(CASES))
def test_outputs(name, tmp_path):
  model = build(name)
  assert distance(name, model, load(name, model, tmp_path)) < TOLERANCE


@pytest.mark.parametrize("name", LAYOUTS)
def test_files_are_written_as_they_are_read(name, tmp_path):
  """All arrays that the model reads come back."""
  flat, model = published(name), build(name)
  layout = layouts.recognise(flat)
  assert layout.NAME == LAYOUTS[name]
  ours = layout.to_vitjax(flat, model)
  theirs = layout.from_vitjax(ours, model)
  assert {n: x.shape for n, x in theirs.items()} == {
    n: x.shape for n, x in flat.items()
  }
  again = layout.to_vitjax(theirs, model)
  jax.tree.map(np.testing.assert_array_equal, again, ours)


@pytest.mark.slow
@pytest.mark.parametrize(
  ("name", "options"),
  [
    ("mini_dinov2", {"posemb_resize": "antialias"}),
    ("mini_dinov2_reg", {"posemb_resize": "bicubic"}),
    ("mini_dinov2_reg", {"posemb_resize": "corners"}),
    ("mini_dinov2", {"layer_norm_eps": 1e-5}),
    ("mini_dinov2", {"gelu": "tanh"}),
    ("mini_dinov3", {"rope_base": 10_000.0}),
    ("mini_dinov3", {"layer_norm_eps": 1e-6}),
    ("mini_timm_dinov3", {"pool_type": "tok"}),
    ("mini_timm_dinov3", {"rope_grid": "index"}),
  ],
)
def test_a_wrong_option_is_seen(name, options, tmp_path):
  model = build(name, **options)
  assert distance(name, model, load(name, model, tmp_path)) > 2 * TOLERANCE


def no_offset(monkeypatch):
  monkeypatch.setattr(resizing, "_DINO_OFFSET", 0.0)


def columns_first(monkeypatch):
  coordinates = attention.patch_coordinates
  monkeypatch.setattr(
    attention,
    "patch_coordinates",
    lambda *args: coordinates(*args)[:, ::-1],
  )


def by_the_longer_side(monkeypatch):
  coordinates = attention.patch_coordinates

  def longer(h, w, grid):
    scale = jnp.array([h, w]) / max(h, w)
    return (coordinates(h, w, grid) + 1) * scale[None] - 1

  monkeypatch.setattr(attention, "patch_coordinates", longer)


def from_the_corner(monkeypatch):
  coordinates = attention.patch_coordinates
  monkeypatch.setattr(
    attention,
    "patch_coordinates",
    lambda h, w, grid: coordinates(h, w, grid) - jnp.array([[1 / h, 1 / w]]),
  )


def registers_first(monkeypatch):
  prefix = vit.Model._with_prefix

  def swapped(self, x):
    x = prefix(self, x)
    n = self.num_registers
    return jnp.concatenate([x[:, 1 : 1 + n], x[:, :1], x[:, 1 + n :]], axis=1)

  monkeypatch.setattr(vit.Model, "_with_prefix", swapped)


def pairs_of_neighbours(monkeypatch):
  monkeypatch.setattr(torch_tensors, "rotated", lambda kind: kind)


@pytest.mark.slow
@pytest.mark.parametrize(
  ("name", "mistake"),
  [
    ("mini_dinov2", no_offset),
    ("mini_dinov2_reg", registers_first),
    ("mini_dinov3", registers_first),
    ("mini_dinov3", columns_first),
    ("mini_dinov3", by_the_longer_side),
    ("mini_dinov3", from_the_corner),
    ("mini_dinov3", pairs_of_neighbours),
    ("mini_hf_dinov3", pairs_of_neighbours),
    ("mini_eva02", columns_first),
    ("mini_timm_dinov3", columns_first),
  ],
)
def test_a_mistake_is_seen(name, mistake, tmp_path, monkeypatch):
  model = build(name)
  mistake(monkeypatch)
  assert distance(name, model, load(name, model, tmp_path)) > 10 * TOLERANCE


def swapped(*names):
  """Exchanges the ends of the names of two modules in all blocks."""

  def mutate(flat):
    first, second = names
    table = {first: second, second: first}
    return {
      "/".join(table.get(part, part) for part in name.split("/")): x
      for name, x in flat.items()
    }

  return mutate


def no_scales(flat):
  """Scales of one, which are none."""
  return {
    name: np.ones_like(x) if name.endswith("gamma") else x
    for name, x in flat.items()
  }


def no_sub_norm(flat):
  return {
    name: np.ones_like(x) if "MlpBlock_0/LayerNorm_0/scale" in name else x
    for name, x in flat.items()
  }


@pytest.mark.slow
@pytest.mark.parametrize(
  ("name", "mistake"),
  [
    ("mini_dinov2_reg", swapped("gate", "Dense_0")),
    ("mini_dinov3", swapped("gate", "Dense_0")),
    ("mini_eva02", swapped("gate", "Dense_0")),
    ("mini_eva02_fused", swapped("gate", "Dense_0")),
    ("mini_eva02", no_sub_norm),
    ("mini_dinov2", swapped("LayerScale_0", "LayerScale_1")),
    ("mini_dinov3", no_scales),
    ("mini_hf_dinov3_convnext", no_scales),
  ],
)
def test_mistaken_parameters_are_seen(name, mistake, tmp_path):
  model = build(name)
  flat = trees.flatten(load(name, model, tmp_path))
  params = trees.unflatten(mistake(flat))
  assert distance(name, model, params) > 10 * TOLERANCE


@pytest.mark.slow
def test_a_key_bias_that_is_not_masked_is_seen(tmp_path):
  name = "mini_dinov3"
  flat = {n: x for n, x in published(name).items() if "bias_mask" not in n}
  model = build(name, key_bias=True)
  params = load(name, model, tmp_path, flat)
  assert distance(name, model, params) > 10 * TOLERANCE


def in_memory(name: str) -> str:
  """The name that transformers 5 has in memory for a name on disk."""
  for old, new in (
    ("attention.attention.query", "attention.q_proj"),
    ("attention.attention.key", "attention.k_proj"),
    ("attention.attention.value", "attention.v_proj"),
    ("attention.output.dense", "attention.o_proj"),
    ("mlp.weights_out", "mlp.down_proj"),
  ):
    name = name.replace(old, new)
  return name


@pytest.mark.parametrize("name", ["mini_hf_dinov2_reg", "mini_hf_dinov3"])
def test_names_in_memory(name, tmp_path):
  model, flat = build(name), {}
  for key, x in published(name).items():
    if key.startswith("layer."):
      flat[f"model.{key}"] = x
    elif "weights_in" in key:
      for part, half in zip(("gate_proj", "up_proj"), np.split(x, 2)):
        flat[key.replace("weights_in", part)] = half
    else:
      flat[in_memory(key)] = x
  assert flat.keys() != published(name).keys()
  jax.tree.map(
    np.testing.assert_array_equal,
    load(name, model, tmp_path, flat),
    load(name, model, tmp_path),
  )


def test_biases_of_zeros_load_into_a_model_without(tmp_path):
  """DINOv3's files have biases of query and value, all zeros."""
  name = "mini_dinov3"
  model, flat = build(name, qkv_bias=False), published(name)
  with pytest.raises(ValueError, match=r"Extra: .*query/bias"):
    load(name, model, tmp_path, flat)
  zeros = {n: 0 * x if n.endswith("qkv.bias") else x for n, x in flat.items()}
  load(name, model, tmp_path, zeros)


def test_coordinates_move_in_training_alone_by_the_key():
  model = build("mini_dinov3", rope_rescale=2.0)

  def angles(seed, train):
    return model.apply(
      {}, 3, 5, train, method="_angles", rngs={"dropout": jax.random.key(seed)}
    )

  evaluated = angles(0, False)
  np.testing.assert_array_equal(evaluated, angles(1, False))
  np.testing.assert_array_equal(angles(0, True), angles(0, True))
  assert np.abs(angles(0, True) - angles(1, True)).max() > 1e-3
  assert np.abs(angles(0, True) - evaluated).max() > 1e-3


@pytest.mark.parametrize(
  ("moves", "span", "ratio"),
  [((0.0, 1.0, 2.0), 2.0, 1.0), ((0.0, 2.0, 1.0), 2.0, 4.0)],
  ids=["rescale", "jitter"],
)
def test_factors_are_within_their_range(moves, span, ratio):
  """Rows and columns have the same factor, or each its own."""
  at = attention.patch_coordinates(3, 5, "centered")
  move = jax.vmap(lambda key: attention.move_coordinates(at, key, *moves))
  moved = np.asarray(move(jax.random.split(jax.random.key(0), 500)))
  factors = moved[:, 0] / np.asarray(at)[0]
  want = factors[:, None] * np.asarray(at)
  np.testing.assert_allclose(moved, want, rtol=1e-5)
  assert 1 / span <= factors.min() < 0.55 and 1.9 < factors.max() <= span
  assert abs(np.log(factors).mean()) < 0.05  # log-uniform
  between = factors[:, 0] / factors[:, 1]
  assert between.max() <= ratio + 1e-5
  assert (between.max() > 1.5) == (ratio > 1)


def test_a_shift_is_within_its_range():
  at = attention.patch_coordinates(3, 5, "centered")
  move = jax.vmap(
    lambda key: attention.move_coordinates(at, key, 0.5, 1.0, 1.0)
  )
  moved = np.asarray(move(jax.random.split(jax.random.key(0), 500)))
  shift = moved - np.asarray(at)
  np.testing.assert_allclose(shift, shift[:, :1] + 0 * shift, atol=1e-6)
  assert -0.5 <= shift.min() < -0.45 and 0.45 < shift.max() <= 0.5 + 1e-6
  assert np.abs(shift[:, 0, 0] - shift[:, 0, 1]).max() > 0.5


def test_other_models_do_not_fit_the_layouts():
  model = build("mini_dinov2")
  with pytest.raises(ValueError, match=r"'hf_dinov3' needs .*posemb='rope'"):
    layouts.get("hf_dinov3").from_vitjax({}, model)
  model = build("mini_dinov2", pool_type="gap", class_token=True)
  with pytest.raises(ValueError, match=r"'dinov2' needs .*pool_type='tok'"):
    layouts.get("dinov2").from_vitjax({}, model)


def test_a_file_saved_at_another_size_is_resized_as_published(tmp_path):
  """The model says how, whatever the layout of the file is."""
  name = "mini_dinov2"
  model = build(name)
  params = weights.load(
    save(published(name), tmp_path / "a.npz"), model, image_size=56
  )
  weights.save(
    tmp_path / "b.npz", params, model, metadata={"image_size": (56, 56)}
  )
  again = weights.load(tmp_path / "b.npz", model, image_size=(84, 112))
  assert distance(name, model, again) < TOLERANCE


def save(flat, file):
  np.savez(file, **flat)
  return file
