"""Metrics of classes on random cases, as a JSON file of each process."""

import argparse
import json
import pathlib

import jax
import numpy as np

from tests import class_metrics
from vitjax.parallel import processes


def metrics_of(seed: int) -> dict[str, float]:
  """The metrics of a random case over all devices, as JSON can hold them."""
  rng = np.random.default_rng(seed)
  logits, label = class_metrics.random_case(rng)
  if seed % 2:  # some equal logits
    logits = np.round(logits)
  devices = len(jax.devices())
  batch = int(rng.integers(4, 17)) * devices
  names = class_metrics.names_of(logits.shape[1])
  found = class_metrics.evaluate(
    logits, label, names, ("all",), devices, batch, calibration=True
  )
  return {name: repr(value) for name, value in found.items()}


def main() -> None:
  parser = argparse.ArgumentParser()
  parser.add_argument("folder", type=pathlib.Path)
  parser.add_argument("num_cases", type=int)
  parser.add_argument("--coordinator_address")
  parser.add_argument("--num_processes", type=int)
  parser.add_argument("--process_id", type=int)
  args = parser.parse_args()
  processes.start(
    {},
    coordinator_address=args.coordinator_address,
    num_processes=args.num_processes,
    process_id=args.process_id,
  )
  found = [metrics_of(seed) for seed in range(args.num_cases)]
  (args.folder / f"{args.process_id}.json").write_text(json.dumps(found))


if __name__ == "__main__":
  main()
