"""Round trips and recognition of the layouts of Mixer, ConvNeXt and others."""

import functools

import jax
import numpy as np
import pytest

from vitjax import models, trees, weights
from vitjax.models import batch_norm, resnet
from vitjax.weights import layouts, npz
from vitjax.weights.layouts import timm_hybrid, timm_nfnet

TINY = {
  "coatnet": (
    "coatnet",
    {
      "variant": "rmlp-2",
      "stem_widths": (4, 8),
      "widths": (8, 32, 32, 64),
      "depths": (1, 1, 2, 1),
    },
  ),
  "coatnet early": (
    "coatnet",
    {
      "stem_widths": (4, 8),
      "widths": (8, 32, 32, 64),
      "depths": (1, 1, 2, 1),
    },
  ),
  "maxxvit": (
    "maxxvit",
    {"stem_widths": (8, 32), "widths": (32, 64), "depths": (1, 2)},
  ),
  "mixer": (
    "mixer",
    {"width": 8, "depth": 11, "tokens_mlp_dim": 4, "mlp_dim": 6},
  ),
  "convnext": ("convnext", {"depths": (1, 2), "widths": (96, 8)}),
  "convnext narrow": ("convnext", {"depths": (1, 2), "widths": (4, 8)}),
  "convnext isotropic": (
    "convnext",
    {
      "depths": (2,),
      "widths": (8,),
      "patch_size": 16,
      "stem_norm": False,
      "layer_scale_init": None,
    },
  ),
  "nfnet": ("nfnet", {"depths": (1, 2), "widths": (256, 512)}),
  "regnet": (
    "regnet",
    {"depths": (1, 2), "widths": (8, 16), "group_width": 4},
  ),
  "resnet": ("resnet", {"stages": (1, 2)}),
  "resnet with batch norm": (
    "resnet_bn",
    {"depths": (1, 2), "widths": (4, 8)},
  ),
  "resnet aa": (
    "resnet_bn",
    {
      "depths": (1, 2),
      "widths": (4, 8),
      "groups": 2,
      "base_width": 32,
      "stem_widths": (4, 4, 8),
      "squeeze_excite": True,
      "antialias": True,
      "pool_shortcut": True,
    },
  ),
  "bit": ("resnet", {"stages": (1, 2), "preact": True}),
  "bit of timm": (
    "resnet",
    {"stages": (1, 2), "preact": True, "std_eps": 1e-8},
  ),
  "metaformer": (
    "metaformer",
    {
      "depths": (1, 2),
      "widths": (8, 64),
      "mixers": ("conv", "attention"),
    },
  ),
  "swin": (
    "swin",
    {"width": 8, "depths": (1, 2), "num_heads": (2, 4), "window": 4},
  ),
  "swin v2": (
    "swin",
    {"version": 2, "width": 8, "depths": (1, 2), "num_heads": (2, 4)},
  ),
  "hybrid": (
    "vit",
    {
      "stem": (1, 2),
      "patch_size": 1,
      "width": 8,
      "depth": 1,
      "num_heads": 2,
      "pool_type": "tok",
    },
  ),
  "root": (
    "vit",
    {"stem": (), "patch_size": 8, "width": 8, "depth": 1, "num_heads": 2},
  ),
}
# Layout -> models, a name that its files have, and whether arrays are scaled
# on the way, so that they come back to float32 rounding only.
LAYOUTS = {
  "mixer": (["mixer"], "MixerBlock_10/token_mixing/Dense_0/kernel", ()),
  "timm_mixer": (["mixer"], "blocks.10.mlp_tokens.fc1.weight", ()),
  "convnext": (
    ["convnext", "convnext narrow", "convnext isotropic"],
    "norm.weight",
    (),
  ),
  "timm_convnext": (
    ["convnext", "convnext narrow"],
    "stages.1.downsample.1.weight",
    (),
  ),
  "timm_coatnet": (
    ["coatnet", "coatnet early"],
    "stages.2.blocks.0.norm1.norm.weight",
    (),
  ),
  "timm_maxxvit": (
    ["maxxvit"],
    "stages.1.blocks.1.attn_grid.attn.qkv.weight",
    (),
  ),
  "timm_metaformer": (
    ["metaformer"],
    "stages.1.blocks.1.token_mixer.qkv.weight",
    (),
  ),
  "timm_swin": (
    ["swin", "swin v2"],
    "layers.1.blocks.1.attn.qkv.weight",
    (),
  ),
  "timm_regnet": (["regnet"], "s2.b1.downsample.bn.running_var", ()),
  "timm_resnet": (
    ["resnet with batch norm", "resnet aa"],
    "layer2.1.bn3.running_mean",
    (),
  ),
  "haiku_nfnet": (["nfnet"], "NFNet/~/nf_block_2/skip_gain", ()),
  "timm_nfnet": (["nfnet"], "stages.1.1.skipinit_gain", ["nfnet"]),
  "bit": (["resnet", "bit"], "params/head/kernel", ()),
  "tf_bit": (
    ["bit"],
    "resnet/block2/unit01/a/proj/standardized_conv2d/kernel",
    (),
  ),
  "timm_bit": (
    ["bit", "bit of timm"],
    "stages.1.blocks.0.downsample.conv.weight",
    ["bit"],
  ),
  "timm_hybrid": (
    ["hybrid", "root"],
    "patch_embed.proj.weight",
    ["hybrid", "root"],
  ),
  "vision_transformer": (["hybrid", "root"], "conv_root/kernel", ()),
  "big_vision": (list(TINY), "params/head/bias", ()),
}
CASES = [
  (name, kind) for name, (kinds, *_) in LAYOUTS.items() for kind in kinds
]


