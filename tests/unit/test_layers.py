"""Layers of the families, for layer-wise decay of the learning rate."""

import json
import re

import numpy as np
import pytest

from scripts import update_goldens
from vitjax import models
from vitjax.models import base


def shapes(published):
  """Name -> shape, of the golden tree with its {first-last} written out."""
  flat = {}
  tree = json.loads(update_goldens.file(published).read_text())
  for name, shape in tree.items():
    if match := re.search(r"\{(\d+)-(\d+)\}", name):
      first, last = match.groups()
      for i in range(int(first), int(last) + 1):
        number = str(i).zfill(len(first))
        flat[name.replace(match[0], number)] = tuple(shape)
    else:
      flat[name] = tuple(shape)
  return flat


def layers(published, **options):
  if models.list()[published]["model"] != "two_tower":
    options = {"num_classes": 1000, **options}
  model = models.create(published, **options)
  return models.layers(model, shapes(published))


def by_layer(published):
  """Layer -> the modules that it has, down to blocks."""
  found, last = layers(published)
  result = {}
  for name, layer in found.items():
    depth = 2 if name.startswith(("stage", "block", "Transformer")) else 1
    module = "/".join(name.split("/")[:depth])
    result.setdefault(layer, set()).add(module)
  assert set(result) == set(range(last + 1))
  return result


def test_vit_b_has_the_layers_of_beit():
  assert by_layer("ViT-B_16") == {
    0: {"cls", "embedding", "pos_embedding"},
    **{i + 1: {f"Transformer/encoderblock_{i}"} for i in range(12)},
    13: {"Transformer/encoder_norm", "head"},
  }


def test_the_stem_of_a_hybrid_is_one_layer():
  found, last = layers("R50+ViT-B_16")
  assert found["conv_root/kernel"] == 0
  assert found["block3/unit9/conv1/kernel"] == 0
  assert found["embedding/kernel"] == 0
  assert found["Transformer/encoderblock_0/LayerNorm_0/scale"] == 1
  assert last == 13


def test_stacked_blocks_have_a_layer_for_each_row():
  model = models.create("vit", variant="S/16", depth=3, scan_layers=True)
  found, last = models.layers(
    model,
    {
      "registers": (1, 4, 384),
      "Transformer/encoderblock/LayerNorm_0/scale": (3, 384),
      "MAPHead_0/probe": (1, 1, 384),
      "fc_norm/scale": (384,),
      "pre_logits/kernel": (384, 384),
    },
  )
  assert list(found.values()) == [0, (1, 2, 3), 4, 4, 4]
  assert last == 4


