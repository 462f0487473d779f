"""Order, resuming, processes, exact evaluation, and errors of batches."""

import os
import time

import cv2
import numpy as np
import pytest
import tensorflow as tf
from PIL import Image, ImageOps

from vitjax.data import order, pipeline, sources
from vitjax.data.pp import builder
from vitjax.data.sources.arrays import FakeSource

DIGITS = sources.open_source("digits", "train")
PP = builder.build("random_shift(1)|flip_lr|value_range(-1,1)")


def train(source=DIGITS, pp=PP, **kwargs):
  options = {"batch_size": 24, "seed": 3, "start_step": 0, "total_steps": 4}
  return list(pipeline.train_batches(source, pp, **options | kwargs))


def assert_equal(batches, others):
  assert len(batches) == len(others)
  for batch, other in zip(batches, others):
    assert batch.keys() == other.keys()
    for name in batch:
      np.testing.assert_array_equal(batch[name], other[name])


@pytest.mark.parametrize(
  "pp",
  [
    "random_shift(1)|flip_lr",  # Chunks all the way.
    "random_shift(1)|resize(12)|flip_lr",  # One by one after that.
    "decode|resize(12)|randaug(2,5)|flip_lr",  # Chunks again.
  ],
)
def test_two_processes_see_the_batches_of_one(pp):
  pp = builder.build(pp)
  whole = train(pp=pp)
  parts = [train(pp=pp, process_index=i, process_count=2) for i in range(2)]
  joined = [
    {name: np.concatenate([a[name], b[name]]) for name in a}
    for a, b in zip(*parts)
  ]
  assert_equal(joined, whole)


@pytest.mark.parametrize("pp", ["flip_lr", "decode|randaug(1,5)|resize(9)"])
def test_resuming_gives_the_tail(pp):
  pp = builder.build(pp)
  # 131 steps of 24 cross the border between two epochs of 1437.
  whole = train(pp=pp, total_steps=131)
  assert_equal(train(pp=pp, start_step=59, total_steps=131), whole[59:])
  assert train(pp=pp, start_step=4) == []


