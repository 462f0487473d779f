"""Exported graphs: what they compute, what is in them, and what is refused."""

import dataclasses
import io
import itertools
import json
import pathlib
import re
import subprocess
import sys

import jax
import jaxtyping
import numpy as np
import pytest
from jax import export as jax_export
from PIL import Image

import vitjax
from vitjax import models, trained
from vitjax.data import pipeline
from vitjax.data.pp import builder
from vitjax.graphs import (
  accuracy,
  command,
  forward,
  onnx_export,
  onnx_file,
  pixels,
  proof,
  stablehlo,
)
from vitjax.models import batch_norm

DOCS = pathlib.Path(__file__).parents[2] / "docs"
RESIZED = "decode|resize_small(40, 'bicubic', antialias=True)|central_crop(32)"
VIT = {"width": 16, "depth": 2, "num_heads": 2, "patch_size": 16}


def make(name: str, size: int = 32, channels: int = 3, **options):
  """A model with random weights."""
  model = models.create(name, **options)
  random = np.random.default_rng(0)

  def draw(path, x):
    key = jax.tree_util.keystr(path)
    noise = random.normal(size=x.shape).astype(np.float32)
    if "var" in key:
      return 1 + 0.1 * abs(noise)
    if "scale" in key or "gamma" in key:
      return 1 + 0.1 * noise
    return noise / np.sqrt(max(np.prod(x.shape[:-1]), 4), dtype=np.float32)

  shapes = jax.eval_shape(
    model.init, jax.random.key(0), *model.example_inputs(size, channels)
  )
  variables = jax.tree_util.tree_map_with_path(draw, shapes)
  return trained.Trained(
    model=model,
    params=batch_norm.join(variables),
    image_size=(size, size),
    channels=channels,
    preprocess=f"{RESIZED}|normalize()" if size == 32 else "value_range(-1, 1)",
    class_names=("a", "b", "c"),
    metadata={
      "model": {"name": name, **options},
      "loss": "softmax_xent",
      "class_names": ["a", "b", "c"],
    },
    source="runs/mine",
  )


def vit(**options):
  return make("vit", **VIT, num_classes=3, **options)


def needs_onnx():
  pytest.importorskip("onnxruntime", reason="pip install vitjax[onnx]")
  return pytest.importorskip("onnx")


def op_types(path: pathlib.Path) -> list[str]:
  return [node.op_type for node in needs_onnx().load(path).graph.node]


SIDES = ((41, 67), (90, 1), (1, 77), (3, 2), (1, 1), (20, 900), (700, 16))
KINDS = (
  ("L", 1, "PNG"),
  ("LA", 2, "PNG"),
  ("RGBA", 4, "PNG"),
  ("P", 1, "PNG"),
  ("I;16", 1, "PNG"),
  ("CMYK", 4, "JPEG"),
  ("RGB", 3, "JPEG"),
)


def odd_images(every: int = 8) -> list[np.ndarray]:
  """Decoded files of all kinds in all shapes; JPEGs are rotated.

  Of the 49 pairs, each eighth shows every kind and every shape once.
  """
  random = np.random.default_rng(0)
  decode = builder.build("decode(channels=3)")
  found = []
  for (height, width), (mode, channels, form) in itertools.product(
    SIDES, KINDS
  ):
    dtype = np.uint16 if mode == "I;16" else np.uint8
    values = random.integers(
      0, np.iinfo(dtype).max, (height, width, channels), dtype, endpoint=True
    )
    if channels == 1:
      values = values[..., 0]
    image = Image.fromarray(values, None if channels == 1 else mode)
    if mode == "P":
      image.putpalette(random.bytes(3 * 256))
    exif = Image.Exif()
    exif[274] = 6 if form == "JPEG" else 1
    file = io.BytesIO()
    image.save(file, form, exif=exif)
    features = pipeline.run_once(decode, file.getvalue())
    found.append(np.asarray(features["image"]))
    rotated = (width, height) if form == "JPEG" else (height, width)
    assert found[-1].shape == (*rotated, 3)
  return found[::every]


