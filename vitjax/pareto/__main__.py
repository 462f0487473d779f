r"""Measures the speed of models, and lists it with their accuracy.

  python -m vitjax.pareto --models=runs/a,runs/b,ViT-S_16,ViT-B_32
  python -m vitjax.pareto --accuracy=results-imagenet.csv --out=t.csv,t.png \
    --models=vit_small_patch16_224.augreg_in21k_ft_in1k,deit3_S_224_1k
  python -m vitjax.pareto --models=@timm-12k --resume --out=t.csv,t.png \
    --batch_size=1

--models are run folders, exported files, hf:OWNER/REPO and published names;
NAME@288 asks for another image size than the published one. @timm-12k are the
models of timm's comparison of weights from ImageNet-12k and -22k, with the
accuracies that timm publishes. No weights are downloaded: random parameters are
as fast. Columns have the names of timm's tables; steps are in milliseconds,
parameters in millions. Accuracy is the last value of a run ("measured"), or
that of the table given with --accuracy ("published"), or empty. A model is on
the Pareto front if no model with an accuracy from the same source is both
faster and better. A model that does not fit into memory is left out, with a
line that says so.

With --resume the models are measured one after the other, and the files are
written after each: a later run measures only what is missing.
"""

import os
import pathlib
import sys

from absl import flags, logging

from vitjax.config import command_line

FLAGS = flags.FLAGS

_PLOTS = (".png", ".svg")
_TABLES = (".csv", ".md", ".json")


def define_flags() -> None:
  """Defines the flags of the command."""
  flags.DEFINE_list(
    "models",
    None,
    "Run folders, files and names, separated by commas.",
    required=True,
  )
  flags.DEFINE_string(
    "accuracy",
    None,
    "CSV with columns model, top1 and maybe top5, in per cent: timm's results.",
  )
  command_line.define_allow_module()
  flags.DEFINE_integer(
    "batch_size", 32, "Images per call of the model.", lower_bound=1
  )
  flags.DEFINE_integer(
    "repeats",
    5,
    "Measurements of each model; the median counts.",
    lower_bound=1,
  )
  flags.DEFINE_enum(
    "dtype",
    None,
    ["float32", "bfloat16"],
    "Type of the computation; default: as in training on this device.",
  )
  flags.DEFINE_bool(
    "resume",
    False,
    "Keep the rows in the .csv of --out and measure the other models, one at a "
    "time; else all models take turns.",
  )
  flags.DEFINE_list(
    "out",
    [],
    "Files to write, separated by commas: .csv, .md, .json, and .png or .svg "
    "for a plot. Default: print the table as Markdown.",
  )


def main(argv: list[str]) -> None:
  """Measures, and writes or prints the table."""
  if len(argv) > 1:
    sys.exit(f"vitjax.pareto: {argv[1]!r} is not a flag.")
  out = [pathlib.Path(name) for name in FLAGS.out]
  for file in out:
    if file.suffix not in (*_TABLES, *_PLOTS):
      sys.exit(
        f"vitjax.pareto: --out={file} must end in one of "
        f"{', '.join((*_TABLES, *_PLOTS))}."
      )
  tables = [file for file in out if file.suffix == ".csv"]
  if FLAGS.resume and not tables:
    sys.exit("vitjax.pareto: --resume keeps rows in a .csv: name one in --out.")
  try:
    import jax

    from vitjax import models
    from vitjax.parallel import allocator
    from vitjax.pareto import benchmark
    from vitjax.run_folder import files

    allocator.keep_freed_memory()
    if any(file.suffix in _PLOTS for file in out):
      # So that a missing package is reported before minutes of measuring.
      from vitjax.plots import charts  # noqa: F401
    device = jax.devices()[0]
    dtype = FLAGS.dtype or models.default_dtype(device.platform)
    logging.info("On one %s, in %s.", device.device_kind, dtype)
    known = {}
    if FLAGS.accuracy:
      known = benchmark.read_accuracies(FLAGS.accuracy)
    names, known = benchmark.expand(FLAGS.models, known)
    facts = {
      "device": device.device_kind,
      "cores": os.cpu_count(),
      "dtype": dtype,
      "repeats": FLAGS.repeats,
      "software": files.software(),
    }
    rows = []
    if FLAGS.resume and tables[0].exists():
      rows = benchmark.read_rows(tables[0])
      logging.info("%s has %d rows.", tables[0], len(rows))
    done = {(row.model, row.img_size) for row in rows}
    candidates = [
      benchmark.find(name, known, dtype, FLAGS.allow_module) for name in names
    ]
    candidates = [
      x
      for x in candidates
      if (x.name, benchmark.img_size(x.image_shape)) not in done
    ]
    for turn in [[x] for x in candidates] if FLAGS.resume else [candidates]:
      rows += benchmark.measure(
        turn,
        batch_size=FLAGS.batch_size,
        repeats=FLAGS.repeats,
        log=lambda line: logging.info("%s", line),
      )
      rows = benchmark.with_front(rows)
      for file in out:
        _write(file, rows, facts)
    for file in out:
      logging.info("Wrote %s.", file)
  except (ValueError, OSError, RuntimeError, ImportError) as e:
    sys.exit(f"vitjax.pareto: {e}")
  if not out:
    print(benchmark.to_markdown(rows), end="")


def _write(file: pathlib.Path, rows: list, facts: dict) -> None:
  """Writes a table or a plot."""
  from vitjax.pareto import benchmark
  from vitjax.weights import npz

  if file.suffix in _PLOTS:
    content = _plot(facts, rows, file.suffix)
  elif file.suffix == ".json":
    content = benchmark.to_json(rows, facts).encode()
  elif file.suffix == ".csv":
    content = benchmark.to_csv(rows).encode()
  else:
    content = benchmark.to_markdown(rows).encode()
  if content is None:
    logging.warning("No accuracy is known: %s is not drawn.", file)
    return
  with npz.atomic(file) as temporary:
    pathlib.Path(temporary).write_bytes(content)


def _plot(facts: dict, rows: list, suffix: str) -> bytes | None:
  """The file of the plot; None if there is nothing to draw."""
  from vitjax.pareto import benchmark
  from vitjax.plots import charts

  groups = benchmark.groups(rows)
  if not groups:
    return None
  batches = " and ".join(map(str, sorted({x.infer_batch_size for x in rows})))
  title = f"batches of {batches}, {facts['device']}, {facts['dtype']}"
  axes = ("images per second", "parameters in millions", "top-1 in %")
  plot = charts.trade_off(title, groups, axes)
  return plot.png() if suffix == ".png" else plot.svg().encode()


if __name__ == "__main__":
  command_line.set_up_logging()
  command_line.run(main, define_flags)
