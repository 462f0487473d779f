r"""Compares ONNX and StableHLO files with models of all families.

  pip install "vitjax[onnx]" pytest scikit-image
  python -m scripts.check_graphs --out=graphs.jsonl
  python -m scripts.check_graphs --out=graphs.jsonl convnext_atto mini_swin

Images are eight photographs of scikit-image. Without names it takes the
smallest published model of each family and options that these lack, with random
weights, and the reference cases of tests/golden/reference, with theirs. Each
model has a process of its own; each file is a row of JSON, and rows that --out
already has are not made again. Prints a table of the largest differences of
outputs, relative to the largest output.

The column "noise" is that of vitjax with itself when the normalised pixels
change by about 1e-7. Where it is large no file can be near: the weights of some
reference cases were made for other images, and photographs let them explode.
"""

import importlib
import importlib.util
import json
import pathlib
import subprocess
import sys
import tempfile
from collections.abc import Iterator

from absl import app, flags

from vitjax.config import command_line

_OUT = flags.DEFINE_string("out", None, "JSON lines.", required=True)
_COLUMN = flags.DEFINE_list("column", None, "Make only these, in this process.")

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
  "mixer_s16_224",
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
_NOISE = "noise"
_COLUMNS = (
  _NOISE,
  "onnx tensor",
  "onnx pixels",
  "onnx txt",
  "stablehlo tensor",
  "stablehlo pixels",
  "stablehlo txt",
)
_PHOTOGRAPHS = (
  "astronaut.png",
  "brick.png",
  "camera.png",
  "chelsea.png",
  "coffee.png",
  "grass.png",
  "ihc.png",
  "moon.png",
)
# Tests with reference cases, which have CASES and build(name).
_TESTS = (
  "test_backbones_reference",
  "test_batch_norm_families",
  "test_clip_reference",
  "test_coatnet_reference",
  "test_efficientnet",
  "test_families_reference",
  "test_metaformer_reference",
  "test_swin_reference",
  "test_two_tower_reference",
  "test_vit_reference",
)


def _cases() -> dict:
  """Reference case -> the function that makes its model."""
  modules = [importlib.import_module(f"tests.numerics.{x}") for x in _TESTS]
  return {
    name: module.build for module in modules for name in sorted(module.CASES)
  }


def _of_case(name: str):
  """The model, parameters and image size of a reference case."""
  from tests.numerics import reference
  from vitjax.weights import fitting

  model = _cases()[name](name)
  size = tuple(reference.case(name)["image_shape"][1:3])
  params = fitting.fit(
    reference.arrays(name), model, source=name, metadata={}, image_size=size
  )
  return model, params, size


def _random(name: str):
  """The model of a name, random parameters and the image size."""
  import jax
  import numpy as np

  from vitjax import models
  from vitjax.models import batch_norm

  family, options = _MORE.get(name, (name, {}))
  model = models.create(family, **options)
  size = (models.list().get(name, {}).get("image_size", 224),) * 2
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
  return model, batch_norm.join(variables), size


def _trained(name: str):
  """A model with weights, and how its images are prepared."""
  from vitjax import trained

  model, params, size = (_of_case if name in _cases() else _random)(name)
  resize = f"resize_small({max(size) * 8 // 7}, 'bicubic', antialias=True)"
  return trained.Trained(
    model=model,
    params=params,
    image_size=size,
    channels=3,
    preprocess=f"decode|{resize}|central_crop({size})|normalize()",
    class_names=None,
    metadata={"model": {"name": name}, "loss": "softmax_xent"},
    source=name,
  )


def _photographs() -> list[str]:
  spec = importlib.util.find_spec("skimage")
  if spec is None or spec.origin is None:
    raise app.UsageError("This needs the photographs of scikit-image.")
  folder = pathlib.Path(spec.origin).parent / "data"
  return [str(folder / name) for name in _PHOTOGRAPHS]


def _row(trained, column: str) -> dict:
  """Makes a file and compares it."""
  from vitjax.graphs import onnx_export, stablehlo

  form, kind = column.split()
  options = {"tower": "txt"} if kind == "txt" else {"input": kind}
  export = {"onnx": onnx_export, "stablehlo": stablehlo}[form].export
  with tempfile.TemporaryDirectory() as folder:
    out = pathlib.Path(folder) / f"m.{form}"
    found = export(
      trained, out, tolerance=1.0, images=_photographs(), **options
    )
    size = out.stat().st_size
  return {
    "difference": found.difference,
    "rounded": found.rounded,
    "megabytes": round(size / 1e6, 1),
  }


def _noise(trained) -> dict:
  """Compares the model with itself on images with a little noise."""
  import numpy as np

  from vitjax.graphs import forward, proof

  images = proof.photographs(trained, _photographs())
  batch = np.stack([trained.prepare(x) for x in images])
  noise = 1e-7 * np.random.default_rng(0).standard_normal(batch.shape)
  noisy = (batch + noise).astype(np.float32)

  run = forward.of_images(trained, "tensor")
  found = proof.of_tensors(trained, lambda _: run(noisy), images)
  return {"difference": found.difference}


def _make(name: str, columns: list[str]) -> None:
  """Prints the rows of a model; a file that is refused has none."""
  import jax

  trained = _trained(name)
  with tempfile.TemporaryDirectory() as cache:
    jax.config.update("jax_compilation_cache_dir", cache)
    for column in columns:
      row = {"name": name, "column": column, "difference": None}
      try:
        if column == _NOISE:
          row |= _noise(trained)
        elif trained.has_two_towers or not column.endswith("txt"):
          row |= _row(trained, column)
        print(json.dumps(row), flush=True)
      except ValueError as e:
        print(f"{name}, {column}: {e}", file=sys.stderr, flush=True)


def _rows(name: str, columns: list[str]) -> Iterator[str]:
  """Lines of `_make` in a process of its own."""
  command = [sys.executable, "-m", "scripts.check_graphs", name]
  flags_ = [f"--out={_OUT.value}", f"--column={','.join(columns)}"]
  with subprocess.Popen(
    [*command, *flags_], stdout=subprocess.PIPE, text=True
  ) as process:
    assert process.stdout is not None
    yield from process.stdout


def main(argv: list[str]) -> None:
  """Makes the rows that are missing, and prints the table."""
  if _COLUMN.value:
    return _make(argv[1], _COLUMN.value)
  out = pathlib.Path(_OUT.value)
  names = argv[1:] or [*_NAMES, *_cases()]
  text = out.read_text(encoding="utf-8") if out.exists() else ""
  rows = {
    (row["name"], row["column"]): row
    for row in map(json.loads, text.splitlines())
  }
  for name in names:
    missing = [x for x in _COLUMNS if (name, x) not in rows]
    for line in _rows(name, missing) if missing else ():
      row = json.loads(line)
      rows[name, row["column"]] = row
      with out.open("a", encoding="utf-8") as file:
        file.write(line)
  print("|", " | ".join(("model", *_COLUMNS)), "|")
  print("|", " | ".join(("---", *["--:"] * len(_COLUMNS))), "|")
  for name in names:
    found = (rows.get((name, x), {}).get("difference") for x in _COLUMNS)
    cells = ("" if x is None else f"{x:.0e}" for x in found)
    print("|", " | ".join((name, *cells)), "|")


if __name__ == "__main__":
  app.run(main, flags_parser=command_line.parse_flags)