@functools.cache
def tiny(kind):
  """A small model, and random parameters without zeros."""
  family, options = TINY[kind]
  model = models.create(family, num_classes=3, **options)
  image = jax.ShapeDtypeStruct((1, 32, 32, 3), np.float32)
  variables = jax.eval_shape(model.init, jax.random.key(0), image)
  tree = batch_norm.join(variables)
  rng = np.random.default_rng(0)
  params = jax.tree.map(
    lambda x: (0.1 * rng.normal(size=x.shape)).astype(np.float32), tree
  )
  return model, params


@pytest.mark.parametrize(("layout", "kind"), CASES)
def test_round_trip(layout, kind, tmp_path):
  model, params = tiny(kind)
  _, known_name, scaled = LAYOUTS[layout]
  file = tmp_path / "x.npz"
  weights.save(file, params, model, layout=layout)
  names = npz.read(file)
  assert known_name in names
  if layout != "big_vision":
    assert layouts.recognise(names).NAME == layout
  # As `vitjax.load` reads an exported file: nothing needs another size.
  loaded = weights.load(file, model, image_size=32, resize_posemb=False)
  got = trees.flatten(loaded)
  want = trees.flatten(params)
  assert got.keys() == want.keys()
  rtol = 1e-6 if kind in scaled else 0
  for name in want:
    np.testing.assert_allclose(got[name], want[name], rtol=rtol, err_msg=name)


@pytest.mark.parametrize(
  "layout",
  [x for x in LAYOUTS if x not in ("vision_transformer", "big_vision")],
)
def test_another_family_is_refused(layout):
  kind = "convnext" if "mixer" in layout else "mixer"
  model, params = tiny(kind)
  converter = layouts.get(layout)
  with pytest.raises(ValueError, match=f"layout '{layout}' holds models of"):
    converter.from_vitjax(trees.flatten(params), model)
  with pytest.raises(ValueError, match=r"Create it with models\.create"):
    converter.to_vitjax({}, model)


@pytest.mark.parametrize(
  ("layout", "kind", "message"),
  [
    ("timm_bit", "resnet", "preact=False"),
    ("tf_bit", "resnet", "preact=False"),
    ("timm_convnext", "convnext isotropic", "use the layout 'convnext'"),
  ],
)
def test_what_a_layout_cannot_hold(layout, kind, message):
  model, params = tiny(kind)
  with pytest.raises(ValueError, match=f"(?i){message}"):
    layouts.get(layout).from_vitjax(trees.flatten(params), model)


def test_old_mixer(tmp_path):
  """big_vision's first layout: other names, singleton axes, one counter."""
  model, params = tiny("mixer")
  old = {}
  for name, x in trees.flatten(params).items():
    parts = name.split("/")
    if parts[0].startswith("MixerBlock_"):
      parts[0] = parts[0].replace("MixerBlock", "Mixer/encoderblock")
      if parts[1] == "LayerNorm_1":
        parts[1] = "LayerNorm_2"
      elif parts[1].endswith("_mixing"):
        leaf = f"{parts[3]}{int(parts[2][-1]) + 1}"
        parts = [parts[0], f"{parts[1]}_phase_0", leaf]
        x = x[None]
    elif parts[0] == "pre_head_layer_norm":
      parts[0] = "Mixer/encoder_norm"
    elif parts[0] == "stem":
      parts[0] = "embedding"
    old["opt/target/" + "/".join(parts)] = x
  np.savez(tmp_path / "x.npz", **old)
  got = trees.flatten(weights.load(tmp_path / "x.npz", model, image_size=32))
  for name, x in trees.flatten(params).items():
    np.testing.assert_array_equal(got[name], x, err_msg=name)


