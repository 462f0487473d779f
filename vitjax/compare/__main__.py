r"""Checks a run against reference curves.

  python -m vitjax.compare runs/mine docs/curves/fashion_mnist
  python -m vitjax.compare RUN REFERENCE [REFERENCE ...] --json
  python -m vitjax.compare RUN REFERENCE --allow=input.batch_size,optim.*

RUN is a run folder or its metrics.jsonl; the run may still be training.
REFERENCE is a run of the same recipe, or a folder of several.

The configs are compared first. A run whose recipe differs from that of the
references is not comparable: the differing keys are listed, and --allow names
those that may differ. Then train/loss, as the mean of its last 20 records, and
the metrics of the evals are compared, each at the last step in common. With
several references a run is on track within 3 standard deviations of their
mean; with one reference, within --tolerance of its loss or error rate plus the
noise of its batches and of the eval set.

Exit codes: 0 on track, 3 off track or not comparable, 1 an error.
"""

import sys

from absl import flags

from vitjax.compare import comparison
from vitjax.config import command_line

FLAGS = flags.FLAGS

EXIT_OFF_TRACK = 3


def define_flags() -> None:
  """Defines the flags of the command."""
  flags.DEFINE_bool("json", False, "Print the comparison as JSON.")
  flags.DEFINE_float(
    "tolerance",
    0.1,
    "Difference allowed from a single reference, relative to its loss or error "
    "rate.",
    lower_bound=0.0,
  )
  flags.DEFINE_list(
    "allow",
    [],
    "Config keys in which the run may differ from the references, with commas "
    "between them; * stands for any characters.",
  )


def main(argv: list[str]) -> int:
  """Prints the comparison; the exit code says how it came out."""
  if len(argv) < 3:
    sys.exit("vitjax.compare: give RUN and at least one REFERENCE.")
  try:
    result = comparison.compare(
      argv[1], argv[2:], tolerance=FLAGS.tolerance, allow=FLAGS.allow
    )
  except (ValueError, OSError) as e:
    sys.exit(f"vitjax.compare: {e}")
  print(comparison.to_json(result) if FLAGS.json else result)
  return 0 if result.on_track else EXIT_OFF_TRACK


if __name__ == "__main__":
  command_line.run(main, define_flags)
