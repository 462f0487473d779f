"""Image ops against NumPy and Pillow, eagerly, in tf.data, and in chunks."""

import io

import cv2
import numpy as np
import pytest
import tensorflow as tf
from PIL import Image
from sklearn import datasets

from vitjax.data import seeds
from vitjax.data.pp import builder, kinds, ops_crop, ops_values
from vitjax.data.pp import ops_image as ops

PHOTO = datasets.load_sample_images().images[0][:300, :400]
SEEDS = seeds.example_seeds(0, tf.range(16, dtype=tf.int64), 2)


def apply(op, image, seed=SEEDS[0]):
  """Runs eagerly and in tf.data, and asserts that both agree."""
  features = {"image": tf.constant(image), "seed": seed}
  eager = op(features)["image"].numpy()
  dataset = tf.data.Dataset.from_tensors(features).map(op)
  for graph in dataset.as_numpy_iterator():
    np.testing.assert_array_equal(graph["image"], eager)
  return eager


def encode(image, kind, **options):
  out = io.BytesIO()
  Image.fromarray(image).save(out, kind, **options)
  return out.getvalue()


def bilinear(image, height, width):
  """Half-pixel centres, no antialiasing, edge repeated; rounded."""

  def weights(n_in, n_out):
    place = (np.arange(n_out) + 0.5) * n_in / n_out - 0.5
    low = np.floor(place).astype(int)
    matrix = np.zeros((n_out, n_in))
    for offset, weight in ((0, 1 - (place - low)), (1, place - low)):
      column = np.clip(low + offset, 0, n_in - 1)
      np.add.at(matrix, (np.arange(n_out), column), weight)
    return matrix

  h, w = image.shape[:2]
  rows = np.tensordot(weights(h, height), image.astype(float), 1)
  columns = np.tensordot(rows, weights(w, width), [[1], [1]])
  return columns.transpose(0, 2, 1)


@pytest.mark.parametrize("kind", ["PNG", "BMP", "WEBP", "GIF", "JPEG", "TIFF"])
def test_decode_by_first_bytes(kind):
  # Flat colours survive lossy coding and palettes.
  image = np.full((20, 30, 3), (200, 100, 50), np.uint8)
  data = encode(image, kind)
  out = apply(ops.decode(), data)
  assert out.dtype == np.uint8
  np.testing.assert_allclose(out, image.astype(int), atol=3)
  assert apply(ops.decode(1), data).shape == (20, 30, 1)


@pytest.mark.parametrize("kind", ["PNG", "BMP", "WEBP", "TIFF"])
def test_lossless_formats_are_decoded_exactly(kind):
  options = {"lossless": True} if kind == "WEBP" else {}
  out = apply(ops.decode(), encode(PHOTO, kind, **options))
  np.testing.assert_array_equal(out, PHOTO)


def test_decode_grey_alpha_palette_and_16_bit():
  grey = PHOTO[..., 0]
  for data in (encode(grey, "PNG"), encode(grey, "BMP")):
    np.testing.assert_array_equal(
      apply(ops.decode(), data), np.repeat(grey[..., None], 3, -1)
    )
  alpha = np.concatenate([PHOTO, PHOTO[..., :1]], axis=-1)
  np.testing.assert_array_equal(
    apply(ops.decode(), encode(alpha, "PNG")), PHOTO
  )
  deep = encode((grey.astype(np.uint16) << 8), "PNG")
  np.testing.assert_array_equal(apply(ops.decode(1), deep)[..., 0], grey)


def test_decode_inks():
  """A JPEG for printing, to colours and to grey."""
  inks = Image.fromarray(PHOTO).convert("CMYK")
  out = io.BytesIO()
  inks.save(out, "JPEG", quality=100, subsampling=0)
  data = out.getvalue()
  rgb = apply(ops.decode(), data)
  assert np.abs(rgb - PHOTO.astype(int)).mean() < 2
  grey = apply(ops.decode(1), data)[..., 0]
  want = rgb @ np.array([0.299, 0.587, 0.114])
  np.testing.assert_allclose(grey, want, atol=1)