@pytest.mark.parametrize("kind", ["resnet", "bit", "hybrid"])
def test_old_group_norms(kind, tmp_path):
  """Scale and bias of group norms were (1, 1, 1, c) once."""
  model, params = tiny(kind)
  layout = "vision_transformer" if kind == "hybrid" else "bit"
  flat = layouts.get(layout).from_vitjax(trees.flatten(params), model)
  for name, x in flat.items():
    module, _, leaf = name.rpartition("/")
    if leaf == "scale" and module.rpartition("/")[2].startswith("gn"):
      flat[name] = x.reshape(1, 1, 1, -1)
      flat[f"{module}/bias"] = flat[f"{module}/bias"].reshape(1, 1, 1, -1)
  np.savez(tmp_path / "x.npz", **flat)
  got = trees.flatten(weights.load(tmp_path / "x.npz", model, image_size=32))
  for name, x in trees.flatten(params).items():
    np.testing.assert_array_equal(got[name], x, err_msg=name)


def test_numbered_convolutions_of_bit(tmp_path):
  model, params = tiny("bit")
  flat = layouts.get("tf_bit").from_vitjax(trees.flatten(params), model)
  numbered = {
    name.replace("b/standardized_conv2d/", "b/standardized_conv2d_7/"): x
    for name, x in flat.items()
  }
  assert numbered.keys() != flat.keys()
  np.savez(tmp_path / "x.npz", **numbered)
  weights.load(tmp_path / "x.npz", model, image_size=32)


def test_unknown_array_is_reported(tmp_path):
  model, params = tiny("nfnet")
  flat = layouts.get("timm_nfnet").from_vitjax(trees.flatten(params), model)
  np.savez(
    tmp_path / "x.npz",
    **flat,
    **{"stages.9.0.conv1.weight": flat["head.fc.weight"]},
  )
  with pytest.raises(ValueError, match=r"Extra: stages\.9\.0\.conv1\.weight"):
    weights.load(tmp_path / "x.npz", model, image_size=32)


def test_pickle_is_refused(tmp_path):
  """The released NFNets are pickles that are called npz."""
  model, _ = tiny("nfnet")
  file = tmp_path / "F0_haiku.npz"
  file.write_bytes(b"\x80\x04}q\x00.")
  with pytest.raises(ValueError, match="convert it once") as error:
    weights.load(file, model, image_size=32)
  assert "F0_haiku.npz" in str(error.value)


def test_gain_of_timm():
  """Both standardisations give one kernel, above and below the bound."""
  rng = np.random.default_rng(0)
  deviation = np.array([1e-4, 1e-3, 0.05, 1.0])
  kernel = rng.normal(size=(3, 3, 5, 4)) * deviation
  gain = rng.normal(size=4)
  variance = kernel.var(axis=(0, 1, 2))
  centred = kernel - kernel.mean(axis=(0, 1, 2))
  ours = gain * centred / np.sqrt(np.maximum(variance * 45, 1e-4))
  timm_gain = gain * timm_nfnet._timm_over_ours(kernel)
  timm = timm_gain * 45**-0.5 * centred / np.sqrt(variance + 1e-5)
  np.testing.assert_allclose(ours, timm, rtol=1e-12)


def test_kernels_of_timm_hybrids():
  """Both standardisations give one kernel, in both directions."""
  rng = np.random.default_rng(0)
  kernel = rng.normal(size=(3, 3, 5, 4)) * np.array([1e-4, 1e-2, 0.05, 1.0])

  def standardise(w, timm):
    w = w.astype(np.float64)
    w = w - w.mean(axis=(0, 1, 2))
    deviation = w.std(axis=(0, 1, 2))
    return w / (np.sqrt(deviation**2 + 1e-8) if timm else deviation + 1e-5)

  for timm, scale in (
    (False, timm_hybrid._to_timm),
    (True, timm_hybrid._from_timm),
  ):
    scaled = timm_hybrid._scaled(kernel, scale)
    np.testing.assert_allclose(
      standardise(scaled, not timm),
      standardise(kernel, timm),
      rtol=0,
      atol=1e-6,
    )
    raw = np.abs(standardise(kernel, not timm) - standardise(kernel, timm))
    assert raw.max() > 1e-4


def test_kernels_of_timm_bit():
  """The scale of the layout makes up for the epsilon."""
  rng = np.random.default_rng(0)
  kernel = rng.normal(size=(1, 1, 64, 4)) * np.array([1e-5, 1e-4, 1e-3, 1.0])
  image = rng.normal(size=(1, 8, 8, 64)).astype(np.float32)

  def apply(kernel, std_eps):
    conv = jax.jit(resnet.StdConv(4, std_eps=std_eps).apply)
    return conv({"params": {"kernel": kernel.astype(np.float32)}}, image)

  model, _ = tiny("bit")
  name = "root_block/conv_root/kernel"
  flat = {"stem.conv.weight": kernel.transpose(3, 2, 0, 1)}
  scaled = layouts.get("timm_bit").to_vitjax(flat, model)[name]
  want = apply(kernel, 1e-8)
  np.testing.assert_allclose(apply(scaled, 1e-10), want, rtol=1e-4, atol=1e-5)
  assert np.abs(apply(kernel, 1e-10) - want).max() > 0.1
