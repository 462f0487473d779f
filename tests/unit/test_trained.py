"""What was trained, by any name: how it prepares images and what it says."""

import dataclasses
import pathlib

import cv2
import jax
import numpy as np
import pytest
from PIL import Image

import vitjax
from vitjax import models, trees, weights
from vitjax.data import pipeline, sources
from vitjax.data.pp import builder
from vitjax.weights import download, imagenet, published, zoo

MODEL = {
  "name": "vit",
  "width": 16,
  "depth": 1,
  "num_heads": 2,
  "patch_size": 8,
  "pool_type": "tok",
  "num_classes": 3,
}
PREPROCESS = 'decode|resize_small(20, "bicubic")|central_crop(16)|normalize'


def random_params(model, *inputs):
  shapes = jax.eval_shape(model.init, jax.random.key(0), *inputs)["params"]
  rng = np.random.default_rng(0)
  return jax.tree.map(
    lambda x: rng.normal(size=x.shape).astype(np.float32), shapes
  )


@pytest.fixture(scope="module")
def file(tmp_path_factory):
  model = models.create(**MODEL)
  image = jax.ShapeDtypeStruct((1, 16, 16, 3), np.float32)
  metadata = {
    "model": MODEL,
    "image_size": [16, 16],
    "channels": 3,
    "preprocess": PREPROCESS,
    "class_names": ["n02099601", "cat", "dog"],
    "loss": "softmax_xent",
  }
  path = tmp_path_factory.mktemp("trained") / "x.npz"
  weights.save(path, random_params(model, image), model, metadata=metadata)
  return path


@pytest.fixture(scope="module")
def run(file):
  return vitjax.load(file)


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
  """A folder of one class, for the pipeline, and the pixels in it."""
  folder = tmp_path_factory.mktemp("pictures")
  rng = np.random.default_rng(0)
  for split in ("train", "val"):
    (folder / split / "cat").mkdir(parents=True)
    for i, size in enumerate([(30, 41), (22, 20), (64, 25)]):
      pixels = rng.integers(0, 256, (*size, 3), np.uint8)
      name = str(folder / split / "cat" / f"{i}.{('png', 'jpg')[i % 2]}")
      cv2.imwrite(name, pixels)
  return folder


def test_prepares_what_an_eval_feeds(run, pictures):
  """To the bit, by all ways of giving an image."""
  source = sources.open_source(f"folder:{pictures}", "val")
  preprocess = builder.build(PREPROCESS)
  (batch,) = pipeline.eval_batches(source, preprocess, batch_size=3)
  want = preprocess.on_device(batch)["image"]
  paths = sorted((pictures / "val/cat").iterdir())
  for path, image in zip(paths, want, strict=True):
    np.testing.assert_array_equal(run.prepare(path), image)
    np.testing.assert_array_equal(run.prepare(str(path)), image)
    np.testing.assert_array_equal(run.prepare(path.read_bytes()), image)
  png = cv2.cvtColor(cv2.imread(str(paths[0])), cv2.COLOR_BGR2RGB)
  np.testing.assert_array_equal(run.prepare(png), want[0])
  alpha = np.concatenate([png, png[..., :1]], axis=-1)
  np.testing.assert_array_equal(run.prepare(alpha), want[0])


def test_resize_changes_nothing_where_the_model_does(run):
  image = np.random.default_rng(0).integers(0, 256, (33, 40, 3), np.uint8)
  np.testing.assert_array_equal(
    run.prepare(image, resize=True), run.prepare(image)
  )


def test_grey_and_colour(run):
  grey = np.random.default_rng(0).integers(0, 256, (18, 16), np.uint8)
  want = run.prepare(np.repeat(grey[..., None], 3, axis=-1))
  np.testing.assert_array_equal(run.prepare(grey), want)
  np.testing.assert_array_equal(run.prepare(grey[..., None]), want)


def test_images_of_the_channels_of_the_model(run):
  six = dataclasses.replace(
    run,
    preprocess="decode(channels=6)|value_range(0, 1)",
    channels=6,
    image_size=(2, 3),
  )
  pixels = np.arange(36, dtype=np.uint8).reshape(2, 3, 6)
  np.testing.assert_allclose(six.prepare(pixels), pixels / 255, atol=1e-6)
  with pytest.raises(
    ValueError, match=r"\(2, 3, 5\) is not .* with 1, 3, 4 or 6 channels"
  ):
    six.prepare(pixels[..., :5])


