"""Image files of all formats against Pillow: which way up, which values."""

import functools
import io
import struct

import cv2
import numpy as np
import pytest
import tensorflow as tf
from PIL import Image, ImageOps
from sklearn import datasets

from vitjax.data import pipeline, seeds
from vitjax.data.pp import builder, image_files, orientation
from vitjax.data.pp import ops_image as ops

PHOTO = datasets.load_sample_images().images[0][:90, :140]
SEED = seeds.example_seeds(0, tf.range(8, dtype=tf.int64), 2)
ORIENTATION = 0x0112
KINDS = ("JPEG", "PNG", "WEBP", "TIFF")


def encode(image, kind="PNG", orientation=None, **options):
  if isinstance(image, np.ndarray):
    image = Image.fromarray(image)
  if orientation is not None:
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    options["exif"] = exif
  if kind == "WEBP":
    options.setdefault("lossless", True)
  out = io.BytesIO()
  image.save(out, kind, **options)
  return out.getvalue()


@functools.cache
def compiled(spec):
  """Eager, and as a graph of files of any content."""
  preprocess = builder.build(spec)
  graph = tf.function(
    lambda data: preprocess({"image": data, "seed": SEED[0]})["image"],
    input_signature=[tf.TensorSpec((), tf.string)],
    autograph=False,
  )
  return preprocess, graph


def decode(data, spec="decode"):
  """Eagerly and in a graph, which must agree."""
  preprocess, graph = compiled(spec)
  eager = pipeline.run_once(preprocess, data)["image"]
  np.testing.assert_array_equal(graph(data), eager)
  return eager


def with_pillow(data):
  image = ImageOps.exif_transpose(Image.open(io.BytesIO(data)))
  return np.asarray(image.convert("RGB"))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("number", range(1, 9))
def test_images_are_turned_as_pillow_turns_them(kind, number):
  data = encode(PHOTO, kind, number)
  # TensorFlow's fast transform of JPEGs differs from Pillow's by a few levels.
  atol = 15 if kind == "JPEG" else 0
  want = with_pillow(data).astype(int)
  assert want.shape[0] == (140 if number > 4 else 90)
  np.testing.assert_allclose(decode(data), want, atol=atol)
  # The stored pixels, on request.
  stored = decode(data, "decode(orient=False)")
  np.testing.assert_allclose(
    stored, PHOTO.astype(int), atol=max(atol, 90 * (kind == "JPEG"))
  )
  np.testing.assert_array_equal(decode(data), orientation.turn(stored, number))
  grey = decode(data, "decode(channels=1)")
  assert grey.shape == (*want.shape[:2], 1)


@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
@pytest.mark.parametrize("number", range(1, 9))
def test_crops_are_of_the_upright_image(kind, number):
  data = encode(cv2.GaussianBlur(PHOTO, (9, 9), 0), kind, number)
  whole = decode(data)
  for seed in SEED[:4]:
    fused, apart, stored = (
      op({"image": tf.constant(image), "seed": seed})["image"].numpy()
      for op, image in (
        (ops.decode_jpeg_and_inception_crop((24, 32)), data),
        (ops.inception_crop((24, 32)), whole),
        (ops.decode_jpeg_and_inception_crop((24, 32), orient=False), data),
      )
    )
    # Colours at the edge of a decoded part have fewer neighbours.
    assert np.abs(fused - apart.astype(int)).mean() < 1
    assert (number == 1) == np.array_equal(fused, stored)


def test_orientation_behind_other_metadata():
  """EXIF need not be the first segment of a JPEG, nor have one at all."""
  plain = encode(PHOTO, "JPEG")
  turned = encode(PHOTO, "JPEG", 6)
  start = turned.index(b"\xff\xe1")
  length = 2 + int.from_bytes(turned[start + 2 : start + 4], "big")
  exif = turned[start : start + length]
  header = plain[:20]
  assert header[2:4] == b"\xff\xe0"
  other = b"\xff\xed\0\x06abcd"  # as Photoshop's
  for data in (
    header + exif + plain[20:],
    header + other + exif + plain[20:],
    plain[:2] + exif + plain[2:],
    plain[:2] + other + b"\xff" + exif + plain[20:],
  ):
    assert decode(data).shape == (140, 90, 3)
  xmp = b'<x xmlns:tiff="http://ns.adobe.com/tiff/1.0/" tiff:Orientation="8"/>'
  data = encode(PHOTO, "JPEG", xmp=xmp)
  np.testing.assert_array_equal(
    decode(data), orientation.turn(decode(plain), 8)
  )
  for damaged in (exif[:14] + b"\xff" * (length - 14), exif[:10] + b"??" * 9):
    for kind in ("WEBP", "PNG"):
      np.testing.assert_array_equal(
        decode(encode(PHOTO, kind, exif=damaged[4:])), PHOTO
      )
    segment = b"\xff\xe1" + struct.pack(">H", len(damaged) - 2) + damaged[4:]
    data = header + segment + plain[20:]
    np.testing.assert_array_equal(decode(data), decode(plain))


