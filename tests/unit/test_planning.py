"""What `vitjax.plan` says, against real arrays and counted products."""

import dataclasses
import json
import subprocess
import sys

import jax
import jax.numpy as jnp
import ml_collections
import pytest

from vitjax import losses, models
from vitjax.config import resolving, schema
from vitjax.models import flops
from vitjax.parallel import devices
from vitjax.plan import (
  changes,
  compiling,
  memory,
  planning,
  stand_in,
  table,
  topology,
)


def make_run(**overrides):
  values = {
    "total_epochs": 2,
    "num_classes": 10,
    "loss": "softmax_xent",
    "input": {
      "data": "fake:64,32x32x3,10",
      "batch_size": 16,
      "pp": "value_range(-1, 1)",
    },
    "model": {"name": "vit", "variant": "mu/16"},
    "optim": {"name": "adam", "learning_rate": 1e-3, "mu_dtype": "bfloat16"},
    "ema": {"decay": 0.9},
  }
  run = resolving.resolve(ml_collections.ConfigDict(values))
  return changes.with_overrides(run, {"mesh.data": -1, **overrides})


MODELS = {
  "gap": {"pool_type": "gap", "rep_size": True},
  "tok": {"pool_type": "tok", "num_registers": 2, "rep_size": 24},
  "map": {"pool_type": "map", "depth": 2},
  "none": {"pool_type": "none"},
  "differential": {"differential": True, "mlp_dim": 48, "depth": 2},
  "features": {"num_classes": None, "parallel": True},
}


