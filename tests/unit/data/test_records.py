"""TFDS files: both formats give the same examples, at any slice."""

import pathlib

import numpy as np
import pytest
import tensorflow_datasets as tfds

from vitjax.data import pipeline, sources
from vitjax.data.pp import builder
from vitjax.data.sources import records
from vitjax.data.sources.source import DatasetNotPreparedError

NUM = 57


class TinyPhotos(tfds.core.GeneratorBasedBuilder):
  """Images of many sizes, or of one."""

  VERSION = tfds.core.Version("1.0.0")
  BUILDER_CONFIGS = (
    tfds.core.BuilderConfig(name="varied"),
    tfds.core.BuilderConfig(name="same"),
  )

  def _info(self):
    same = self.builder_config.name == "same"
    shape = (6, 7, 3) if same else (None, None, 3)
    return tfds.core.DatasetInfo(
      builder=self,
      features=tfds.features.FeaturesDict(
        {
          "image": tfds.features.Image(shape=shape, encoding_format="png"),
          "label": tfds.features.ClassLabel(names=["x", "y", "z"]),
          "name": tfds.features.Text(),
        }
      ),
    )

  def _split_generators(self, dl_manager):
    return {
      "train": self._generate_examples(0),
      "test": self._generate_examples(9),
    }

  def _generate_examples(self, seed):
    random = np.random.default_rng(seed)
    for i in range(NUM):
      size = (6, 7) if self.builder_config.name == "same" else (6 + i % 3, 7)
      image = random.integers(0, 255, (*size, 3), np.uint8)
      yield i, {"image": image, "label": i % 3, "name": str(i)}


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
  tfds.disable_progress_bar()
  out = {}
  for file_format in ("tfrecord", "array_record"):
    out[file_format] = str(tmp_path_factory.mktemp(file_format))
    for config in ("varied", "same"):
      tfds.builder(
        f"tiny_photos/{config}",
        data_dir=out[file_format],
        file_format=file_format,
      ).download_and_prepare(
        download_config=tfds.download.DownloadConfig(num_shards=3)
      )
  return out


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
  monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
  return tmp_path / "cache"


def read(source, pp="decode|resize(6)"):
  batches = pipeline.eval_batches(source, builder.build(pp), batch_size=16)
  batches = list(batches)
  mask = np.concatenate([batch["mask"] for batch in batches])
  return [
    np.concatenate([batch[name] for batch in batches])[mask]
    for name in ("image", "label", "index")
  ]


@pytest.mark.parametrize("config", ["varied", "same"])
@pytest.mark.parametrize("split", ["train", "train[:40%]+test[-5:]"])
def test_both_formats_give_what_tfds_gives(folders, config, split):
  name = f"tiny_photos/{config}"
  opened = {
    key: sources.open_source(name, split, data_dir=folder)
    for key, folder in folders.items()
  }
  from_tfrecord, from_array_record = map(read, opened.values())
  for a, b in zip(from_tfrecord, from_array_record):
    np.testing.assert_array_equal(a, b)
  expected = tfds.load(
    name,
    split=split,
    data_dir=folders["tfrecord"],
    read_config=tfds.ReadConfig(interleave_cycle_length=1),
  )
  expected_labels = [int(e["label"]) for e in expected.as_numpy_iterator()]
  assert from_tfrecord[1].tolist() == expected_labels
  if config == "same":
    images = np.stack([e["image"] for e in expected.as_numpy_iterator()])
    for source in opened.values():
      np.testing.assert_array_equal(read(source, "decode")[0], images)
  source = opened["tfrecord"]
  assert source.class_names == ("x", "y", "z") and source.num_classes == 3
  assert len({source.fingerprint for source in opened.values()}) == 1


def test_a_mixture_of_records_that_are_files_and_arrays(folders):
  """Arrays, of which all have one size, become files as well."""
  names = ("tiny_photos/varied", "tiny_photos/same")
  options = {"data_dir": folders["array_record"]}
  parts = [sources.open_source(name, "train", **options) for name in names]
  data = "mixture:0.5*tiny_photos/varied+0.5*tiny_photos/same"
  image, label, index = read(sources.open_source(data, "train", **options))
  assert index.tolist() == list(range(2 * NUM))
  for part, rows in zip(parts, (slice(NUM), slice(NUM, None))):
    expected = read(part, "decode|resize(6)")
    np.testing.assert_array_equal(image[rows], expected[0])
    np.testing.assert_array_equal(label[rows], expected[1])