@pytest.mark.parametrize("kind", ["PNG", "WEBP", "TIFF", "GIF"])
def test_transparency_is_dropped_in_all_formats(kind):
  """What lies below transparent pixels is seen, as by `convert("RGB")`."""
  alpha = np.full((90, 140), 255, np.uint8)
  alpha[20:50, 30:80] = 0
  image = Image.fromarray(np.dstack([PHOTO, alpha]))
  options = {"exact": True} if kind == "WEBP" else {}
  if kind == "GIF":
    image = Image.fromarray(PHOTO).quantize(32)
    options["transparency"] = int(np.asarray(image)[30, 40])
  data = encode(image, kind, **options)
  want = np.asarray(image.convert("RGB"))
  np.testing.assert_array_equal(decode(data), want)
  grey = decode(data, "decode(1)")[..., 0]
  np.testing.assert_allclose(grey, want @ [0.299, 0.587, 0.114], atol=1)


@pytest.mark.parametrize("kind", ["GIF", "WEBP", "TIFF"])
def test_of_several_frames_the_first_is_used(kind, caplog):
  frames = [Image.fromarray(np.roll(PHOTO, i * 40, 0)) for i in range(3)]
  if kind == "GIF":
    frames = [frame.quantize(16) for frame in frames]
  data = encode(frames[0], kind, save_all=True, append_images=frames[1:])
  np.testing.assert_array_equal(
    decode(data), np.asarray(frames[0].convert("RGB"))
  )


@pytest.mark.parametrize(
  "kind", ["JPEG", "PNG", "WEBP", "TIFF", "GIF", "BMP", "AVIF"]
)
def test_too_many_pixels_are_refused(kind):
  data = encode(PHOTO, kind)
  assert decode(data, f"decode(max_pixels={90 * 140})").shape == PHOTO.shape
  for op in ("decode(", "decode_jpeg_and_inception_crop(8, "):
    with pytest.raises(ValueError, match=f"max_pixels={90 * 140 - 1}"):
      decode(data, f"{op}max_pixels={90 * 140 - 1})")


def test_a_bomb_is_refused_without_being_decoded(tmp_path):
  """16383x16383 pixels of WebP are 3 GB, and 10 kB as a file."""
  assert 16383**2 > image_files.MAX_PIXELS
  header = bytearray(encode(np.zeros((2, 2, 3), np.uint8), "WEBP"))
  at = header.index(b"VP8L") + 9
  header[at : at + 4] = struct.pack("<I", 16382 | 16382 << 14)
  with pytest.raises(ValueError, match="max_pixels=178956970"):
    decode(bytes(header))


def test_the_limit_of_pillow_follows_that_of_the_op(monkeypatch):
  monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
  data = encode(PHOTO, "TIFF")
  with pytest.raises(ValueError, match="more pixels than max_pixels"):
    decode(data)
  spec = f"decode(max_pixels={image_files.MAX_PIXELS * 2})"
  assert decode(data, spec).shape == PHOTO.shape


def test_damaged_files_are_refused():
  ramp = (np.indices((64, 64)).sum(0) % 255).astype(np.uint8)
  tif = bytearray(
    encode(np.stack([ramp] * 3, -1), "TIFF", compression="tiff_lzw")
  )
  tif[100:140] = b"\xff" * 40
  # OpenCV asks for as much memory as this header says.
  bmp = b"BM" + struct.pack("<IHHI", 0, 0, 0, 54)
  bmp += struct.pack("<IiiHHIIiiII", 40, 50000, 50000, 1, 24, *[0] * 6)
  cut = [encode(PHOTO, kind)[:400] for kind in (*KINDS, "GIF", "BMP", "AVIF")]
  for data in (bytes(tif), bmp + bytes(300), *cut, b"RIFF", b"BM", b"II*\0"):
    with pytest.raises(ValueError):
      decode(data)


def test_formats_that_are_not_read_are_named(monkeypatch):
  for data in (b"", b"%PDF-1.4", b"\0\0\0\x1cftypjp2 "):
    with pytest.raises(ValueError, match="not an image that can be read"):
      decode(data)
  monkeypatch.setattr(image_files, "can_read_heif", lambda: False)
  with pytest.raises(ValueError, match=r"HEIC images need .*vitjax\[heic\]"):
    decode(b"\0\0\0\x18ftypheic\0\0\0\0")


def test_heic_with_its_plug_in():
  heif = pytest.importorskip("pillow_heif")
  heif.register_heif_opener()
  data = encode(PHOTO, "HEIF", quality=90)
  assert np.abs(decode(data) - PHOTO.astype(int)).mean() < 8


