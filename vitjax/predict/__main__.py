r"""Says what is on images: the most likely classes, or captions, of each.

  python -m vitjax.predict --model=runs/mine photo.jpg photos/
  python -m vitjax.predict --model=runs/mine photos/ --json > answers.jsonl
  python -m vitjax.predict --model=runs/mine photos/ --features=out.npz
  python -m vitjax.predict --model=LiT-B16B photo.jpg --texts="a cat,a dog"

A folder stands for all images below it, in the order of their names: jpg,
jpeg, png, webp, bmp, gif, tif, tiff. Images are prepared as the model's own
evaluation prepares them, whatever their size; where that does not resize, as
for digits of 8x8 pixels, other sizes need --resize. EXIF orientation is
ignored, as it is in training (the orientation that a TIFF has of its own is
not).

--features writes "features" (n, d), what the head of the model sees or the
embedding of an image tower, and "files" (n,), their paths.

What cannot be read is named on stderr and left out. Exit codes: 0 some image
was read (with --strict: all were), 1 none was, or another error.
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
  flags.DEFINE_string(
    "model",
    None,
    "Run folder, exported file or name of published weights.",
    required=True,
  )
  command_line.define_checkpoint()
  command_line.define_allow_module()
  flags.DEFINE_string(
    "pretrained_dir", None, "Folder or URL with the files of published names."
  )
  flags.DEFINE_integer(
    "top", 5, "How many classes of each image are shown.", lower_bound=1
  )
  flags.DEFINE_bool("json", False, "Print one JSON object per image.")
  flags.DEFINE_string(
    "features", None, "File to write the features of the images to, .npz."
  )
  flags.DEFINE_integer(
    "batch_size", 32, "Images that go through the model at once.", lower_bound=1
  )
  flags.DEFINE_bool(
    "resize",
    False,
    "Squeeze images to the size of a model that was trained on images of one "
    "size, and does not resize by itself.",
  )
  flags.DEFINE_multi_string(
    "texts",
    [],
    "Captions to choose from, for a model that reads texts: once, with commas "
    "between them, or once for each caption.",
  )
  flags.DEFINE_bool(
    "strict", False, "End with code 1 if any image could not be read."
  )


def _texts(values: Sequence[str]) -> list[str]:
  if len(values) == 1:
    values = values[0].split(",")
  texts = [text.strip() for text in values]
  if not all(texts):
    raise ValueError(f"--texts={','.join(texts)!r} has an empty caption.")
  return texts


def _check_out(path: str) -> None:
  """Raises ValueError for a file that could not be written in the end."""
  folder = os.path.dirname(path) or "."
  if not path.endswith(".npz") or not os.path.isdir(folder):
    raise ValueError(
      f"--features={path} has to be a file that ends in .npz, in a folder "
      "that exists."
    )
  if not os.access(folder, os.W_OK):
    raise ValueError(f"--features={path}: no right to write into {folder}.")


def run(paths: Sequence[str]) -> int:
  """Does what the flags say; returns the exit code."""
  if FLAGS.features:
    _check_out(FLAGS.features)
  texts = _texts(FLAGS.texts) if FLAGS.texts else []

  import vitjax
  from vitjax.predict import prediction

  files = prediction.find_images(paths)

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
  failures, kept, num_read = [], [], 0

  def on_failure(line: str) -> None:
    failures.append(line)
    print(f"vitjax.predict: {line}", file=sys.stderr)

  names = prediction.names_of(trained, texts)
  form = prediction.to_json if FLAGS.json else prediction.to_table
  for found in prediction.predict(
    trained,
    files,
    batch_size=FLAGS.batch_size,
    texts=texts,
    resize=FLAGS.resize,
    on_failure=on_failure,
  ):
    if found.probabilities is not None:
      shown = form(found, names, FLAGS.top)
      print(json.dumps(shown) if FLAGS.json else shown, flush=True)
    num_read += 1
    if FLAGS.features:
      kept.append(found)
  if failures:
    print(
      f"vitjax.predict: {len(failures)} of {len(files)} images could not be "
      "read.",
      file=sys.stderr,
    )
  failed = not num_read or (FLAGS.strict and bool(failures))
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
  except BrokenPipeError:  # whoever reads has seen enough, as `head` has
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    code = 0
  except (ValueError, OSError, RuntimeError, ImportError) as e:
    raise SystemExit(f"vitjax.predict: {e}") from None
  sys.exit(code)


if __name__ == "__main__":
  command_line.run(main, define_flags)
