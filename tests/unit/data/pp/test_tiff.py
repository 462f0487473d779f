"""TIFF and PNG files of any number of channels, against what was written."""

import io
import sys

import cv2
import numpy as np
import pytest
from PIL import Image

from vitjax.data import pipeline
from vitjax.data.pp import builder

RANDOM = np.random.default_rng(0)


def decode(data, spec):
  return pipeline.run_once(builder.build(spec), data)["image"]


def pages(images, **options):
  out = io.BytesIO()
  first, *rest = map(Image.fromarray, images)
  first.save(out, "TIFF", save_all=True, append_images=rest, **options)
  return out.getvalue()


def values(dtype, channels, most=250):
  return (RANDOM.random((12, 9, channels)) * most).astype(dtype)


def with_tifffile(image, **options):
  tifffile = pytest.importorskip("tifffile")
  out = io.BytesIO()
  tifffile.imwrite(out, image, **options)
  return out.getvalue()


@pytest.mark.parametrize("layout", ["contig", "separate"])
@pytest.mark.parametrize(
  ("kind", "channels"),
  [
    *(("minisblack", n) for n in (2, 3, 4, 5, 6, 13)),
    *(("rgb", n) for n in (3, 4, 5, 6, 13)),
  ],
)
@pytest.mark.parametrize("dtype", ["u1", "u2", "f4", "i2"])
def test_samples_are_channels(dtype, kind, channels, layout):
  image = values(dtype, channels)
  stored = image if layout == "contig" else np.moveaxis(image, 2, 0)
  data = with_tifffile(stored, photometric=kind, planarconfig=layout)
  levels = "" if dtype == "u1" else ", levels=(0, 255)"
  out = decode(data, f"decode(channels={channels}{levels})")
  np.testing.assert_array_equal(out, np.rint(image))


@pytest.mark.parametrize("dtype", ["u1", "u2", "f4"])
def test_one_and_three_channels_are_without_alpha(dtype):
  levels = "" if dtype == "u1" else ", levels=(0, 255)"
  image = values(dtype, 5)
  data = with_tifffile(image, photometric="rgb", planarconfig="contig")
  out = decode(data, f"decode(channels=3{levels})")
  np.testing.assert_array_equal(out, np.rint(image[..., :3]))
  data = with_tifffile(
    image[..., :2], photometric="minisblack", planarconfig="contig"
  )
  out = decode(data, f"decode(channels=1{levels})")
  np.testing.assert_array_equal(out, np.rint(image[..., :1]))


def test_planes_of_16_bit_colours_are_not_mixed_up():
  # Pillow and OpenCV read other colours from such a file, and say nothing.
  image = values("u2", 3, most=65_000)
  data = with_tifffile(
    np.moveaxis(image, 2, 0), photometric="rgb", planarconfig="separate"
  )
  np.testing.assert_array_equal(decode(data, "decode"), image >> 8)
  want = np.rint(image.astype(float) / 65_000 * 255)
  np.testing.assert_array_equal(decode(data, "decode(levels=(0, 65000))"), want)


def test_the_orientation_of_samples():
  image = values("u1", 6)
  data = with_tifffile(
    image,
    photometric="minisblack",
    planarconfig="contig",
    extratags=[(274, "H", 1, 6, True)],
  )
  out = decode(data, "decode(channels=6)")
  np.testing.assert_array_equal(out, np.rot90(image, -1))
  out = decode(data, "decode(channels=6, orient=False)")
  np.testing.assert_array_equal(out, image)


@pytest.mark.parametrize("dtype", ["u1", "u2", "f4"])
@pytest.mark.parametrize("count", [1, 3, 7])
def test_pages_are_channels(dtype, count):
  image = values(dtype, count)
  data = pages(np.moveaxis(image, 2, 0), compression="tiff_lzw")
  levels = "" if dtype == "u1" else ", levels=(0, 255)"
  out = decode(data, f"decode(channels={count}, pages=True{levels})")
  np.testing.assert_array_equal(out, np.rint(image))
  first = decode(data, f"decode(channels=3{levels})")
  np.testing.assert_array_equal(first, np.rint(image[..., [0, 0, 0]]))