@pytest.mark.parametrize(
  "preprocess",
  [
    f"{RESIZED}|normalize()",
    "decode|resize((24, 32))|value_range(-1, 1)",
    *(
      pytest.param(spec, marks=pytest.mark.slow)
      for spec in (
        "decode|resize(24, antialias=True)|value_range(-1, 1)",
        "decode|central_crop()|resize(24, 'area')|value_range(0, 1)",
      )
    ),
    *(
      pytest.param(
        f"decode|resize_small(30, {method!r}, antialias={antialias})|"
        "central_crop((24, 28))|value_range(0, 255)|keep('image')",
        marks=pytest.mark.slow,
      )
      for method in ("bicubic", "nearest", "lanczos3", "lanczos5", "bilinear")
      for antialias in (False, True)
    ),
  ],
)
def test_pixels_are_prepared_as_by_the_pipeline(preprocess):
  parsed = builder.build(preprocess)
  std = np.array(parsed.pixel_statistics["image"]["std"])
  images = odd_images()
  size = pipeline.run_once(parsed, images[0])["image"].shape[:2]
  prepare = jax.jit(lambda x: pixels.prepare(preprocess, x, tuple(size)))
  differ = []
  for image in images:
    features = pipeline.run_once(parsed, image)
    want = np.asarray(parsed.on_device(features)["image"])
    levels = abs(np.asarray(prepare(image[None]))[0] - want) * std
    assert levels.max() < 1.01, image.shape
    differ.append((levels > 0.5).mean())
  assert np.mean(differ) < proof.ROUNDED / 2


@pytest.mark.parametrize(
  ("preprocess", "reason"),
  [
    ("decode|resize_small(40)|value_range(-1, 1)", "does not resize"),
    ("decode|resize(16)|value_range(-1, 1)", "does not resize images to 32x32"),
    ("decode|flip_lr|resize(32)", "the op flip_lr has no counterpart"),
    ("decode|resize_small(40)|central_crop()", "name the size"),
  ],
)
def test_preprocessing_without_counterpart_is_refused(preprocess, reason):
  image = np.zeros((1, 50, 60, 3), np.uint8)
  with pytest.raises(NotImplementedError, match=reason):
    jax.eval_shape(lambda x: pixels.prepare(preprocess, x, (32, 32)), image)


def test_onnx_of_pixels(tmp_path):
  onnx = needs_onnx()
  model, out = vit(), tmp_path / "m.onnx"
  found = onnx_export.export(model, out, input="pixels")
  assert found.images == 8 and found.difference < 1e-5
  assert found.rounded < proof.ROUNDED
  assert [*tmp_path.iterdir()] == [out]
  run = onnx_file.Session(out)
  for image in odd_images():
    prepared = model.prepare(image)
    assert np.abs(run(image[None]) - model.predict(prepared[None])).max() < 0.01
  content = onnx.load(out)
  stored = {x.key: x.value for x in content.metadata_props}
  assert json.loads(stored["class_names"]) == ["a", "b", "c"]
  assert stored["source"] == "runs/mine" and stored["input"] == "pixels"
  assert content.producer_version == vitjax.__version__
  shape = content.graph.input[0].type.tensor_type.shape
  names = [x.dim_param or x.dim_value for x in shape.dim]
  assert names == ["batch", "height", "width", 3]


@pytest.mark.slow
def test_onnx_of_all_odd_pixels(tmp_path):
  needs_onnx()
  model, graphs = vit(), []
  for function in (
    forward.of_images(model, "pixels"),
    forward.preparation(model),
  ):
    file = tmp_path / f"{function.outputs[0]}.onnx"
    onnx_file.write(onnx_file.convert(function), file)
    graphs.append(onnx_file.Session(file))
  found = proof.of_pixels(model, *graphs, odd_images(every=1))
  assert found.images == 49
  assert found.difference < 1e-5 and found.rounded < proof.ROUNDED