def test_avif():
  data = encode(PHOTO, "AVIF", 6, quality=95)
  assert np.abs(decode(data) - np.rot90(PHOTO, -1).astype(int)).mean() < 8


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_levels_say_which_values_are_black_and_white(kind):
  grey = np.arange(64 * 64).reshape(64, 64) % 4096
  data = encode(grey.astype(np.uint16), kind)
  assert decode(data).max() == 15  # the upper 8 of 16 bits
  out = decode(data, "decode(levels=(0, 4095))")
  assert out.shape == (64, 64, 3)
  want = np.rint(grey * 255 / 4095)
  np.testing.assert_array_equal(out, np.repeat(want[..., None], 3, -1))
  # Images of 8 bits have these levels already.
  data = encode(PHOTO, kind)
  np.testing.assert_array_equal(decode(data, "decode(levels=(0, 9))"), PHOTO)
  # Colours of 16 bits; OpenCV writes blue first.
  deep = PHOTO.astype(np.uint16) * 16
  data = cv2.imencode(f".{kind.lower()}", deep[..., ::-1])[1].tobytes()
  np.testing.assert_array_equal(decode(data, "decode(levels=(0, 4080))"), PHOTO)
  np.testing.assert_array_equal(decode(data), PHOTO >> 4)


def test_floats_need_levels():
  data = encode(PHOTO[..., 0].astype(np.float32) / 255, "TIFF")
  with pytest.raises(ValueError, match=r"float32 values, here .*levels=\(0, 1"):
    decode(data)
  out = decode(data, "decode(1, levels=(0.0, 1.0))")
  np.testing.assert_array_equal(out[..., 0], PHOTO[..., 0])


@pytest.mark.parametrize(
  ("spec", "message"),
  [
    ("decode(0)", "channels must be positive"),
    ("decode(levels=(5, 5))", r"not \(5, 5\)"),
    ("decode(levels=4095)", "not 4095|iterable"),
    ("decode(max_pixels=0)", "max_pixels must be positive"),
  ],
)
def test_options_that_are_wrong(spec, message):
  with pytest.raises(ValueError, match=message):
    builder.build(spec)


def npy(array):
  out = io.BytesIO()
  np.save(out, array)
  return out.getvalue()


def test_arrays_of_any_number_of_channels():
  values = np.arange(12 * 9 * 5).reshape(12, 9, 5)
  for dtype, scale in ((np.uint8, 1), (np.uint16, 256)):
    stored = ((values % 256) * scale).astype(dtype)
    out = decode(npy(stored), "decode(channels=5)")
    np.testing.assert_array_equal(out, values % 256)
  out = decode(npy(values / 539), "decode(channels=5, levels=(0.0, 1.0))")
  np.testing.assert_array_equal(out, np.rint(values / 539 * 255))
  colours = npy(PHOTO)
  np.testing.assert_array_equal(decode(colours), PHOTO)
  np.testing.assert_array_equal(
    decode(npy(PHOTO[..., 0])), decode(npy(PHOTO[..., :1]))
  )
  rgba = np.dstack([PHOTO, PHOTO[..., 0]])
  for kind in ("PNG", "TIFF"):
    out = decode(encode(rgba, kind), "decode(channels=4)")
    np.testing.assert_array_equal(out, rgba)
  out = decode(npy((values % 256).astype(">u2") << 8), "decode(channels=5)")
  np.testing.assert_array_equal(out, values % 256)


@pytest.mark.parametrize(
  ("array", "message"),
  [
    (
      np.zeros((4, 4, 5), np.uint8),
      r"5 channels, not 3: write decode\(channels=5",
    ),
    (np.zeros((4, 4)), "float64 values, here 0 .. 0"),
    (np.full((4, 4), np.nan), "not finite"),
    (np.zeros(4, np.uint8), r"an array \(4,\) of uint8, not"),
    (np.array([[None]]), "cannot be read: Object arrays"),
    (np.zeros((4, 4), "<U1"), "of <U1, not"),
  ],
)
def test_arrays_that_are_no_images(array, message):
  with pytest.raises(ValueError, match=message):
    decode(npy(array))


def test_five_channels_reach_the_model():
  pp = "decode(channels=5)|inception_crop(8)|flip_lr|normalize({0}, {0})"
  preprocess = builder.build(pp.format((0.1, 0.2, 0.3, 0.4, 0.5)))
  values = np.broadcast_to(np.arange(0, 250, 50, dtype=np.uint8), (20, 30, 5))
  features = pipeline.run_once(preprocess, npy(values))
  image = preprocess.on_device(features)["image"]
  mean = np.arange(1, 6) / 10
  want = (np.arange(0, 250, 50) / 255 - mean) / mean
  np.testing.assert_allclose(image, np.broadcast_to(want, (8, 8, 5)), atol=1e-5)
