r"""Measures the speed of models, and lists it with their accuracy.

  python -m vitjax.pareto --models=runs/a,runs/b,ViT-S_16,ViT-B_32
  python -m vitjax.pareto --accuracy=results-imagenet.csv --out=t.csv,t.png \
    --models=vit_small_patch16_224.augreg_in21k_ft_in1k,deit3_S_224_1k

--models are run folders, exported files, hf:OWNER/REPO and published names. No
weights are downloaded: random parameters are as fast. Columns have the names of
timm's tables; steps are in milliseconds, parameters in millions. Accuracy is
the last value of a run ("measured"), or that of the table given with --accuracy
("published"), or empty. A model is on the Pareto front if no model with an
accuracy from the same source is both faster and better.
"""

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
  try:
    import jax

    from vitjax import models
    from vitjax.pareto import benchmark
    from vitjax.run_folder import files
    from vitjax.weights import npz

    if any(file.suffix in _PLOTS for file in out):
      # So that a missing package is reported before minutes of measuring.
      from vitjax.plots import charts  # noqa: F401
    device = jax.devices()[0]
    dtype = FLAGS.dtype or models.default_dtype(device.platform)
    known = {}
    if FLAGS.accuracy:
      known = benchmark.read_accuracies(FLAGS.accuracy)
    candidates = [
      benchmark.find(name, known, dtype, FLAGS.allow_module)
      for name in FLAGS.models
    ]
    rows = benchmark.measure(
      candidates,
      batch_size=FLAGS.batch_size,
      repeats=FLAGS.repeats,
      log=lambda line: logging.info("%s ...", line),
    )
    facts = {
      "device": device.device_kind,
      "dtype": dtype,
      "repeats": FLAGS.repeats,
      "software": files.software(),
    }
    logging.info("On one %s, in %s.", device.device_kind, dtype)
    for file in out:
      if file.suffix in _PLOTS:
        title = f"batches of {FLAGS.batch_size}, {device.device_kind}, {dtype}"
        content = _plot(title, benchmark.groups(rows), file.suffix)
        if content is None:
          logging.warning("No accuracy is known: %s is not drawn.", file)
          continue
      elif file.suffix == ".json":
        content = benchmark.to_json(rows, facts).encode()
      elif file.suffix == ".csv":
        content = benchmark.to_csv(rows).encode()
      else:
        content = benchmark.to_markdown(rows).encode()
      with npz.atomic(file) as temporary:
        pathlib.Path(temporary).write_bytes(content)
      logging.info("Wrote %s.", file)
  except (ValueError, OSError, RuntimeError, ImportError) as e:
    sys.exit(f"vitjax.pareto: {e}")
  if not out:
    print(benchmark.to_markdown(rows), end="")


def _plot(title: str, groups: dict, suffix: str) -> bytes | None:
  """The file of the plot; None if there is nothing to draw."""
  from vitjax.plots import charts

  if not groups:
    return None
  axes = ("images per second", "parameters in millions", "top-1 in %")
  plot = charts.trade_off(title, groups, axes)
  return plot.png() if suffix == ".png" else plot.svg().encode()


if __name__ == "__main__":
  command_line.set_up_logging()
  command_line.run(main, define_flags)