CASES = {
  "convnext": {"depths": (1, 1), "widths": (8, 16), "layer_scale_init": 0.5},
  "coatnet": {
    "stem_widths": (4, 8),
    "widths": (8, 32, 32, 64),
    "depths": (1, 1, 1, 1),
  },
  "efficientnet": {"depths": (1,) * 7, "widths": (8,) * 7},
  "maxxvit": {"stem_widths": (8, 32), "widths": (32, 64), "depths": (1, 1)},
  "metaformer": {
    "depths": (1, 2),
    "widths": (8, 32),
    "mixers": ("conv", "attention"),
  },
  "mixer": {"width": 8, "depth": 2, "patch_size": 8},
  "nfnet": {"depths": (1, 2), "widths": (256, 256)},
  "regnet": {"depths": (1, 2), "widths": (8, 16), "group_width": 4},
  "resnet": {"stages": (1, 1)},
  "resnet preact": {"stages": (1, 1), "preact": True},
  "resnet_bn": {"depths": (1, 2), "widths": (4, 8), "antialias": True},
  "swin": {"width": 8, "depths": (1, 2), "num_heads": (1, 2), "window": 3},
  "swin v2": {
    "version": 2,
    "width": 8,
    "depths": (2, 1),
    "num_heads": (1, 2),
    "window": 3,
  },
  "vit": VIT | {"pool_type": "tok"},
  "vit map": VIT
  | {"pool_type": "map", "posemb": "rope", "num_registers": 2, "gelu": "erf"},
  "vit gap": VIT
  | {"pool_type": "gap", "posemb": "sincos2d", "scan_layers": True},
  "vit hybrid": VIT | {"stem": (1, 1), "patch_size": 1},
}
DEFAULT = ("convnext", "vit")
GROUPED = (
  "convnext",
  "efficientnet",
  "metaformer",
  "coatnet",
  "maxxvit",
  "regnet",
)


@pytest.mark.parametrize(
  "case",
  [
    pytest.param(name, marks=() if name in DEFAULT else pytest.mark.slow)
    for name in CASES
  ],
)
def test_onnx_of_tensors(case, tmp_path, monkeypatch):
  needs_onnx()
  # It cannot broadcast a symbolic batch.
  monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)
  size = 32 if case in DEFAULT else 64
  model = make(case.split()[0], size, num_classes=3, **CASES[case])
  out = tmp_path / "m.onnx"
  found = onnx_export.export(model, out)
  assert found.difference < 1e-5
  run = onnx_file.Session(out)
  image = np.random.default_rng(0).normal(size=(3, size, size, 3))
  batch = image.astype(np.float32)
  want = np.asarray(forward.of_images(model, "tensor")(batch))
  for count in (1, 3):
    got = run(batch[:count])
    np.testing.assert_allclose(got, want[:count], atol=1e-5 * abs(want).max())
  types = op_types(out)
  if case in GROUPED:
    nodes = [
      x for x in needs_onnx().load(out).graph.node if x.op_type == "Conv"
    ]
    groups = [a.i for x in nodes for a in x.attribute if a.name == "group"]
    assert max(groups) > 1  # one convolution, not its form for CPUs
  if "vit" in case:
    assert types.count("Softmax") >= VIT["depth"]
    assert types.count("Gelu") >= VIT["depth"]
    assert types.count("LayerNormalization") >= 2 * VIT["depth"]


def two_towers(**options):
  text = {"width": 16, "depth": 1, "num_heads": 2, "vocab_size": 50, **options}
  return make(
    "two_tower",
    image=VIT | {"pool_type": "map"},
    text=text | {"max_len": 6},
    bias_init=-10.0,
  )


