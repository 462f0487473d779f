"""Prints the errors of the losses of pairs over several processes."""

import argparse

from tests import pairs
from vitjax import losses
from vitjax.parallel import processes, sharding


def main() -> None:
  parser = argparse.ArgumentParser()
  parser.add_argument("--coordinator_address")
  parser.add_argument("--num_processes", type=int)
  parser.add_argument("--process_id", type=int)
  processes.start({}, **vars(parser.parse_args()))
  mesh = sharding.make_mesh()
  for loss in losses.CONTRASTIVE:
    print(loss, mesh.size, *pairs.errors(loss, mesh), flush=True)


if __name__ == "__main__":
  main()
