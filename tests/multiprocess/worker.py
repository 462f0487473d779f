"""One process of a distributed run, for the tests: `worker.py RANK COUNT ...`.

Starts `jax.distributed` and trains by the library, as a launcher on several
hosts does.
"""

import pathlib
import sys

import jax
from absl import logging


def main(rank, count, devices, port, workdir, *overrides):
  """Trains `tests/e2e/tiny.py` on `devices` devices of this process."""
  logging.set_verbosity(logging.INFO)
  jax.config.update("jax_num_cpu_devices", int(devices))
  if int(count) > 1:
    jax.distributed.initialize(f"localhost:{port}", int(count), int(rank))

  from tests.e2e import tiny
  from vitjax import config as config_lib
  from vitjax import train

  config = tiny.get_config()
  config.total_steps = 40
  config.optim.mu_dtype = None  # nothing that amplifies rounding
  config.evals.test.every_steps = 20
  config.checkpoint.update({"every_steps": 15, "keep_every_steps": 15})
  config.report.every_steps = 1
  for override in overrides:
    key, _, value = override.partition("=")
    config.update_from_flattened_dict({key: int(value)})
  run = config_lib.resolve(config)
  results = train.train_and_evaluate(run, pathlib.Path(workdir))
  print(results["test/n_seen"], jax.process_count(), jax.device_count())


if __name__ == "__main__":
  main(*sys.argv[1:])