@pytest.mark.slow
@pytest.mark.parametrize(
  "options",
  [{}, {"pool_type": "eot", "causal": True, "gelu": "quick"}],
  ids=["LiT", "CLIP"],
)
def test_onnx_of_both_towers(options, tmp_path, monkeypatch):
  onnx = needs_onnx()
  # It cannot broadcast a symbolic batch.
  monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)
  model = two_towers(**options)
  for tower in ("img", "txt"):
    out = tmp_path / f"{tower}.onnx"
    found = onnx_export.export(model, out, tower=tower)
    assert found.difference < 1e-5
    stored = {x.key: x.value for x in onnx.load(out).metadata_props}
    assert float(stored["temperature"]) == pytest.approx(
      np.exp(model.params["t"][0])
    )
    assert float(stored["bias"]) == pytest.approx(model.params["b"][0])
  # The end of a text of CLIP is its largest token, here at two places.
  ids = np.array([[1, 2, 3, 49, 5, 6], [6, 5, 4, 3, 2, 49]], np.int32)
  embedding = onnx_file.Session(tmp_path / "txt.onnx")(ids)
  want = np.asarray(forward.of_texts(model)(ids))
  np.testing.assert_allclose(embedding, want, atol=1e-5)
  np.testing.assert_allclose(np.linalg.norm(embedding, axis=1), 1, atol=1e-5)


def test_a_file_that_says_other_things_is_not_left(tmp_path, monkeypatch):
  needs_onnx()
  model, out = vit(), tmp_path / "m.onnx"
  convert = onnx_file.convert

  def wrong(function):
    found = convert(function)
    kernel = max(found.graph.initializer, key=lambda x: len(x.raw_data))
    data = np.frombuffer(kernel.raw_data, np.float32) * np.float32(1.001)
    kernel.raw_data = data.tobytes()
    return found

  monkeypatch.setattr(onnx_file, "convert", wrong)
  with pytest.raises(ValueError, match=r"differ .* No file was written"):
    onnx_export.export(model, out)
  assert not [*tmp_path.iterdir()]


@pytest.mark.slow
def test_other_preprocessing_is_noticed(tmp_path):
  needs_onnx()
  model = vit()
  images = proof.photographs(model)[:2]
  prepare = forward.preparation(model)
  run = forward.of_images(model, "pixels")
  proof.of_pixels(model, run, prepare, images)
  with pytest.raises(ValueError, match="is prepared otherwise"):
    proof.of_pixels(model, run, lambda x: prepare(x[:, :, ::-1]), images)


def test_an_unknown_operation_is_named(tmp_path):
  needs_onnx()
  function = forward.Forward(
    lambda _, x: jax.numpy.sort(x),
    {},
    {"x": jax.ShapeDtypeStruct((3,), np.float32)},
    ("y",),
  )
  with pytest.raises(NotImplementedError, match="the operation sort"):
    onnx_file.convert(function)


def test_a_session_gives_the_first_of_several_outputs(tmp_path):
  needs_onnx()
  two = forward.Forward(
    lambda _, x: (x + 1, x + 2),
    {},
    {"image": jax.ShapeDtypeStruct((2,), np.float32)},
    ("first", "second"),
  )
  onnx_file.write(onnx_file.convert(two), tmp_path / "m.onnx")
  got = onnx_file.Session(tmp_path / "m.onnx")(np.zeros(2, np.float32))
  assert got.tolist() == [1, 1]


def test_without_the_packages_the_command_names_them(tmp_path, monkeypatch):
  monkeypatch.setitem(sys.modules, "onnx", None)
  with pytest.raises(ImportError, match=r'pip install "vitjax\[onnx\]"'):
    onnx_export.export(vit(), tmp_path / "m.onnx")