@pytest.mark.parametrize("num", [1, 2, 7, 100])
def test_each_epoch_is_a_permutation(num):
  source = sources.open_source(f"fake:{num},2x2x1,3", "train")
  batches = train(source, builder.build(""), batch_size=10, total_steps=5 * num)
  index = np.concatenate([batch["index"] for batch in batches])
  epochs = index[: len(index) // num * num].reshape(-1, num)
  np.testing.assert_array_equal(
    np.sort(epochs, axis=1), np.tile(np.arange(num), (len(epochs), 1))
  )
  if num == 100:
    assert len({epoch.tobytes() for epoch in epochs}) == len(epochs)


def test_permutations_are_unrelated():
  # With the default rounds of the cipher, this correlation is 0.3.
  import tensorflow as tf

  num = 60000
  ordinals = tf.range(4 * num, dtype=tf.int64)
  index = order.by_epoch(num, seed=0)(ordinals).numpy()
  correlation = np.corrcoef(index.reshape(4, num))[np.triu_indices(4, 1)]
  assert np.abs(correlation).max() < 5 / num**0.5


@pytest.mark.parametrize("repeats", [2, 3])
def test_repeats_are_apart_and_follow_the_epochs(repeats):
  pp = builder.build("random_shift(3)|flip_lr")
  steps = 70 * repeats
  batches = train(pp=pp, repeats=repeats, total_steps=steps)
  distinct = 24 // repeats
  plain = train(pp=builder.build(""), batch_size=distinct, total_steps=steps)
  different = []
  for batch, images in zip(batches, plain, strict=True):
    # The order is that of a run with a smaller batch.
    np.testing.assert_array_equal(
      batch["index"], np.tile(images["index"], repeats)
    )
    copies = batch["image"].reshape(repeats, distinct, -1)
    different.append((copies[1:] != copies[:-1]).any(axis=-1))
  # Two copies are alike if both have the same one of 98 shifts.
  assert np.mean(different) > 0.95
  seen = np.concatenate([batch["index"] for batch in batches])
  epoch = np.bincount(seen[: 1437 // distinct * 24], minlength=1437)
  assert set(epoch) <= {0, repeats} and np.mean(epoch == repeats) > 0.98


def test_repeats_resume_and_split_over_processes():
  whole = train(repeats=3, total_steps=9)
  assert_equal(train(repeats=3, start_step=4, total_steps=9), whole[4:])
  parts = [
    train(repeats=3, total_steps=9, process_index=i, process_count=2)
    for i in range(2)
  ]
  joined = [
    {name: np.concatenate([a[name], b[name]]) for name in a}
    for a, b in zip(*parts)
  ]
  assert_equal(joined, whole)


def test_repeats_need_not_divide_the_batch():
  """As DeiT's three versions in a batch of 2048."""
  index = [batch["index"] for batch in train(repeats=5, total_steps=10)]
  for x in index:
    for image in np.unique(x):
      assert np.all(np.diff(np.flatnonzero(x == image)) >= 24 // 5)
  counts = np.bincount(np.concatenate(index))
  assert sorted(counts[counts > 0]) == [5] * (240 // 5)


@pytest.mark.parametrize("repeats", [0, 25])
def test_repeats_that_cannot_be(repeats):
  with pytest.raises(ValueError, match=f"repeats={repeats} must be in 1..*24"):
    train(repeats=repeats)


@pytest.mark.parametrize("prefetch", [1, 4])
def test_batches_are_made_ahead_of_their_use_and_no_further(prefetch):
  class Counting(FakeSource):
    """Counts the examples that are read."""

    count = 0

    def _generate(self, indices):
      self.count += len(indices)
      return super()._generate(indices)

  source = Counting("fake:9000,2x2x1,3", "train")
  rows, before = 512, -1
  batches = pipeline.train_batches(
    source,
    builder.build("flip_lr"),
    batch_size=rows,
    seed=0,
    start_step=0,
    total_steps=100,
    prefetch=prefetch,
  )
  for used in (1, 2, 3):
    next(batches)
    deadline = time.monotonic() + 20
    while before < source.count or source.count < (used + prefetch) * rows:
      assert time.monotonic() < deadline
      before = source.count
      time.sleep(0.1)
    # One batch is put together of what the threads hold: a chunk each.
    chunks = rows // 4 * (os.cpu_count() + 1)
    assert source.count <= (used + prefetch + 1) * rows + chunks


def test_seeds_change_order_and_randomness():
  first, second = train(total_steps=1), train(total_steps=1, seed=4)
  assert (first[0]["index"] != second[0]["index"]).any()
  source = sources.open_source("fake:1,9x9x1,2", "train")
  (batch,) = train(source, builder.build("random_crop(5)"), total_steps=1)
  assert len({image.tobytes() for image in batch["image"]}) > 10


def test_examples_match_their_index():
  (batch,) = train(pp=builder.build(""), total_steps=1)
  expected = DIGITS.fetch(batch["index"])
  np.testing.assert_array_equal(batch["image"], expected["image"])
  np.testing.assert_array_equal(batch["label"], expected["label"])


@pytest.mark.parametrize("num", [1, 7, 1797])
@pytest.mark.parametrize("batch_size", [8, 500])
@pytest.mark.parametrize("process_count", [1, 2, 4])
def test_evaluation_sees_each_example_once(num, batch_size, process_count):
  source = sources.open_source("digits", f"all[:{num}]")
  pp = builder.build("flip_lr|onehot(10)")
  seen, counts = [], set()
  for process_index in range(process_count):
    batches = list(
      pipeline.eval_batches(
        source,
        pp,
        batch_size=batch_size,
        process_index=process_index,
        process_count=process_count,
      )
    )
    counts.add(len(batches))
    for batch in batches:
      assert batch["mask"].shape == (batch_size // process_count,)
      assert (batch["index"][~batch["mask"]] == -1).all()
      seen.append(batch["index"][batch["mask"]])
  assert counts == {-(-num // batch_size)}
  np.testing.assert_array_equal(np.sort(np.concatenate(seen)), np.arange(num))


def test_example_spec_is_that_of_the_batches():
  spec = pipeline.example_spec(DIGITS, PP, 24)
  batch = train(total_steps=1)[0]
  assert spec.keys() == batch.keys() == {"image", "label", "index"}
  for name, value in batch.items():
    assert (spec[name].shape, spec[name].dtype) == (value.shape, value.dtype)


@pytest.fixture
def folder(tmp_path):
  random = np.random.default_rng(0)
  for number in range(12):
    path = tmp_path / "train" / f"class_{number % 2}" / f"{number}.jpg"
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = random.integers(0, 255, (20, 30 + number, 3), np.uint8)
    Image.fromarray(pixels).save(path)
  return tmp_path


def test_images_that_make_no_batch(folder):
  source = sources.open_source(f"folder:{folder}", "train")
  with pytest.raises(ValueError, match="still encoded"):
    train(source, builder.build(""))
  with pytest.raises(ValueError, match="cannot make a batch"):
    train(source, builder.build("decode"))


@pytest.mark.parametrize(
  "pp", ["decode|resize(8)", "decode_jpeg_and_inception_crop(8)|randaug(1,5)"]
)
def test_a_corrupt_image_is_named(folder, pp):
  bad = folder / "train" / "class_1" / "3.jpg"
  bad.write_bytes(bad.read_bytes()[:200])
  source = sources.open_source(f"folder:{folder}", "train")
  with pytest.raises(pipeline.InputError) as error:
    train(source, builder.build(pp), batch_size=4, total_steps=3)
  message = str(error.value)
  assert str(bad) in message
  assert "split 'train', step " in message
  assert "Put the original back" in message


@pytest.mark.parametrize(
  ("kwargs", "message"),
  [
    ({"batch_size": 7, "process_count": 2}, "divide over 2 processes"),
    ({"start_step": 5}, "start_step=5 must be in"),
    ({"process_index": 1}, "process_index=1"),
  ],
)
def test_wrong_arguments(kwargs, message):
  with pytest.raises(ValueError, match=message):
    train(**kwargs)


def test_any_error_of_an_op_is_the_error_of_its_image(folder, monkeypatch):
  """OpenCV, Pillow and NumPy have errors of their own."""

  def fail(image):
    if image.shape[1] == 33:
      raise cv2.error("no such image")
    return image

  def op(features):
    image = tf.numpy_function(fail, [features["image"]], tf.uint8)
    return {"image": tf.ensure_shape(image, (20, None, 3))}

  source = sources.open_source(f"folder:{folder}", "train")
  monkeypatch.setitem(builder.OPS, "fail", lambda: op)
  preprocess = builder.build("decode|fail|resize(8)")
  with pytest.raises(pipeline.InputError, match=r"class_1/3\.jpg.*no such ima"):
    train(source, preprocess, batch_size=4, total_steps=3)
  number = next(i for i in range(99) if "3.jpg" in source.describe(i))
  with pytest.raises(pipeline.InputError, match="no such image"):
    pipeline.example(source, preprocess, number)
  data = (folder / "train" / "class_1" / "3.jpg").read_bytes()
  with pytest.raises(ValueError, match="no such image"):
    pipeline.run_once(preprocess, data)


def test_photographs_are_upright_in_training_and_evaluation(tmp_path):
  """Each orientation in each format, as Pillow's `exif_transpose` has it."""
  y, x = np.indices((12, 20))
  pixels = np.stack([20 * y, 12 * x, 8 * (x + y)], -1).astype(np.uint8)
  kinds = {
    "jpg": {"quality": 100, "subsampling": 0},
    "png": {},
    "webp": {"lossless": True},
    "tif": {},
  }
  for kind, options in kinds.items():
    for orientation in range(1, 9):
      path = tmp_path / "train" / kind / f"{orientation}.{kind}"
      path.parent.mkdir(parents=True, exist_ok=True)
      exif = Image.Exif()
      exif[0x0112] = orientation
      Image.fromarray(pixels).save(path, exif=exif, **options)
  source = sources.open_source(f"folder:{tmp_path}", "train")
  preprocess = builder.build("decode|pad(20)")
  (evaluated,) = pipeline.eval_batches(source, preprocess, batch_size=32)
  (trained,) = train(source, preprocess, batch_size=32, total_steps=1)
  for batch in (evaluated, trained):
    assert sorted(batch["index"]) == list(range(32))
    for index, image in zip(batch["index"], batch["image"]):
      path = source.describe(int(index))
      upright = np.asarray(ImageOps.exif_transpose(Image.open(path)))
      rows, columns = ((20 - side) // 2 for side in upright.shape[:2])
      want = np.pad(upright, [(rows, rows), (columns, columns), (0, 0)])
      atol = 8 if path.endswith("jpg") else 0
      np.testing.assert_allclose(image.astype(int), want, atol=atol)


@pytest.mark.parametrize("repeats", [1, 2])
def test_views_of_an_image_return(repeats):
  source = sources.open_source("digits", "train[:48]")
  options = {"source": source, "repeats": repeats, "total_steps": 8 * repeats}

  def images(**more):
    seen = {}
    for batch in train(**options, **more):
      for i, image in zip(batch["index"], batch["image"]):
        seen.setdefault(int(i), []).append(image.tobytes())
    return seen.values()

  # Each image has 4 epochs, each with `repeats` visits.
  for visits in images(views=2):
    assert len(visits) == 4 * repeats
    assert len({*visits[0::2]}) == len({*visits[1::2]}) == 1
  assert max(len({*visits}) for visits in images(views=2)) == 2
  assert max(len({*visits}) for visits in images()) > 2
  batches = train(**options, views=2)
  assert_equal(train(**options, views=2, start_step=5), batches[5:])
