"""Published names: the table, its models and their parameters."""

import json
import math
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from scripts import update_goldens
from vitjax import models
from vitjax.models import vit

# Of each kind of model one, the others are slow.
SOME = (
  "testing-unpooled",
  "ViT-Ti_16",
  "R+ViT-Ti_16",
  "deit3_small_patch16_224",
  "vit_pwee_patch16_reg1_gap_256",
  "vit_so150m_patch16_reg4_map_256",
  "tf_efficientnet_lite0",
)


def golden(name):
  return json.loads(update_goldens.file(name).read_text())


def count(tree):
  """Parameters of a golden tree, whose layers are numbered {first-last}."""
  total = 0
  for path, shape in tree.items():
    if path.endswith(("/mean", "/var")):
      continue  # running statistics
    times = 1
    if match := re.search(r"\{(\d+)-(\d+)\}", path):
      times = int(match[2]) - int(match[1]) + 1
    total += times * math.prod(shape)
  return total


@pytest.mark.parametrize(
  "name",
  [
    pytest.param(name, marks=() if name in SOME else pytest.mark.slow)
    for name in models.list()
  ],
)
def test_tree(name):
  tree = update_goldens.collapse(update_goldens.shapes(name))
  assert tree == golden(name), f"python -m scripts.update_goldens trees {name}"


def test_every_name_has_a_tree_and_its_number_of_parameters():
  """The numbers are those of the published implementations."""
  files = set(update_goldens.TREES.iterdir())
  assert files == {update_goldens.file(name) for name in models.list()}
  for name, facts in models.list().items():
    if "params" in facts:
      assert count(golden(name)) == facts["params"], name


def test_facts():
  for name, facts in models.list().items():
    assert facts["model"] in models.FAMILIES, name
    assert facts["image_size"] % 2 == 0, name


def test_create_by_published_name():
  model = models.create("ViT-L_16", num_classes=10, dropout_rate=0.0)
  assert (model.width, model.num_classes, model.dropout_rate) == (1024, 10, 0)
  assert model.posemb_prefix and model.pool_type == "tok"
  model = models.create("deit3_huge_patch14_224")
  assert model.gelu == "erf" and model.drop_path_schedule == "constant"
  with pytest.raises(ValueError, match="already is a variant"):
    models.create("ViT-B_16", variant="S/16")
  with pytest.raises(ValueError, match=r"not a model. Did you mean 'ViT-B_16'"):
    models.create("ViT-B/16")
  with pytest.raises(ValueError, match=r"'with' is not an option.*'width'"):
    models.create("ViT-B_16", **{"with": 3})


@pytest.mark.parametrize(
  "options", [{}, {"class_token": True}], ids=["unpooled", "token_unpooled"]
)
def test_unpooled(options):
  model = models.create("testing-unpooled", num_classes=3, **options)
  image = jax.ShapeDtypeStruct((2, 32, 48, 3), jnp.float32)
  logits, _ = jax.eval_shape(
    lambda key, x: model.init_with_output(key, x)[0], jax.random.key(0), image
  )
  assert logits.shape == (2, 6 + ("class_token" in options), 3)


def test_class_token_that_pooling_needs():
  with pytest.raises(ValueError, match="pools the class token: it needs one"):
    models.create("vit", pool_type="tok", class_token=False)


def rates(schedule):
  """Fraction of the examples for which each block was dropped."""
  encoder = vit.Encoder(
    depth=4,
    block={"mlp_dim": 4, "num_heads": 1},
    drop_path_rate=0.5,
    drop_path_schedule=schedule,
    scan_layers=True,
  )
  rng = np.random.default_rng(0)
  x = rng.normal(size=(400, 1, 4)).astype(np.float32)
  params = jax.tree.map(
    lambda p: rng.normal(size=p.shape).astype(np.float32),
    jax.eval_shape(encoder.init, jax.random.key(0), x),
  )
  rngs = {"dropout": jax.random.key(0)}
  _, out = jax.jit(lambda x: encoder.apply(params, x, True, rngs=rngs))(x)
  dropped = []
  for i in range(4):
    y = out[f"encoder/block{i:02d}/out"]
    dropped.append(float((x == y).all(axis=(1, 2)).mean()))
    x = y
  return dropped


def test_drop_path_schedules():
  # Both branches of a block are dropped with the square of the rate.
  want = [0, 1 / 36, 4 / 36, 9 / 36]
  assert rates("linear") == pytest.approx(want, abs=0.07)
  assert rates("constant") == pytest.approx([0.25] * 4, abs=0.07)
  with pytest.raises(ValueError, match="drop_path_schedule='cosine'"):
    models.create("vit", drop_path_schedule="cosine")