def test_decode_of_an_array_only_sets_channels():
  image = PHOTO[..., :1]
  assert apply(ops.decode(1), image) is not None
  np.testing.assert_array_equal(
    apply(ops.decode(), image), np.repeat(image, 3, -1)
  )
  np.testing.assert_array_equal(apply(ops.decode(), PHOTO), PHOTO)


def test_channels_are_not_cut_or_made_up():
  six = np.zeros((4, 4, 6), np.uint8)
  for channels in (1, 3, 5):
    with pytest.raises(
      ValueError, match=r"6 channels\. Write decode\(channels=6"
    ):
      apply(ops.decode(channels), six)
  assert apply(ops.decode(6), six).shape == (4, 4, 6)
  with pytest.raises(
    ValueError, match="6 channels, but is normalised by 3 numb"
  ):
    ops_values.normalize()({"image": six})


@pytest.mark.parametrize("data", [b"", b"RI", b"RIFF1234WEBPxx", b"BMxx", b"?"])
def test_decode_of_rubbish_is_an_error(data):
  with pytest.raises((tf.errors.OpError, ValueError, cv2.error)):
    ops.decode()({"image": tf.constant(data), "seed": SEEDS[0]})


@pytest.mark.parametrize("size", [(224, 224), (64, 100), (500, 600), (7, 3)])
def test_resize_is_bilinear_without_antialias(size):
  out = apply(ops.resize(size), PHOTO)
  assert out.shape == (*size, 3)
  expected = bilinear(PHOTO, *size)
  # Rounding. A kernel that antialiases, or aligns corners, is off by tens.
  assert np.abs(out - expected).max() < 0.501


@pytest.mark.parametrize("size", [(224, 224), (64, 100), (500, 600), (7, 3)])
def test_crops_are_resized_as_whole_images_are(size):
  fast = ops._resize_crop(tf.constant(PHOTO), *size, "bilinear").numpy()
  assert np.abs(fast - bilinear(PHOTO, *size)).max() < 1.01
  grey = ops._resize_crop(tf.constant(PHOTO[..., :1]), *size, "bilinear")
  np.testing.assert_array_equal(grey, fast[..., :1])


def test_resize_of_one_channel_keeps_it():
  assert apply(ops.resize(9), PHOTO[..., :1]).shape == (9, 9, 1)


def test_resize_methods_clip_and_round():
  image = np.kron([[0, 255], [255, 0]], np.ones((8, 8)))[..., None]
  image = image.astype(np.uint8)
  out = apply(ops.resize(32, "bicubic"), image)
  assert out.dtype == np.uint8
  # An overshoot that wraps around would be black amid white.
  assert out[2, 24] > 250 and out[14, 24] > 200
  antialiased = apply(ops.resize(40, antialias=True), PHOTO).astype(int)
  pillow = Image.fromarray(PHOTO).resize((40, 40), Image.Resampling.BILINEAR)
  assert np.abs(antialiased - np.asarray(pillow)).max() <= 2


def test_resize_small_keeps_the_aspect_ratio():
  assert apply(ops.resize_small(150), PHOTO).shape == (150, 200, 3)
  tall = PHOTO.transpose(1, 0, 2)[:, :299]
  out = apply(ops.resize_small(64), tall)
  assert out.shape == (round(400 * 64 / 299), 64, 3)
  assert np.abs(out - bilinear(tall, *out.shape[:2])).max() < 1.01


def test_central_crop_leaves_the_odd_pixel_at_the_end():
  image = np.arange(7 * 8, dtype=np.uint8).reshape(7, 8, 1)
  np.testing.assert_array_equal(
    apply(ops_crop.central_crop((4, 5)), image), image[1:5, 1:6]
  )
  np.testing.assert_array_equal(
    apply(ops_crop.central_crop(), image), image[:, :7]
  )
  with pytest.raises(tf.errors.InvalidArgumentError, match="smaller"):
    apply(ops_crop.central_crop(8), image)


