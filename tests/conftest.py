"""Settings of every test: eight virtual CPU devices and strict arithmetic."""

import gc
import logging
import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("JAX_PLATFORMS", "cpu")
# Most of the time goes into compiling programs that run for milliseconds.
os.environ.setdefault("XLA_FLAGS", "--xla_backend_optimization_level=0")

import jax
import jaxtyping
import pytest

from tests import annotations  # noqa: F401, the checker is found by its name

# Calls of these modules are checked against the shapes and types that they
# declare, from here on and at no cost outside of the tests.
jaxtyping.install_import_hook(
  [f"vitjax.{x}" for x in ("losses", "mixing", "models", "optim", "step")],
  "tests.annotations.check",
)

jax.config.update("jax_num_cpu_devices", 8)
jax.config.update("jax_numpy_rank_promotion", "raise")
jax.config.update("jax_default_matmul_precision", "highest")


# What is imported and collected stays to the end: no need to look through it.
gc.disable()


def pytest_collection_finish():
  gc.freeze()
  gc.enable()


def pytest_collection_modifyitems(items):
  """Whole runs first: they take longest, and would keep one worker late."""
  items.sort(key=lambda item: "e2e" not in item.path.parts)


@pytest.fixture(autouse=True)
def log_as_at_the_start():
  """What a command does to the log in one test is undone before the next."""
  logger = logging.getLogger("absl")
  level, logger.propagate = logger.level, True
  yield
  logger.setLevel(level)
  logger.disabled = False
