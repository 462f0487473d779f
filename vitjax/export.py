r"""Writes the parameters of a run as a file for other frameworks.

  python -m vitjax.export --model=runs/quickstart --format=npz --out=digits.npz
  python -m vitjax.export --model=runs/quickstart --out=digits.safetensors

Beside the arrays, a JSON file with the same name says which model they are
of, how images are prepared for it and what its classes are called. Without
--layout, `.npz` has the names of big_vision and `.safetensors` those of timm.
"""

import pathlib

from absl import app, flags, logging

_MODEL = flags.DEFINE_string(
  "model", None, "Run folder, or an exported file.", required=True
)
_OUT = flags.DEFINE_string("out", None, "File to write.", required=True)
_FORMAT = flags.DEFINE_enum(
  "format", None, ["npz", "safetensors"], "Kind of file; --out ends in it."
)
_LAYOUT = flags.DEFINE_string(
  "layout", None, "Whose names the arrays get; a wrong one lists them all."
)
_STEP = flags.DEFINE_string(
  "step", "latest", "Checkpoint of a run folder: latest, best or a number."
)


def main(argv: list[str]) -> None:
  """Loads, converts, writes."""
  if len(argv) > 1:
    raise app.UsageError(f"{argv[1]!r} is not a flag.")
  import vitjax

  out = pathlib.Path(_OUT.value)
  if _FORMAT.value and out.suffix != f".{_FORMAT.value}":
    raise app.UsageError(f"--out={out} has to end in .{_FORMAT.value}.")
  step = _STEP.value
  try:
    run = vitjax.load(_MODEL.value, step=int(step) if step.isdigit() else step)
    vitjax.weights.save(
      out, run.params, run.model, layout=_LAYOUT.value, metadata=run.metadata
    )
  except (ValueError, OSError, RuntimeError, ImportError) as e:
    raise SystemExit(f"vitjax.export: {e}") from None
  logging.info("Wrote %s and %s.", out, out.with_suffix(".json"))


if __name__ == "__main__":
  logging.set_verbosity(logging.INFO)
  app.run(main)
