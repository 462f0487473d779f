"""Writes the golden files under tests/golden/ again; review them as code.

  python -m scripts.update_goldens trees              # every published name
  python -m scripts.update_goldens trees ViT-B_16     # only this one
  python -m scripts.update_goldens hlo                # every preset of sharding

`trees/<name>.json` maps each parameter of a published model, classifiers with
1000 classes, to its shape. Equal layers that follow each other are one entry,
such as "Transformer/encoderblock_{0-11}/LayerNorm_0/scale".

`hlo/<preset>.json` has the collectives, and the bytes on each device, of the
compiled train step of a small ViT on eight CPU devices.
"""

import argparse
import json
import os
import pathlib
import re

import jax
import jax.numpy as jnp

from vitjax import models, trees
from vitjax.config import resolving
from vitjax.models import batch_norm
from vitjax.parallel import sharding
from vitjax.plan import compiling, planning, stand_in

ROOT = pathlib.Path(__file__).parents[1]
TREES = ROOT / "tests" / "golden" / "trees"
HLO = ROOT / "tests" / "golden" / "hlo"
MESHES = {
  "replicated": {"data": 8},
  "fsdp": {"data": 2, "fsdp": 4},
  "tensor": {"data": 4, "model": 2},
}
_LAYER = re.compile(
  r"(.*(?:encoderblock_|MixerBlock_|nf_block_|block|unit))(\d+)(/.*)"
)


def file(name: str) -> pathlib.Path:
  """Where the tree of a published name is."""
  return TREES / (re.sub("[ /]", "_", name) + ".json")


def shapes(name: str) -> dict[str, list[int]]:
  """Path to shape of all weights of a published model."""
  facts = models.list()[name]
  size = facts["image_size"]
  inputs = [jax.ShapeDtypeStruct((1, size, size, 3), jnp.float32)]
  if "max_len" in facts:  # two towers, whose width is that of the embedding
    inputs.append(jax.ShapeDtypeStruct((1, facts["max_len"]), jnp.int32))
    model = models.create(name)
  else:
    model = models.create(name, num_classes=1000)
  variables = jax.eval_shape(model.init, jax.random.key(0), *inputs)
  flat = trees.flatten(batch_norm.join(variables))
  assert all(x.dtype == jnp.float32 for x in flat.values())
  return {path: list(x.shape) for path, x in flat.items()}


def collapse(flat: dict[str, list[int]]) -> dict[str, list[int]]:
  """One entry for layers that are numbered in a row and have equal shapes."""
  groups: dict[tuple, list[str]] = {}
  out = {}
  for path, shape in flat.items():
    if match := _LAYER.fullmatch(path):
      key = (match[1], match[3], tuple(shape))
      groups.setdefault(key, []).append(match[2])
    else:
      out[path] = shape
  for (head, tail, shape), numbers in groups.items():
    runs: list[list[str]] = []
    for number in sorted(numbers, key=int):
      if runs and int(runs[-1][-1]) == int(number) - 1:
        runs[-1].append(number)
      else:
        runs.append([number])
    for run in runs:
      text = run[0] if len(run) == 1 else f"{{{run[0]}-{run[-1]}}}"
      out[f"{head}{text}{tail}"] = list(shape)
  return dict(sorted(out.items()))


def dump(tree: dict[str, list[int]]) -> str:
  """JSON with one parameter in a line."""
  lines = [f"  {json.dumps(path)}: {shape}" for path, shape in tree.items()]
  return "{\n" + ",\n".join(lines) + "\n}\n"


def compiled(preset: str) -> dict:
  """What the compiler makes of a small train step."""
  run = resolving.resolve(
    {
      "total_steps": 9,
      "loss": "softmax_xent",
      "input": {
        "data": "fake:64,32x32x3,10",
        "batch_size": 16,
        "pp": "value_range(-1, 1)",
      },
      "model": {
        "name": "vit",
        "variant": "mu/16",
        "depth": 2,
        "width": 64,
        "mlp_dim": 256,
        "num_heads": 4,
      },
      "optim": {"name": "adam", "learning_rate": 1e-3, "grad_clip_norm": 1.0},
      "ema": {"decay": 0.9},
      "sharding": preset,
      "mesh": MESHES[preset],
    }
  )
  source, _ = stand_in.find_source(run, None)
  parts = planning.make_program(run, source, jax.devices())
  result = compiling.compile_step(parts)
  return {
    "collectives": result.collectives,
    "state_bytes": sharding.bytes_per_device(parts.abstract, parts.shardings),
    "temp_bytes": result.temp_bytes,
  }


def write_hlo(presets: list[str]) -> None:
  """Compiles as the tests do, see tests/conftest.py."""
  os.environ["JAX_PLATFORMS"] = "cpu"
  os.environ["XLA_FLAGS"] = "--xla_backend_optimization_level=0"
  jax.config.update("jax_num_cpu_devices", 8)
  jax.config.update("jax_default_matmul_precision", "highest")
  HLO.mkdir(parents=True, exist_ok=True)
  for preset in presets or MESHES:
    text = json.dumps(compiled(preset), indent=2) + "\n"
    (HLO / f"{preset}.json").write_text(text)
    print(preset, flush=True)


def main() -> None:
  parser = argparse.ArgumentParser(description=__doc__)
  parser.add_argument("what", choices=["trees", "hlo"])
  parser.add_argument("names", nargs="*")
  args = parser.parse_args()
  if args.what == "hlo":
    return write_hlo(args.names)
  names = args.names or sorted(models.list())
  TREES.mkdir(parents=True, exist_ok=True)
  for name in names:
    file(name).write_text(dump(collapse(shapes(name))))
    print(name, flush=True)


if __name__ == "__main__":
  main()