def test_convnext_s_has_the_published_layers():
  """Table of optim_factory.py: 13 layers below the head."""
  expected = {
    0: {"stem"},
    1: {f"stage0/block{b:02d}" for b in range(3)},
    2: {"stage1/downsample", *(f"stage1/block{b:02d}" for b in range(3))},
    12: {"stage3/downsample", *(f"stage3/block{b:02d}" for b in range(3))},
    13: {"norm", "head"},
  }
  for b in range(27):
    expected.setdefault(3 + b // 3, set()).add(f"stage2/block{b:02d}")
  expected[3].add("stage2/downsample")
  assert by_layer("convnext_small") == expected


def test_convnext_t_has_three_blocks_in_a_layer_too():
  assert by_layer("convnext_tiny") == {
    0: {"stem"},
    1: {"stage0/block00", "stage0/block01", "stage0/block02"},
    2: {
      "stage1/downsample",
      "stage1/block00",
      "stage1/block01",
      "stage1/block02",
    },
    3: {
      "stage2/downsample",
      "stage2/block00",
      "stage2/block01",
      "stage2/block02",
    },
    4: {"stage2/block03", "stage2/block04", "stage2/block05"},
    5: {"stage2/block06", "stage2/block07", "stage2/block08"},
    6: {
      "stage3/downsample",
      "stage3/block00",
      "stage3/block01",
      "stage3/block02",
    },
    7: {"norm", "head"},
  }


def test_the_other_families_count_their_blocks():
  assert by_layer("Mixer-B_16") == {
    0: {"stem"},
    **{i + 1: {f"MixerBlock_{i}"} for i in range(12)},
    13: {"pre_head_layer_norm", "head"},
  }
  assert by_layer("NFNet-F0") == {
    0: {f"stem_conv{i}" for i in range(4)},
    **{i + 1: {f"nf_block_{i}"} for i in range(12)},
    13: {"final_conv", "head"},
  }
  stages = [
    f"stage{s}/block{b:02d}"
    for s, depth in enumerate((1, 2, 2, 3, 3, 4, 1))
    for b in range(depth)
  ]
  assert by_layer("efficientnet_b0") == {
    0: {"stem", "stem_norm"},
    **{i + 1: {block} for i, block in enumerate(stages)},
    17: {"head_conv", "head_conv_norm", "head"},
  }
  units = [
    f"block{i + 1}/unit{j + 1:02d}"
    for i, depth in enumerate((3, 4, 6, 3))
    for j in range(depth)
  ]
  assert by_layer("BiT-M-R50x1") == {
    0: {"root_block"},
    **{i + 1: {unit} for i, unit in enumerate(units)},
    17: {"norm-pre-head", "head"},
  }


def test_each_block_of_swin_is_a_layer():
  found = by_layer("swin_tiny_patch4_window7_224")
  assert found[0] == {"stem", "stem_norm"}
  assert found[2] == {"stage0/block01"}
  assert found[3] == {"stage1/downsample", "stage1/block00"}
  assert found[12] == {"stage3/block01"}
  assert found[13] == {"norm", "head"}


def test_each_block_of_metaformers_is_a_layer():
  found = by_layer("caformer_s18")
  assert found[0] == {"stem", "stem_norm"}
  assert found[4] == {
    *("stage1/downsample_norm", "stage1/downsample_conv", "stage1/block00"),
  }
  assert found[18] == {"stage3/block02"}
  assert found[19] == {"norm", "head_hidden", "head_norm", "head"}


def test_each_block_of_a_network_with_batch_norm_is_a_layer():
  found = by_layer("regnety_032")
  assert found[0] == {"stem", "stem_norm"}
  assert found[3] == {"stage1/block00"}
  assert found[22] == {"head"}
  found = by_layer("resnet50")
  assert found[0] == {"stem"}
  assert found[4] == {"stage1/block00"}
  assert found[17] == {"head"}


def test_each_block_of_coatnet_and_maxxvit_is_a_layer():
  found = by_layer("coatnet_0_rw_224")
  assert found[0] == {"stem_conv1", "stem_conv2", "stem_norm"}
  assert found[14] == {"stage3/block01"}
  assert found[15] == {"norm", "head"}
  found = by_layer("maxxvitv2_nano_rw_256")
  assert found[7] == {"stage3/block00_conv", "stage3/block00_attention"}
  assert found[8] == {"norm", "head"}


def test_the_resnet_baseline_has_layers():
  model = models.create("resnet", variant="R50")
  names = (
    "gn_root/scale",
    "block1/unit1/conv1/kernel",
    "block4/unit3/gn3/bias",
  )
  found, last = models.layers(model, dict.fromkeys(names, (64,)))
  assert list(found.values()) == [0, 1, 16]
  assert last == 17


@pytest.mark.parametrize(
  "family",
  [
    *("coatnet", "convnext", "efficientnet", "maxxvit", "mixer", "metaformer"),
    *("nfnet", "regnet", "resnet", "resnet_bn", "swin", "two_tower", "vit"),
  ],
)
def test_every_published_model_has_layers(family):
  names = [
    name
    for name, facts in models.list().items()
    if facts["model"] == family and update_goldens.file(name).exists()
  ]
  assert names
  for name in names:
    found, last = layers(name)
    numbers = np.concatenate([np.atleast_1d(x) for x in found.values()])
    assert {*numbers} == {*range(last + 1)}


def test_errors():
  model = models.create("vit", variant="S/16")
  with pytest.raises(ValueError, match=r"head2/kernel \(3, 4\) is in 0 of the"):
    models.layers(model, {"head2/kernel": (3, 4)})
  # Twelve blocks, and an array of thirteen.
  with pytest.raises(ValueError, match=r"\(13, 4\) is in 12 of the layers"):
    models.layers(model, {"Transformer/encoderblock/x": (13, 4)})
  with pytest.raises(ValueError, match=r"models.base does not say what its"):
    base.ImageModel().layers()


def test_layers_of_two_towers_are_counted_from_the_embedding():
  """ViT-L-14 has 24 blocks for images and 12 for texts."""
  found, last = layers("ViT-L-14")
  assert last == 25
  expected = {
    "img/pre_norm/scale": 0,
    "img/Transformer/encoderblock_0/LayerNorm_0/scale": 1,
    "img/Transformer/encoderblock_23/LayerNorm_0/scale": 24,
    "txt/pos_embedding": 12,
    "txt/Encoder_0/encoderblock_0/LayerNorm_0/scale": 13,
    "txt/Encoder_0/encoderblock_11/LayerNorm_0/scale": 24,
    "img/head/kernel": 25,
    "txt/Encoder_0/encoder_norm/scale": 25,
    "t": 25,
  }
  assert {name: found[name] for name in expected} == expected
