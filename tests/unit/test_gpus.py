"""Plans for GPUs that are not here, and the estimate of memory."""

import jax
import jax.numpy as jnp
import pytest

from scripts import check_estimate
from tests.unit.test_planning import make_run
from vitjax.config import schema
from vitjax.models import half_precision
from vitjax.plan import (
  changes,
  estimating,
  gpus,
  liveness,
  planning,
  stand_in,
  table,
  topology,
)

KIB = 2**10
X = jax.ShapeDtypeStruct((16, 16), jnp.float32)  # 1 KiB


def temporary(fn, *args, platform="gpu"):
  return liveness.largest_sum(jax.jit(fn).trace(*args).jaxpr, platform)


def test_operations_on_elements_are_part_of_what_reads_them():
  assert temporary(lambda x: jnp.exp(jnp.sin(x) + 1) * 2, X) == 0


def test_products_read_and_write_memory():
  # The first product, whose place tanh takes; the second is the output.
  assert temporary(lambda x: jnp.tanh(x @ x) @ x, X) == KIB
  # Here the first is needed again, beside tanh and the second.
  assert temporary(lambda x: (y := x @ x) + jnp.tanh(y) @ x, X) == 3 * KIB


def test_sums_on_a_cpu_read_memory():
  def loss(x):
    y = x @ x
    return jnp.sum((y + 1) * jnp.exp(y))

  assert temporary(loss, X, platform="gpu") == KIB  # y
  assert temporary(loss, X, platform="cpu") == 2 * KIB  # the two factors


def test_what_the_backward_pass_needs_is_kept():
  def loss(x, w):
    for _ in range(4):
      x = jnp.tanh(x @ w)
    return x.sum()

  assert temporary(loss, X, X) <= 2 * KIB
  assert temporary(jax.grad(loss, argnums=1), X, X) >= 4 * KIB


def test_calls_and_loops():
  inner = jax.jit(lambda x: x @ x)
  assert temporary(lambda x: inner(inner(x)), X) == KIB

  def loop(x):
    return jax.lax.scan(lambda c, _: (c @ c, c @ x), x, None, length=5)[1]

  # Five results are stacked, and then summed.
  assert temporary(lambda x: loop(x).sum(), X) >= 5 * KIB


def test_a_program_for_each_platform_counts_as_that_of_its_own():
  def of_platforms(x):
    return jax.lax.platform_dependent(
      x, cpu=lambda x: x @ x @ x @ x, default=lambda x: x @ x
    )

  def loss(x):
    return of_platforms(x) @ x

  assert temporary(loss, X, platform="gpu") == KIB
  assert temporary(loss, X, platform="cpu") == 2 * KIB


def test_the_larger_branch_counts():
  def large(x):
    return jnp.tanh(x @ x) @ x @ x

  def loss(x):
    return jax.lax.cond(x[0, 0] > 0, large, lambda x: x, x)

  # The output is no temporary; the number of the branch is one.
  assert temporary(loss, X) // KIB == 2


@pytest.mark.slow
@pytest.mark.parametrize("name", check_estimate.MODELS)
def test_the_estimate_is_near_the_compilers_figure(name):
  guess, traced = check_estimate.estimate(name)
  used = check_estimate.compiled(traced)
  assert guess == pytest.approx(used, rel=check_estimate.TOLERANCE)


@pytest.mark.parametrize("name", ["h100", "h100:0", "h100:x", "gtx:1"])
def test_names_that_are_no_gpus(name):
  with pytest.raises(schema.ConfigError, match=r"h100:1.*l4.*rtx4090"):
    topology.topology_devices(name)


def test_jax_takes_a_part_of_the_memory(monkeypatch):
  gpu = gpus.GPUS["l4"]
  monkeypatch.delenv(gpus.FRACTION, raising=False)
  assert gpus.memory_limit(gpu) == int(0.75 * gpu.memory_bytes)
  monkeypatch.setenv(gpus.FRACTION, "0.9")
  assert gpus.memory_limit(gpu) == int(0.9 * gpu.memory_bytes)


@pytest.fixture
def no_compiler(monkeypatch):
  monkeypatch.setattr(gpus, "is_installed", lambda: False)


@pytest.mark.slow
def test_a_plan_without_a_compiler_is_an_estimate(no_compiler):
  plan = planning.make_plan(make_run(), topology="a100:8")
  assert plan.fits and plan.compiled.is_estimate
  assert plan.devices["kind"] == "NVIDIA A100-SXM4-40GB"
  assert plan.devices["count"] == 8
  # A device has two of 16 images, and all of the state.
  state = plan.params_bytes + plan.optimizer_bytes + plan.ema_bytes
  assert plan.compiled.used_bytes > state + plan.compiled.temp_bytes
  assert plan.model["dtype"] == "bfloat16"
  text = table.to_table(plan)
  assert "estimated, on each device:" in text
  assert "XLA_PYTHON_CLIENT_MEM_FRACTION changes it" in text


@pytest.mark.slow
def test_a_cpu_stands_in_for_a_gpu_with_the_operations_of_a_gpu(no_compiler):
  run = make_run(**{"input.batch_size": 64, "mesh.data": 1})
  plan = planning.make_plan(run, topology="h100:1")
  # On CPUs the products of bfloat16 are float32 in memory, and that is more.
  as_on_cpu = changes.with_overrides(run, {"model.dtype": "bfloat16"})
  source, _ = stand_in.find_source(run, None)
  parts = planning.make_program(as_on_cpu, source, jax.devices()[:1])
  on_cpu = planning._estimate(parts, None).used_bytes
  assert plan.compiled.used_bytes < on_cpu
  assert not half_precision._stands_in.get()


@pytest.mark.slow
def test_what_does_not_fit_an_estimate_gets_a_change(no_compiler, monkeypatch):
  monkeypatch.setattr(estimating, "_WORKSPACE", 0)
  run = make_run(**{"input.batch_size": 256, "mesh.data": 1})
  whole = planning.make_plan(run, topology="l4:1").compiled
  limit = whole.used_bytes - whole.temp_bytes // 8
  monkeypatch.setattr(gpus, "memory_limit", lambda gpu: limit)
  plan = planning.make_plan(run, topology="l4:1")
  assert plan.fits is False
  ((key, value),) = plan.fitting.overrides.items()
  text = table.to_table(plan)
  assert f"--config.{key}={value}" in text
  # The whole GPU has room for it.
  assert f"{gpus.FRACTION}={gpus.MOST} before the command" in text
