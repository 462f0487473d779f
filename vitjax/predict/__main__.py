r"""Classifies images; prints a table or JSON Lines, or saves features.

  python -m vitjax.predict --model=runs/mine photo.jpg photos/
  python -m vitjax.predict --model=runs/mine photos/ --json > answers.jsonl
  python -m vitjax.predict --model=runs/mine photos/ --features=out.npz
  python -m vitjax.predict --model=LiT-B16B photo.jpg --texts="a cat,a dog"

A folder stands for all images below it, in the order of their names. Images are
prepared as in the evaluation of the model. A model that was trained on images
of one size and does not resize, such as 8x8 digits, needs --resize for other
sizes. A model that reads texts (LiT, SigLIP) chooses between the captions of
--texts.

--features writes a file with "features" (n, d), the input of the model's head
or the embedding of its image tower, and "files" (n,), their paths. Classes are
then printed only with --json.

Files that cannot be read are named on stderr and skipped; so are files of
folders that do not end as images do. Exit codes: 0 some image was read (with
--strict: no file was skipped), 1 none was read, or another error.
"""

import json
import os
import sys
from collections.abc import Sequence

from absl import flags, logging

from vitjax.config import command_line

FLAGS = flags.FLAGS


def define_flags() -> None:
  """Defines the flags of the command."""
  command_line.define_answers()
  flags.DEFINE_bool("json", False, "Print one JSON object per image.")
  flags.DEFINE_string(
    "features", None, "File for the features of the images, .npz."
  )
  flags.DEFINE_integer(
    "batch_size", 32, "Images per call of the model.", lower_bound=1
  )
  flags.DEFINE_bool("strict", False, "End with code 1 if any file was skipped.")


def _check_out(path: str) -> None:
  """Raises ValueError for a file that cannot be written."""
  folder = os.path.dirname(path) or "."
  if not path.endswith(".npz") or not os.path.isdir(folder):
    raise ValueError(
      f"--features={path} must end in .npz and be in a folder that exists."
    )
  if not os.access(folder, os.W_OK):
    raise ValueError(f"--features={path}: {folder} is not writable.")


def run(paths: Sequence[str]) -> int:
  """Predicts as the flags say; returns the exit code."""
  if FLAGS.features:
    _check_out(FLAGS.features)
  texts = command_line.captions(FLAGS.texts) if FLAGS.texts else []

  import vitjax
  from vitjax.predict import prediction

  files, unknown = prediction.find_images(paths)

  trained = vitjax.load(
    FLAGS.model,
    step=FLAGS.step,
    ema=FLAGS.ema,
    pretrained_dir=FLAGS.pretrained_dir,
    allow_module=FLAGS.allow_module,
  )
  if trained.has_two_towers and not (texts or FLAGS.features):
    raise ValueError(
      "this model has no classes: give captions to choose from, "
      '--texts="a cat,a dog", or --features=out.npz.'
    )
  if not (trained.has_head or trained.has_two_towers or FLAGS.features):
    raise ValueError(
      "this model has no classes: save the features of the images with "
      "--features=out.npz, or fine-tune it on labelled images, see "
      "configs/transfer.py."
    )
  failures, kept, num_read = [], [], 0

  def on_failure(line: str) -> None:
    failures.append(line)
    print(f"vitjax.predict: {line}", file=sys.stderr)

  if unknown:
    print(
      f"vitjax.predict: {prediction.describe_unknown(unknown)}", file=sys.stderr
    )
  names = prediction.names_of(trained, texts)
  is_shown = FLAGS.json or not FLAGS.features
  for file, found in prediction.predict(
    trained,
    files,
    batch_size=FLAGS.batch_size,
    texts=texts,
    resize=FLAGS.resize,
    on_failure=on_failure,
  ):
    if is_shown and not (found.probabilities is found.numbers is None):
      if FLAGS.json:
        answer = prediction.to_json(found, names, FLAGS.top)
        shown = json.dumps({"file": file, **answer})
      else:
        table = prediction.to_table(found, names, FLAGS.top)
        shown = "\n".join([file, *table])
      print(shown, flush=True)
    num_read += 1
    if FLAGS.features:
      kept.append((file, found.features))
  if failures:
    print(
      f"vitjax.predict: {len(failures)} of {len(files)} images could not be "
      "read.",
      file=sys.stderr,
    )
  failed = not num_read or (FLAGS.strict and bool(failures or unknown))
  if FLAGS.features and not failed:
    prediction.write_features(FLAGS.features, kept)
    print(
      f"vitjax.predict: wrote the features of {num_read} images to "
      f"{FLAGS.features}.",
      file=sys.stderr,
    )
  return int(failed)


def main(argv: list[str]) -> None:
  """Predicts, and reports errors in one line."""
  os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
  os.environ.setdefault("OPENCV_LOG_LEVEL", "ERROR")
  logging.set_verbosity(logging.WARNING)
  try:
    code = run(argv[1:])
  except BrokenPipeError:  # the reader has seen enough, such as `head`
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    code = 0
  except (ValueError, OSError, RuntimeError, ImportError) as e:
    raise SystemExit(f"vitjax.predict: {e}") from None
  sys.exit(code)


if __name__ == "__main__":
  command_line.set_up_logging()
  command_line.run(main, define_flags)