def test_a_cache_reads_once_and_changes_no_batch(folders):
  def batches(source):
    return list(
      pipeline.train_batches(
        source,
        builder.build("decode|random_shift(2)|flip_lr"),
        batch_size=16,
        seed=0,
        start_step=3,
        total_steps=10,  # over two epochs
      )
    )

  plain, cached = (
    sources.open_source(
      "tiny_photos/same", "train", data_dir=folders["tfrecord"], cache=cache
    )
    for cache in (False, True)
  )
  expected = batches(plain)
  for batch, other in zip(batches(cached), expected, strict=True):
    for name in other:
      np.testing.assert_array_equal(batch[name], other[name])
  cached._shards = None  # All have been read.
  for batch, other in zip(batches(cached), expected, strict=True):
    np.testing.assert_array_equal(batch["image"], other["image"])


def test_a_cache_that_does_not_fit_is_refused():
  with pytest.raises(
    ValueError, match=r"keep 1048576.0 GiB .*'train', in each"
  ):
    records._check_memory("cifar10", "train", 2**50)


def test_the_index_of_records_is_kept_and_checked(folders, cache):
  name = "tiny_photos/varied"
  source = sources.open_source(name, "train", data_dir=folders["tfrecord"])
  expected = read(source)
  kept = sorted(cache.rglob("*.npz"))
  assert len(kept) == 3
  # As of another version of the file.
  np.savez(kept[0], offsets=np.arange(5), stamp=np.array([5, 5]))
  kept[1].write_bytes(b"rubbish")
  again = sources.open_source(name, "train", data_dir=folders["tfrecord"])
  for a, b in zip(read(again), expected):
    np.testing.assert_array_equal(a, b)


def test_a_cut_off_file_is_an_error(folders, tmp_path):
  source = sources.open_source(
    "tiny_photos/varied", "train", data_dir=folders["tfrecord"]
  )
  path = source.describe(0).split(" of ")[1]
  data = pathlib.Path(path).read_bytes()
  cut = tmp_path / "cut"
  cut.write_bytes(data[:-9])
  with pytest.raises(ValueError, match="is truncated"):
    records.TfRecordShard(str(cut), 19).read([0])
  (tmp_path / "whole").write_bytes(data)
  with pytest.raises(ValueError, match="the data set's info says 5"):
    records.TfRecordShard(str(tmp_path / "whole"), 5).read([0])


def test_describe_and_missing_split(folders):
  data_dir = folders["array_record"]
  source = sources.open_source(
    "tiny_photos/same", "train[30:]", data_dir=data_dir
  )
  assert source.describe(0).startswith("record 11 of ")
  with pytest.raises(ValueError, match=r"It has: .*train \(57\)"):
    sources.open_source("tiny_photos/same", "val", data_dir=data_dir)


@pytest.mark.slow
def test_fashion_mnist_prepares_itself(tmp_path):
  if not records._FASHION_MNIST.is_dir():
    pytest.skip("needs the Debian package dataset-fashion-mnist")
  source = sources.open_source("fashion_mnist", "train", data_dir=str(tmp_path))
  assert (source.num_examples, source.num_classes) == (60000, 10)
  assert source.image_shape == (28, 28, 1)
  labels = source.fetch(np.arange(1000))["label"].numpy()
  assert np.bincount(labels).min() > 70


def test_fashion_mnist_names_the_package(tmp_path, monkeypatch):
  monkeypatch.setattr(records, "_FASHION_MNIST", tmp_path / "absent")
  with pytest.raises(
    DatasetNotPreparedError, match="install dataset-fashion-mnist"
  ):
    sources.open_source("fashion_mnist", "train", data_dir=str(tmp_path))


@pytest.mark.parametrize("split", ["train", "train[:40%]+test[-5:]"])
def test_labels_are_read_once_without_images(folders, monkeypatch, split):
  """In the order of the split, and from then on from the cache folder."""
  for folder in folders.values():
    source = sources.open_source("tiny_photos/varied", split, data_dir=folder)
    assert source.labels is None
    _, expected, _ = read(source)
    np.testing.assert_array_equal(source.known_labels(), expected)
    assert source.labels is source.known_labels()
  with monkeypatch.context() as patch:
    for shard in (records.ArrayRecordShard, records.TfRecordShard):
      patch.setattr(shard, "read", None)
    for folder in folders.values():
      again = sources.open_source("tiny_photos/varied", split, data_dir=folder)
      np.testing.assert_array_equal(again.known_labels(), expected)


def test_balanced_sampling_of_records(folders):
  source = sources.open_source(
    "tiny_photos/same", "train[:70%]", data_dir=folders["array_record"]
  )
  feed = pipeline.train_batches(
    source,
    builder.build("keep('image', 'label')"),
    batch_size=len(read(source, "decode")[1]),
    sampling="balanced",
    repeats=1,
    prefetch=1,
    seed=0,
    start_step=0,
    total_steps=1,
    process_index=0,
    process_count=1,
  )
  (batch,) = feed
  found = np.bincount(np.asarray(batch["label"]))
  assert found.max() - found.min() <= 1