def test_data_in_arrays_is_decoded_to_its_channels(run):
  digits = dataclasses.replace(
    run, preprocess="value_range(-1, 1)", channels=1, image_size=(2, 3)
  )
  pixels = np.array([[0, 51, 102], [153, 204, 255]], np.uint8)
  png = cv2.imencode(".png", np.repeat(pixels[..., None], 3, axis=-1))[1]
  want = np.array([[-1, -0.6, -0.2], [0.2, 0.6, 1]])[..., None]
  np.testing.assert_allclose(digits.prepare(png.tobytes()), want, atol=1e-6)
  np.testing.assert_allclose(digits.prepare(pixels), want, atol=1e-6)
  with pytest.raises(
    ValueError, match="has 3x2x1 pixels; the model takes 2x3x1,"
  ):
    digits.prepare(pixels.T)
  # Asked for, it is squeezed, with antialiasing as Pillow has it.
  np.testing.assert_allclose(
    digits.prepare(pixels, resize=True), want, atol=1e-6
  )
  large = np.random.default_rng(0).integers(0, 256, (9, 7), np.uint8)
  pillow = Image.fromarray(large).resize((3, 2), Image.Resampling.BILINEAR)
  squeezed = digits.prepare(large, resize=True)[..., 0]
  np.testing.assert_allclose(
    squeezed, np.asarray(pillow) / 127.5 - 1, atol=1.1 / 127.5
  )


def test_ops_on_texts_are_none_of_an_image(run):
  spec = 'decode|choice()|tokenize("bert", "gone.txt", max_len=4)|keep("image")'
  assert builder.for_images(spec) == "decode|keep('image')"
  other = dataclasses.replace(run, preprocess=f"{spec}|resize(16)|normalize")
  assert other.prepare(np.zeros((9, 9, 3), np.uint8)).shape == (16, 16, 3)


@pytest.mark.parametrize(
  ("image", "message"),
  [
    ("gone.png", "^gone.png: No such file"),
    (b"", "^image: it is empty"),
    (b"MZ\x90 no picture", "^image: "),
    (b"\xff\xd8\xff\xe0 cut off", r"^image: [^{\[]*$"),
    (np.zeros((8, 8, 2), np.uint8), r"uint8 \(8, 8, 2\) is not uint8"),
    (np.zeros((8, 8, 3)), r"float64 \(8, 8, 3\) is not uint8"),
  ],
)
def test_what_cannot_be_read(run, image, message):
  with pytest.raises(ValueError, match=message) as e:
    run.prepare(image)
  assert "\n" not in str(e.value)


def test_classify(run, pictures):
  """One image of any kind, or several; the most likely class first."""
  path = str(pictures / "val/cat/0.png")
  batch = np.stack([run.prepare(path)])
  (p,) = run.probabilities(run.predict(batch))
  want = sorted(zip(run.labels, p.tolist()), key=lambda pair: -pair[1])
  assert run.classify(path) == want
  assert want[0][0] in ("golden retriever", "cat", "dog")
  assert run.classify(path, top=1) == want[:1]
  image = Image.open(path)
  assert run.classify(image) == run.classify(np.asarray(image)) == want
  several = run.classify([path, pictures / "val/cat/1.jpg"] * 20, top=2)
  assert len(several) == 40 and {len(found) for found in several} == {2}
  for (_, got), (_, probability) in zip(several[38], want):
    assert got == pytest.approx(probability, rel=1e-4)
  unnamed = dataclasses.replace(run, class_names=None)
  assert {label for label, _ in unnamed.classify(path)} == {"0", "1", "2"}


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGBA", "CMYK", "HSV"])
def test_pil_images_of_any_mode(run, mode):
  pixels = np.random.default_rng(0).integers(0, 256, (20, 20, 3), np.uint8)
  image = Image.fromarray(pixels).convert(mode)
  want = run.prepare(np.asarray(image.convert("RGB")))
  np.testing.assert_array_equal(run.prepare(image), want)


def test_a_short_repr(run, file):
  count = sum(x.size for x in jax.tree.leaves(run.params))
  assert repr(run) == (
    f"Trained(vit, {count:,} parameters, 3 classes, images 16x16x3, from "
    f"{str(file)!r})"
  )


@pytest.mark.parametrize(
  ("batch", "given"),
  [
    (np.zeros((16, 16, 3), np.float32), r"float32 \(16, 16, 3\)"),
    (np.zeros((1, 16, 17, 3), np.float32), r"\(1, 16, 17, 3\)"),
    (np.zeros((1, 16, 16, 3), np.uint8), "not uint8"),
    ("photo.jpg", r"not None \(\)"),
  ],
)
def test_a_batch_is_of_prepared_images(run, batch, given):
  for call in (run.predict, run.features):
    with pytest.raises(
      ValueError, match=rf"\(n, 16, 16, 3\).*{given}.*classify"
    ):
      call(batch)


