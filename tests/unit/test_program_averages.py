"""Averages of the weights that do not fit a run."""

import functools
import types

import pytest

from vitjax import program
from vitjax.config import resolving, schema


def check(has_statistics=False, **changes):
  run = resolving.resolve(
    {
      "total_steps": 20,
      "input": {"data": "digits", "batch_size": 8, "pp": ""},
      "model": {"name": "resnet_bn"},
      "optim": {"name": "sgd", "learning_rate": 0.1},
      **changes,
    }
  )
  source = types.SimpleNamespace(num_examples=80)
  steps = functools.partial(program.to_steps, run, source, total_steps=20)
  program.check_averages(run, has_statistics, 20, steps)


def test_schedule_free_and_batch_normalisation():
  optim = {"name": "schedule_free_sgd", "learning_rate": 0.1}
  check(optim=optim)
  check(has_statistics=True)
  with pytest.raises(
    schema.ConfigError,
    match=r"name='schedule_free_sgd' does not fit .*'resnet_bn'.* such as sgd",
  ):
    check(has_statistics=True, optim=optim)


def test_a_uniform_average_starts_before_the_end():
  check(ema={"uniform_from_epochs": 1.9})
  with pytest.raises(
    schema.ConfigError, match=r"uniform_from=2 epochs is step 20, .* step 20,"
  ):
    check(ema={"uniform_from_epochs": 2})
