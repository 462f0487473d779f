r"""Measures the times that users wait for, in turns with alternatives.

  python -m scripts.bench
  python -m scripts.bench step input --repetitions=7 --out=bench.jsonl
  python -m scripts.bench --compare=bench.jsonl

Benchmarks: step (train step and forward pass), convnets (the same of ResNet-50,
RegNetY and EfficientNet), onnx (forward pass in ONNX Runtime), growth (with
model, image size and batch size), memory, input, feed (of the devices),
evaluation, checkpoints, weights (export and load), startup, serve (requests on
loopback). Each row is a line of JSON with the revision, versions and device;
`times_X` is the speed relative to X, turn by turn. --compare prints rows that
are slower than in an earlier file, beyond the spread of both, and then exits
with code 3. Only ratios within a run are compared, because the speed of
machines changes.

Peers are measured where they are installed: pip install timm, with torch and
torchvision; vitjax[onnx].
"""

import importlib
import importlib.util
import json
import pathlib
import sys

from absl import app, flags

from scripts.bench import environment, turns
from vitjax.config import command_line
from vitjax.parallel import allocator

BENCHMARKS = (
  "step",
  "convnets",
  "onnx",
  "growth",
  "memory",
  "input",
  "feed",
  "evaluation",
  "checkpoints",
  "weights",
  "startup",
  "serve",
)
_REPETITIONS = flags.DEFINE_integer(
  "repetitions", 5, "Turns of each contestant.", lower_bound=1
)
_OUT = flags.DEFINE_string("out", None, "File to which JSON lines are added.")
_COMPARE = flags.DEFINE_string("compare", None, "JSON lines of before.")


def main(argv: list[str]) -> None:
  """Runs the benchmarks that are named, or all."""
  names = argv[1:] or BENCHMARKS
  if unknown := sorted({*names} - {*BENCHMARKS}):
    sys.exit(f"{', '.join(unknown)}: known are {', '.join(BENCHMARKS)}.")
  before = []
  if _COMPARE.value:
    text = pathlib.Path(_COMPARE.value).read_text(encoding="utf-8")
    before = [json.loads(line) for line in text.splitlines()]
  if importlib.util.find_spec("timm"):
    import timm  # noqa: F401  # torch crashes when it comes after TensorFlow
  allocator.keep_freed_memory()  # timm's models gain from it too
  rows = []
  for name in names:
    module = importlib.import_module(f"scripts.bench.{name}")
    facts = environment.facts()
    for row in module.measure(_REPETITIONS.value):
      rows.append(facts | row)
      for figure, x in turns.figures(row).items():
        print(
          f"{row['benchmark']:11} {row['contestant']:18} {figure:23} "
          f"{x['median']:10.3f}   {min(x['all']):.3f} .. {max(x['all']):.3f}",
          flush=True,
        )
  if _OUT.value:
    with open(_OUT.value, "a", encoding="utf-8") as file:
      file.writelines(json.dumps(row) + "\n" for row in rows)
  if worse := turns.slower(rows, before):
    print("Slower than before:", *worse, sep="\n  ")
    sys.exit(3)


if __name__ == "__main__":
  app.run(main, flags_parser=command_line.parse_flags)
