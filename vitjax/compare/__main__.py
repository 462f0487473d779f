r"""Says whether a run is on track at the steps that it has reached.

  python -m vitjax.compare runs/mine docs/curves/fashion_mnist
  python -m vitjax.compare RUN REFERENCE [REFERENCE ...] --json

RUN is a run folder or its metrics.jsonl, also of a run under way. REFERENCE is
one too, or a folder of several; all of them are of one recipe.

Compared are train/loss, as the mean of its last 20 records, and the metrics of
the evals, each at the last step in common. With several references a run is on
track within 3 standard deviations of their mean; with one, within --tolerance
of its loss or error rate plus the noise of batches and eval sets.

Exit codes: 0 on track, 3 off track, 1 an error.
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
    "What a run may differ from a single reference, relative to the loss or "
    "the error rate.",
  )


def main(argv: list[str]) -> int:
  """Prints the comparison; the exit code says how it came out."""
  if len(argv) < 3:
    sys.exit("vitjax.compare: give RUN and at least one REFERENCE.")
  try:
    result = comparison.compare(argv[1], argv[2:], tolerance=FLAGS.tolerance)
  except (ValueError, OSError) as e:
    sys.exit(f"vitjax.compare: {e}")
  print(comparison.to_json(result) if FLAGS.json else result)
  return 0 if result.on_track else EXIT_OFF_TRACK


if __name__ == "__main__":
  command_line.run(main, define_flags)
