r"""Check a data set, or prepare one.

  python -m vitjax.data check folder:/my/images
  python -m vitjax.data check labels:/my/labels.csv --json
  python -m vitjax.data check folder:/my/images --near=4 --html=check.html
  python -m vitjax.data sample images
  python -m vitjax.data prepare imagenet --from=/archives --data_dir=/tfds

`check` reads and decodes all images of folder:, labels:, wds:, parquet: or
captions: data. It prints images per split and class, sizes and colours, mean
and deviation of the pixels, unreadable files, exact copies and equal names
(also across splits), images that are tiny or narrow, and what is ignored.
--near=4 also finds images that look alike; labels that may be wrong are found
with --predictions=fold_1.jsonl,fold_2.jsonl. Scans of 12 bits:
--pp="decode(levels=(0, 4095))".

`sample` writes a folder of 1,797 small images in ten classes, to try commands
on.

`prepare imagenet` makes TFDS's imagenet2012 from ILSVRC2012_img_train.tar and
ILSVRC2012_img_val.tar, after checking their MD5 and number of images. After an
interruption the same command resumes, and writes the same files.

Exit codes: 0 no errors, 1 something would stop a run, or another error.
"""

import dataclasses
import json
import os
import sys

from absl import flags, logging

from vitjax.config import command_line

FLAGS = flags.FLAGS


def define_flags() -> None:
  """Defines the flags of the command."""
  flags.DEFINE_bool("json", False, "check: print JSON.")
  flags.DEFINE_string(
    "pp", "decode", "check: the op that decodes, as in config.input.pp."
  )
  flags.DEFINE_integer(
    "near",
    None,
    "check: also find images that look alike: whose hashes differ in at most "
    "this many of 64 bits, 0 to 8, such as 4.",
  )
  flags.DEFINE_list(
    "predictions",
    [],
    "check: also find labels that may be wrong: files of vitjax.evaluate "
    "--examples by models that were not trained on these images.",
  )
  flags.DEFINE_string("html", None, "check: also write a page with pictures.")
  flags.DEFINE_string(
    "from", None, "prepare: folder with the official archives."
  )
  flags.DEFINE_string(
    "data_dir",
    None,
    "prepare: where TFDS keeps its data sets; by default $TFDS_DATA_DIR or "
    "~/tensorflow_datasets.",
  )
  flags.DEFINE_enum(
    "file_format",
    "array_record",
    ["array_record", "tfrecord"],
    "prepare: format of the files.",
  )
  flags.DEFINE_bool(
    "partial",
    False,
    "prepare: take archives that are not the official ones, such as a part of "
    "them.",
  )


def run(arguments: list[str]) -> int:
  """Runs the command; returns the exit code."""
  match arguments:
    case ["check", data]:
      return _check(data)
    case ["sample", folder]:
      return _sample(folder)
    case ["prepare", "imagenet"]:
      return _prepare()
  raise ValueError(
    f"{' '.join(arguments) or 'nothing'!r} is not a command. Write check DATA, "
    "sample FOLDER, or prepare imagenet --from=FOLDER; see --help."
  )


def _check(data: str) -> int:
  from vitjax.data.checking import check

  if FLAGS.html:  # needs a package, so before all images are read
    from vitjax.data.checking import page
  else:
    page = None
  report = check.check(
    data,
    pp=FLAGS.pp,
    most_bits=FLAGS.near,
    predictions=FLAGS.predictions,
    log=_log,
  )
  if page is not None:
    page.write(report, FLAGS.html, pp=FLAGS.pp)
    _log(f"Wrote {FLAGS.html}.")
  if FLAGS.json:
    print(json.dumps(dataclasses.asdict(report), indent=2))
  else:
    print(report)
  return int(bool(report.problems))


def _sample(folder: str) -> int:
  from vitjax.data import sample

  count = sample.write_digits(folder)
  print(
    f"Wrote {count:,} images to {folder}: use input.data='folder:{folder}'."
  )
  return 0


def _prepare() -> int:
  if not FLAGS["from"].value:
    raise ValueError("prepare imagenet needs --from=FOLDER with the archives.")
  from vitjax.data import prepare

  folder = prepare.prepare_imagenet(
    FLAGS["from"].value,
    FLAGS.data_dir,
    file_format=FLAGS.file_format,
    partial=FLAGS.partial,
    log=_log,
  )
  option = f" and input.data_dir={FLAGS.data_dir!r}" if FLAGS.data_dir else ""
  print(f"{folder}: use input.data='imagenet2012'{option}.")
  return 0


def _log(line: str) -> None:
  print(line, file=sys.stderr, flush=True)


def main(argv: list[str]) -> None:
  """Runs a command, and reports errors in one line."""
  os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
  os.environ.setdefault("OPENCV_LOG_LEVEL", "ERROR")
  logging.set_verbosity(logging.ERROR)  # the report has its warnings
  try:
    code = run(argv[1:])
  except (ValueError, OSError, RuntimeError) as e:
    raise SystemExit(f"vitjax.data: {e}") from None
  sys.exit(code)


if __name__ == "__main__":
  command_line.run(main, define_flags)
