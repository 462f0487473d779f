r"""Runs evaluators on a run, an exported file or published weights.

  python -m vitjax.evaluate --model=runs/quickstart
  python -m vitjax.evaluate --model=runs/quickstart --step=best --evals=test
  python -m vitjax.evaluate --model=digits.npz \
    --evals='{knn: {type: knn, split: test, train_split: train}}'
  python -m vitjax.evaluate --model=B_16.npz --evals=evals.yaml --json

--evals is names of the run's own evals (by default all), or new ones as in the
section `evals` of a config: YAML or JSON, inline or in a file. Quote values
with commas or brackets: split: "train[:10%]". By default `type` is
classification, `data` that of training and `pp` the model's own preprocessing.
docs/evaluation.md has all types and options.

--examples=FILE writes a row for each example of each classification: its file,
label and five most probable classes. --bootstrap=1000 adds 95 % confidence
intervals.

An eval whose data is missing is skipped with a message.

Exit codes: 0 done, 1 an error, a failed eval, or with --strict a skipped one.
"""

import pathlib
import sys

from absl import flags

from vitjax.config import command_line

FLAGS = flags.FLAGS


def define_flags() -> None:
  """Defines the flags of the command."""
  flags.DEFINE_string(
    "model", None, "Run folder, exported file or published name.", required=True
  )
  flags.DEFINE_string(
    "evals", None, "Names, sections, or a .yaml or .json file of sections."
  )
  command_line.define_checkpoint()
  command_line.define_allow_module()
  flags.DEFINE_integer(
    "batch_size",
    None,
    "Images per step on all devices; it does not change the metrics.",
    lower_bound=1,
  )
  flags.DEFINE_string("data_dir", None, "Where TFDS looks for data sets.")
  flags.DEFINE_string(
    "pretrained_dir", None, "Where to look for published weights."
  )
  flags.DEFINE_bool(
    "strict",
    False,
    "Stop if the data of an eval is missing, instead of skipping it.",
  )
  flags.DEFINE_bool("json", False, "Print one JSON object per eval.")
  flags.DEFINE_string("out", None, "File for these JSON lines.")
  flags.DEFINE_string(
    "examples", None, "File for a row per example, .csv or .jsonl."
  )
  flags.DEFINE_integer(
    "bootstrap",
    0,
    "Resamples for 95 % confidence intervals, such as 1000; 0: no intervals.",
    lower_bound=0,
  )


def main(argv: list[str]) -> None:
  """Evaluates, prints the metrics, and returns the exit code."""
  if len(argv) > 1:
    sys.exit(f"vitjax.evaluate: {argv[1]!r} is not a flag; use --model=...")
  out = pathlib.Path(FLAGS.out) if FLAGS.out else None
  if out is not None and not out.absolute().parent.is_dir():
    sys.exit(f"vitjax.evaluate: --out={out}: there is no such folder.")
  command_line.set_up_logging()
  results = []
  try:
    from vitjax.evaluate import answers, evaluation
    from vitjax.run_folder import files

    examples = pathlib.Path(FLAGS.examples) if FLAGS.examples else None
    if examples is not None:
      answers.check_file(examples)
    evals = evaluation.parse_evals(FLAGS.evals)
    for result in evaluation.evaluate(
      FLAGS.model,
      evals,
      step=FLAGS.step,
      ema=FLAGS.ema,
      batch_size=FLAGS.batch_size,
      data_dir=FLAGS.data_dir,
      pretrained_dir=FLAGS.pretrained_dir,
      allow_module=FLAGS.allow_module,
      keep_answers=examples is not None,
      bootstrap=FLAGS.bootstrap,
    ):
      results.append(result)
      if FLAGS.json:
        print(evaluation.to_json(result), flush=True)
    if out is not None:
      files.write_text(out, "\n".join(map(evaluation.to_json, results)))
    if examples is not None:
      kept = {x.name: x.answers for x in results if x.answers is not None}
      files.write_text(examples, answers.to_text(kept, examples.suffix))
  except (ValueError, OSError, RuntimeError, KeyError, ImportError) as e:
    sys.exit(f"vitjax.evaluate: {e}")
  if not FLAGS.json:
    print(evaluation.to_table(results))
  failed = [x for x in results if x.error or (x.absent and FLAGS.strict)]
  for result in failed:
    reason = result.error or result.absent
    print(f"vitjax.evaluate: {result.name}: {reason}", file=sys.stderr)
  sys.exit(1 if failed else 0)


if __name__ == "__main__":
  command_line.run(main, define_flags)
