"""Exits with an error unless the last value of a metric is high enough.

python scripts/check_metric.py RUN test/acc@1 0.97
"""

import sys

from vitjax.run_folder import reader


def main(run: str, name: str, least: str) -> None:
  """Compares the last record that has the metric with `least`."""
  values = [row[name] for row in reader.read_metrics(run) if name in row]
  if not values:
    sys.exit(f"{run} has no {name}.")
  print(f"{name} {values[-1]:.4f}, at least {least} wanted")
  if values[-1] < float(least):
    sys.exit(1)


if __name__ == "__main__":
  main(*sys.argv[1:])
