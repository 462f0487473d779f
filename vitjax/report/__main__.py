r"""Writes an HTML report of runs, and its pictures as PNG files.

  python -m vitjax.report runs/quickstart
  python -m vitjax.report runs/a runs/b --out=a_and_b.html --png=pictures

RUN is a run folder or its metrics.jsonl; the run may still be in progress. The
page has the curves of all runs, their last values, config differences and
speed. For each run with a checkpoint it adds metrics of classes, a confusion
matrix and the worst mistakes on the first eval set, position similarity and
attention. The page needs no other file and no network, and names what it cannot
show.
"""

import pathlib
import sys

from absl import flags, logging

from vitjax.config import command_line

FLAGS = flags.FLAGS


def define_flags() -> None:
  """Defines the flags of the command."""
  flags.DEFINE_string("out", "report.html", "The page to write.")
  flags.DEFINE_string(
    "png",
    None,
    "Folder for the pictures as PNG files; '' writes none. Default: beside the "
    "page, with its name.",
  )
  flags.DEFINE_integer(
    "examples",
    None,
    "Classify the first N examples of the eval set; 0 does not load the model. "
    "Default: all.",
    lower_bound=0,
  )
  flags.DEFINE_integer(
    "mistakes", 12, "Number of the worst mistakes to show.", lower_bound=1
  )
  flags.DEFINE_integer(
    "images", 4, "Number of images to show attention on.", lower_bound=1
  )
  command_line.define_allow_module()


def main(argv: list[str]) -> None:
  """Writes the report."""
  if len(argv) < 2:
    sys.exit("vitjax.report: give at least one RUN.")
  out = pathlib.Path(FLAGS.out)
  if out.is_dir():
    sys.exit(f"vitjax.report: --out={out} is a folder; give a file.")
  png = out.with_suffix("") if FLAGS.png is None else FLAGS.png or None
  if png == out:
    png = out.with_name(f"{out.name}_png")
  try:
    from vitjax.report import reporting
    from vitjax.run_folder import history

    written = reporting.write(
      history.read(argv[1:]),
      out,
      png,
      log=lambda line: logging.info("%s ...", line),
      with_models=FLAGS.examples != 0,
      num_examples=FLAGS.examples,
      num_mistakes=FLAGS.mistakes,
      num_images=FLAGS.images,
      allow_module=FLAGS.allow_module,
    )
  except (ValueError, OSError, RuntimeError, ImportError) as e:
    sys.exit(f"vitjax.report: {e}")
  logging.info("Wrote %s and %d PNG files.", written[0], len(written) - 1)


if __name__ == "__main__":
  command_line.set_up_logging()
  command_line.run(main, define_flags)