def test_logits_and_features(run):
  batch = np.random.default_rng(0).normal(size=(4, 16, 16, 3))
  batch = batch.astype(np.float32)
  want, out = jax.jit(run.model.apply)({"params": run.params}, batch)
  got = run.predict(batch)
  assert got.dtype == np.float32
  np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-5)
  features = run.features(batch)
  np.testing.assert_allclose(features, out["pre_logits"], rtol=1e-5, atol=1e-5)
  head = run.params["head"]
  np.testing.assert_allclose(
    features @ head["kernel"] + head["bias"], want, rtol=1e-4, atol=1e-4
  )


@pytest.mark.parametrize("loss", ["softmax_xent", "sigmoid_xent_mean"])
def test_probabilities(run, loss):
  logits = np.random.default_rng(0).normal(size=(3, 5))
  other = dataclasses.replace(run, metadata={"loss": loss})
  e = np.exp(logits)
  want = e / (1 + e if "sigmoid" in loss else e.sum(1, keepdims=True))
  np.testing.assert_allclose(other.probabilities(logits), want)


def test_names_of_classes(run):
  assert run.class_names[0] == "n02099601"
  assert run.labels == ("golden retriever", "cat", "dog")
  names = imagenet.class_names()
  assert len(names) == 1000 and list(names) == sorted(names)
  assert len(set(imagenet.readable(names))) == 1000


def test_two_towers_compare_images_with_texts(tmp_path):
  words = "[PAD] [UNK] [CLS] cat dog".split()
  (tmp_path / "words.txt").write_text("\n".join(words))
  section = {
    "name": "two_tower",
    "image": {k: v for k, v in MODEL.items() if k != "name"},
    "text": {"variant": "mu", "vocab_size": 5, "max_len": 4, "num_classes": 3},
    "bias_init": -2.0,
  }
  model = models.create(**section)
  inputs = model.example_inputs(16)
  metadata = {
    "model": section,
    "image_size": [16, 16],
    "channels": 3,
    "preprocess": PREPROCESS,
    "loss": "siglip",
    "tokenizer": {
      "name": "bert",
      "vocab": str(tmp_path / "words.txt"),
      "max_len": 4,
    },
  }
  weights.save(
    tmp_path / "x.npz", random_params(model, *inputs), model, metadata=metadata
  )
  run = vitjax.load(tmp_path / "x.npz")
  batch = np.random.default_rng(0).normal(size=(3, 16, 16, 3))
  texts = ["a cat", "dog"]
  image, text, out = jax.jit(run.model.apply)(
    {"params": run.params}, batch.astype(np.float32), run.tokenizer(texts)
  )
  t, b = float(out["t"][0]), float(out["b"][0])
  want = t * np.asarray(image) @ np.asarray(text).T + b
  got = run.similarity(batch.astype(np.float32), texts)
  np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-4)
  np.testing.assert_allclose(
    run.probabilities(got), 1 / (1 + np.exp(-got)), rtol=1e-5
  )
  with pytest.raises(ValueError, match="no classes but compares images"):
    run.predict(batch)


NAME = "R_Ti_16-i21k-300ep-lr_0.001-aug_none-wd_0.03-do_0.0-sd_0.0"


def test_a_published_name(monkeypatch, tmp_path, file):
  """The file of a folder, with what the name says of it."""
  entry = zoo.Entry(
    "tiny",
    (zoo.File("gs://nowhere/x.npz"),),
    "vit",
    {k: v for k, v in MODEL.items() if k != "name"},
    16,
    "imagenet",
  )
  monkeypatch.setitem(zoo.entries(), "tiny", entry)
  got = vitjax.load("tiny", pretrained_dir=str(file.parent))
  want = trees.flatten(vitjax.load(file).params)
  for name, x in trees.flatten(got.params).items():
    np.testing.assert_array_equal(x, want[name], err_msg=name)
  assert got.image_size == (16, 16) and got.channels == 3
  assert got.preprocess.endswith("|normalize") and got.class_names is None
  with pytest.raises(download.DownloadError, match=r"put it as 'x.npz' into a"):
    vitjax.load("tiny", pretrained_dir=str(tmp_path))
  with pytest.raises(FileNotFoundError, match="did you mean 'sam/ViT-B_16'"):
    vitjax.load("sam/ViT-B_61")
  with pytest.raises(ValueError, match="is not a run folder, and ema=True"):
    vitjax.load("tiny", ema=True)
  with pytest.raises(ValueError, match="and step='best' is for run folders"):
    vitjax.load(file, step="best")


