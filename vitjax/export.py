r"""Exports the parameters of a run to a file for other frameworks.

  python -m vitjax.export --model=runs/quickstart --format=npz --out=digits.npz
  python -m vitjax.export --model=runs/quickstart --out=digits.safetensors

A JSON file with the same name says which model the arrays belong to, how images
are prepared, and the names of the classes. Without --layout, `.npz` has
big_vision's names and `.safetensors` has timm's.
"""

import os
import pathlib

from absl import app, flags, logging

import vitjax
from vitjax import weights
from vitjax.config import command_line

FLAGS = flags.FLAGS


def define_flags() -> None:
  """Defines the flags of the command."""
  flags.DEFINE_string(
    "model", None, "Run folder, or an exported file.", required=True
  )
  flags.DEFINE_string("out", None, "File to write.", required=True)
  flags.DEFINE_enum(
    "format",
    None,
    ["npz", "safetensors"],
    "File format; --out must have this suffix.",
  )
  flags.DEFINE_string(
    "layout",
    None,
    "Layout of the names of the arrays; an unknown one lists them all.",
  )
  command_line.define_checkpoint()
  command_line.define_allow_module()


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
    export(
      FLAGS.model,
      out,
      layout=FLAGS.layout,
      step=FLAGS.step,
      ema=FLAGS.ema,
      allow_module=FLAGS.allow_module,
    )
  except (ValueError, OSError, RuntimeError, ImportError) as e:
    raise SystemExit(f"vitjax.export: {e}") from None
  logging.info("Wrote %s and %s.", out, out.with_suffix(".json"))


if __name__ == "__main__":
  command_line.set_up_logging()
  command_line.run(main, define_flags)
