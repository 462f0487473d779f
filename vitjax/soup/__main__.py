r"""Averages the weights of trained models into one model: a model soup.

  vitjax soup runs/a runs/b runs/c --out=soup.npz
  vitjax soup runs/a@4000 runs/a@5000 --out=soup.npz
  vitjax soup runs/a runs/b runs/c --greedy=val/acc@1 --out=soup.npz

MEMBERS are run folders, RUN@STEP with a number, best or latest, exported files
and published names. They must have the same architecture and head, and should
be fine-tuned from the same weights: https://arxiv.org/abs/2203.05482.

Without --greedy the soup is the mean of all members. With it, members are added
from the best to the worst, each only if the metric does not become worse; take
an eval on data that you do not report results on.

--out is a model like any exported file: predict, evaluate, export and
config.init.weights take it. The .json beside it lists the members.
"""

import pathlib
import sys

from absl import flags, logging

from vitjax.config import command_line, resolving

FLAGS = flags.FLAGS


def define_flags() -> None:
  """Defines the flags of the command."""
  flags.DEFINE_string(
    "out", None, "File to write, .npz or .safetensors.", required=True
  )
  flags.DEFINE_string(
    "greedy",
    None,
    "EVAL/METRIC by which members are added, of an eval in the config of the "
    "first run folder, such as val/acc@1.",
  )
  flags.DEFINE_enum(
    "mode",
    None,
    ["max", "min"],
    "Whether the largest or the smallest value of --greedy is the best; "
    "default: by its name.",
  )
  flags.DEFINE_bool(
    "ema", False, "Use the averaged parameters of runs with config.ema."
  )
  flags.DEFINE_string(
    "pretrained_dir", None, "Where to look for published weights."
  )
  command_line.define_allow_module()


def main(argv: list[str]) -> None:
  """Loads the members, averages them, and writes the file."""
  names, out = argv[1:], pathlib.Path(FLAGS.out)
  try:
    if out.suffix not in (".npz", ".safetensors"):
      raise ValueError(f"--out={out} must end in .npz or .safetensors.")
    mode = None
    if FLAGS.greedy:
      mode = FLAGS.mode or resolving.best_mode(FLAGS.greedy)
      if mode is None:
        raise ValueError(
          f"--greedy={FLAGS.greedy}: its name does not tell whether the "
          "largest or the smallest value is the best. Add --mode=max or "
          "--mode=min."
        )

    from vitjax import weights
    from vitjax.soup import averaging

    run = averaging.first_run(names) if FLAGS.greedy else None
    members = averaging.read(
      names,
      ema=FLAGS.ema,
      pretrained_dir=FLAGS.pretrained_dir,
      allow_module=FLAGS.allow_module,
    )
    first = members[0].model
    if averaging.has_statistics(first.params):
      logging.warning(
        "The running statistics of batch normalisation are averaged, too. They "
        "are not exactly those of the averaged weights: evaluate the soup "
        "before you use it."
      )
    if run is not None and mode is not None:
      from vitjax.evaluate import evaluation

      score = evaluation.metric_of(
        run, first, FLAGS.greedy, allow_module=FLAGS.allow_module
      )
      soup = averaging.greedy(members, FLAGS.greedy, score, mode)
      best = next(iter(soup.values.values()))
      logging.info(
        "%s: %.4f with %d of %d members; the best one alone has %.4f.",
        FLAGS.greedy,
        soup.value,
        len(soup.members),
        len(members),
        best,
      )
    else:
      soup = averaging.uniform(members)
    weights.save(out, soup.params, first.model, metadata=soup.metadata)
  except (ValueError, OSError, RuntimeError, ImportError) as e:
    sys.exit(f"vitjax.soup: {e}")
  logging.info(
    "Wrote %s and %s: the mean of %s.",
    out,
    out.with_suffix(".json"),
    ", ".join(member.name for member in soup.members),
  )


if __name__ == "__main__":
  command_line.set_up_logging()
  command_line.run(main, define_flags)