@pytest.mark.slow
@pytest.mark.parametrize(
  "precision", ["float16", "int8", "int8 calibrated", "int8 pixels"]
)
def test_smaller_numbers(precision, tmp_path):
  needs_onnx()
  model, out = vit(), tmp_path / "m.onnx"
  small, _, how = precision.partition(" ")
  photos = []
  pictures = proof.photographs(model) if how == "calibrated" else ()
  for i, image in enumerate(pictures):
    photos.append(str(tmp_path / f"{i}.png"))
    Image.fromarray(image).save(photos[-1])
  found = onnx_export.export(
    model,
    out,
    input="pixels" if how == "pixels" else "tensor",
    precision=small,
    calibrate=photos,
  )
  assert 1e-5 < found.difference < proof.TOLERANCE[small]
  kinds = {x.data_type for x in needs_onnx().load(out).graph.initializer}
  tensor = needs_onnx().TensorProto
  assert {"float16": tensor.FLOAT16, "int8": tensor.INT8}[small] in kinds


@pytest.mark.slow
def test_stablehlo(tmp_path):
  model, out = vit(), tmp_path / "m.stablehlo"
  found = stablehlo.export(model, out, input="pixels")
  assert found.difference < 1e-5
  card = json.loads((tmp_path / "m.stablehlo.json").read_text())
  assert card["platforms"] == ["cpu", "cuda", "tpu"]
  assert card["inputs"] == {"image": ["uint8", "batch", "height", "width", "3"]}
  assert card["calling_convention_version"] > 0
  assert card["guaranteed_until"] > card["written"]
  read = jax_export.deserialize(bytearray(out.read_bytes()))
  image = odd_images()[0][None]
  want = model.predict(model.prepare(image[0])[None])
  np.testing.assert_allclose(read.call(image), want, rtol=1e-2, atol=1e-2)


@pytest.mark.slow
def test_accuracy(tmp_path):
  model = make("vit", 8, 1, **VIT | {"patch_size": 4}, num_classes=10)
  run = forward.of_images(model, "tensor")
  found = accuracy.measure(
    dataclasses.replace(model, class_names=None),
    run,
    "tensor",
    "digits:test[:40]",
  )
  assert found.images == 40 and found.same == 1
  assert found.file == found.model
  for data in ("digits", "digits:", ":test"):
    with pytest.raises(ValueError, match="must be DATA:SPLIT"):
      accuracy.check(model, data)


def test_flags_that_exclude_each_other(tmp_path):
  options = {
    "input": "tensor",
    "tower": "img",
    "precision": "float32",
    "calibrate": None,
    "images": (),
    "tolerance": None,
    "accuracy": None,
  }
  for name, changes, reason in [
    ("m.stablehlo", {"precision": "int8"}, "is for ONNX files"),
    ("m.onnx", {"calibrate": "photos"}, "is for --precision=int8"),
    ("m.onnx", {"tower": "txt"}, "has no text tower"),
  ]:
    with pytest.raises(ValueError, match=reason):
      next(command.export(vit(), tmp_path / name, **options | changes))


def examples(heading: str) -> str:
  """The Python of a section of docs/deploy.md."""
  text = (DOCS / "deploy.md").read_text(encoding="utf-8")
  section = text.partition(f"## {heading}\n")[2].partition("\n## ")[0]
  (code,) = re.findall(r"```python\n(.*?)```", section, re.DOTALL)
  return code


@pytest.mark.slow
@pytest.mark.parametrize("heading", ["Python", "JAX"])
def test_the_documented_examples(heading, tmp_path):
  code = examples(heading)
  assert "vitjax" not in code
  if heading == "Python":
    needs_onnx()
    onnx_export.export(vit(), tmp_path / "mine.onnx", input="pixels")
    Image.fromarray(odd_images()[0]).save(tmp_path / "photo.jpg")
  else:
    stablehlo.export(vit(), tmp_path / "mine.stablehlo")
  done = subprocess.run(
    [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True
  )
  assert done.returncode == 0, done.stderr
  if heading == "Python":
    assert sorted(x.split()[1] for x in done.stdout.splitlines()) == [*"abc"]
  else:
    assert done.stdout.startswith("(3, 3)")