def test_pad_centres():
  image = np.ones((3, 4, 1), np.uint8)
  out = apply(ops_crop.pad((4, 7), 9), image)
  expected = np.pad(image, [[0, 1], [1, 2], [0, 0]], constant_values=9)
  np.testing.assert_array_equal(out, expected)
  with pytest.raises(tf.errors.InvalidArgumentError, match="larger"):
    apply(ops_crop.pad(2), image)


def test_flip_lr_mirrors_half_of_the_images():
  flipped = 0
  many = seeds.example_seeds(1, tf.range(200, dtype=tf.int64), 2)
  for seed in many:
    features = {"image": tf.constant(PHOTO[:2, :3]), "seed": seed}
    out = ops_crop.flip_lr()(features)["image"].numpy()
    is_flipped = np.array_equal(out, PHOTO[:2, :3][:, ::-1])
    assert is_flipped or np.array_equal(out, PHOTO[:2, :3])
    flipped += is_flipped
  assert 70 < flipped < 130


def test_random_crop_takes_every_place_equally():
  image = np.arange(12, dtype=np.uint8).reshape(3, 4, 1)
  many = seeds.example_seeds(1, tf.range(600, dtype=tf.int64), 2)
  corners = np.zeros(12, int)
  chunk = {"image": tf.constant(np.stack([image] * 600)), "seed": many}
  for out in ops_crop.random_crop((2, 2))(chunk)["image"].numpy():
    corner = int(out[0, 0, 0])
    y, x = divmod(corner, 4)
    np.testing.assert_array_equal(out, image[y : y + 2, x : x + 2])
    corners[corner] += 1
  assert set(np.flatnonzero(corners)) == {0, 1, 2, 4, 5, 6}
  assert corners[corners > 0].min() > 60  # 100 expected.


def test_random_shift_keeps_the_size_and_fills_with_black():
  image = np.full((6, 5, 1), 255, np.uint8)
  shifts = set()
  for seed in SEEDS[:8]:
    out = apply(ops_crop.random_shift(2), image, seed)
    assert out.shape == (6, 5, 1)
    shifts.add((out[:, 2] > 0).sum() * 10 + (out[2] > 0).sum())
  assert len(shifts) > 2


@pytest.mark.parametrize(
  "op",
  [
    ops_crop.flip_lr(),
    ops_crop.random_crop((20, 30)),
    ops_crop.random_crop(40, 4),
    ops_crop.random_shift(3),
    ops_crop.central_crop(),
    ops_crop.central_crop((11, 13)),
    ops_crop.pad(64, 5),
    ops.decode(1),
    ops.decode(3),
  ],
)
def test_a_chunk_equals_its_examples(op):
  assert isinstance(op, kinds.AnyOp)
  images = PHOTO[:160].reshape(16, 50, 80, 3)[..., :48, :]
  chunk = {"image": tf.constant(images), "seed": SEEDS}
  dataset = tf.data.Dataset.from_tensors(chunk).map(op)
  (out,) = dataset.as_numpy_iterator()
  for row in range(16):
    single = op({"image": tf.constant(images[row]), "seed": SEEDS[row]})
    np.testing.assert_array_equal(out["image"][row], single["image"])


def box_size(crop_of, size):
  """Of the box whose resized content is the crop of a coordinate image."""
  y, x = crop_of[..., 0].astype(float), crop_of[..., 1].astype(float)
  height = (y[-1, 0] - y[0, 0]) * size / (size - 1)
  width = (x[0, -1] - x[0, 0]) * size / (size - 1)
  return height, width


def test_inception_crop_area_and_aspect_ratio():
  # Pixel values are coordinates, so a crop tells where it is from.
  y, x = np.mgrid[:250, :250]
  image = np.stack([y, x, 0 * x], axis=-1).astype(np.uint8)
  op = ops.inception_crop(32, 30, 60)
  areas, ratios = [], []
  many = seeds.example_seeds(5, tf.range(80, dtype=tf.int64), 2)
  for seed in many:
    out = op({"image": tf.constant(image), "seed": seed})["image"].numpy()
    assert out.shape == (32, 32, 3)
    height, width = box_size(out, 32)
    areas.append(height * width / 250**2)
    ratios.append(width / height)
  assert 0.27 < min(areas) < 0.36 and 0.5 < max(areas) < 0.64
  assert 0.7 < min(ratios) < 0.85 and 1.2 < max(ratios) < 1.42