@pytest.mark.parametrize(
  ("name", "preprocess", "loss"),
  [
    (
      "imagenet21k+imagenet2012/ViT-B_16",
      "decode|resize(384)|value_range(-1, 1)",
      "softmax_xent",
    ),
    (
      "imagenet21k/ViT-B_16",
      "decode|resize(224)|value_range(-1, 1)",
      "sigmoid_xent",
    ),
    (NAME, "decode|resize(224)|value_range(-1, 1)", "sigmoid_xent"),
    (
      "i1k-s16-90ep",
      "decode|resize_small(256)|central_crop(224)|value_range(-1, 1)",
      "softmax_xent",
    ),
    (
      "vit_tiny_patch16_224.augreg_in21k_ft_in1k",
      'decode|resize_small(248, "bicubic", antialias=True)|central_crop(224)'
      "|value_range(-1, 1)",
      "softmax_xent",
    ),
    (
      "convnext_base_22k_1k_384",
      'decode|resize(384, "bicubic", antialias=True)|normalize',
      "softmax_xent",
    ),
    (
      "deit3_small_patch16_384.fb_in1k",
      'decode|resize_small(384, "bicubic", antialias=True)|central_crop(384)'
      "|normalize",
      "sigmoid_xent_mean",
    ),
    (
      "deit3_S_224_21k",
      'decode|resize_small(224, "bicubic", antialias=True)|central_crop(224)'
      "|value_range(-1, 1)",
      "softmax_xent",
    ),
    (
      "NFNet-F0",
      'decode|resize(288, "bicubic", antialias=True)|central_crop(256)'
      "|normalize",
      "softmax_xent",
    ),
    (  # timm squeezes, and keeps 0.9
      "dm_nfnet_f0.dm_in1k",
      'decode|resize(284, "bicubic", antialias=True)|central_crop(256)'
      "|normalize",
      "softmax_xent",
    ),
    (
      "convnext_atto.d2_in1k",
      'decode|resize_small(256, "bicubic", antialias=True)|central_crop(224)'
      "|normalize",
      "softmax_xent",
    ),
    (
      "deit3_small_patch16_224.fb_in22k_ft_in1k",
      'decode|resize_small(224, "bicubic", antialias=True)|central_crop(224)'
      "|normalize",
      "softmax_xent",
    ),
    (  # the authors keep 0.875, timm 0.9
      "deit_tiny_patch16_224",
      'decode|resize_small(256, "bicubic", antialias=True)|central_crop(224)'
      "|normalize",
      "softmax_xent",
    ),
    (
      "resnetv2_50x1_bit.goog_in21k",
      "decode|resize_small(256, antialias=True)|central_crop(224)"
      "|value_range(-1, 1)",
      "sigmoid_xent",
    ),
    (
      "vit_medium_patch16_gap_384.sw_in12k_ft_in1k",
      'decode|resize(404, "bicubic", antialias=True)|central_crop(384)'
      "|value_range(-1, 1)",
      "softmax_xent",
    ),
    (
      "vit_betwixt_patch16_rope_reg4_gap_256.sbb_in1k",
      'decode|resize_small(269, "bicubic", antialias=True)|central_crop(256)'
      "|normalize((0.48145466, 0.4578275, 0.40821073), "
      "(0.26862954, 0.26130258, 0.27577711))",
      "softmax_xent",
    ),
  ],
)
def test_how_published_models_see_images(name, preprocess, loss):
  about = published.describe(name)
  assert about["preprocess"] == preprocess
  assert about["loss"] == loss
  names = about["class_names"]
  assert (names and names[0]) == (
    None if "21843" in str(about) else "n01440764"
  )


def test_every_published_name_can_be_described(monkeypatch):
  """And its images come out in the size that it takes."""
  monkeypatch.setattr(
    download, "fetch_any", lambda files, name, **_: pathlib.Path("vocab")
  )
  specs = set()
  for entry in zoo.entries().values():
    about = published.describe(entry.name)
    models.create(**about["model"])
    specs.add((about["preprocess"], *about["image_size"]))
  assert len(specs) > 10
  image = np.zeros((9, 12, 3), np.uint8)
  for spec, *size in specs:
    features = pipeline.run_once(builder.build(spec), image)
    assert features["image"].shape == (*size, 3), spec
