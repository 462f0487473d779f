r"""Compares ONNX and StableHLO files with models of all families.

  python -m scripts.check_graphs --out=graphs.jsonl
  python -m scripts.check_graphs --out=graphs.jsonl convnext_atto R+ViT-Ti_16

Weights are random; images are parts of scikit-learn's photographs. Without
names it takes the smallest published model of each family and options that
these lack. Each file is made in a process of its own, and its row is a line of
JSON; rows that --out already has are not made again. Prints a table of the
largest differences of outputs, relative to the largest output.
"""

import json
import pathlib
import subprocess
import sys
import tempfile

from absl import app, flags

from vitjax.config import command_line

_OUT = flags.DEFINE_string("out", None, "JSON lines.", required=True)
_ONE = flags.DEFINE_bool("one", False, "Make one row in this process.")

# Name -> model, options. The others are names of published models.
_VIT = {"variant": "Ti/16", "num_classes": 10}
_MORE = {
  "vit tok": ("vit", _VIT | {"pool_type": "tok"}),
  "vit gap, sincos2d, scan": (
    "vit",
    _VIT | {"pool_type": "gap", "posemb": "sincos2d", "scan_layers": True},
  ),
  "vit map, rope, registers": (
    "vit",
    _VIT | {"pool_type": "map", "posemb": "rope", "num_registers": 4},
  ),
}
_NAMES = (
  *_MORE,
  "ViT-Ti_16",
  "R+ViT-Ti_16",
  "R26+ViT-S_32",
  "mixer_s32_224",
  "convnext_atto",
  "dm_nfnet_f0",
  "NFNet-F0",
  "regnety_032",
  "resnet50",
  "seresnext26d_32x4d",
  "BiT-M-R50x1",
  "efficientnet_lite0",
  "efficientnet_b0",
  "tf_efficientnet_b0",
  "swin_tiny_patch4_window7_224",
  "swinv2_tiny_window8_256",
  "caformer_s18",
  "convformer_s18",
  "coatnet_0_rw_224",
  "coatnet_rmlp_1_rw_224",
  "maxxvitv2_nano_rw_256",
  "LiT-B16B_2",
  "LiT-L16Ti",
  "SigLIP B/16 224",
)
_COLUMNS = (
  "onnx tensor",
  "onnx pixels",
  "onnx txt",
  "stablehlo tensor",
  "stablehlo pixels",
)


def _trained(name: str):
  """A model with random weights."""
  import jax
  import numpy as np

  from vitjax import models, trained
  from vitjax.models import batch_norm

  family, options = _MORE.get(name, (name, {}))
  model = models.create(family, **options)
  size = _image_size(name)
  random = np.random.default_rng(0)

  def weights(path, x):
    name = jax.tree_util.keystr(path)
    noise = random.normal(size=x.shape)
    if "scale" in name or "gamma" in name:
      noise = 1 + 0.1 * noise
    elif "var" in name:
      noise = 1 + 0.1 * abs(noise)
    elif x.ndim < 2:
      noise = 0.1 * noise
    else:
      noise = noise / np.sqrt(np.prod(x.shape[:-1]))
    return noise.astype(np.float32)

  shapes = jax.eval_shape(
    model.init, jax.random.key(0), *model.example_inputs(size)
  )
  variables = jax.tree_util.tree_map_with_path(weights, shapes)
  resize = f"resize_small({size * 8 // 7}, 'bicubic', antialias=True)"
  return trained.Trained(
    model=model,
    params=batch_norm.join(variables),
    image_size=(size, size),
    channels=3,
    preprocess=f"decode|{resize}|central_crop({size})|normalize()",
    class_names=None,
    metadata={"model": {"name": family, **options}, "loss": "softmax_xent"},
    source=name,
  )


def _image_size(name: str) -> int:
  import importlib

  from vitjax import models

  for module in map(importlib.import_module, models.FAMILIES.values()):
    if name in (published := getattr(module, "PUBLISHED", {})):
      return published[name].get("image_size", 224)
  return 224


def _row(name: str, column: str) -> dict:
  """Makes the file and compares it."""
  from vitjax.graphs import onnx_export, stablehlo

  trained = _trained(name)
  form, kind = column.split()
  options = {"tower": "txt"} if kind == "txt" else {"input": kind}
  export = {"onnx": onnx_export, "stablehlo": stablehlo}[form].export
  with tempfile.TemporaryDirectory() as folder:
    out = pathlib.Path(folder) / f"m.{form}"
    found = export(trained, out, tolerance=1.0, **options)
    size = out.stat().st_size
  return {
    "name": name,
    "column": column,
    "difference": found.difference,
    "rounded": found.rounded,
    "megabytes": round(size / 1e6, 1),
  }


def main(argv: list[str]) -> None:
  """Makes the rows that are missing, and prints the table."""
  out = pathlib.Path(_OUT.value)
  if _ONE.value:
    print(json.dumps(_row(argv[1], argv[2])))
    return
  names = argv[1:] or _NAMES
  text = out.read_text(encoding="utf-8") if out.exists() else ""
  rows = {
    (row["name"], row["column"]): row
    for row in map(json.loads, text.splitlines())
  }
  for name in names:
    for column in _COLUMNS:
      if (name, column) in rows or (
        column == "onnx txt" and not name.startswith(("LiT", "SigLIP"))
      ):
        continue
      command = [sys.executable, "-m", "scripts.check_graphs", "--one"]
      done = subprocess.run(
        [*command, f"--out={out}", name, column], capture_output=True, text=True
      )
      lines = done.stdout.splitlines()
      if done.returncode or not lines:
        print(f"{name}, {column}: {done.stderr.strip()[-300:]}", flush=True)
        continue
      rows[name, column] = json.loads(lines[-1])
      with out.open("a", encoding="utf-8") as file:
        file.write(lines[-1] + "\n")
  print("|", " | ".join(("model", *_COLUMNS)), "|")
  print("|", " | ".join(("---", *["--:"] * len(_COLUMNS))), "|")
  for name in names:
    found = (rows.get((name, column)) for column in _COLUMNS)
    cells = (f"{x['difference']:.0e}" if x else "" for x in found)
    print("|", " | ".join((name, *cells)), "|")


if __name__ == "__main__":
  app.run(main, flags_parser=command_line.parse_flags)