def test_bicubic_crops_are_those_of_pillow():
  box_of = ops._box_sampler(8, 100, (3 / 4, 4 / 3))
  data = encode(PHOTO, "PNG")
  for seed in SEEDS[:4]:
    y, x, height, width = box_of(PHOTO.shape, seed).numpy()
    expected = Image.fromarray(PHOTO[y : y + height, x : x + width])
    expected = expected.resize((60, 50), Image.Resampling.BICUBIC)
    for image, op in (
      (PHOTO, ops.inception_crop((50, 60), 8, method="bicubic")),
      (
        data,
        ops.decode_jpeg_and_inception_crop((50, 60), 8, method="bicubic"),
      ),
    ):
      gap = np.abs(apply(op, image, seed).astype(int) - np.asarray(expected))
      # Without antialiasing, the mean is several levels.
      assert gap.max() < 20 and gap.mean() < 0.8
  grey = apply(ops.inception_crop(50, method="bicubic"), PHOTO[..., :1])
  assert grey.shape == (50, 50, 1)
  with pytest.raises(ValueError, match="'area' is none of bilinear, bicubic"):
    ops.inception_crop(50, method="area")


def test_bicubic_evaluation_is_that_of_pillow():
  expected = Image.fromarray(PHOTO).resize((133, 100), Image.Resampling.BICUBIC)
  out = apply(ops.resize_small(100, "bicubic", antialias=True), PHOTO)
  gap = np.abs(out.astype(int) - np.asarray(expected))
  assert gap.max() <= 4 and gap.mean() < 0.3
  out = apply(ops.resize((100, 133), "bicubic", antialias=True), PHOTO)
  gap = np.abs(out.astype(int) - np.asarray(expected))
  assert gap.max() <= 4 and gap.mean() < 0.3


def places_of(crops, padded):
  """(y, x) in `padded` that is nearest to each crop."""
  windows = np.lib.stride_tricks.sliding_window_view(
    padded.astype(int), crops[0].shape
  )[:, :, 0]
  for crop in crops:
    gaps = np.abs(windows - crop).mean(axis=(2, 3, 4))
    yield (*np.unravel_index(gaps.argmin(), gaps.shape), gaps.min())


def test_simple_random_crop():
  mirror = [(4, 4), (4, 4), (0, 0)]
  # Not resized.
  wide = PHOTO[100:120, 100:130]
  op = ops_crop.simple_random_crop(20)
  many = seeds.example_seeds(5, tf.range(300, dtype=tf.int64), 2)
  crops = [op({"image": tf.constant(wide), "seed": s})["image"] for s in many]
  ys, xs, gaps = zip(*places_of(crops, np.pad(wide, mirror, "reflect")))
  assert set(gaps) == {0}
  assert set(ys) == set(range(9)) and set(xs) == set(range(19))
  assert abs(np.corrcoef(ys, xs)[0, 1]) < 0.2
  # Reduced: 300 x 400 to 24 x 32.
  pil = Image.fromarray(PHOTO).resize((32, 24), Image.Resampling.BICUBIC)
  padded = np.pad(np.asarray(pil), mirror, "reflect")
  crops = [apply(ops_crop.simple_random_crop(24), PHOTO, s) for s in SEEDS[:3]]
  assert max(gap for _, _, gap in places_of(crops, padded)) < 1
  grey = apply(
    ops_crop.simple_random_crop(24), PHOTO.transpose(1, 0, 2)[..., :1]
  )
  assert grey.shape == (24, 24, 1)


