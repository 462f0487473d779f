"""Presets of sharding: the same training, and what each costs."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec as P

from scripts import update_goldens
from tests.numerics import test_step
from vitjax import models, optim
from vitjax import step as step_lib
from vitjax.parallel import sharding

SMALL = {"depth": 1, "width": 64, "mlp_dim": 256, "num_heads": 4}


@pytest.fixture(scope="module")
def one_device():
  return test_step.run(num_steps=5, model=SMALL, ema_decay=0.9)


MESHES = [
  ("replicated", {}),
  ("fsdp", {"data": 2, "fsdp": 4}),
  ("tensor", {"data": 4, "model": 2}),
  ("tensor", {"data": 1, "fsdp": 4, "model": 2}),
]


@pytest.mark.parametrize(
  "preset, axes",
  [
    # The last one splits over each axis that the others split over.
    pytest.param(*mesh, marks=pytest.mark.slow if i < 3 else ())
    for i, mesh in enumerate(MESHES)
  ],
)
def test_five_steps_are_those_of_one_device(preset, axes, one_device):
  mesh = sharding.make_mesh(**axes)
  state, history = test_step.run(
    num_steps=5, model=SMALL, ema_decay=0.9, mesh=mesh, rules=preset
  )
  np.testing.assert_allclose(history, one_device[1], rtol=1e-5)
  assert test_step.largest_difference(state, one_device[0]) < 1e-6
  # It has moved by much more than that.
  assert abs(history[-1] - history[0]) > 1e-3


def specs(preset, axes, **fields):
  model = models.create("vit", variant="mu/16", **{**SMALL, **fields})
  tx = optim.make_optimizer(
    "adam", schedule=lambda step: 1.0, learning_rate=1e-3
  )
  image = jax.ShapeDtypeStruct((1, 32, 32, 3), jnp.float32)
  init = step_lib.make_init_fn(model, image)
  state = jax.eval_shape(
    lambda key: step_lib.make_state(init(key), tx, ema=True), jax.random.key(0)
  )
  shardings = sharding.of_state(state, preset, sharding.make_mesh(**axes))
  return state, jax.tree.map(lambda s: s.spec, shardings)


def test_optimizer_and_average_follow_the_parameters():
  for preset, axes in MESHES[1:]:
    state, got = specs(preset, axes)
    expected = jax.tree.leaves(got.params)
    assert any(any(spec) for spec in expected)
    assert jax.tree.leaves(got.ema_params) == expected
    moments = [
      s
      for s, x in zip(
        jax.tree.leaves(got.opt_state),
        jax.tree.leaves(state.opt_state),
        strict=True,
      )
      if x.ndim
    ]
    assert moments == 2 * expected


def test_fsdp_splits_the_largest_dimension_of_large_arrays():
  _, got = specs("fsdp", {"data": 2, "fsdp": 4})
  block = got.params["Transformer"]["encoderblock_0"]
  assert block["MlpBlock_0"]["Dense_0"]["kernel"] == P(None, "fsdp")
  assert block["MlpBlock_0"]["Dense_1"]["kernel"] == P("fsdp", None)
  assert block["LayerNorm_0"]["scale"] == P()
  assert got.params["embedding"]["kernel"] == P(None, None, None, "fsdp")


@pytest.mark.parametrize("scan", [False, True])
def test_tensor_splits_heads_and_hidden_units(scan):
  _, got = specs("tensor", {"model": 2}, scan_layers=scan)
  name, front = ("encoderblock", (None,)) if scan else ("encoderblock_0", ())
  block = got.params["Transformer"][name]
  attention = block["MultiHeadDotProductAttention_0"]
  assert attention["query"]["kernel"] == P(*front, None, "model", None)
  assert attention["value"]["bias"] == P(*front, "model", None)
  assert attention["out"]["kernel"] == P(*front, "model", None, None)
  assert attention["out"]["bias"] == P()
  assert block["MlpBlock_0"]["Dense_0"]["bias"] == P(*front, "model")
  assert block["MlpBlock_0"]["Dense_1"]["kernel"] == P(*front, "model", None)
  assert got.params["embedding"]["kernel"] == P()


def test_errors():
  with pytest.raises(ValueError, match="'zero' is not one of replicated, fsdp"):
    specs("zero", {})
  with pytest.raises(ValueError, match=r"set config\.mesh\.fsdp"):
    specs("fsdp", {})
  with pytest.raises(ValueError, match="mesh axis 'model' of 8 devices"):
    specs("tensor", {"model": 8})
  state = {"params": {"kernel": jnp.zeros((7, 5))}}
  with pytest.raises(ValueError, match="'tensor' fits no parameter"):
    sharding.of_state(state, "tensor", sharding.make_mesh(model=8))
  for rule in (1, None, "kernel", ["kernel"], (1, 2), ("kernel", "data")):
    with pytest.raises(ValueError, match=r"is not a rule\. Write"):
      sharding.of_state(state, [rule], sharding.make_mesh())
  with pytest.raises(ValueError, match="'rows' is not a mesh axis"):
    sharding.of_state(state, [("kernel", ("rows", None))], sharding.make_mesh())


def test_the_batch_is_whole_for_the_devices_of_a_tensor():
  mesh = sharding.make_mesh(data=2, fsdp=2, model=2)
  assert sharding.batch_parts(mesh) == 4
  assert sharding.over_batch(mesh).shard_shape((8, 3)) == (2, 3)


@pytest.mark.parametrize("preset", update_goldens.MESHES)
def test_the_program_is_the_golden_one(preset):
  golden = json.loads((update_goldens.HLO / f"{preset}.json").read_text())
  got = update_goldens.compiled(preset)
  assert got["collectives"] == golden["collectives"]
  assert got["state_bytes"] == golden["state_bytes"]
  assert abs(got["temp_bytes"] / golden["temp_bytes"] - 1) < 0.1
