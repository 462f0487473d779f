"""Compares a value with the other processes, and ends them all if it differs.

The store that the processes share is a private part of JAX: this is all that
vitjax does with it, without a run around it.
"""

import argparse
import time

from vitjax.parallel import processes


def main() -> None:
  parser = argparse.ArgumentParser()
  parser.add_argument("value")
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
  processes.check_alike("a constant", "the same everywhere")
  print("Equal values pass.", flush=True)
  try:
    processes.check_alike("training data", args.value)
  except processes.DistributedError as error:
    if args.process_id == 1:
      processes.end_all(str(error), code=3)
    time.sleep(60)  # as in a collective that the other never joins


if __name__ == "__main__":
  main()
