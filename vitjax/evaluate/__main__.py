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

--metrics=all adds all metrics of classes: precision, recall, F1, AUROC, average
precision, the confusion matrix and more. --examples=FILE writes a row for each
example of each classification: its file, label and five most probable classes.
--patch_sizes=8,12,16 evaluates a ViT at each of these patch sizes: FlexiViT.
--bootstrap=1000 adds 95 % confidence intervals.

  python -m vitjax.evaluate --model=runs/mine --evals=val,test \
    --choose_thresholds=recall=0.95 --thresholds=thresholds.json

chooses a threshold for each class on the first eval, applies them to all, and
keeps them in a file; --thresholds=FILE alone applies those of the file.

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
    "model",
    None,
    "Run folder, exported file, hf:OWNER/REPO or published name.",
    required=True,
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
  flags.DEFINE_list(
    "patch_sizes",
    [],
    "Patch sizes of a ViT to evaluate at, such as 8,16; by default the evals' "
    "own, or the model's.",
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
  flags.DEFINE_list("metrics", [], "More metrics of classifications, or all.")
  flags.DEFINE_string(
    "choose_thresholds",
    None,
    "Choose a threshold for each class on the first eval: f1, precision=P or "
    "recall=R.",
  )
  flags.DEFINE_string(
    "thresholds", None, "JSON file of thresholds, to apply or to write."
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
    from vitjax.evaluate import answers, evaluation, thresholds
    from vitjax.parallel import allocator
    from vitjax.run_folder import files

    allocator.keep_freed_memory()
    examples = pathlib.Path(FLAGS.examples) if FLAGS.examples else None
    if examples is not None:
      answers.check_file(examples)
    file = pathlib.Path(FLAGS.thresholds) if FLAGS.thresholds else None
    wanted = None
    if FLAGS.choose_thresholds:
      wanted = thresholds.parse_goal(FLAGS.choose_thresholds)
      if file is not None and not file.absolute().parent.is_dir():
        raise ValueError(f"--thresholds={file}: there is no such folder.")
    elif file is not None:
      wanted = thresholds.read(file)
    evals = evaluation.parse_evals(FLAGS.evals)
    for result in evaluation.evaluate(
      FLAGS.model,
      evals,
      step=FLAGS.step,
      ema=FLAGS.ema,
      batch_size=FLAGS.batch_size,
      patch_sizes=evaluation.parse_patch_sizes(FLAGS.patch_sizes),
      data_dir=FLAGS.data_dir,
      pretrained_dir=FLAGS.pretrained_dir,
      allow_module=FLAGS.allow_module,
      keep_answers=examples is not None,
      bootstrap=FLAGS.bootstrap,
      metrics=FLAGS.metrics,
      thresholds=wanted,
    ):
      results.append(result)
      if FLAGS.json:
        print(evaluation.to_json(result), flush=True)
    if out is not None:
      files.write_text(out, "\n".join(map(evaluation.to_json, results)))
    chosen = [x.thresholds for x in results if x.thresholds is not None]
    if FLAGS.choose_thresholds and file is not None and chosen:
      files.write_text(file, thresholds.to_text(chosen[0]))
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
