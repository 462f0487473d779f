r"""Exports a run: its parameters, or the model as a graph with them.

  python -m vitjax.export --model=runs/quickstart --format=npz --out=digits.npz
  python -m vitjax.export --model=runs/quickstart --out=digits.safetensors
  python -m vitjax.export --model=runs/mine --input=pixels --out=mine.onnx
  python -m vitjax.export --model=runs/mine --out=mine.stablehlo

.npz and .safetensors hold the parameters, for other frameworks.
A JSON file with the same name says which model the arrays belong to, how images
are prepared, and the names of the classes. Without --layout, `.npz` has
big_vision's names and `.safetensors` has timm's.

.onnx (pip install "vitjax[onnx]") and .stablehlo hold a graph that runs
without vitjax, for every batch size: see docs/deploy.md. The graph is run on
photographs, and a file whose outputs are not those of the model is not left.
"""

import os
import pathlib

from absl import app, flags, logging

import vitjax
from vitjax import weights
from vitjax.config import command_line

FLAGS = flags.FLAGS
_GRAPHS = ("onnx", "stablehlo")


def define_flags() -> None:
  """Defines the flags of the command."""
  flags.DEFINE_string(
    "model", None, "Run folder, or an exported file.", required=True
  )
  flags.DEFINE_string("out", None, "File to write.", required=True)
  flags.DEFINE_enum(
    "format",
    None,
    ["npz", "safetensors", *_GRAPHS],
    "File format; --out must have this suffix.",
  )
  flags.DEFINE_string(
    "layout",
    None,
    "Layout of the names of the arrays; an unknown one lists them all.",
  )
  _define_graph_flags()
  command_line.define_checkpoint()
  command_line.define_allow_module()


def _define_graph_flags() -> None:
  """Defines the flags of .onnx and .stablehlo."""
  flags.DEFINE_enum(
    "input",
    "tensor",
    ["tensor", "pixels"],
    "Input of a graph: prepared images of the model's size, or uint8 pixels of "
    "any size, which the graph prepares.",
  )
  flags.DEFINE_enum(
    "tower", "img", ["img", "txt"], "Tower of a model that has two."
  )
  flags.DEFINE_enum(
    "precision",
    "float32",
    ["float32", "float16", "int8"],
    "Numbers in an ONNX file; see --accuracy.",
  )
  flags.DEFINE_string(
    "calibrate",
    None,
    "Folder of images on which the ranges of int8 activations are measured; "
    "convolutions are then int8, too.",
  )
  flags.DEFINE_list(
    "images",
    [],
    "Images on which the graph is compared with the model, files or folders; "
    "by default photographs that are installed with scikit-learn.",
  )
  flags.DEFINE_float(
    "tolerance",
    None,
    "Largest difference of outputs, relative to the largest; by default 1e-5, "
    "0.01 in float16 and 0.5 in int8.",
  )
  flags.DEFINE_string(
    "accuracy",
    None,
    "Measure the accuracy of the file and of the model on these data, as "
    "DATA:SPLIT, such as folder:photos:val or fashion_mnist:test.",
  )


def export(
  model: str | os.PathLike,
  out: str | os.PathLike,
  *,
  layout: str | None = None,
  step: int | str = "latest",
  ema: bool = False,
  allow_module: str | None = None,
) -> None:
  """Loads, converts, writes; see `vitjax.load` and `vitjax.weights.save`.

  Raises:
    ValueError: if the JSON file of this name describes a file of the other
      format, among other reasons.
  """
  out = pathlib.Path(out)
  about = out.with_suffix(".json")
  for suffix in {".npz", ".safetensors"} - {out.suffix}:
    if about.exists() and out.with_suffix(suffix).exists():
      raise ValueError(
        f"{about} describes {out.with_suffix(suffix)}, and {out} would replace "
        f"it by its own. Give another name, such as --out={out.stem}_2"
        f"{out.suffix}."
      )
  run = vitjax.load(model, step=step, ema=ema, allow_module=allow_module)
  weights.save(out, run.params, run.model, layout=layout, metadata=run.metadata)


def main(argv: list[str]) -> None:
  """Reads the flags, and reports errors in one line."""
  if len(argv) > 1:
    raise app.UsageError(f"{argv[1]!r} is not a flag.")
  out = pathlib.Path(FLAGS.out)
  if FLAGS.format and out.suffix != f".{FLAGS.format}":
    raise app.UsageError(f"--out={out} must end in .{FLAGS.format}.")
  try:
    if out.suffix[1:] in _GRAPHS:
      _export_graph(out)
    else:
      export(
        FLAGS.model,
        out,
        layout=FLAGS.layout,
        step=FLAGS.step,
        ema=FLAGS.ema,
        allow_module=FLAGS.allow_module,
      )
      logging.info("Wrote %s and %s.", out, out.with_suffix(".json"))
  except (ValueError, OSError, RuntimeError, ImportError) as e:
    raise SystemExit(f"vitjax.export: {e}") from None


def _export_graph(out: pathlib.Path) -> None:
  """Writes a graph as the flags say, and logs how it compares."""
  from vitjax.graphs import command

  run = vitjax.load(
    FLAGS.model,
    step=FLAGS.step,
    ema=FLAGS.ema,
    allow_module=FLAGS.allow_module,
  )
  for line in command.export(
    run,
    out,
    input=FLAGS.input,
    tower=FLAGS.tower,
    precision=FLAGS.precision,
    calibrate=FLAGS.calibrate,
    images=FLAGS.images,
    tolerance=FLAGS.tolerance,
    accuracy=FLAGS.accuracy,
  ):
    logging.info("%s", line)


if __name__ == "__main__":
  command_line.set_up_logging()
  command_line.run(main, define_flags)