@pytest.mark.parametrize("name", MODELS)
def test_the_formula_counts_every_matrix_product(name):
  options = {"num_classes": 7, "variant": "mu/8", **MODELS[name]}
  model = models.create("vit", **options)
  image = jax.ShapeDtypeStruct((3, 16, 24, 3), jnp.float32)
  params = jax.eval_shape(model.init, jax.random.key(0), image)["params"]

  def forward(params, image):
    return model.apply({"params": params}, image)[0].sum()

  jaxpr = jax.make_jaxpr(forward)(params, image)
  # The lambdas of differential attention are scalar products, the fixed
  # positions outer ones; neither is of the images.
  expected = 3 * sum(flops.vit_forward(model, image.shape))
  got = flops.matrix_products(jaxpr.jaxpr)
  if options.get("differential"):
    got -= model.depth * 2 * 2 * (model.width // model.num_heads // 2)
  assert got == expected

  if name in ("gap", "tok"):
    jaxpr = jax.make_jaxpr(jax.grad(forward))(params, image)
    assert flops.matrix_products(jaxpr.jaxpr) == flops.train(model, image.shape)


def test_loops_count_as_often_as_they_run():
  def loop(x):
    return jax.lax.scan(lambda c, _: (c @ c, None), x, None, length=5)[0]

  jaxpr = jax.make_jaxpr(loop)(jnp.zeros((4, 4)))
  assert flops.matrix_products(jaxpr.jaxpr) == 5 * 2 * 4**3


def test_other_families_have_no_formula():
  shape = (1, 32, 32, 3)
  mixer = models.create("mixer", variant="S/16", num_classes=3)
  hybrid = models.create("vit", variant="R+Ti/16", num_classes=3)
  assert flops.train(mixer, shape) is None
  assert flops.train(hybrid, shape) is None


@pytest.fixture(scope="module")
def plan():
  return planning.make_plan(make_run())


def test_bytes_are_those_of_arrays(plan):
  run = make_run()
  source, _ = stand_in.find_source(run, None)
  parts = planning.make_program(run, source, jax.devices())
  state = jax.jit(parts.init)(jax.random.key(0))

  def total(tree):
    return sum(x.nbytes for x in jax.tree.leaves(tree))

  assert plan.params_bytes == plan.gradient_bytes == total(state.params)
  assert plan.ema_bytes == total(state.params)
  assert plan.optimizer_bytes == total(state.opt_state)
  assert plan.checkpoint_bytes == total(state)
  # mu is half as large as nu.
  assert plan.optimizer_bytes - 1.5 * plan.params_bytes < 100
  images, numbers = 16 * 32 * 32 * 3, 16 * (4 + 8)
  assert plan.batch_bytes == (images + numbers) // 8
  assert plan.host_bytes == 4 * (images + numbers)


def test_what_a_device_holds_is_less_with_fsdp(plan):
  run = make_run(**{"sharding": "fsdp", "mesh.data": 1, "mesh.fsdp": 8})
  split = planning.make_plan(run)
  assert split.mesh == {"data": 1, "fsdp": 8, "model": 1}
  assert split.checkpoint_bytes == plan.checkpoint_bytes
  assert split.params_bytes < 0.8 * plan.params_bytes


def test_steps_and_flops(plan):
  assert (plan.examples, plan.total_steps, plan.epochs) == (64, 8, 2.0)
  assert 1 < plan.flops_xla / plan.flops_formula < 1.3
  # By shapes alone it fits this machine.
  assert plan.fits and plan.compiled is None and not plan.tries


def test_flops_are_unknown_where_xla_does_not_count(plan, monkeypatch):
  monkeypatch.setattr(jax.stages.Lowered, "cost_analysis", lambda self: None)
  run = make_run()
  source, _ = stand_in.find_source(run, None)
  assert planning.count_flops(run, source) is None
  rows = table.to_table(dataclasses.replace(plan, flops_xla=None)).splitlines()
  (at,) = (i for i, row in enumerate(rows) if "FLOPs of a step" in row)
  assert rows[at].endswith(" unknown")
  assert rows[at + 1].endswith(f" {plan.flops_formula:.4g}")


def test_activations_follow_the_batch_of_a_device(plan):
  more = planning.make_plan(make_run(**{"input.batch_size": 64}))
  assert 3.5 < more.activation_bytes / plan.activation_bytes < 4.01
  parts = planning.make_plan(
    make_run(**{"input.batch_size": 64, "accumulation_steps": 4})
  )
  assert parts.activation_bytes == plan.activation_bytes
  assert parts.flops_xla == more.flops_xla
  remat = planning.make_plan(
    make_run(**{"input.batch_size": 64, "model.remat": "full"})
  )
  assert remat.activation_bytes < 0.7 * more.activation_bytes


def test_json_and_table(plan):
  plain = json.loads(json.dumps(table.to_json(plan)))
  fields = {f.name for f in dataclasses.fields(planning.Plan)}
  assert set(plain) == fields | {"fits", "fitting", "batch_that_fits"}
  assert plain["fits"] is True and plain["devices"]["count"] == 8
  text = table.to_table(plan)
  assert f"{plan.parameters:,}" in text and "2.0" in text


def test_a_plan_that_does_not_fit_says_what_would(plan):
  no = compiling.Compiled(
    compile_seconds=1.0, fits=False, used_bytes=20 * 2**30, limit_bytes=2**34
  )
  yes = compiling.Compiled(
    compile_seconds=1.0,
    fits=True,
    used_bytes=2**33,
    temp_bytes=2**32,
    bytes_accessed=819e9,
    flops=197e12,
    collectives={"all-reduce": {"count": 2, "bytes": 10**6}},
  )
  tries = (
    planning.Try("accumulation x2", {"accumulation_steps": 2}, 1, no),
    planning.Try("far off", {}, 1, None, "not compiled"),
    planning.Try("remat dots", {"model.remat": "dots"}, 1, yes),
  )
  full = dataclasses.replace(
    plan,
    devices={**plan.devices, "topology": "v5e:4x4"},
    compiled=no,
    tries=tries,
  )
  plain = table.to_json(full)
  assert plain["fits"] is False
  assert plain["fitting"] == {"model.remat": "dots"}
  text = table.to_table(full)
  assert "does not fit: 20.000 GiB of 16.000 GiB" in text
  assert "add --config.model.remat=dots, or --config.input.batch_size=8" in text
  fits = table.to_table(dataclasses.replace(full, compiled=yes, tries=()))
  assert "1000.0 ms by FLOPs, 1000.0 ms by bytes" in fits
  assert "2 of 1.00 MB in total" in fits


@pytest.mark.slow
def test_this_machine_may_be_too_small(plan, monkeypatch):
  run = make_run(**{"input.batch_size": 512})
  # In so small a model the others cost more than they spare.
  smaller = changes.Change("batch of 128", {"input.batch_size": 128})
  monkeypatch.setattr(planning, "changes", lambda run, count: [smaller])
  limit = plan.fixed_bytes + 5 * 2**18
  monkeypatch.setattr(devices, "memory_of", lambda device: limit)
  large = planning.make_plan(run)
  assert large.fits is False and large.compiled.limit_bytes == limit
  assert large.compiled.used_bytes > limit
  assert large.fitting.overrides == {"input.batch_size": 128}
  batch = {"input.batch_size": large.batch_that_fits}
  assert planning.make_plan(changes.with_overrides(run, batch)).fits
  assert 256 <= large.batch_that_fits < 512
  assert large.batch_that_fits % 8 == 0
  text = table.to_table(large)
  assert "does not fit: " in text and f"of {memory.size(limit)}" in text
  assert f"--config.input.batch_size={large.batch_that_fits}" in text
  assert "add --config.input.batch_size=128" in text


def test_memory_that_is_not_known(monkeypatch):
  monkeypatch.setattr(devices, "memory_of", lambda device: None)
  plan = planning.make_plan(make_run())
  assert plan.fits is None and plan.compiled is None
  assert "by shapes:" not in table.to_table(plan)


@pytest.mark.parametrize("loss", [*losses.LOSSES, *losses.CONTRASTIVE])
def test_batches_of_all_losses_are_accumulated(loss):
  run = make_run(**{"input.batch_size": 64, "loss": loss})
  assert "accumulation x2" in [c.name for c in changes.changes(run, 8)]


def test_a_batch_that_does_not_divide_names_the_mesh():
  mesh = {"mesh.data": 2, "mesh.model": 4, "sharding": "tensor"}
  run = make_run(**{"input.batch_size": 9, **mesh})
  with pytest.raises(schema.ConfigError) as e:
    planning.make_plan(run)
  assert "does not divide into the 2 parts of config.mesh" in str(e.value)
  assert "Use 8 or 10." in str(e.value)


def test_changes_come_from_small_to_large_and_fit_the_run():
  run = make_run(**{"input.batch_size": 64})
  names = [c.name for c in changes.changes(run, 8)]
  assert names == [
    "accumulation x2",
    "remat dots",
    "accumulation x4",
    "remat full",
    "accumulation x8",
    "scan over layers",
    "sharding fsdp",
    "sharding fsdp, remat full",
    "sharding tensor over 2",
    "batch of 32",
    "batch of 16",
    "batch of 8",
  ]
  for change in changes.changes(run, 8):
    changes.with_overrides(run, change.overrides)
  # 16 examples over 8 devices leave two for each.
  few = [c.name for c in changes.changes(make_run(), 8)]
  assert "accumulation x2" in few and "accumulation x4" not in few
  assert "batch of 8" in few and "batch of 4" not in few


def test_data_that_are_not_here():
  run = make_run(
    **{
      "input.data": "imagenet2012",
      "input.split": "train[:99%]",
      "input.pp": "decode_jpeg_and_inception_crop(32)|value_range(-1, 1)",
    }
  )
  source, examples = stand_in.find_source(run, None)
  assert examples == source.num_examples == 1_268_355
  assert source.num_classes == 1000
  assert stand_in.find_source(run, 500)[1] == 500
  own = changes.with_overrides(run, {"input.data": "folder:/not/here"})
  assert stand_in.find_source(own, None)[1] is None
  assert stand_in.find_source(own, 7)[1] == 7
  own = dataclasses.replace(own, num_classes=None)
  for loss in losses.LOSSES:
    own = dataclasses.replace(own, loss=loss)
    with pytest.raises(schema.ConfigError, match=r"set config\.num_classes"):
      stand_in.find_source(own, None)


def test_topology_errors(monkeypatch):
  for name in ("v9:2x2", "v5e"):
    with pytest.raises(schema.ConfigError, match="is not CHIP:SHAPE"):
      topology.topology_devices(name)
  monkeypatch.setitem(sys.modules, "libtpu", None)
  with pytest.raises(ImportError, match=r'pip install "vitjax\[tpu\]"'):
    topology.topology_devices("v5e:4x4")


def test_out_of_memory():
  message = (
    "RESOURCE_EXHAUSTED: XLA:TPU compile permanent error. Ran out of memory in "
    "memory space hbm. Used 20.32G of 15.75G hbm. Exceeded hbm capacity by "
    "4.57G."
  )
  used, limit = compiling.read_out_of_memory(message)
  assert used == int(20.32 * 2**30) and limit == int(15.75 * 2**30)
  message = (
    "RESOURCE_EXHAUSTED: Ran out of memory on HBM, the total memory required "
    "for HLO temporaries (20.82G) exceeds available HBM (15.75G)."
  )
  used, limit = compiling.read_out_of_memory(message)
  assert used == int(20.82 * 2**30) and limit == int(15.75 * 2**30)
  with pytest.raises(RuntimeError, match="does not compile: INTERNAL"):
    compiling.read_out_of_memory("INTERNAL: a bug")


def test_a_gradient_is_summed_over_the_devices():
  run = make_run()
  source, _ = stand_in.find_source(run, None)
  compiled = compiling.compile_step(
    planning.make_program(run, source, jax.devices())
  )
  assert compiled.fits
  # All gradients at least, and not much beside them.
  sums = compiled.collectives["all-reduce"]["bytes"]
  params = planning.make_plan(run).params_bytes
  assert params <= sums < 1.1 * params + 1000


def run_plan(*args):
  return subprocess.run(
    [sys.executable, "-X", "importtime", "-m", "vitjax.plan", *args],
    capture_output=True,
    text=True,
  )


def test_help_is_quick_and_useful():
  result = run_plan("--help")
  assert result.returncode == 0
  for part in ("--topology", "json", "Exit codes", "--config="):
    assert part in result.stdout
  loaded = {line.split("|")[-1].strip() for line in result.stderr.splitlines()}
  assert "ml_collections" in loaded
  assert not loaded & {"jax", "tensorflow", "flax", "numpy"}


@pytest.mark.slow
def test_the_command_says_what_is_wrong():
  result = run_plan("--config=configs/quickstart.py", "--topology=v9:2x2")
  assert result.returncode == 1
  assert "--topology=v9:2x2 is not CHIP:SHAPE" in result.stderr


@pytest.mark.slow
def test_a_tpu_that_is_not_there():
  pytest.importorskip("libtpu")
  result = run_plan(
    "--config=configs/plain_vit.py:smoke", "--topology=v3:2x2", "--json"
  )
  assert result.returncode == 0, result.stderr
  plan = json.loads(result.stdout)
  assert plan["fits"] and plan["devices"]["count"] == 8
  assert (
    plan["compiled"]["collectives"]["all-reduce"]["bytes"]
    >= (plan["params_bytes"])
  )


@pytest.mark.slow
def test_the_flagship_stays_within_its_memory_traffic():
  pytest.importorskip("libtpu")
  result = run_plan(
    "--config=configs/vit_s16_i1k.py", "--topology=v3:2x2", "--json"
  )
  compiled = json.loads(result.stdout)["compiled"]
  assert compiled["bytes_accessed"] < 23.0e9
  assert compiled["temp_bytes"] < 2.6 * 2**30
