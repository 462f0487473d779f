"""Which variant of the train step a step takes, and what a run has of them."""

import collections
import itertools

import jax
import pytest

from tests.e2e import tiny
from vitjax import checks, program
from vitjax.config import resolving
from vitjax.config.schema import ConfigError
from vitjax.data import sources
from vitjax.models import flops
from vitjax.parallel import sharding
from vitjax.plan import memory
from vitjax.program.variants import Variant, Variants


def assemble(total_steps=20, **flexible):
  config = tiny.get_config()
  config.total_steps, config.flexible = total_steps, flexible
  run = resolving.resolve(config, checks.problems)
  source = sources.open_source(run.input.data, run.input.split)
  mesh = sharding.make_mesh(devices=jax.devices()[:1])
  return program.assemble(run, source, mesh)


def test_patch_sizes_are_drawn_alike_and_by_the_step_alone():
  choice = Variants(seed=3, patch_sizes=(4, 8, 16))
  drawn = [choice.at(step).patch_size for step in range(1, 3001)]
  assert drawn[1000:] == [
    choice.at(step).patch_size for step in range(1001, 3001)
  ]
  counts = collections.Counter(drawn)
  assert set(counts) == {4, 8, 16}
  assert all(abs(n - 1000) < 5 * 26 for n in counts.values())  # 5 deviations
  pairs = collections.Counter(itertools.pairwise(drawn))
  assert all(abs(n - 333) < 5 * 17 for n in pairs.values())
  other = [Variants(4, (4, 8, 16)).at(s).patch_size for s in range(1, 3001)]
  assert sum(a == b for a, b in zip(drawn, other)) < 1200


def test_image_sizes_come_one_after_the_other():
  choice = Variants(image_sizes=((10, 32), (15, 48), (20, 64)))
  sizes = [choice.at(step).image_size for step in range(1, 21)]
  assert sizes == [32] * 10 + [48] * 5 + [64] * 5


def test_the_largest_variant_comes_first():
  choice = Variants(0, (16, 8), ((5, 64), (9, 32)))
  assert choice.all == [
    Variant(8, 64),
    Variant(16, 64),
    Variant(8, 32),
    Variant(16, 32),
  ]
  assert Variants().all == [Variant()] and Variants().at(7) == Variant()
  assert str(choice.all[0]) == "patch size 8, image size 64"


def test_memory_and_flops_are_those_of_the_longest_sequence():
  plain = assemble()
  parts = assemble(patch_sizes=(2, 4))
  assert parts.model_of(parts.variants.all[0]).patch_size == 2
  assert parts.model.patch_size == 4
  shapes = [
    jax.tree.map(lambda x: x.shape, p.abstract.params) for p in (parts, plain)
  ]
  assert shapes[0] == shapes[1]
  assert memory.activation_bytes(parts) > 2 * memory.activation_bytes(plain)
  shape = parts.spec["image"].shape
  by_formula = flops.train(parts.model_of(Variant(2)), shape)
  assert by_formula > 2 * flops.train(parts.model, shape)


def test_shares_are_parts_of_the_run():
  parts = assemble(image_sizes=(4, 6, 8), image_shares=(2, 1, 1))
  assert parts.variants.image_sizes == ((10, 4), (15, 6), (20, 8))
  assert assemble(image_shares=[]).variants == Variants(seed=3)  # from JSON


@pytest.mark.parametrize(
  ("flexible", "message"),
  [
    (
      {"image_sizes": (4, 6)},
      r"image_sizes=\(4, 6\): the largest must be the size of the images after "
      "config.input.pp, which are 8x8",
    ),
    (
      {"image_sizes": (4, 8), "image_shares": (1, 2, 3)},
      "a number for each of the 2 config.flexible.image_sizes",
    ),
    (
      {"image_shares": (1, 2)},
      "has no effect without flexible.image_sizes",
    ),
    (
      {"patch_sizes": (4, 16)},
      "cannot train at patch size 16: image of 8x8 is smaller than patch_size",
    ),
    ({"patch_sizes": (0,)}, "config.flexible.patch_sizes"),
  ],
)
def test_what_cannot_be_run_is_said(flexible, message):
  with pytest.raises(ConfigError, match=message):
    assemble(**flexible)
