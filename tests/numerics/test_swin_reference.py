"""Swin Transformers against timm, and their tables in another window.

Each case is paired with plausible mistakes that must be seen.
"""

import functools
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.numerics import reference
from tests.numerics.reference import TOLERANCE, arrays, distance, load
from vitjax import trees
from vitjax.models import attention, relative_position

MINI = {"width": 16, "depths": (2, 2, 2, 2), "num_heads": (1, 2, 4, 8)}
CASES = {
  "mini_swin": ("swin", {**MINI, "window": 5}),
  "mini_swinv2": (
    "swin",
    {**MINI, "version": 2, "window": 8, "trained_windows": (4, 4, 4, 2)},
  ),
  "timm_swin_small_240x200": ("swin_small_patch4_window7_224", {}),
  "timm_swin_small_patch4_window7_224": ("swin_small_patch4_window7_224", {}),
  "timm_swinv2_small_window8_256": ("swinv2_small_window8_256", {}),
  "timm_swinv2_base_window12to24_192to384": (
    "swinv2_base_window12to24_192to384",
    {},
  ),
}
build = functools.partial(reference.build, CASES)


@pytest.mark.parametrize("name", reference.names(CASES))
def test_logits(name, tmp_path):
  model = build(name)
  assert distance(name, model, load(name, model, tmp_path)) < TOLERANCE


@pytest.mark.slow
@pytest.mark.parametrize(
  ("name", "options"),
  [
    ("mini_swin", {"layer_norm_eps": 1e-6}),
    ("mini_swin", {"gelu": "tanh"}),
    ("mini_swinv2", {"layer_norm_eps": 1e-6}),
    ("mini_swinv2", {"trained_windows": None}),
  ],
)
def test_a_wrong_option_is_seen(name, options, tmp_path):
  model = build(name, **options)
  assert distance(name, model, load(name, model, tmp_path)) > 10 * TOLERANCE


def rolled_the_other_way(monkeypatch):
  roll = jnp.roll
  monkeypatch.setattr(
    attention.jnp,
    "roll",
    lambda x, shift, axis: roll(x, [-s for s in shift], axis),
  )


def without_regions(monkeypatch):
  regions = attention._regions
  monkeypatch.setattr(attention, "_regions", lambda *args: 0 * regions(*args))


def offset_of_the_key(monkeypatch):
  offsets = relative_position.offsets
  monkeypatch.setattr(
    relative_position, "offsets", lambda h, w: offsets(h, w).T
  )


def unclamped(monkeypatch):
  monkeypatch.setattr(attention.jnp, "minimum", lambda x, bound: x)


@pytest.mark.slow
@pytest.mark.parametrize(
  ("name", "mistake"),
  [
    ("mini_swin", rolled_the_other_way),
    ("mini_swin", without_regions),
    ("mini_swin", offset_of_the_key),
    ("mini_swinv2", unclamped),
  ],
)
def test_a_mistake_is_seen(name, mistake, tmp_path, monkeypatch):
  model = build(name)
  params = load(name, model, tmp_path)
  mistake(monkeypatch)
  assert distance(name, model, params) > 10 * TOLERANCE


def test_files_of_microsoft(tmp_path):
  """Merging at the end of a stage, `head`, and what the window implies."""
  flat = arrays("mini_swin")
  theirs = {}
  for name, x in flat.items():
    layer, _, rest = name.removeprefix("layers.").partition(".")
    if rest.startswith("downsample"):
      name = f"layers.{int(layer) - 1}.{rest}"
    theirs[name.replace("head.fc.", "head.")] = x
  theirs["layers.0.blocks.1.attn_mask"] = np.zeros((12, 25, 25), np.float32)
  index = "layers.0.blocks.0.attn.relative_position_index"
  theirs[index] = np.zeros((25, 25), np.int64)
  assert theirs.keys() != flat.keys()
  model = build("mini_swin")
  jax.tree.map(
    np.testing.assert_array_equal,
    load("mini_swin", model, tmp_path, theirs),
    load("mini_swin", model, tmp_path),
  )


def resized():
  golden = json.loads(
    (reference.FOLDER / "relative_position_resize.json").read_text()
  )
  return golden["cases"]


@pytest.mark.parametrize("golden", resized(), ids=lambda x: x["key"][:12])
def test_tables_are_resized_as_in_timm(golden):
  old, new = (
    tuple(2 * n - 1 for n in golden[key])
    for key in ("old_window", "new_window")
  )
  table = reference.functions["array"](
    golden["key"], golden["shape"], golden["seed"]
  )
  table = (golden["factor"] * table).reshape(*old, -1)
  got = relative_position.resample_table(table, new).reshape(-1, table.shape[2])
  np.testing.assert_allclose(got[::7], golden["values"], atol=1e-5)


def test_weights_of_another_window(tmp_path):
  """Tables are resized on loading, or refused if that is not wanted."""
  name = "mini_swin"
  model = build(name, window=7)
  flat = trees.flatten(load(name, model, tmp_path))
  table = flat["stage0/block00/attention/position_bias/table"]
  old = arrays(name)["layers.0.blocks.0.attn.relative_position_bias_table"]
  want = relative_position.resample_table(old.reshape(9, 9, 1), (13, 13))
  np.testing.assert_array_equal(table, want)
  with pytest.raises(ValueError, match="position_bias/table"):
    load(name, model, tmp_path, resize_posemb=False)


def test_the_mask_of_shifted_windows():
  """Tokens see each other if they were neighbours before the roll."""
  size, window, shift = (6, 4), (3, 4), (1, 0)
  regions = attention._split(attention._regions(size, window, shift), window)
  rows = np.roll(np.arange(size[0]), -shift[0])
  rows = np.repeat(rows[:, None], size[1], axis=1)
  rows = attention._split(rows[None, :, :, None], window)
  near = np.abs(rows - rows.swapaxes(2, 3)) < window[0]
  same = regions == regions.swapaxes(2, 3)
  np.testing.assert_array_equal(same, near)