def test_fused_decoding_equals_decoding_then_cropping():
  data = encode(PHOTO, "JPEG", quality=90)
  for seed in SEEDS[:6]:
    fused = apply(ops.decode_jpeg_and_inception_crop(64), data, seed)
    features = ops.decode()({"image": tf.constant(data), "seed": seed})
    separate = ops.inception_crop(64)(features)["image"].numpy()
    # Chroma is interpolated from fewer neighbours at the edge of the crop.
    assert np.mean(np.abs(fused.astype(int) - separate)) < 0.5
    assert fused.shape == (64, 64, 3)


def test_inception_crop_decodes_other_formats_and_arrays():
  for image in (encode(PHOTO, "PNG"), PHOTO):
    for seed in SEEDS[:3]:
      out = apply(ops.decode_jpeg_and_inception_crop((8, 9)), image, seed)
      expected = ops.inception_crop((8, 9))(
        {"image": tf.constant(PHOTO), "seed": seed}
      )["image"]
      np.testing.assert_array_equal(out, expected)


def test_jpeg_decoding_is_close_to_pillow():
  data = encode(PHOTO, "JPEG", quality=90)
  pillow = np.asarray(Image.open(io.BytesIO(data))).astype(int)
  difference = np.abs(apply(ops.decode(), data) - pillow)
  # TensorFlow's default is libjpeg's fast integer transform.
  assert difference.mean() < 1.5 and difference.max() < 40


@pytest.mark.parametrize(
  ("shape", "max_patches", "patch_size", "grid"),
  [
    ((480, 640), 256, 16, (14, 18)),
    ((32, 32), 256, 16, (16, 16)),
    ((1000, 100), 256, 16, (50, 5)),
    ((1, 5000), 1024, 16, (1, 1024)),
    ((1, 1), 256, 16, (7, 7)),  # enlarged 100 times at most
    ((1056, 1980), 257, 14, (12, 21)),
    ((4000, 3000), 12, 8, (4, 3)),
  ],
)
def test_the_grids_of_naflex(shape, max_patches, patch_size, grid):
  """`get_image_size_for_max_num_patches` of transformers 5.24.0."""
  op = ops.naflex(max_patches, patch_size)
  strip = op({"image": tf.zeros((*shape, 1), tf.uint8)})["image"].numpy()
  assert strip.shape == ((1 + max_patches) * patch_size, patch_size, 1)
  header = strip[:patch_size].reshape(-1)
  assert header[:6].tolist() == [0, 255, *divmod(grid[0], 256)] + list(
    divmod(grid[1], 256)
  )
  assert not header[6:].any()


def test_naflex_cuts_the_resized_image_into_patches():
  strip = apply(ops.naflex(60, 16), PHOTO)
  patches = strip[16:].reshape(60, 16, 16, 3)
  want = Image.fromarray(PHOTO).resize((8 * 16, 6 * 16), Image.BILINEAR)
  want = np.asarray(want).astype(int)
  assert np.abs(patches[0] - want[:16, :16]).max() <= 1
  assert np.abs(patches[11] - want[16:32, 48:64]).max() <= 1
  assert np.abs(patches[47] - want[80:, 112:]).max() <= 1
  assert not patches[48:].any()


def test_naflex_is_the_last_op_on_pixels():
  with pytest.raises(ValueError, match="column 23: this op changes an image"):
    builder.build("decode|naflex(9, 8)|  flip_lr")
  spec = "decode|flip_lr|naflex(9, 8)|value_range(-1, 1)|keep('image')"
  assert builder.build(spec).pixel_statistics


@pytest.mark.parametrize(
  ("args", "message"),
  [
    ("9, 2", "patch_size must be a whole number of pixels, at least 3, not 2"),
    ("9, 8.5", "at least 3, not 8.5"),
    ("9.5, 8", "max_patches must be a whole number from 1 to 65535, not 9.5"),
    ("'a', 8", "from 1 to 65535, not 'a'"),
    ("65536, 8", "from 1 to 65535, not 65536"),
  ],
)
def test_naflex_takes_whole_numbers(args, message):
  with pytest.raises(ValueError, match=message):
    builder.build(f"decode|naflex({args})")
