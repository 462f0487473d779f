r"""Plans many models and TPU slices with `vitjax.plan`, for docs/scale.md.

  python -m scripts.scale_grid --out=docs/scale_grid.jsonl

Compiles the train step of `configs/plain_vit.py` for each row. Rows that are
already in the file are skipped, so it can be stopped and resumed. Prints the
table.
Needs `pip install "vitjax[tpu]"`, and about a minute for each row.
"""

import json
import os
import pathlib

from absl import app, flags

_OUT = flags.DEFINE_string("out", "docs/scale_grid.jsonl", "JSON lines.")

# Of 64 chips, 64 images each: small models with a copy of the parameters on
# each chip, large ones with a part.
SLICES = ("v4:4x4x4", "v5e:8x8", "v5p:4x4x4", "v6e:8x8")
MODELS = {
  "s16": "replicated",
  "b16": "replicated",
  "l16": "fsdp",
  "h14": "fsdp",
  "g14": "fsdp",
}
# One model on more and more chips, 64 images each.
GROWTH = {"v5e:4x4": 16, "v5e:8x8": 64, "v5e:16x16": 256, "v5p:8x8x8": 512}
PRESETS = ("replicated", "fsdp", "tensor")


def rows():
  """(model, preset, slice, chips) of each row."""
  for model, preset in MODELS.items():
    for topology in SLICES:
      yield model, preset, topology, 64
  for preset in PRESETS:
    for topology, chips in GROWTH.items():
      if (preset, topology) != ("fsdp", "v5e:8x8"):  # is above
        yield "l16", preset, topology, chips


def plan_row(model: str, preset: str, topology: str, chips: int) -> dict:
  """What the compiler says of one row."""
  from configs import plain_vit
  from vitjax import checks
  from vitjax.config import resolving
  from vitjax.models import flops
  from vitjax.parallel import sharding
  from vitjax.plan import compiling, planning, stand_in
  from vitjax.plan.topology import topology_devices

  c = plain_vit.get_config(f"{model},batch={64 * chips}")
  c.model.scan_layers = True
  if model not in ("s16", "b16"):
    c.model.remat = "full"
  c.sharding = preset
  if preset == "fsdp":
    c.mesh = {"data": 1, "fsdp": -1}
  if preset == "tensor":
    c.mesh = {"data": -1, "model": 4}
  run = resolving.resolve(c, checks.problems)
  source, _ = stand_in.find_source(run, None)
  parts = planning.make_program(run, source, topology_devices(topology))
  compiled = compiling.compile_step(parts)
  state = [
    sharding.bytes_per_device(
      getattr(parts.abstract, x), getattr(parts.shardings, x)
    )
    for x in ("params", "opt_state")
  ]
  return {
    "model": model,
    "preset": preset,
    "slice": topology,
    "chips": chips,
    "batch": 64 * chips,
    "fits": compiled.fits,
    "used_bytes": compiled.used_bytes,
    "temp_bytes": compiled.temp_bytes,
    "state_bytes": sum(state),
    "gflops": flops.train(parts.model, parts.spec["image"].shape) / chips / 1e9,
    "collectives": compiled.collectives,
    "compile_seconds": round(compiled.compile_seconds, 1),
  }


def table(found: list[dict]) -> str:
  """Rows of a Markdown table."""
  lines = [
    "| model | preset | slice | chips | fits | GiB used | of it state | "
    "TFLOP of a chip | collectives | GB |",
    "|---|---|---|---|---|---|---|---|---|---|",
  ]
  for row in found:
    sums = row["collectives"].values()
    lines.append(
      f"| {row['model']} | {row['preset']} | {row['slice']} | {row['chips']} | "
      f"{'yes' if row['fits'] else 'no'} | {row['used_bytes'] / 2**30:.2f} | "
      f"{row['state_bytes'] / 2**30:.2f} | {row['gflops'] / 1e3:.2f} | "
      f"{sum(x['count'] for x in sums)} | "
      f"{sum(x['bytes'] for x in sums) / 1e9:.2f} |"
    )
  return "\n".join(lines)


def main(argv: list[str]) -> None:
  """Plans the rows that are missing, and prints all."""
  del argv
  from vitjax.plan import __main__ as plan

  os.environ.update(plan.WITHOUT_TPU)
  file = pathlib.Path(_OUT.value)
  found = []
  if file.exists():
    found = [json.loads(line) for line in file.read_text().splitlines()]
  done = {(x["model"], x["preset"], x["slice"]) for x in found}
  for row in rows():
    if row[:3] not in done:
      found.append(plan_row(*row))
      with file.open("a") as f:
        f.write(json.dumps(found[-1]) + "\n")
  print(table(found))


if __name__ == "__main__":
  app.run(main)
