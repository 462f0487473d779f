"""Running out of memory is said before step 1, with what would fit."""

import re

import jax
import pytest

from tests.e2e import tiny
from vitjax import checks, program
from vitjax.config import resolving
from vitjax.data import sources
from vitjax.parallel import devices, memory, sharding
from vitjax.program.compiled import compile_step

GIB = 2**30


def step(**changes) -> memory.StepMemory:
  """Of 40 GiB, of which 4 do not depend on the batch, on 24."""
  sizes = {
    "used_bytes": 40 * GIB,
    "limit_bytes": 24 * GIB,
    "fixed_bytes": 4 * GIB,
    "grad_bytes": GIB,
    "batch_size": 1024,
    "batch_parts": 1,
  }
  return memory.StepMemory(**sizes | changes)


def test_a_step_that_cannot_fit_is_refused():
  with pytest.raises(memory.OutOfMemoryError) as error:
    step().check()
  for part in (
    "the train step needs 40.0 GiB of memory for a batch of 1,024",
    "machine has 24.0 GiB",
    "Use --config.accumulation_steps=4 (the same batch in 4 parts)",
    "or --config.input.batch_size=432.",  # (0.8 * 24 - 4) / 36 of 1024
    "vitjax.plan",
  ):
    assert part in str(error.value)


@pytest.mark.parametrize(
  ("changes", "steps", "size"),
  [
    # 1000 = 8 * 125: of 2, 4 and 5 the last two are divisors, per device.
    ({"batch_size": 1000, "batch_parts": 8}, "5", "416"),
    ({"accumulation_steps": 4}, "16", "432"),
    # The gradients' sum takes what is left.
    ({"grad_bytes": 15 * GIB}, "256", "432"),
    ({"batch_size": 2}, None, None),
    ({"fixed_bytes": 30 * GIB}, None, None),
  ],
)
def test_what_is_advised_is_possible(changes, steps, size):
  advice = step(**changes).advice()
  found = re.findall(r"accumulation_steps=(\d+)", advice)
  assert found == ([steps] if steps else []), advice
  found = re.findall(r"batch_size=(\d+)", advice)
  assert found == ([size] if size else []), advice
  assert steps or size or "a smaller model, smaller images" in advice


def test_a_step_that_is_near_the_limit_is_a_warning(monkeypatch):
  said = []
  monkeypatch.setattr(
    memory.logging, "warning", lambda text, *args: said.append(text % args)
  )
  step(used_bytes=int(23.5 * GIB)).check()
  assert "Memory is tight: the train step needs 23.5 GiB" in said[0]
  step(used_bytes=19 * GIB).check()
  step(limit_bytes=None).check()
  step(used_bytes=None).check()
  assert len(said) == 1


@pytest.fixture
def assemble(monkeypatch):
  """Puts the tiny run together on one device, with other settings."""
  source = sources.open_source("digits", "train")
  mesh = sharding.make_mesh(1, 1, 1, devices=jax.devices()[:1])

  def assemble(**settings):
    config = tiny.get_config()
    config.update_from_flattened_dict(settings)
    return program.assemble(
      resolving.resolve(config, checks.problems), source, mesh
    )

  return assemble


@pytest.mark.slow
def test_what_is_advised_fits(assemble, monkeypatch):
  _, whole = compile_step(assemble(**{"input.batch_size": 512}))
  limit = whole.used_bytes // 2
  monkeypatch.setattr(devices, "memory_of", lambda device: limit)
  with pytest.raises(memory.OutOfMemoryError) as error:
    compile_step(assemble(**{"input.batch_size": 512}))
  advice = str(error.value)
  for key in ("accumulation_steps", "input.batch_size"):
    value = int(re.search(rf"config\.{key}=(\d+)", advice)[1])
    settings = {"input.batch_size": 512} | {key: value}
    _, changed = compile_step(assemble(**settings))
    assert 0.5 * limit < changed.used_bytes <= limit, (key, value)


def test_an_allocation_that_fails_is_explained():
  # As XLA says it, on any platform.
  failure = jax.errors.JaxRuntimeError(
    "RESOURCE_EXHAUSTED: Out of memory while trying to allocate 9 bytes."
  )
  with pytest.raises(memory.OutOfMemoryError) as error:
    with step().explained():
      raise failure
  for part in (
    "out of memory (RESOURCE_EXHAUSTED: Out of memory while trying to allocate "
    "9 bytes.). The train step needs 40.0 GiB for a batch of 1,024. Use",
    "accumulation_steps=4",
  ):
    assert part in str(error.value)
  with pytest.raises(memory.OutOfMemoryError, match=r"evals\.test\.batch_size"):
    with step().explained():
      with memory.explained("Use a smaller --config.evals.test.batch_size."):
        raise failure
  with pytest.raises(jax.errors.JaxRuntimeError, match="INTERNAL"):
    with step().explained():
      raise jax.errors.JaxRuntimeError("INTERNAL: something else")


def test_an_allocation_that_is_too_large():
  eight = jax.ShapeDtypeStruct((8,), "float32")
  compiled = memory.compile_step(jax.jit(lambda x: x + 1).lower(eight))
  assert memory.used_bytes(compiled) >= 64  # its argument and its result
  with pytest.raises(memory.OutOfMemoryError, match="RESOURCE_EXHAUSTED"):
    with memory.explained("Use less."):
      jax.numpy.zeros((2**22, 2**22)).block_until_ready()