def test_pages_with_several_samples():
  data = with_tifffile(
    np.moveaxis(values("u1", 8).reshape(12, 9, 4, 2), 2, 0),
    photometric="minisblack",
    planarconfig="contig",
  )
  assert decode(data, "decode(channels=8, pages=True)").shape == (12, 9, 8)
  assert decode(data, "decode(channels=2)").shape == (12, 9, 2)


def test_numbers_of_channels_that_differ():
  grey = list(np.moveaxis(values("u1", 4), 2, 0))
  with pytest.raises(
    ValueError, match=r"4 channels, not 3: write decode\(channels=4, pages=True"
  ):
    decode(pages(grey), "decode(pages=True)")
  with pytest.raises(ValueError, match="12x9 of uint8 and 6x9 of uint8, which"):
    decode(pages([grey[0], grey[1][:6]]), "decode(channels=2, pages=True)")
  data = with_tifffile(
    values("u1", 6), photometric="minisblack", planarconfig="contig"
  )
  with pytest.raises(
    ValueError, match=r"6 channels, not 3: write decode\(channels=6\)"
  ):
    decode(data, "decode")
  with pytest.raises(ValueError, match="more pixels than max_pixels=100"):
    decode(data, "decode(channels=6, max_pixels=100)")


def test_a_missing_package_is_named(monkeypatch):
  data = with_tifffile(
    values("u1", 6), photometric="minisblack", planarconfig="contig"
  )
  monkeypatch.setitem(sys.modules, "tifffile", None)
  with pytest.raises(ValueError, match=r"many channels need .*vitjax\[tiff\]"):
    decode(data, "decode(channels=6)")


@pytest.mark.parametrize("channels", [2, 4])
def test_alpha_of_a_png_is_a_channel(channels):
  image = values("u1", channels)
  out = io.BytesIO()
  Image.fromarray(image).save(out, "PNG")
  spec = f"decode(channels={channels})"
  np.testing.assert_array_equal(decode(out.getvalue(), spec), image)


def test_alpha_of_a_png_with_16_bits_is_a_channel():
  image = values("u2", 4, most=65_000)
  data = cv2.imencode(".png", image[..., [2, 1, 0, 3]])[1].tobytes()
  np.testing.assert_array_equal(decode(data, "decode(channels=4)"), image >> 8)
  want = np.rint(image.astype(float) / 65_000 * 255)
  out = decode(data, "decode(channels=4, levels=(0, 65000))")
  np.testing.assert_array_equal(out, want)
  out = decode(data, "decode(levels=(0, 65000))")
  np.testing.assert_array_equal(out, want[..., :3])


@pytest.mark.parametrize("channels", [2, 4, 6, 13])
def test_ops_on_any_number_of_channels(channels):
  image = np.repeat(values("u1", 1), channels, 2) // np.arange(1, channels + 1)
  stored = io.BytesIO()
  np.save(stored, image.astype(np.uint8))
  for spec in (
    "inception_crop(8)",
    "inception_crop(8, method='bicubic')",
    "simple_random_crop(8)",
    "resize_small(8)|random_crop(8)",
    "resize(8)|random_shift(2)",
    "resize(8)|flip_lr|pad(12)|central_crop(8)",
  ):
    spec = f"decode(channels={channels})|{spec}"
    each = decode(stored.getvalue(), spec)
    assert each.shape == (8, 8, channels)
    # Each channel is that of one that is processed alone, as the seed decides.
    for i in range(channels):
      one = io.BytesIO()
      np.save(one, image[..., i].astype(np.uint8))
      alone = decode(one.getvalue(), spec.replace(str(channels), "1", 1))
      np.testing.assert_allclose(each[..., i], alone[..., 0], atol=1)
